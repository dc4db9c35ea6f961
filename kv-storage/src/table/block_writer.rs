//! Appends stored blocks to a table file.

use super::format::Handle;
use crate::checksum::Checksum;
use crate::compress::{self, Compression, Encoder, Trained};
use crate::error::{Error, IoContext};
use crate::fs::AppendFile;
use std::path::PathBuf;

/// File bytes collected before they are handed to the operating system.
const WRITE_BYTES: usize = 256 << 10;

/// A file that grows by blocks.
pub(super) struct BlockWriter {
    path: PathBuf,
    file: Box<dyn AppendFile>,
    checksum: Checksum,
    data: Encoder,
    /// For blocks that are read before a dictionary is known.
    meta: Encoder,
    /// Encoded but not yet appended.
    buffer: Vec<u8>,
    /// Where `buffer` will begin in the file.
    written: u64,
}

impl BlockWriter {
    pub(super) fn new(
        path: PathBuf,
        file: Box<dyn AppendFile>,
        checksum: Checksum,
        compression: Compression,
    ) -> Self {
        Self {
            path,
            file,
            checksum,
            data: Encoder::new(compression),
            meta: Encoder::new(compression),
            buffer: Vec::with_capacity(WRITE_BYTES + (WRITE_BYTES >> 3)),
            written: 0,
        }
    }

    /// Compresses later blocks with a dictionary.
    pub(super) fn set_dictionary(&mut self, dictionary: Trained) {
        self.data.set_dictionary(dictionary);
    }

    /// Bytes of all blocks so far.
    pub(super) fn size_bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Appends a data block, compressed if that gains.
    pub(super) fn append_data(&mut self, raw: &[u8]) -> Result<Handle, Error> {
        let start = self.buffer.len();
        self.data.encode(raw, &mut self.buffer);
        self.end_block(start, raw.len())
    }

    /// Appends another block, compressed without the dictionary if that gains.
    pub(super) fn append_meta(&mut self, raw: &[u8]) -> Result<Handle, Error> {
        let start = self.buffer.len();
        self.meta.encode(raw, &mut self.buffer);
        self.end_block(start, raw.len())
    }

    /// Appends a block as it is: for bits that look random.
    pub(super) fn append_plain(&mut self, raw: &[u8]) -> Result<Handle, Error> {
        let start = self.buffer.len();
        compress::store_plain(raw, &mut self.buffer);
        self.end_block(start, raw.len())
    }

    fn end_block(&mut self, start: usize, raw_len: usize) -> Result<Handle, Error> {
        let stored = &self.buffer[start..];
        let handle = Handle {
            offset: self.written + start as u64,
            stored: u32::try_from(stored.len()).expect("blocks are far below 4 GiB"),
            raw: u32::try_from(raw_len).expect("blocks are far below 4 GiB"),
            checksum: self.checksum.of(stored),
        };
        if self.buffer.len() >= WRITE_BYTES {
            self.write_buffer()?;
        }
        Ok(handle)
    }

    /// Appends the footer and syncs the file. Returns the file's size in bytes.
    pub(super) fn finish(mut self, footer: &[u8]) -> Result<u64, Error> {
        self.buffer.extend_from_slice(footer);
        self.write_buffer()?;
        self.file.sync().context("sync", &self.path)?;
        Ok(self.written)
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
