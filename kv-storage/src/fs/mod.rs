//! The file system as the engine sees it: append-only files, positioned reads, and explicit
//! durability.
//!
//! What an implementation must keep, and what the engine relies on:
//! 1. Appended bytes survive power loss only after [`AppendFile::sync`] returned `Ok`.
//! 2. Creating, renaming or removing a file survives power loss only after [`Fs::sync_dir`]
//!    returned `Ok`. Before that, each such change may be lost or kept on its own.
//! 3. Rename replaces its target in one step.
//! 4. After a failed sync nothing is known about the bytes since the last good one; a second sync
//!    proves nothing (Rebello et al., "Can Applications Recover from fsync Failures?", 2020).
//! 5. An error of the kind `StorageFull` or `QuotaExceeded` means that the disk was full and nothing was
//!    changed, except that an append may have appended a prefix of its bytes. A sync never fails with these
//!    kinds: rule 4 holds for it, whatever the reason.

mod buffered;
mod mapped;
mod real;
mod table_file;

pub(crate) use buffered::BufferedFile;
pub use real::RealFs;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A file system. All calls may block, so the engine makes them only from jobs, at open, and from
/// its blocking calls.
pub trait Fs: fmt::Debug + Send + Sync {
    /// Creates a new, empty file for appending.
    ///
    /// # Errors
    /// `AlreadyExists` if there is one, `StorageFull`, and whatever the system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>>;

    /// Creates a log segment: a new file of `size` zero bytes.
    ///
    /// Neither the zeros nor the size are durable before the first [`LogSegment::sync`].
    ///
    /// # Errors
    /// `AlreadyExists` if there is one, `StorageFull`, and whatever the system says.
    fn create_segment(&self, path: &Path, size: u64) -> io::Result<Arc<dyn LogSegment>>;

    /// Opens an existing file as a log segment of its present size.
    ///
    /// # Errors
    /// `NotFound`, and whatever the system says.
    fn open_segment(&self, path: &Path) -> io::Result<Arc<dyn LogSegment>>;

    /// Creates a new, empty file for a table, which is written front to back and then synced once. Its bytes
    /// may survive nothing before that sync. `direct` asks to bypass the page cache.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    fn create_table(&self, path: &Path, direct: bool) -> io::Result<Box<dyn AppendFile>> {
        let _ = direct;
        self.create(path)
    }

    /// Opens an existing table, of which mostly single blocks are read.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    fn open_table(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        self.open(path)
    }

    /// Opens an existing file for reading.
    ///
    /// # Errors
    /// `NotFound`, and whatever the system says.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>>;

    /// Renames a file, replacing the target in one step.
    ///
    /// # Errors
    /// `NotFound`, and whatever the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name. Bytes written under either name are seen under both.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, `CrossesDevices` if the names lie on different file systems, and whatever
    /// the system says.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Open handles go on reading it.
    ///
    /// # Errors
    /// `NotFound`, and whatever the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Names of the files in a directory, sorted.
    ///
    /// # Errors
    /// `NotFound`, and whatever the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Creates a directory and its parents, durably; of one that exists the name is made durable.
    ///
    /// # Errors
    /// Whatever the system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes all earlier creations, renames and removals in a directory survive power loss.
    ///
    /// # Errors
    /// Whatever the system says; see rule 4 of the module.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes an exclusive lock that ends when the returned value is dropped or the process dies.
    ///
    /// # Errors
    /// [`LockError::Held`] if another holder exists, without waiting for it.
    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError>;

    /// Bytes that may still be written to the file system of `dir`.
    ///
    /// # Errors
    /// Whatever the system says.
    fn free_space(&self, dir: &Path) -> io::Result<u64>;
}

/// A file being written at its end.
pub trait AppendFile: fmt::Debug + Send {
    /// Appends all bytes; they survive the process from then on, but not power loss.
    ///
    /// # Errors
    /// After an error, any prefix of the bytes may have been appended.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes all appended bytes survive power loss.
    ///
    /// # Errors
    /// After an error the file must not be trusted any more; see rule 4 of the module.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file of fixed size whose bytes are stored in place: one segment of the write-ahead log.
///
/// Its space was allocated when it was created, so a store meets no full disk, and a sync need not
/// write the file system's own records. It is written by one thread at a time; others may sync it meanwhile.
pub trait LogSegment: fmt::Debug + Send + Sync {
    /// Size in bytes; it never changes.
    fn size(&self) -> u64;

    /// Stores the parts one behind the other from `offset` on. They survive the death of the process
    /// when this returns, but not power loss: until a sync, each 512-byte sector may hold old bytes, new
    /// ones, or a mixture, in any order.
    ///
    /// # Errors
    /// After an error any part may have been stored; do not use the segment any more.
    fn store(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()>;

    /// Like [`store`](Self::store), for many bytes at once and none soon after.
    ///
    /// # Errors
    /// As for [`store`](Self::store).
    fn store_many(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.store(offset, &[bytes])?;
        self.rest();
        Ok(())
    }

    /// Makes everything stored before the call survive power loss.
    ///
    /// # Errors
    /// After an error the segment must not be trusted any more; see rule 4 of the module.
    fn sync(&self) -> io::Result<()>;

    /// Says that no store will come for a while, so that memory held for stores may be given back.
    fn rest(&self) {}
}

/// A file being read.
pub trait ReadFile: fmt::Debug + Send + Sync {
    /// Length in bytes when it was opened.
    fn len(&self) -> u64;

    /// True if the file had no bytes when it was opened.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file is shorter, and whatever the system says.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// Keeps a lock until dropped.
pub trait FileLock: fmt::Debug + Send + Sync {}

/// A lock could not be taken.
#[derive(Debug)]
pub enum LockError {
    /// Someone else has it.
    Held {
        /// Process id of the holder, if known.
        pid: Option<u32>,
    },
    /// The lock file could not be used.
    Io(io::Error),
}

/// Reads a whole file.
///
/// # Errors
/// `NotFound`, and whatever the system says.
pub fn read_all(fs: &dyn Fs, path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_front(fs, path, usize::MAX, &mut bytes)?;
    Ok(bytes)
}

/// Reads a whole file, or its first `most` bytes, into memory that may be used again and again.
///
/// # Errors
/// `NotFound`, and whatever the system says.
pub fn read_front(fs: &dyn Fs, path: &Path, most: usize, into: &mut Vec<u8>) -> io::Result<()> {
    let file = fs.open(path)?;
    let length = file.len().min(most as u64);
    let length =
        usize::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    // What is there already need not be cleared.
    into.resize(length, 0);
    file.read_at(0, into)
}

/// Puts a small file in place so that a reader finds the old or the new bytes, never a mixture:
/// write a temporary, sync it, rename it over the target, sync the directory. On return it survives
/// power loss.
///
/// # Errors
/// Whatever the system says; the old bytes are then still in place, or the new ones are.
pub fn replace_file(fs: &dyn Fs, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    match fs.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs.create(&temporary)?;
    file.append(bytes)?;
    file.sync()?;
    fs.rename(&temporary, &dir.join(name))?;
    fs.sync_dir(dir)
}
