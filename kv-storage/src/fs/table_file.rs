//! Writes a table past the page cache, or through it without leaving a burst behind.
//!
//! A table is written once, front to back, and mostly by jobs that nobody waits for. Through the page
//! cache its pages are collected first and then written in a burst, and the syncs of the log wait
//! behind that. So each piece of [`PIECE_BYTES`] is handed to the disk at once, and the burst never builds
//! up. Where it is wished and the file system allows it, whole aligned pieces go past the page cache.

use super::AppendFile;
use rustix::fs::{Advice, FallocateFlags, OFlags};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Bytes of one write.
const PIECE_BYTES: usize = 1 << 20;
/// Direct I/O wants memory, offsets and lengths in multiples of this.
const ALIGNMENT: usize = 4096;
/// Space allocated ahead at once, in bytes.
const ALLOCATE_BYTES: u64 = 32 << 20;
const _: () = assert!(PIECE_BYTES.is_multiple_of(ALIGNMENT));

/// A piece of memory that begins at a multiple of [`ALIGNMENT`].
#[derive(Debug)]
struct Piece {
    /// One alignment longer than the piece, so that an aligned one lies inside.
    memory: Vec<u8>,
    start: usize,
    filled: usize,
}

impl Piece {
    fn new() -> Self {
        let memory = vec![0; PIECE_BYTES + ALIGNMENT];
        // The vector never grows, so its memory stays where it is.
        let start = memory.as_ptr().addr().wrapping_neg() % ALIGNMENT;
        Self {
            memory,
            start,
            filled: 0,
        }
    }

    /// Takes as much as fits, and returns the rest.
    fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (now, rest) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.filled));
        let at = self.start + self.filled;
        self.memory[at..at + now.len()].copy_from_slice(now);
        self.filled += now.len();
        rest
    }

    /// What was filled in, with zeros up to the next multiple of the alignment.
    fn padded(&mut self) -> &[u8] {
        let end = self.filled.next_multiple_of(ALIGNMENT);
        self.memory[self.start + self.filled..self.start + end].fill(0);
        &self.memory[self.start..self.start + end]
    }

    /// Forgets all whole blocks, and keeps the last, partly filled one.
    fn keep_tail(&mut self) -> usize {
        let whole = self.filled - self.filled % ALIGNMENT;
        let from = self.start + whole;
        self.memory
            .copy_within(from..self.start + self.filled, self.start);
        self.filled -= whole;
        whole
    }
}

/// A table file being written. Appended bytes reach the operating system in whole pieces and at each
/// sync, so some are lost when the process dies before one.
#[derive(Debug)]
pub(super) struct TableFile {
    file: File,
    is_direct: bool,
    piece: Piece,
    /// Where the piece begins in the file; aligned.
    offset: u64,
    allocated: u64,
    may_allocate: bool,
}

impl TableFile {
    /// Creates a file; `direct` is a wish.
    pub(super) fn create(path: &Path, direct: bool) -> io::Result<Self> {
        let open = |flags: OFlags| {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .custom_flags(flags.bits().cast_signed())
                .open(path)
        };
        let file = match direct.then(|| open(OFlags::DIRECT)) {
            Some(Ok(file)) => Some(file),
            // The file may have been created although it was not opened.
            Some(Err(error)) if is_unsupported(&error) => match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => None,
            },
            Some(Err(error)) => return Err(error),
            None => None,
        };
        let is_direct = file.is_some();
        Ok(Self {
            file: file.map_or_else(|| open(OFlags::empty()), Ok)?,
            is_direct,
            piece: Piece::new(),
            offset: 0,
            allocated: 0,
            may_allocate: true,
        })
    }

    /// Writes what the piece holds, padded to whole blocks.
    fn write_piece(&mut self) -> io::Result<()> {
        let bytes = self.piece.padded();
        if bytes.is_empty() {
            return Ok(());
        }
        let end = self.offset + bytes.len() as u64;
        if self.may_allocate && end > self.allocated {
            self.may_allocate = allocate(&self.file, self.allocated)?;
            self.allocated += ALLOCATE_BYTES;
        }
        match self.file.write_all_at(bytes, self.offset) {
            Err(error) if self.is_direct && is_unsupported(&error) => {
                let flags = rustix::fs::fcntl_getfl(&self.file)?;
                rustix::fs::fcntl_setfl(&self.file, flags - OFlags::DIRECT)?;
                self.is_direct = false;
                self.file.write_all_at(bytes, self.offset)?;
            }
            other => other?,
        }
        if !self.is_direct {
            // Begins to write these pages; as they are dirty, they stay in memory.
            let length = std::num::NonZeroU64::new(bytes.len() as u64);
            rustix::fs::fadvise(&self.file, self.offset, length, Advice::DontNeed)?;
        }
        Ok(())
    }
}

/// Allocates space behind `from`, so that the file lies in few pieces; false if the file system cannot.
fn allocate(file: &File, from: u64) -> io::Result<bool> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, from, ALLOCATE_BYTES) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
        // Less than this may still be enough.
        Err(Errno::NOSPC | Errno::DQUOT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::INVAL.raw_os_error())
}

impl AppendFile for TableFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = self.piece.fill(bytes);
        while self.piece.filled == PIECE_BYTES {
            self.write_piece()?;
            self.offset += self.piece.keep_tail() as u64;
            rest = self.piece.fill(rest);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.write_piece()?;
        // Cuts the padding off, and gives back what was allocated too much.
        let length = self.offset + self.piece.filled as u64;
        rustix::fs::ftruncate(&self.file, length)?;
        self.allocated = length;
        self.offset += self.piece.keep_tail() as u64;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_length_are_read_back_after_each_sync_directly_or_not() {
        for direct in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("t");
            let mut file = TableFile::create(&path, direct).unwrap();
            let mut expected = Vec::new();
            for length in [
                1,
                4095,
                1,
                5000,
                8192,
                PIECE_BYTES,
                3 * PIECE_BYTES + 17,
                100,
                0,
            ] {
                let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
                file.append(&bytes).unwrap();
                expected.extend_from_slice(&bytes);
                if length % 2 == 1 || length == 0 {
                    file.sync().unwrap();
                    assert!(
                        std::fs::read(&path).unwrap() == expected,
                        "{direct} {length}"
                    );
                }
            }
            let blocks = rustix::fs::stat(&path).unwrap().st_blocks as usize * 512;
            assert!(
                blocks < expected.len() + (1 << 20),
                "{blocks} bytes are taken"
            );
            assert!(
                TableFile::create(&path, direct).is_err(),
                "it exists already"
            );
        }
    }
}
