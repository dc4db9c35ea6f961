//! Which tables make up the store: levels of runs of tables.
//!
//! Invariants:
//! 1. Within a run, tables are sorted and their key ranges do not overlap.
//! 2. Within a level, runs stand newest first; anything in a newer run is newer than what an older
//!    one has for the same key.
//! 3. The same holds between levels: a lower number is newer.
//! 4. Level 0 takes one run per flush, numbered by its table, and one per ingest, with a number of its own
//!    from the same counter. The levels between are the middle:
//!    compaction puts its runs into level 1, numbered by the newest run of level 0 they were made
//!    from. The last level is the bottom, one run.
//! 5. Its blob files are those that its tables point into, and what is live in them is the sum of what the
//!    tables point to; see [`blob`](crate::blob).

mod blobs;
mod edit;
mod manifest;

pub(crate) use blobs::BlobUses;
pub(crate) use edit::{Edit, NewTable};
pub(crate) use manifest::{Catalog, Manifest, read_current};

use crate::compaction::Place;
use crate::hash::key_hash;
use crate::ranges::{Fragment, Fragments};
use crate::table::{Table, TableSummary};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Levels of a store.
pub(crate) const LEVELS: usize = 7;
/// The last level, which holds one run.
pub(crate) const BOTTOM: u8 = 6;
const _: () = assert!(LEVELS == BOTTOM as usize + 1);

/// A table at its place. `R` is the open table; pure code and tests use `()`.
#[derive(Debug)]
pub(crate) struct Placed<R> {
    pub summary: TableSummary,
    pub reader: R,
    pub reads: ReadCost,
}

/// What readers lost on a table because it is in the way: they looked into it in vain.
///
/// Counted in bytes that compaction could rewrite in the same time, for one of many reads, so that
/// readers seldom touch the shared counter.
#[derive(Debug, Default)]
pub(crate) struct ReadCost {
    lost_bytes: AtomicU64,
}

impl ReadCost {
    /// One in so many reads is counted, for all of them.
    const SAMPLE: u64 = 64;
    /// A point read that a filter turned away: about 30 ns.
    const MISS_BYTES: u64 = 8;
    /// A scan that had to merge one more run: about 2 microseconds.
    const SCAN_BYTES: u64 = 512;

    fn samples(hash: u64) -> bool {
        hash.is_multiple_of(Self::SAMPLE)
    }

    /// Notes a point read that found nothing. `hash` is the key's: it decides which reads count.
    pub(crate) fn note_miss(&self, hash: u64) {
        if Self::samples(hash) {
            self.add(Self::SAMPLE * Self::MISS_BYTES);
        }
    }

    /// Notes that a scan began in the table, at a key of this hash.
    pub(crate) fn note_scan(&self, hash: u64) {
        if Self::samples(hash) {
            self.add(Self::SAMPLE * Self::SCAN_BYTES);
        }
    }

    fn add(&self, bytes: u64) {
        self.lost_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn lost_bytes(&self) -> u64 {
        self.lost_bytes.load(Ordering::Relaxed)
    }
}

impl<R> Placed<R> {
    pub(crate) fn new(summary: TableSummary, reader: R) -> Self {
        Self {
            summary,
            reader,
            reads: ReadCost::default(),
        }
    }

    /// True if the table's key range has a key in common with `smallest..=largest`.
    pub(crate) fn overlaps(&self, smallest: &[u8], largest: &[u8]) -> bool {
        *self.summary.smallest <= *largest && *smallest <= *self.summary.largest
    }
}

/// Tables that together hold each key at most in one place, sorted by key.
#[derive(Debug)]
pub(crate) struct Run<R> {
    pub id: u64,
    pub tables: Vec<Arc<Placed<R>>>,
    /// Some of the tables have deleted ranges.
    pub has_ranges: bool,
}

impl<R> Run<R> {
    /// A run of sorted tables that do not overlap.
    pub(crate) fn new(id: u64, tables: Vec<Placed<R>>) -> Self {
        Self {
            id,
            has_ranges: tables.iter().any(|table| table.summary.ranges > 0),
            tables: tables.into_iter().map(Arc::new).collect(),
        }
    }

