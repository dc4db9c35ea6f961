//! Writes a blob file.

use super::Pointer;
use super::format::{Footer, HEAD_BYTES, Head, encode_header};
use crate::checksum::Checksum;
use crate::compress::{Compression, Encoder};
use crate::error::Error;
use crate::fs::{BufferedFile, Fs};
use crate::options::Options;
use std::path::Path;

/// How a blob file is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobSpec {
    pub compression: Compression,
    /// Past the page cache.
    pub direct_io: bool,
}

impl BlobSpec {
    pub(crate) fn of(options: &Options) -> Self {
        Self {
            compression: options.upper_tables.compression,
            direct_io: options.direct_io,
        }
    }
}

/// What is known of a finished blob file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BlobSummary {
    pub file: u64,
    pub size_bytes: u64,
    pub values: u64,
    /// Bytes of all records: what can be live or garbage.
    pub value_bytes: u64,
}

/// Takes values in any order and writes them one behind the other.
///
/// Dropped without [`finish`](Self::finish), it leaves an orphan that the next open removes.
pub(crate) struct BlobBuilder {
    file: BufferedFile,
    checksum: Checksum,
    encoder: Encoder,
    summary: BlobSummary,
}

impl BlobBuilder {
    pub(crate) fn create(
        fs: &dyn Fs,
        path: &Path,
        store: u64,
        file: u64,
        spec: BlobSpec,
    ) -> Result<Self, Error> {
        let mut append = BufferedFile::create(fs, path, spec.direct_io)?;
        append.buffer().extend(encode_header(store, file));
        Ok(Self {
            file: append,
            checksum: Checksum::new(store, file),
            encoder: Encoder::new(spec.compression),
            summary: BlobSummary {
                file,
                ..BlobSummary::default()
            },
        })
    }

    /// Appends a value, compressed if that gains.
    pub(crate) fn push(&mut self, value: &[u8]) -> Result<Pointer, Error> {
        let start = self.begin();
        self.encoder.encode(value, self.file.buffer());
        self.end(start, value.len())
    }

    /// Appends a value as another blob file had it stored: codec byte and encoded bytes.
    pub(crate) fn push_stored(&mut self, stored: &[u8], raw: u32) -> Result<Pointer, Error> {
        let start = self.begin();
        self.file.buffer().extend_from_slice(stored);
        self.end(start, raw as usize)
    }

    /// Bytes so far.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.file.size_bytes()
    }

    /// Leaves room for a head; says where it begins in the file.
    fn begin(&mut self) -> u64 {
        let offset = self.size_bytes();
        self.file.buffer().extend_from_slice(&[0; HEAD_BYTES]);
        offset
    }

    fn end(&mut self, offset: u64, raw: usize) -> Result<Pointer, Error> {
        let raw = u32::try_from(raw).expect("values are far below 4 GiB");
        let record_len = (self.size_bytes() - offset) as usize;
        let buffer = self.file.buffer();
        let start = buffer.len() - record_len;
        let (room, stored) = buffer[start..].split_at_mut(HEAD_BYTES);
        let head = Head::of(self.checksum, stored, raw);
        room.copy_from_slice(&head.encode());
        let pointer = Pointer {
            file: self.summary.file,
            offset,
            stored: head.stored,
            raw,
            checksum: head.checksum,
        };
        self.summary.values += 1;
        self.summary.value_bytes += pointer.record_bytes();
        self.file.write_full()?;
        Ok(pointer)
    }

    /// Writes the footer and syncs the file. Its directory entry is not synced yet.
    pub(crate) fn finish(mut self) -> Result<BlobSummary, Error> {
        let footer = Footer {
            values: self.summary.values,
            value_bytes: self.summary.value_bytes,
        };
        self.file.buffer().extend(footer.encode(self.checksum));
        let size_bytes = self.file.finish()?;
        Ok(BlobSummary {
            size_bytes,
            ..self.summary
        })
    }
}
