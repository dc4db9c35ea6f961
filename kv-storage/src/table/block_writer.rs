//! Appends stored blocks to a table file.

use super::format::Handle;
use crate::checksum::Checksum;
use crate::compress::{self, Compression, Encoder, Trained};
use crate::error::Error;
use crate::fs::BufferedFile;

/// A file that grows by blocks.
pub(super) struct BlockWriter {
    file: BufferedFile,
    checksum: Checksum,
    data: Encoder,
    /// For blocks that are read before a dictionary is known.
    meta: Encoder,
}

impl BlockWriter {
    pub(super) fn new(file: BufferedFile, checksum: Checksum, compression: Compression) -> Self {
        Self {
            file,
            checksum,
            data: Encoder::new(compression),
            meta: Encoder::new(compression),
        }
    }

    /// Compresses later blocks with a dictionary.
    pub(super) fn set_dictionary(&mut self, dictionary: Trained) {
        self.data.set_dictionary(dictionary);
    }

    /// Bytes of all blocks so far.
    pub(super) fn size_bytes(&self) -> u64 {
        self.file.size_bytes()
    }

    /// Appends a data block, compressed if that gains.
    pub(super) fn append_data(&mut self, raw: &[u8]) -> Result<Handle, Error> {
        let start = self.size_bytes();
        self.data.encode(raw, self.file.buffer());
        self.end_block(start, raw.len())
    }

    /// Appends another block, compressed without the dictionary if that gains.
    pub(super) fn append_meta(&mut self, raw: &[u8]) -> Result<Handle, Error> {
        let start = self.size_bytes();
        self.meta.encode(raw, self.file.buffer());
        self.end_block(start, raw.len())
    }

    /// Appends a block as it is: for bits that look random.
    pub(super) fn append_plain(&mut self, raw: &[u8]) -> Result<Handle, Error> {
        let start = self.size_bytes();
        compress::store_plain(raw, self.file.buffer());
        self.end_block(start, raw.len())
    }

    fn end_block(&mut self, offset: u64, raw_len: usize) -> Result<Handle, Error> {
        let stored_len = (self.size_bytes() - offset) as usize;
        let buffer = self.file.buffer();
        let stored = &buffer[buffer.len() - stored_len..];
        let handle = Handle {
            offset,
            stored: u32::try_from(stored_len).expect("blocks are far below 4 GiB"),
            raw: u32::try_from(raw_len).expect("blocks are far below 4 GiB"),
            checksum: self.checksum.of(stored),
        };
        self.file.write_full()?;
        Ok(handle)
    }

    /// Appends the footer and syncs the file. Returns the file's size in bytes.
    pub(super) fn finish(mut self, footer: &[u8]) -> Result<u64, Error> {
        self.file.buffer().extend_from_slice(footer);
        self.file.finish()
    }
}