    /// The only table that may hold `key`.
    pub(crate) fn table_for(&self, key: &[u8]) -> Option<&Arc<Placed<R>>> {
        let at = self
            .tables
            .partition_point(|table| *table.summary.largest < *key);
        self.tables
            .get(at)
            .filter(|table| *table.summary.smallest <= *key)
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.tables
            .iter()
            .map(|table| table.summary.size_bytes)
            .sum()
    }
}

// Not derived, because `R` need not be `Clone`.
impl<R> Clone for Run<R> {
    fn clone(&self) -> Self {
        Self {
            id: self.id,
            tables: self.tables.clone(),
            has_ranges: self.has_ranges,
        }
    }
}

/// Runs of one level, newest first.
#[derive(Debug)]
pub(crate) struct Level<R> {
    pub runs: Vec<Run<R>>,
}

impl<R> Level<R> {
    pub(crate) fn size_bytes(&self) -> u64 {
        self.runs.iter().map(Run::size_bytes).sum()
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Placed<R>>> {
        self.runs.iter().flat_map(|run| &run.tables)
    }

    fn insert(&mut self, run_id: u64, table: Arc<Placed<R>>) {
        let at = self.runs.partition_point(|run| run.id > run_id);
        if self.runs.get(at).is_none_or(|run| run.id != run_id) {
            self.runs.insert(
                at,
                Run {
                    id: run_id,
                    tables: Vec::new(),
                    has_ranges: false,
                },
            );
        }
        let tables = &mut self.runs[at].tables;
        let place = tables.partition_point(|other| other.summary.smallest < table.summary.smallest);
        tables.insert(place, table);
    }
}

impl<R> Clone for Level<R> {
    fn clone(&self) -> Self {
        Self {
            runs: self.runs.clone(),
        }
    }
}

/// An immutable set of tables. Changes make a new version; readers keep theirs.
#[derive(Debug)]
pub(crate) struct Version<R = Arc<Table>> {
    pub levels: Vec<Level<R>>,
    /// The blob files that its tables point into.
    pub blobs: BlobUses,
}

impl<R> Clone for Version<R> {
    fn clone(&self) -> Self {
        Self {
            levels: self.levels.clone(),
            blobs: self.blobs.clone(),
        }
    }
}

impl Version {
    /// About how many bytes the tables hold within a range of keys, by their indexes, with what they point to.
    pub(crate) fn approximate_size(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> u64 {
        let runs = self.runs();
        runs.map(|run| run.approximate_size(start, end)).sum()
    }

    /// About how many bytes deleted ranges hide in runs older than the one at `place`.
    pub(crate) fn covered_bytes(&self, ranges: &Fragments, place: Place) -> u64 {
        let older = self
            .placed_runs()
            .filter(|(here, _)| here.age() > place.age());
        let hidden = |run: &Run<Arc<Table>>| -> u64 {
            let size = |it: Fragment<'_>| {
                run.approximate_size(Bound::Included(it.start), Bound::Excluded(it.end))
            };
            ranges.iter().map(size).sum()
        };
        older.map(|(_, run)| hidden(run)).sum()
    }
}

impl Run<Arc<Table>> {
    fn approximate_size(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> u64 {
        let first = match start {
            Bound::Unbounded => 0,
            Bound::Included(key) | Bound::Excluded(key) => self
                .tables
                .partition_point(|table| *table.summary.largest < *key),
        };
        let is_in_front = |table: &&Arc<Placed<Arc<Table>>>| match end {
            Bound::Unbounded => true,
            Bound::Included(key) | Bound::Excluded(key) => *table.summary.smallest <= *key,
        };
        let inside = |table: &Arc<Placed<Arc<Table>>>| {
            let summary = &table.summary;
            let before = |key: &[u8]| table.reader.bytes_before(key);
            let from = match start {
                Bound::Unbounded => 0,
                Bound::Included(key) | Bound::Excluded(key) => before(key),
            };
            // What is not data (filter, index) belongs to a range that has all the rest of the table.
            let to = match end {
                Bound::Included(key) | Bound::Excluded(key) if *key <= *summary.largest => {
                    before(key)
                }
                Bound::Unbounded | Bound::Included(_) | Bound::Excluded(_) => summary.size_bytes,
            };
            to.saturating_sub(from)
        };
        // What lies in blob files is taken to be spread evenly over a table.
        let with_blobs = |table: &Arc<Placed<Arc<Table>>>| {
            let summary = &table.summary;
            let (bytes, whole) = (inside(table), summary.size_bytes.max(1));
            let referenced = u128::from(summary.references.bytes()) * u128::from(bytes);
            bytes + u64::try_from(referenced / u128::from(whole)).unwrap_or(u64::MAX)
        };
        let overlapping = self.tables[first..].iter().take_while(is_in_front);
        overlapping.map(with_blobs).sum()
    }
}

impl<R> Version<R> {
    pub(crate) fn empty() -> Self {
        Self {
            levels: (0..LEVELS).map(|_| Level { runs: Vec::new() }).collect(),
            blobs: BlobUses::default(),
        }
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Placed<R>>> {
        self.levels.iter().flat_map(Level::tables)
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.levels.iter().map(Level::size_bytes).sum()
    }

    /// All runs, newest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run<R>> {
        self.levels.iter().flat_map(|level| &level.runs)
    }

