//! What all tables and blob files of a store share.

use super::block::SharedBlock;
use crate::blob::OpenBlobs;
use crate::cache::{BlockCache, BlockSlots, Budget, Counter, ReadMark, RowCache, Uses};
use crate::fs::Fs;
use crate::key::Seq;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The budget is told of searches in blocks only when there were so many: it is one place for all threads.
const OFFERS_TOLD: u64 = 256;

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
    /// Rows that were found in a block, and offered to the row cache.
    offers: Counter,
    /// Lookups that a filter kept from looking into a table.
    pub filter_skips: Counter,
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
            offers: Counter::default(),
            filter_skips: Counter::default(),
            trash: Mutex::new(Vec::new()),
        }
    }

    /// Keeps a block in memory, and throws out what has to make room.
    pub(super) fn keep_block(&self, slots: &Arc<BlockSlots>, number: usize, block: SharedBlock) {
        self.cache.insert(slots, number, block);
        self.make_room();
        self.note_read();
    }

    /// Counts the read of a block, or of a value in a blob file.
    pub(super) fn note_read(&self) {
        if self.budget.note_read() {
            self.divide_anew();
        }
    }

    fn divide_anew(&self) {
        let (blocks, _) = self.cache.counts();
        self.budget.divide_anew(Uses {
            rows: self.rows.hits(),
            blocks,
            reads: self.budget.reads(),
        });
    }

    /// Offers a row to the row cache, see [`RowCache::offer`], and throws out what has to make room.
    pub(crate) fn offer_row(&self, key: &[u8], hash: u64, value: &[u8], seq: Seq, mark: ReadMark) {
        self.rows.offer(key, hash, value, seq, mark);
        self.make_room();
        let is_told = self.offers.add(hash as usize).is_multiple_of(OFFERS_TOLD);
        if is_told && self.budget.note_searches(OFFERS_TOLD) {
            self.divide_anew();
        }
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

    const BUDGET: u64 = 4 << 20;

    /// A table without a file, in blocks of 4 KiB: reads of it are counted.
    struct Store {
        files: TableFiles,
        slots: Arc<BlockSlots>,
        rows_of_block: u64,
        reads: u64,
        random: fastrand::Rng,
    }

    impl Store {
        fn new(blocks: u64, rows_of_block: u64) -> Self {
            Self {
                files: TableFiles::new(Arc::new(SimFs::new()), BUDGET, 1),
                slots: BlockSlots::new(blocks as usize),
                rows_of_block,
                reads: 0,
                random: fastrand::Rng::with_seed(5),
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
            let number = (row / self.rows_of_block) as usize;
            if self.files.cache.get(&self.slots, number).is_none() {
                let mut bytes = vec![1, 0, 0, 0, 0, 0, 2, 0, 7, 0, 0, 1, 1, 0];
                bytes.resize(4000, 0);
                let block = Block::share(&bytes, Seq::ZERO).unwrap();
                self.files.keep_block(&self.slots, number, block);
                self.reads += 1;
            }
            let value = vec![7; 4000 / self.rows_of_block as usize - 50];
            self.files.offer_row(&key, hash, &value, Seq(1), mark);
            assert!(self.files.budget.excess() == 0);
        }

        /// Reads so many rows, and gives for how many in a thousand a block was read.
        fn run(&mut self, gets: u64, mut next: impl FnMut(&mut fastrand::Rng) -> u64) -> u64 {
            let before = self.reads;
            for _ in 0..gets {
                let row = next(&mut self.random);
                self.get(row);
            }
            (self.reads - before) * 1000 / gets
        }
    }

    fn zipf(rows: u64) -> impl Fn(&mut fastrand::Rng) -> u64 {
        let mut sum = 0.0;
        let sums: Vec<f64> = (1..=rows)
            .map(|rank| {
                sum += 1.0 / (rank as f64).powf(0.99);
                sum
            })
            .collect();
        let mut of_rank: Vec<u64> = (0..rows).collect();
        fastrand::Rng::with_seed(1).shuffle(&mut of_rank);
        move |random| {
            let at = random.f64() * sum;
            of_rank[sums.partition_point(|sum| *sum < at)]
        }
    }

    #[test]
    fn memory_goes_to_blocks_or_rows_whichever_costs_less_and_back_again() {
        for (rows_of_block, skewed_most) in [(4, 185), (16, 200), (40, 240)] {
            let mut store = Store::new(3200, rows_of_block);
            // Of most blocks few rows are in use. Without rows, 228, 283 and 313 are read.
            let skewed = zipf(3200 * rows_of_block);
            store.run(300_000, &skewed);
            let reads = store.run(300_000, &skewed);
            assert!(
                reads < skewed_most,
                "skewed, {rows_of_block} rows: {reads} read"
            );

            // It fits as blocks, and as rows only if they are large. With half for rows, a fourth is read.
            let fits = 900 * rows_of_block;
            store.run(120_000, |random| random.u64(..fits));
            let reads = store.run(120_000, |random| random.u64(..fits));
            assert!(reads < 5, "even, {rows_of_block} rows: {reads} read");

            // Blocks that all fit, and a few rows of them in use: rows spare the search.
            let hits = store.files.rows.hits();
            store.run(240_000, |random| random.u64(..900) * rows_of_block);
            let hits = store.files.rows.hits() - hits;
            assert!(hits > 100_000, "hot, {rows_of_block} rows: {hits} found");

            // It fits as rows. Without rows, two thirds are read.
            store.run(120_000, |random| random.u64(..3200) * rows_of_block);
            let reads = store.run(120_000, |random| random.u64(..3200) * rows_of_block);
            assert!(reads < 5, "scattered, {rows_of_block} rows: {reads} read");
        }
    }
}
