//! A simulated disk that lets a test act, or fail a call, in the middle of the engine's work.

use kv_storage::fs::{AppendFile, FileLock, Fs, LockError, LogSegment, ReadFile};
use kv_storage::sim::SimFs;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// When the test acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A file is about to get a second name.
    BeforeLink,
    /// An appended file was synced.
    AfterSync,
    /// A log segment is about to be created, or synced, or was synced well or badly.
    BeforeCreateSegment,
    BeforeSegmentSync,
    AfterSegmentSync,
    /// A directory is about to be synced, or was, well or badly.
    BeforeDirSync,
    AfterDirSync,
    /// Free space is about to be looked up.
    BeforeFreeSpace,
    /// Bytes at the front of a file are about to be read.
    BeforeHeadRead,
}

/// What it returns as an error, the call does.
type Meddle = dyn Fn(Moment, &Path) -> io::Result<()> + Send + Sync;

#[derive(Clone)]
pub(crate) struct Meddling {
    fs: SimFs,
    meddle: Arc<Meddle>,
}

impl Meddling {
    /// Calls `meddle` with the file's path as it was when it was made or opened.
    pub(crate) fn new(
        fs: &SimFs,
        meddle: impl Fn(Moment, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            fs: fs.clone(),
            meddle: Arc::new(meddle),
        }
    }

    fn file<F>(&self, file: F, path: &Path) -> Watched<F> {
        Watched {
            file,
            path: path.to_owned(),
            meddle: Arc::clone(&self.meddle),
        }
    }
}

impl fmt::Debug for Meddling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fs.fmt(f)
    }
}

impl Fs for Meddling {
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.meddle)(Moment::BeforeLink, from)?;
        self.fs.link(from, to)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(self.file(self.fs.create(path)?, path)))
    }
    fn create_segment(&self, path: &Path, size: u64) -> io::Result<Arc<dyn LogSegment>> {
        (self.meddle)(Moment::BeforeCreateSegment, path)?;
        Ok(Arc::new(
            self.file(self.fs.create_segment(path, size)?, path),
        ))
    }
    fn open_segment(&self, path: &Path) -> io::Result<Arc<dyn LogSegment>> {
        Ok(Arc::new(self.file(self.fs.open_segment(path)?, path)))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        Ok(Arc::new(self.file(self.fs.open(path)?, path)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.fs.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.fs.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.fs.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        (self.meddle)(Moment::BeforeDirSync, dir)?;
        let synced = self.fs.sync_dir(dir);
        (self.meddle)(Moment::AfterDirSync, dir)?;
        synced
    }
    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        self.fs.lock(path)
    }
    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        (self.meddle)(Moment::BeforeFreeSpace, dir)?;
        self.fs.free_space(dir)
    }
}

struct Watched<F> {
    file: F,
    path: PathBuf,
    meddle: Arc<Meddle>,
}

impl<F: fmt::Debug> fmt::Debug for Watched<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl AppendFile for Watched<Box<dyn AppendFile>> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        (self.meddle)(Moment::AfterSync, &self.path)
    }
}

impl LogSegment for Watched<Arc<dyn LogSegment>> {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn store(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.file.store(offset, parts)
    }

    fn store_many(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.store_many(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        (self.meddle)(Moment::BeforeSegmentSync, &self.path)?;
        let synced = self.file.sync();
        (self.meddle)(Moment::AfterSegmentSync, &self.path)?;
        synced
    }

    fn rest(&self) {
        self.file.rest();
    }
}

impl ReadFile for Watched<Arc<dyn ReadFile>> {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if offset < 200 {
            (self.meddle)(Moment::BeforeHeadRead, &self.path)?;
        }
        self.file.read_at(offset, into)
    }
}
