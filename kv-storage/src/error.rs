//! Errors of the engine: what failed, whether state changed, and what the caller should do.

use crate::fs::ReadFile;
use crate::range::KeyRange;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A read, a wait for durability, or background work failed.
///
/// Cheap to clone, because one failed sync is reported to every waiter.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused an operation.
    ///
    /// A read changed nothing and may be retried. When it is the outcome of a wait for durability,
    /// the write may or may not survive a restart: treat its outcome as unknown.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// Stored bytes are not what was written. Nothing was changed.
    ///
    /// Only the keys of the range cannot be answered; everything else goes on. Restore the file, or fetch the
    /// range again from a replica.
    #[error("{} is damaged at byte {offset}: {what}; {range} cannot be answered: restore the file, fetch the keys again from a replica, or save the rest with `kv-storage repair`", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where the damaged structure begins, in bytes from the start of the file.
        offset: u64,
        /// The keys that cannot be answered because of it.
        range: KeyRange,
        /// Which check failed.
        what: &'static str,
    },
    /// An earlier failure left it unknown what is on disk, so the store accepts no more writes.
    ///
    /// Reads of durable data go on. A pending write has an unknown outcome. Close the store, find out why
    /// the disk failed, and open it again: recovery decides what survived.
    #[error("the store takes no more writes since: {cause}; check the disk, then reopen the store")]
    Poisoned {
        /// The failure that poisoned the store.
        cause: Arc<str>,
    },
    /// The store was closed. Nothing was changed; open it again.
    #[error("the store is closed; open it again")]
    Closed,
}

impl Error {
    pub(crate) fn corrupt(file: &Path, offset: u64, what: &'static str) -> Self {
        Self::Corrupt {
            file: file.to_path_buf(),
            offset,
            range: KeyRange::All,
            what,
        }
    }

    /// Says which keys the damage touches, if this is damage.
    pub(crate) fn touching(self, keys: &KeyRange) -> Self {
        match self {
            Self::Corrupt {
                file, offset, what, ..
            } => Self::Corrupt {
                file,
                offset,
                range: keys.clone(),
                what,
            },
            other => other,
        }
    }

    /// The keys that damage touches; `None` if this is no damage.
    pub fn range(&self) -> Option<&KeyRange> {
        match self {
            Self::Corrupt { range, .. } => Some(range),
            _ => None,
        }
    }

    /// True if stored bytes are damaged.
    pub(crate) fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    /// True if a disk said that it cannot read some bytes, which may pass.
    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self, Self::Corrupt { what, .. } if *what == NOT_READ)
    }

    /// True if the disk had no room, which passes once space is freed. Nothing was changed then, except that
    /// a file may have grown by a part of what was appended.
    pub(crate) fn is_no_space(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

/// A write was refused. Nothing was changed, but for [`LogFailed`](Self::LogFailed).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Flushes or compactions are behind. Retry after the delay, or shed the load.
    #[error("the store is behind with flushes or compactions; retry in {0:?}")]
    Busy(Duration),
    /// See [`Error::Poisoned`]: an earlier failure ended all writes to this open store.
    #[error("the store takes no more writes since: {cause}; check the disk, then reopen the store")]
    Poisoned {
        /// The failure that poisoned the store.
        cause: Arc<str>,
    },
    /// The log could not be written, which ended all writes to this open store. This one is not seen by anyone now, and may be
    /// there or not when the store is opened again.
    #[error(
        "the log could not be written, and may hold this write or not: {cause}; check the disk, then reopen the store"
    )]
    LogFailed {
        /// The failure.
        cause: Arc<str>,
    },
    /// The disk is nearly full. Writes resume by themselves once space is free.
    #[error("the disk has only {free} bytes free, {needed} are kept in reserve; free some space")]
    Full {
        /// Bytes free when last looked.
        free: u64,
        /// The reserve of [`Options::min_free_bytes`](crate::Options::min_free_bytes), and what it takes to
        /// make the ballast again if it was given back.
        needed: u64,
    },
    /// The batch, or a key or note in it, is over its limit. Split it.
    #[error(
        "{what} of {size} bytes is over the limit of {limit}; shorten it, or split the write if it has several operations"
    )]
    TooLarge {
        /// "batch", "batch in memory", "key", "note", or "row" of an ingest.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The batch deletes more ranges than a memtable takes. Split it.
    #[error("a batch that deletes {count} ranges is over the limit of {limit}; split the write")]
    TooManyRanges {
        /// Ranges that the batch deletes.
        count: u32,
        /// The limit.
        limit: u32,
    },
    /// The batch holds nothing to write, so it would have no sequence number.
    #[error("the batch is empty; add a put or a delete")]
    Empty,
    /// The store was closed; open it again.
    #[error("the store is closed; open it again")]
    Closed,
}

/// A store could not be opened. Its files were left as they were, except that leftovers of an
/// interrupted earlier run may have been removed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process (or another open store in this one) has the directory. Stop it, or use
    /// another directory.
    #[error("{} is in use by {}; stop it or choose another directory", dir.display(), owner(*.pid))]
    Locked {
        /// The store's directory.
        dir: PathBuf,
        /// Process id of the owner, if its lock file could be read.
        pid: Option<u32>,
    },
    /// The store was written by a newer version of this software. Upgrade, then open again.
    #[error("{} has store format {found}, this software reads up to {supported}; upgrade it", dir.display())]
    NewerFormat {
        /// The store's directory.
        dir: PathBuf,
        /// The format on disk.
        found: u32,
        /// The newest format this code knows.
        supported: u32,
    },
    /// An option has an impossible value. Correct it.
    #[error("option {name} {problem}")]
    InvalidOption {
        /// The field of [`Options`](crate::Options).
        name: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The file system failed, or stored bytes are damaged.
    #[error(transparent)]
    Storage(#[from] Error),
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

/// `EIO`, what systems say of a sector that cannot be read.
const UNREADABLE: i32 = rustix::io::Errno::IO.raw_os_error();

/// What is wrong with damage of that kind.
const NOT_READ: &str = "the disk cannot read it";

/// Reads, and if that seems to find damage, once more: a bit may have flipped on its way.
pub(crate) fn twice<T>(read: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    match read() {
        Err(error) if error.is_corrupt() => read(),
        outcome => outcome,
    }
}

/// Fills `into` from `offset` of a file on. A sector that the disk has but cannot read any more is damage like any
/// other: the file system has no better copy.
pub(crate) fn read_part(
    file: &dyn ReadFile,
    path: &Path,
    offset: u64,
    into: &mut [u8],
) -> Result<(), Error> {
    match file.read_at(offset, into) {
        Err(error) if error.raw_os_error() == Some(UNREADABLE) => {
            Err(Error::corrupt(path, offset, NOT_READ))
        }
        outcome => outcome.context("read", path),
    }
}

/// Adds what was tried, and on which path, to an I/O error.
pub(crate) trait IoContext<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            action,
            path: path.to_path_buf(),
            source: Arc::new(source),
        })
    }
}