    /// Notes that a scan that begins at `key` must merge all runs.
    pub(crate) fn note_scan(&self, key: &[u8]) {
        let hash = key_hash(key);
        if ReadCost::samples(hash) {
            for table in self.runs().filter_map(|run| run.table_for(key)) {
                table.reads.note_scan(hash);
            }
        }
    }

    /// Those of the tables `files` that stand in the run at `place`, by key.
    pub(crate) fn tables_of(&self, place: Place, files: &[u64]) -> Vec<Arc<Placed<R>>> {
        let runs = &self.levels[usize::from(place.level)].runs;
        let run = runs.iter().filter(|run| run.id == place.run);
        run.flat_map(|run| &run.tables)
            .filter(|table| files.contains(&table.summary.file))
            .cloned()
            .collect()
    }

    /// All runs with their places, newest first.
    pub(crate) fn placed_runs(&self) -> impl Iterator<Item = (Place, &Run<R>)> {
        (0u8..).zip(&self.levels).flat_map(|(level, runs)| {
            let placed = move |run: &Run<R>| Place { level, run: run.id };
            runs.runs.iter().map(move |run| (placed(run), run))
        })
    }

    /// First and last keys of all tables in runs older than the one at `place`.
    pub(crate) fn ranges_older_than(&self, place: Place) -> Vec<(Vec<u8>, Vec<u8>)> {
        let older = self
            .placed_runs()
            .filter(|(here, _)| here.age() > place.age());
        let summaries = older.flat_map(|(_, run)| run.tables.iter().map(|table| &table.summary));
        summaries
            .map(|table| (table.smallest.clone(), table.largest.clone()))
            .collect()
    }

    /// The version after an edit. A table that only changes its place keeps its reader; `open`
    /// gives readers to new ones.
    pub(crate) fn apply<E>(
        &self,
        edit: &Edit,
        open: impl FnMut(&TableSummary) -> Result<R, E>,
    ) -> Result<Self, E> {
        let next = self.clone().apply_unchecked(edit, open)?;
        debug_assert!(next.is_ordered());
        debug_assert!(next.counts_blobs_right());
        Ok(next)
    }

