//! The operating system's files.

use super::mapped::MappedSegment;
use super::table_file::TableFile;
use super::{AppendFile, FileLock, Fs, LockError, LogSegment, ReadFile};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Files of the operating system: `fdatasync` for file contents, `fsync` for directories, `flock` for the lock.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFs;

impl Fs for RealFs {
    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)?;
        Ok(Box::new(RealAppend { file }))
    }

    fn create_segment(&self, path: &Path, size: u64) -> io::Result<Arc<dyn LogSegment>> {
        Ok(Arc::new(MappedSegment::create(path, size)?))
    }

    fn open_segment(&self, path: &Path) -> io::Result<Arc<dyn LogSegment>> {
        Ok(Arc::new(MappedSegment::open(path)?))
    }

    fn create_table(&self, path: &Path, direct: bool) -> io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(TableFile::create(path, direct)?))
    }

    fn open_table(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        let file = File::open(path)?;
        // The kernel's read-ahead would read far more than the one block that is wanted.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random)?;
        let length = file.metadata()?.len();
        Ok(Arc::new(RealRead { file, length }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Arc::new(RealRead { file, length }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            // A name that is no UTF-8 is not one of ours.
            if let (true, Ok(name)) = (
                entry.file_type()?.is_file(),
                entry.file_name().into_string(),
            ) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        if !dir.is_dir() {
            if let Some(parent) = parent {
                self.create_dir(parent)?;
            }
            match std::fs::create_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        // Also if it was there: whoever made it may not have got as far as this.
        match self.sync_dir(parent.unwrap_or_else(|| Path::new("."))) {
            // A parent that only lets others pass cannot be opened; its file system can be synced as a whole.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Ok(rustix::fs::syncfs(File::open(dir)?)?)
            }
            synced => synced,
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all().map_err(no_kind_of_full)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = file
                    .read_to_string(&mut text)
                    .ok()
                    .and_then(|_| text.trim().parse().ok());
                return Err(LockError::Held { pid });
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        file.set_len(0).map_err(LockError::Io)?;
        // Only tells a human who holds the lock, so it need not be durable, nor there if the disk is full.
        let _ = writeln!(file, "{}", std::process::id());
        Ok(Box::new(RealLock { _file: file }))
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[derive(Debug)]
struct RealAppend {
    file: File,
}

impl AppendFile for RealAppend {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data().map_err(no_kind_of_full)
    }
}

/// Hides from the caller that a failed sync met a full disk: it is a failed sync (rule 5 of [`super`]).
pub(super) fn no_kind_of_full(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => io::Error::other(error),
        _ => error,
    }
}

#[derive(Debug)]
struct RealRead {
    file: File,
    length: u64,
}

impl ReadFile for RealRead {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }
}

/// The lock ends when the file is closed.
#[derive(Debug)]
struct RealLock {
    _file: File,
}

impl FileLock for RealLock {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_with_the_owners_pid_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let first = RealFs.lock(&path).unwrap();
        let Err(LockError::Held { pid }) = RealFs.lock(&path) else {
            panic!("the lock was given twice")
        };
        assert_eq!(pid, Some(std::process::id()));
        drop(first);
        RealFs.lock(&path).unwrap();
    }

    #[test]
    fn appended_bytes_are_read_back_and_listed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        RealFs.create_dir(&dir.path().join("a/b")).unwrap();
        for name in ["z", "y"] {
            let mut file = RealFs.create(&dir.path().join(name)).unwrap();
            file.append(b"one").unwrap();
            file.append(b"two").unwrap();
            file.sync().unwrap();
        }
        assert_eq!(RealFs.list(dir.path()).unwrap(), ["y", "z"]);
        assert_eq!(
            super::super::read_all(&RealFs, &dir.path().join("y")).unwrap(),
            b"onetwo"
        );
        assert!(RealFs.create(&dir.path().join("y")).is_err());
        assert!(RealFs.free_space(dir.path()).unwrap() > 0);
        let (y, second) = (dir.path().join("y"), dir.path().join("second"));
        RealFs.link(&y, &second).unwrap();
        assert!(RealFs.link(&y, &second).is_err());
        super::super::replace_file(&RealFs, dir.path(), "y", b"new").unwrap();
        assert_eq!(super::super::read_all(&RealFs, &second).unwrap(), b"onetwo");
        assert_eq!(
            super::super::read_all(&RealFs, &dir.path().join("y")).unwrap(),
            b"new"
        );
    }
}
