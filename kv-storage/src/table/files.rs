//! What all tables and blob files of a store share.

use crate::blob::OpenBlobs;
use crate::cache::{BlockCache, RowCache};
use crate::fs::Fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The file system, the caches, and the files that wait for their removal.
#[derive(Debug)]
pub(crate) struct TableFiles {
    pub fs: Arc<dyn Fs>,
    pub cache: BlockCache,
    pub rows: RowCache,
    pub blobs: OpenBlobs,
    pub store: u64,
    /// Files whose last user is gone. They are removed by the next job, because a reader that happens to be
    /// the last user must not block on the file system.
    trash: Mutex<Vec<PathBuf>>,
}

impl TableFiles {
    pub(crate) fn new(fs: Arc<dyn Fs>, cache: BlockCache, rows: RowCache, store: u64) -> Self {
        Self {
            fs,
            cache,
            rows,
            blobs: OpenBlobs::default(),
            store,
            trash: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn discard(&self, path: PathBuf) {
        self.trash
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(path);
    }

    /// Removes the files of dropped tables. May block. A failure only leaves an orphan for the next open.
    pub(crate) fn empty_trash(&self) {
        let trash = std::mem::take(&mut *self.trash.lock().unwrap_or_else(PoisonError::into_inner));
        for path in trash {
            if let Err(error) = self.fs.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "could not remove an obsolete file");
            }
        }
    }
}
