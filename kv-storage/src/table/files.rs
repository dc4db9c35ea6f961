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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::key_hash;
    use crate::sim::SimFs;
    use crate::table::block::Block;

    const ROWS_OF_BLOCK: u64 = 16;
    const BUDGET: u64 = 4 << 20;

    /// A table of so many blocks of 4 KiB, without a file: reads of it are counted.
    struct Store {
        files: TableFiles,
        slots: Arc<BlockSlots>,
        reads: u64,
    }

    impl Store {
        fn new(blocks: usize) -> Self {
            Self {
                files: TableFiles::new(Arc::new(SimFs::new()), BUDGET, 1),
                slots: BlockSlots::new(blocks),
                reads: 0,
            }
        }

        /// Reads a row as the engine does.
        fn get(&mut self, row: u64) {
            let (key, mark) = (
                row.to_le_bytes(),
                ReadMark {
                    at: Seq(1),
                    epoch: 0,
                },
            );
            let hash = key_hash(&key);
            if self.files.rows.get(&key, hash, mark).is_some() {
                return;
            }
            let number = (row / ROWS_OF_BLOCK) as usize;
            let was_read = self.files.cache.get(&self.slots, number).is_none();
            if was_read {
                let mut bytes = vec![1, 0, 0, 0, 0, 0, 2, 0, 7, 0, 0, 1, 1, 0];
                bytes.resize(4000, 0);
                let block = Block::share(&bytes, Seq::ZERO).unwrap();
                self.files.keep_block(&self.slots, number, block);
                self.reads += 1;
            }
            let value = [7; 200];
            self.files
                .offer_row(&key, hash, &value, Seq(1), mark, was_read);
            assert!(self.files.budget.excess() == 0);
        }

        /// Reads so many rows, and gives the percentage for which a block was read.
        fn run(&mut self, gets: u64, mut next: impl FnMut() -> u64) -> u64 {
            let before = self.reads;
            (0..gets).for_each(|_| self.get(next()));
            (self.reads - before) * 100 / gets
        }
    }

    #[test]
    fn memory_goes_to_blocks_or_rows_whichever_saves_more_reads_and_back_again() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut store = Store::new(4000);
        // Even reads of what fits as blocks, and would not as rows.
        let mut even = || random.u64(..900 * ROWS_OF_BLOCK);
        store.run(60_000, &mut even);
        let reads = store.run(60_000, &mut even);
        let rows = store.files.rows.size_bytes();
        assert!(reads <= 1 && rows < BUDGET / 8, "{reads} % read, {rows}");

        // One row of each of many blocks.
        let mut random = fastrand::Rng::with_seed(6);
        let mut scattered = || random.u64(..4000) * ROWS_OF_BLOCK;
        store.run(300_000, &mut scattered);
        let reads = store.run(60_000, &mut scattered);
        let rows = store.files.rows.size_bytes();
        assert!(reads <= 2 && rows > BUDGET / 4, "{reads} % read, {rows}");

        let mut random = fastrand::Rng::with_seed(7);
        let mut even = || random.u64(..900 * ROWS_OF_BLOCK);
        store.run(300_000, &mut even);
        let reads = store.run(60_000, &mut even);
        assert!(reads <= 2, "{reads} % read");
    }
}
