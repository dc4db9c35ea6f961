//! Writes a blob file.

use super::Pointer;
use super::format::{Footer, HEAD_BYTES, Head, encode_header};
use crate::checksum::Checksum;
use crate::compress::{Compression, Encoder};
use crate::error::{Error, IoContext};
use crate::fs::{AppendFile, Fs};
use crate::options::Options;
use std::path::{Path, PathBuf};

/// File bytes collected before they are handed to the operating system.
const WRITE_BYTES: usize = 256 << 10;

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
    path: PathBuf,
    file: Box<dyn AppendFile>,
    checksum: Checksum,
    encoder: Encoder,
    /// Encoded but not yet appended.
    buffer: Vec<u8>,
    /// Where `buffer` will begin in the file.
    written: u64,
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
        let append = fs
            .create_table(path, spec.direct_io)
            .context("create", path)?;
        Ok(Self {
            path: path.to_path_buf(),
            file: append,
            checksum: Checksum::new(store, file),
            encoder: Encoder::new(spec.compression),
            buffer: encode_header(store, file),
            written: 0,
            summary: BlobSummary {
                file,
                ..BlobSummary::default()
            },
        })
    }

    /// Appends a value, compressed if that gains.
    pub(crate) fn push(&mut self, value: &[u8]) -> Result<Pointer, Error> {
        let start = self.begin();
        self.encoder.encode(value, &mut self.buffer);
        self.end(start, value.len())
    }

    /// Appends a value as another blob file had it stored: codec byte and encoded bytes.
    pub(crate) fn push_stored(&mut self, stored: &[u8], raw: u32) -> Result<Pointer, Error> {
        let start = self.begin();
        self.buffer.extend_from_slice(stored);
        self.end(start, raw as usize)
    }

    /// Bytes so far.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Leaves room for a head.
    fn begin(&mut self) -> usize {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; HEAD_BYTES]);
        start
    }

    fn end(&mut self, start: usize, raw: usize) -> Result<Pointer, Error> {
        let raw = u32::try_from(raw).expect("values are far below 4 GiB");
        let (before, stored) = self.buffer.split_at_mut(start + HEAD_BYTES);
        let head = Head::of(self.checksum, stored, raw);
        before[start..].copy_from_slice(&head.encode());
        let pointer = Pointer {
            file: self.summary.file,
            offset: self.written + start as u64,
            stored: head.stored,
            raw,
            checksum: head.checksum,
        };
        self.summary.values += 1;
        self.summary.value_bytes += pointer.record_bytes();
        if self.buffer.len() >= WRITE_BYTES {
            self.write_buffer()?;
        }
        Ok(pointer)
    }

    /// Writes the footer and syncs the file. Its directory entry is not synced yet.
    pub(crate) fn finish(mut self) -> Result<BlobSummary, Error> {
        let footer = Footer {
            values: self.summary.values,
            value_bytes: self.summary.value_bytes,
        };
        self.buffer.extend(footer.encode(self.checksum));
        self.write_buffer()?;
        self.file.sync().context("sync", &self.path)?;
        self.summary.size_bytes = self.written;
        Ok(self.summary)
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
