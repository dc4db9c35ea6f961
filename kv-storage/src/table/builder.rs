//! Writes a table file.

use super::block::BlockBuilder;
use super::filter;
use super::format::{Footer, Handle};
use super::index::IndexBuilder;
use crate::checksum::Checksum;
use crate::coding::{put_bytes, put_varint};
use crate::compress::Encoder;
use crate::error::{Error, IoContext};
use crate::fs::{AppendFile, Fs};
use crate::hash::key_hash;
use crate::key::{KeyVersion, Kind, Seq};
use crate::options::Options;
use std::path::{Path, PathBuf};

/// File bytes collected before they are handed to the operating system.
const WRITE_BYTES: usize = 256 << 10;

/// What is known of a finished table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableSummary {
    pub file: u64,
    pub size_bytes: u64,
    pub entries: u64,
    pub deletes: u64,
    pub smallest: Vec<u8>,
    pub largest: Vec<u8>,
    pub newest: Seq,
    /// When the first of its entries expires, by the compaction filter's own measure of time.
    pub expires: Option<u64>,
}

/// Takes entries in order and writes them as a table.
///
/// Dropped without [`finish`](Self::finish), it leaves an orphan that the next open removes.
pub(crate) struct TableBuilder {
    path: PathBuf,
    file: Box<dyn AppendFile>,
    store: u64,
    checksum: Checksum,
    block_bytes: usize,
    bits_per_key: u32,
    encoder: Encoder,
    /// Encoded but not yet appended.
    buffer: Vec<u8>,
    /// Where `buffer` will begin in the file.
    written: u64,
    block: BlockBuilder,
    index: IndexBuilder,
    hashes: Vec<u64>,
    summary: TableSummary,
    last_seq: Seq,
}

impl TableBuilder {
    pub(crate) fn create(
        fs: &dyn Fs,
        path: &Path,
        store: u64,
        file: u64,
        options: &Options,
    ) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_path_buf(),
            file: fs
                .create_table(path, options.direct_io)
                .context("create", path)?,
            store,
            checksum: Checksum::new(store, file),
            block_bytes: options.block_bytes,
            bits_per_key: options.filter_bits_per_key,
            encoder: Encoder::new(options.zstd_level),
            buffer: Vec::with_capacity(WRITE_BYTES),
            written: 0,
            block: BlockBuilder::default(),
            index: IndexBuilder::default(),
            hashes: Vec::new(),
            summary: TableSummary {
                file,
                size_bytes: 0,
                entries: 0,
                deletes: 0,
                smallest: Vec::new(),
                largest: Vec::new(),
                newest: Seq::ZERO,
                expires: None,
            },
            last_seq: Seq::ZERO,
        })
    }

    /// Adds an entry, which must come after all earlier ones.
    pub(crate) fn push(
        &mut self,
        version: KeyVersion<'_>,
        kind: Kind,
        value: &[u8],
    ) -> Result<(), Error> {
        let new_key = self.summary.entries == 0 || self.summary.largest != version.key;
        debug_assert!(
            self.summary.entries == 0
                || KeyVersion::new(&self.summary.largest, self.last_seq) < version,
            "entries must come in order"
        );
        if new_key {
            self.hashes.push(key_hash(version.key));
            if self.summary.entries == 0 {
                self.summary.smallest.extend_from_slice(version.key);
            }
        }
        self.block.push(version, kind, value);
        self.summary.entries += 1;
        self.summary.deletes += u64::from(kind == Kind::Delete);
        self.summary.newest = self.summary.newest.max(version.seq);
        self.last_seq = version.seq;
        if new_key {
            self.summary.largest.clear();
            self.summary.largest.extend_from_slice(version.key);
        }
        if self.block.size_bytes() >= self.block_bytes {
            self.end_block()
        } else {
            Ok(())
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.summary.entries == 0
    }

    /// Bytes of finished blocks.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Writes filter, index, properties and footer, and syncs the file. Its directory entry is not synced yet.
    pub(crate) fn finish(mut self) -> Result<TableSummary, Error> {
        assert!(!self.is_empty(), "a table without entries has no key range");
        self.end_block()?;
        let filter_bytes = filter::encode(&self.hashes, self.bits_per_key);
        // Filter bits look random: compressing them would only cost time.
        let filter = self.append_block(&filter_bytes, false)?;
        let index_bytes = std::mem::take(&mut self.index).finish();
        let index = self.append_block(&index_bytes, true)?;
        let properties_bytes = self.properties();
        let properties = self.append_block(&properties_bytes, true)?;
        let footer = Footer {
            filter,
            index,
            properties,
            file: self.summary.file,
            store: self.store,
        };
        self.buffer.extend_from_slice(&footer.encode());
        self.write_buffer()?;
        self.file.sync().context("sync", &self.path)?;
        self.summary.size_bytes = self.written;
        Ok(self.summary)
    }

    /// Facts for tools, as (tag, length, bytes), so that more can be added.
    fn properties(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let numbers = [
            (1, self.summary.entries),
            (2, self.summary.deletes),
            (3, self.summary.newest.0),
        ];
        for (tag, number) in numbers {
            let mut value = Vec::new();
            put_varint(&mut value, number);
            put_varint(&mut out, tag);
            put_bytes(&mut out, &value);
        }
        for (tag, key) in [(4, &self.summary.smallest), (5, &self.summary.largest)] {
            put_varint(&mut out, tag);
            put_bytes(&mut out, key);
        }
        out
    }

    fn end_block(&mut self) -> Result<(), Error> {
        if self.block.is_empty() {
            return Ok(());
        }
        let raw = self.block.finish();
        let handle = self.append_block(&raw, true)?;
        self.index.push(
            KeyVersion::new(&self.summary.largest, self.last_seq),
            &handle,
        );
        Ok(())
    }

    fn append_block(&mut self, raw: &[u8], compress: bool) -> Result<Handle, Error> {
        let start = self.buffer.len();
        if compress {
            self.encoder.encode(raw, &mut self.buffer);
        } else {
            Encoder::new(0).encode(raw, &mut self.buffer);
        }
        let stored = &self.buffer[start..];
        let handle = Handle {
            offset: self.written + start as u64,
            stored: u32::try_from(stored.len()).expect("blocks are far below 4 GiB"),
            raw: u32::try_from(raw.len()).expect("blocks are far below 4 GiB"),
            checksum: self.checksum.of(stored),
        };
        if self.buffer.len() >= WRITE_BYTES {
            self.write_buffer()?;
        }
        Ok(handle)
    }

    fn write_buffer(&mut self) -> Result<(), Error> {
        self.file
            .append(&self.buffer)
            .context("append to", &self.path)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
