//! A position in a data block.

use super::block::{self, Block, Malformed, SharedBlock};
use crate::key::{KeyVersion, Kind, Seq};
use bytes::Bytes;
use std::ops::Range;

/// A position in a block: at an entry, whose key and place it has decoded, or at none.
#[derive(Debug)]
pub(super) struct BlockCursor {
    block: SharedBlock,
    /// Number of entries.
    len: usize,
    /// Number of the present entry; the block's length if there is none.
    number: usize,
    key: Vec<u8>,
    seq: Seq,
    kind: Kind,
    value: Range<usize>,
}

impl BlockCursor {
    /// A cursor at no entry. `key` is memory to be used again.
    pub(super) fn new(block: SharedBlock, key: Vec<u8>) -> Self {
        let mut key = key;
        key.clear();
        key.extend_from_slice(Block::of(&block).prefix());
        let len = Block::of(&block).len();
        Self {
            block,
            len,
            number: len,
            key,
            seq: Seq::ZERO,
            kind: Kind::Delete,
            value: 0..0,
        }
    }

    /// Gives back the memory of the key.
    pub(super) fn into_key(self) -> Vec<u8> {
        self.key
    }

    /// False if the cursor is at no entry.
    pub(super) fn is_valid(&self) -> bool {
        self.number < self.len
    }

    /// The present entry; meaningful only if there is one.
    pub(super) fn version(&self) -> KeyVersion<'_> {
        KeyVersion::new(&self.key, self.seq)
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn value(&self) -> &[u8] {
        Block::of(&self.block).value(self.value.clone())
    }

    /// The value for keeping.
    pub(super) fn value_bytes(&self) -> Bytes {
        block::value_bytes(&self.block, self.value.clone())
    }

    pub(super) fn seek_first(&mut self) -> Result<(), Malformed> {
        self.go(0)
    }

    pub(super) fn seek_last(&mut self) -> Result<(), Malformed> {
        self.go(self.len - 1)
    }

    /// Moves to the first entry at or after `target`, or to none.
    pub(super) fn seek(&mut self, target: KeyVersion<'_>) -> Result<(), Malformed> {
        self.go(Block::of(&self.block).find(target)?)
    }

    /// Moves to the last entry before `target`, or to none.
    pub(super) fn seek_before(&mut self, target: KeyVersion<'_>) -> Result<(), Malformed> {
        let after = Block::of(&self.block).find(target)?;
        self.go(after.checked_sub(1).unwrap_or(self.len))
    }

    /// Moves to the next entry, or to none at the end. Call it only at an entry.
    pub(super) fn next(&mut self) -> Result<(), Malformed> {
        self.go(self.number + 1)
    }

    /// Moves to the previous entry, or to none at the beginning. Call it only at an entry.
    pub(super) fn previous(&mut self) -> Result<(), Malformed> {
        self.go(self.number.checked_sub(1).unwrap_or(self.len))
    }

    fn go(&mut self, number: usize) -> Result<(), Malformed> {
        self.number = number;
        if number < self.len {
            let block = Block::of(&self.block);
            let entry = block.entry(number)?;
            self.key.truncate(block.prefix().len());
            self.key.extend_from_slice(entry.suffix);
            self.seq = entry.seq;
            self.kind = entry.kind;
            self.value = entry.value;
        }
        Ok(())
    }
}
