//! Walks all records of a blob file, live or not: for tools.

use super::format::{FOOTER_BYTES, Footer, HEAD_BYTES, HEADER_BYTES, Head, check_header};
use super::reader::decode;
use crate::checksum::Checksum;
use crate::error::{Error, IoContext};
use crate::fs::{Fs, ReadFile};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One value of a blob file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub offset: u64,
    /// Bytes in the file, head included.
    pub bytes: u64,
    pub value: Bytes,
}

/// A position in a blob file.
pub(crate) struct Walk {
    path: PathBuf,
    file: Arc<dyn ReadFile>,
    checksum: Checksum,
    at: u64,
    /// Where the footer begins.
    end: u64,
    found: Footer,
}

impl Walk {
    /// Opens a file and checks its header. May block.
    ///
    /// # Errors
    /// Damage, and failures of the file system.
    pub(crate) fn begin(fs: &dyn Fs, path: &Path, store: u64, number: u64) -> Result<Self, Error> {
        let file = fs.open(path).context("open", path)?;
        let least = (HEADER_BYTES + FOOTER_BYTES) as u64;
        let records = file.len().checked_sub(least);
        let records = records
            .ok_or_else(|| Error::corrupt(path, 0, "file is shorter than its header and footer"))?;
        let mut header = [0; HEADER_BYTES];
        file.read_at(0, &mut header).context("read", path)?;
        check_header(&header, store, number).map_err(|what| Error::corrupt(path, 0, what))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            checksum: Checksum::new(store, number),
            at: HEADER_BYTES as u64,
            end: HEADER_BYTES as u64 + records,
            found: Footer {
                values: 0,
                value_bytes: 0,
            },
        })
    }

    /// The next record; nothing at the end, when the footer was checked too. A damaged record is an error, and
    /// the walk goes on behind it as far as its length can be believed.
    pub(crate) fn next(&mut self) -> Option<Result<Record, Error>> {
        if self.at == u64::MAX {
            return None;
        }
        if self.at == self.end {
            self.at = u64::MAX;
            return self.check_footer().err().map(Err);
        }
        let record = self.record();
        Some(record)
    }

    fn record(&mut self) -> Result<Record, Error> {
        // Until the length is known to be right, nothing behind it can be found.
        let offset = std::mem::replace(&mut self.at, u64::MAX);
        let path = self.path.clone();
        let corrupt = |what| Error::corrupt(&path, offset, what);
        let body = offset + HEAD_BYTES as u64;
        if body > self.end {
            return Err(corrupt("a record reaches into the footer"));
        }
        let mut head = [0; HEAD_BYTES];
        self.file
            .read_at(offset, &mut head)
            .context("read", &self.path)?;
        let head = Head::decode(&head);
        let next = body + u64::from(head.stored);
        if next > self.end {
            return Err(corrupt("a record reaches into the footer"));
        }
        self.at = next;
        self.found.values += 1;
        self.found.value_bytes += next - offset;
        let mut stored = vec![0; head.stored as usize];
        self.file
            .read_at(body, &mut stored)
            .context("read", &self.path)?;
        if Head::of(self.checksum, &stored, head.raw) != head {
            return Err(corrupt("value checksum does not match"));
        }
        let value = decode(stored, head.raw).map_err(corrupt)?;
        Ok(Record {
            offset,
            bytes: next - offset,
            value,
        })
    }

    fn check_footer(&self) -> Result<(), Error> {
        let corrupt = |what| Error::corrupt(&self.path, self.end, what);
        let mut footer = [0; FOOTER_BYTES];
        self.file
            .read_at(self.end, &mut footer)
            .context("read", &self.path)?;
        let footer = Footer::decode(&footer, self.checksum).map_err(corrupt)?;
        if footer == self.found {
            Ok(())
        } else {
            Err(corrupt("the footer counts other values than there are"))
        }
    }
}
