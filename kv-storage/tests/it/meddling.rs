//! A simulated disk that lets a test act in the middle of the engine's work.

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
}

type Meddle = dyn Fn(Moment, &Path) + Send + Sync;

pub(crate) struct Meddling {
    fs: SimFs,
    meddle: Arc<Meddle>,
}

impl Meddling {
    /// Calls `meddle` with the file's path as it was when it was made.
    pub(crate) fn new(fs: &SimFs, meddle: impl Fn(Moment, &Path) + Send + Sync + 'static) -> Self {
        Self {
            fs: fs.clone(),
            meddle: Arc::new(meddle),
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
        (self.meddle)(Moment::BeforeLink, from);
        self.fs.link(from, to)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(Appended {
            file: self.fs.create(path)?,
            path: path.to_owned(),
            meddle: Arc::clone(&self.meddle),
        }))
    }
    fn create_segment(&self, path: &Path, size: u64) -> io::Result<Arc<dyn LogSegment>> {
        self.fs.create_segment(path, size)
    }
    fn open_segment(&self, path: &Path) -> io::Result<Arc<dyn LogSegment>> {
        self.fs.open_segment(path)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        self.fs.open(path)
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
        self.fs.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        self.fs.lock(path)
    }
    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.fs.free_space(dir)
    }
}

struct Appended {
    file: Box<dyn AppendFile>,
    path: PathBuf,
    meddle: Arc<Meddle>,
}

impl fmt::Debug for Appended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl AppendFile for Appended {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        (self.meddle)(Moment::AfterSync, &self.path);
        Ok(())
    }
}
