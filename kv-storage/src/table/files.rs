//! What all tables and blob files of a store share.

use super::block::SharedBlock;
use crate::blob::OpenBlobs;
use crate::cache::{BlockCache, BlockSlots, Budget, ReadMark, RowCache};
use crate::fs::Fs;
use crate::key::Seq;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The file system, the caches, and the files that wait for their removal.
#[derive(Debug)]
pub(crate) struct TableFiles {
    pub fs: Arc<dyn Fs>,
    pub cache: BlockCache,
    pub rows: RowCache,
    pub blobs: OpenBlobs,
    /// What both caches share.
    pub budget: Arc<Budget>,
    pub store: u64,
    /// Files whose last user is gone. They are removed by the next job, because a reader that happens to be
    /// the last user must not block on the file system.
    trash: Mutex<Vec<PathBuf>>,
}

impl TableFiles {
    /// `cache_bytes` is the memory for everything that is kept of tables.
    pub(crate) fn new(fs: Arc<dyn Fs>, cache_bytes: u64, store: u64) -> Self {
        let budget = Arc::new(Budget::new(cache_bytes));
        Self {
            fs,
            cache: BlockCache::new(&budget),
            rows: RowCache::new(&budget),
            blobs: OpenBlobs::default(),
            budget,
            store,
            trash: Mutex::new(Vec::new()),
        }
    }

    /// Keeps a block in memory, and throws out what has to make room.
    pub(super) fn keep_block(&self, slots: &Arc<BlockSlots>, number: usize, block: SharedBlock) {
        self.cache.insert(slots, number, block);
        self.make_room();
    }

    /// Offers a row to the row cache, see [`RowCache::offer`], and throws out what has to make room.
    pub(crate) fn offer_row(
        &self,
        key: &[u8],
        hash: u64,
        value: &[u8],
        seq: Seq,
        mark: ReadMark,
        was_read: bool,
    ) {
        self.rows.offer(key, hash, value, seq, mark, was_read);
        self.make_room();
    }

    /// Rows go first while they have more than their share.
    fn make_room(&self) {
        let excess = self.budget.excess();
        if excess == 0 {
            return;
        }
        let of_rows = excess.min(self.budget.rows_above_share());
        if of_rows > 0 {
            self.rows.shrink(of_rows);
        }
        let rest = self.budget.excess();
        if rest > 0 && !self.cache.shrink(rest) {
            self.rows.shrink(self.budget.excess());
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