    /// As [`apply`](Self::apply), for an edit from a file, which may say anything. A table that is added without being
    /// removed where it was stands twice then.
    pub(crate) fn apply_unchecked<E>(
        mut self,
        edit: &Edit,
        mut open: impl FnMut(&TableSummary) -> Result<R, E>,
    ) -> Result<Self, E> {
        self.blobs.add(&edit.blobs);
        let taken_out = self.take_out(&edit.removed);
        let is_added = |file: u64| edit.added.iter().any(|new| new.table.file == file);
        for table in taken_out.iter().filter(|it| !is_added(it.summary.file)) {
            self.blobs.release(&table.summary.references);
        }
        for new in &edit.added {
            let is_it = |table: &&Arc<Placed<R>>| table.summary.file == new.table.file;
            let moved = taken_out.iter().find(is_it).cloned();
            let placed = match moved {
                Some(placed) => placed,
                None => {
                    self.blobs.hold(&new.table.references);
                    Arc::new(Placed::new(new.table.clone(), open(&new.table)?))
                }
            };
            self.levels[usize::from(new.level)].insert(new.run, placed);
        }
        for run in self.levels.iter_mut().flat_map(|level| &mut level.runs) {
            run.has_ranges = run.tables.iter().any(|table| table.summary.ranges > 0);
        }
        self.blobs.drop_unused();
        Ok(self)
    }

    /// Takes tables out of their places, and runs that have none left.
    fn take_out(&mut self, files: &[u64]) -> Vec<Arc<Placed<R>>> {
        let mut taken = Vec::new();
        for level in &mut self.levels {
            for run in &mut level.runs {
                taken.extend(
                    run.tables
                        .extract_if(.., |table| files.contains(&table.summary.file)),
                );
            }
            level.runs.retain(|run| !run.tables.is_empty());
        }
        taken
    }

    /// Checks invariant 1, and that no file is placed twice.
    pub(crate) fn is_ordered(&self) -> bool {
        let sorted = |run: &Run<R>| {
            run.tables
                .is_sorted_by(|a, b| a.summary.largest < b.summary.smallest)
                && run
                    .tables
                    .iter()
                    .all(|table| table.summary.smallest <= table.summary.largest)
        };
        let mut files: Vec<u64> = self.tables().map(|table| table.summary.file).collect();
        files.sort_unstable();
        self.levels
            .iter()
            .all(|level| level.runs.iter().all(sorted))
            && files.is_sorted_by(|a, b| a < b)
    }

    /// Checks that every table points into known blob files, and that what is live in them is the sum over all
    /// tables.
    pub(crate) fn counts_blobs_right(&self) -> bool {
        let mut counted = BlobUses::default();
        counted.add(&self.blobs.summaries());
        for table in self.tables() {
            counted.hold(&table.summary.references);
        }
        counted.drop_unused();
        let is_known = |file| self.blobs.get(file).is_some();
        let mut references = self
            .tables()
            .flat_map(|table| table.summary.references.iter());
        references.all(|reference| is_known(reference.file)) && counted == self.blobs
    }

    /// How many bytes in blob files so many new entries may have made garbage of, about.
    pub(crate) fn blob_bytes_of(&self, entries: u64) -> u64 {
        let live: u64 = self.blobs.iter().map(|blob| blob.live_bytes).sum();
        let all: u64 = self.tables().map(|table| table.summary.entries).sum();
        let share = u128::from(live) * u128::from(entries) / u128::from(all.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// Everything as one edit to an empty version.
    pub(crate) fn snapshot(&self) -> Edit {
        let mut edit = Edit {
            blobs: self.blobs.summaries(),
            ..Edit::default()
        };
        for (number, level) in (0u8..).zip(&self.levels) {
            for run in &level.runs {
                edit.added.extend(run.tables.iter().map(|table| NewTable {
                    level: number,
                    run: run.id,
                    table: table.summary.clone(),
                }));
            }
        }
        edit
    }
}
