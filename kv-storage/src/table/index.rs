//! The index: the last version of each data block, and the block's handle. Kept in memory while a
//! table is open.

use super::block::{Block, BlockBuilder, BlockCursor, Malformed};
use super::format::Handle;
use crate::key::{KeyVersion, Kind, Seq};
use bytes::Bytes;
use std::sync::Arc;

/// Collects index entries. On disk the index is a block whose values are handles.
#[derive(Debug, Default)]
pub(super) struct IndexBuilder {
    block: BlockBuilder,
    handle: Vec<u8>,
}

impl IndexBuilder {
    pub(super) fn push(&mut self, last: KeyVersion<'_>, handle: &Handle) {
        self.handle.clear();
        handle.encode_compact(&mut self.handle);
        self.block.push(last, Kind::Put, &self.handle);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.block.finish()
    }
}

/// All data blocks of a table, in order.
#[derive(Debug)]
pub(super) struct Index {
    entries: Vec<IndexEntry>,
}

#[derive(Debug)]
struct IndexEntry {
    last_key: Box<[u8]>,
    last_seq: Seq,
    handle: Handle,
}

impl Index {
    pub(super) fn parse(raw: Vec<u8>) -> Result<Self, Malformed> {
        let mut cursor = BlockCursor::new(Arc::new(Block::parse(Bytes::from(raw))?));
        let mut entries = Vec::new();
        cursor.seek_first()?;
        while let Some(last) = cursor.version() {
            entries.push(IndexEntry {
                last_key: last.key.into(),
                last_seq: last.seq,
                handle: Handle::decode_compact(cursor.value()).ok_or(Malformed)?,
            });
            cursor.next()?;
        }
        Ok(Self { entries })
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn handle(&self, block: usize) -> Option<&Handle> {
        self.entries.get(block).map(|entry| &entry.handle)
    }

    /// The first block that may hold an entry at or after `target`; `len()` if none does.
    pub(super) fn find(&self, target: KeyVersion<'_>) -> usize {
        self.entries
            .partition_point(|entry| KeyVersion::new(&entry.last_key, entry.last_seq) < target)
    }
}
