//! An open blob file: reads single values.

use super::Pointer;
use super::format::{HEAD_BYTES, Head};
use crate::checksum::Checksum;
use crate::compress;
use crate::error::{Error, IoContext, read_part, twice};
use crate::fs::ReadFile;
use crate::range::KeyRange;
use crate::table::TableFiles;
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An open blob file. Shared by the tables that point into it; the file goes when the last of them is dropped
/// after [`mark_obsolete`](Self::mark_obsolete).
#[derive(Debug)]
pub(crate) struct Blob {
    number: u64,
    path: PathBuf,
    /// `None` if it is missing.
    file: Option<Arc<dyn ReadFile>>,
    checksum: Checksum,
    files: Arc<TableFiles>,
    obsolete: AtomicBool,
}

/// Bytes of a blob file that are read at once by who goes through it.
const STRETCH_BYTES: u64 = 256 << 10;

/// A part of a blob file in memory.
#[derive(Debug, Default)]
pub(crate) struct Stretch {
    offset: u64,
    bytes: Vec<u8>,
}

/// The bytes of a value as they are stored; they are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredValue {
    /// Codec byte and encoded bytes.
    pub stored: Vec<u8>,
    /// Bytes after decoding.
    pub raw: u32,
}

impl Blob {
    /// Opens a blob file; a missing one is open too, and has no value. May block. Values are checked when they
    /// are read, so damage is no error here.
    ///
    /// # Errors
    /// Only what may pass: the file system failed otherwise than by not having the file.
    pub(super) fn open(files: &Arc<TableFiles>, path: &Path, number: u64) -> Result<Self, Error> {
        let file = match files.fs.open_table(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).context("open", path),
        };
        Ok(Self {
            number,
            path: path.to_path_buf(),
            file,
            checksum: Checksum::new(files.store, number),
            files: Arc::clone(files),
            obsolete: AtomicBool::new(false),
        })
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The value of `key`, which `pointer` points to. May block.
    ///
    /// # Errors
    /// Damage, which touches this key alone, and failures of the file system.
    pub(crate) fn read(&self, key: &[u8], pointer: &Pointer) -> Result<Bytes, Error> {
        self.checked(key, pointer, || self.decode(pointer, self.fetch(pointer)?))
    }

    /// The value of `key` as it is stored: for copying it to another blob file. May block.
    ///
    /// Files are written in the order of keys, so whoever reads in that order finds most values in `stretch`,
    /// what was read of the file last.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub(crate) fn read_stored(
        &self,
        key: &[u8],
        pointer: &Pointer,
        stretch: &mut Stretch,
    ) -> Result<StoredValue, Error> {
        let near = match self.find(pointer, stretch) {
            None => {
                self.fill(pointer.offset, stretch)?;
                self.find(pointer, stretch)
            }
            found => found,
        };
        let stored = match near {
            Some(stored) => stored,
            // Longer than a stretch, or damaged.
            None => self.checked(key, pointer, || self.fetch(pointer))?,
        };
        Ok(StoredValue {
            stored,
            raw: pointer.raw,
        })
    }

    /// Decodes what [`read_stored`](Self::read_stored) gave.
    ///
    /// # Errors
    /// Damage, which touches this key alone.
    pub(crate) fn decode_stored(
        &self,
        key: &[u8],
        pointer: &Pointer,
        value: &StoredValue,
    ) -> Result<Bytes, Error> {
        let decoded = self.decode(pointer, value.stored.clone());
        decoded.map_err(|error| error.touching(&KeyRange::between(key, key)))
    }

    /// Lets the file be removed once nobody uses it.
    pub(super) fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }

    /// Reads, once more if that seems to find damage, and says which key is touched.
    fn checked<T>(
        &self,
        key: &[u8],
        pointer: &Pointer,
        read: impl Fn() -> Result<T, Error>,
    ) -> Result<T, Error> {
        debug_assert_eq!(pointer.file, self.number);
        twice(read).map_err(|error| error.touching(&KeyRange::between(key, key)))
    }

    fn fetch(&self, pointer: &Pointer) -> Result<Vec<u8>, Error> {
        let corrupt = |what| Error::corrupt(&self.path, pointer.offset, what);
        let Some(file) = &self.file else {
            return Err(corrupt("the file is missing"));
        };
        let end = pointer.offset.checked_add(pointer.record_bytes());
        // Checked before the allocation, so that a damaged length cannot ask for much memory.
        if end.is_none_or(|end| end > file.len()) {
            return Err(corrupt("value lies outside of the file"));
        }
        let mut stored = vec![0; pointer.stored as usize];
        let at = pointer.offset + HEAD_BYTES as u64;
        read_part(&**file, &self.path, at, &mut stored)?;
        let head = Head::of(self.checksum, &stored, pointer.raw);
        if head.checksum != pointer.checksum {
            return Err(corrupt("value checksum does not match"));
        }
        Ok(stored)
    }

    /// A value in a stretch, if its bytes are right there.
    fn find(&self, pointer: &Pointer, stretch: &Stretch) -> Option<Vec<u8>> {
        let from = pointer.offset.checked_sub(stretch.offset)?;
        let from = usize::try_from(from).ok()?.checked_add(HEAD_BYTES)?;
        let end = from.checked_add(pointer.stored as usize)?;
        let stored = stretch.bytes.get(from..end)?;
        let head = Head::of(self.checksum, stored, pointer.raw);
        (head.checksum == pointer.checksum).then(|| stored.to_vec())
    }

    /// Reads the stretch that begins at an offset.
    fn fill(&self, offset: u64, stretch: &mut Stretch) -> Result<(), Error> {
        let length = self.file.as_ref().map_or(0, |file| file.len());
        let bytes = length.saturating_sub(offset).min(STRETCH_BYTES);
        stretch.offset = offset;
        stretch.bytes.resize(bytes as usize, 0);
        if let Some(file) = self.file.as_ref().filter(|_| bytes > 0) {
            let read = read_part(&**file, &self.path, offset, &mut stretch.bytes);
            let read = read.inspect_err(|_| stretch.bytes.clear());
            // Of damage only the values in it are touched; they are read one by one.
            return read.or_else(|error| {
                if error.is_corrupt() {
                    Ok(())
                } else {
                    Err(error)
                }
            });
        }
        Ok(())
    }

    fn decode(&self, pointer: &Pointer, stored: Vec<u8>) -> Result<Bytes, Error> {
        decode(stored, pointer.raw).map_err(|what| Error::corrupt(&self.path, pointer.offset, what))
    }
}

/// Decodes a stored value, without a copy if it is stored plain. The error says what is wrong.
pub(super) fn decode(stored: Vec<u8>, raw: u32) -> Result<Bytes, &'static str> {
    let mut memory = Vec::new();
    let length = compress::decode(&stored, raw as usize, None, &mut memory)?.len();
    if memory.is_empty() && length > 0 {
        // Stored plain, behind the codec byte.
        return Ok(Bytes::from(stored).slice(1..));
    }
    Ok(Bytes::from(memory))
}

impl Drop for Blob {
    fn drop(&mut self) {
        self.files.blobs.forget(self.number);
        if self.obsolete.load(Ordering::Acquire) {
            self.files.discard(std::mem::take(&mut self.path));
        }
    }
}
