//! The row cache: single values found in tables, by key.
//!
//! A block holds about one hot row, so for skewed reads a byte here is worth many in the block cache.
//!
//! Invariants:
//! 1. A row is given to a reader only if it is the newest version that the reader may see. A row
//!    remembers the number `read_at` as of which it was looked up, and [`on_write`](RowCache::on_write)
//!    notes the number of each write (in a stripe that several keys share) *before* that write becomes
//!    visible. A reader that sees a write therefore sees its note, and a row with a `read_at` below
//!    the note is void. It does not matter when a fill arrives, nor how long its read took.
//! 2. What changes without numbers of its own (a filter dropping rows) goes by the epoch: it is
//!    raised after the change is visible, and a reader takes the epoch before it looks.
//! 3. Only values found in tables get in, so nothing here is less durable than a table.
//!
//! Rows lie in sets of up to 16, chosen by hash. A row gets in at its second touch, or at its first
//! while rows are far from having their share: each set remembers
//! a byte of the last few hashes that were offered to it, and some of the rows that were thrown out lately are
//! remembered too. Bytes are bounded over all sets, by the [`Budget`] that rows share with blocks; a hand goes
//! round the sets and takes rows that were not touched since it last came by.

use super::budget::{Budget, Eras, Ghosts};
use super::counter::Counter;
use super::row_set::SharedSet;
use crate::hash::key_hash;
use crate::key::Seq;
use crate::planted::planted;
use crate::prefetch::prefetch;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes of the whole budget for each set. Sets full of rows of 500 bytes would take all of it.
const SET_BYTES: u64 = 8192;
/// Larger rows stay out: copying them costs more than finding them.
const ROW_BYTES_MOST: usize = 8 << 10;
/// Most stripes of write notes.
const STRIPES_MOST: u64 = 1 << 18;

/// Taken before a read looks at anything; says how far its result is known to be the newest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadMark {
    pub at: Seq,
    pub epoch: u64,
}

/// Shared by all threads. With one thread, what it holds depends only on the order of calls.
pub(crate) struct RowCache {
    budget: Arc<Budget>,
    eras: Eras,
    ghosts: Ghosts,
    /// None if the cache is off; otherwise a power of two, like the stripes.
    sets: Box<[SharedSet]>,
    /// The set that the hand comes to next.
    hand: AtomicUsize,
    /// The newest write to a key of each stripe.
    notes: Box<[AtomicU64]>,
    /// The newest write to a range of keys.
    range_note: AtomicU64,
    epoch: AtomicU64,
    hits: Counter,
}

impl RowCache {
    /// With a budget of 0 it keeps nothing.
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        let sets = match budget.total() {
            0 => 0,
            bytes => (bytes / SET_BYTES).max(1).next_power_of_two(),
        };
        let stripes = (sets * 8).min(STRIPES_MOST);
        let ghosts = Ghosts::new(budget);
        budget.pin(sets * size_of::<SharedSet>() as u64 + stripes * 8 + ghosts.size_bytes());
        Self {
            budget: Arc::clone(budget),
            eras: Eras::new(budget),
            ghosts,
            sets: (0..sets).map(|_| SharedSet::default()).collect(),
            hand: AtomicUsize::new(0),
            notes: (0..stripes).map(|_| AtomicU64::new(0)).collect(),
            range_note: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            hits: Counter::default(),
        }
    }

    /// Begins to load what [`get`](Self::get) looks at first.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(set) = self.set(hash) {
            prefetch(set);
        }
    }

    /// Begins to load what [`on_write`](Self::on_write) changes.
    #[inline]
    pub(crate) fn prefetch_note(&self, hash: u64) {
        if let Some(note) = self.stripe(hash) {
            prefetch(note);
        }
    }

    /// The epoch, to be taken before the view and the number of a read.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The newest value of a key for a reader at a number. `None` says nothing about the key.
    pub(crate) fn get(&self, key: &[u8], hash: u64, mark: ReadMark) -> Option<(Seq, Bytes)> {
        let set = self.set(hash)?;
        if !set.may_hold(tag(hash)) {
            return None;
        }
        // Somebody else looks at a neighbour: the tables have the value too.
        let mut set = set.try_lock()?;
        let row = set.find(key, tag(hash))?;
        let is_newest =
            row.epoch() == mark.epoch && row.seq() <= mark.at && self.note(hash) <= row.read_at();
        if !is_newest {
            return None;
        }
        self.hits.add(hash as usize);
        Some((row.seq(), Bytes::copy_from_slice(row.value())))
    }

    /// Offers what a read found in a table. It is kept if its key was offered before, or while rows are far from
    /// having their share. The caller makes room afterwards.
    pub(crate) fn offer(&self, key: &[u8], hash: u64, value: &[u8], seq: Seq, mark: ReadMark) {
        let most = (self.budget.total() / 64) as usize;
        if key.len() + value.len() > ROW_BYTES_MOST.min(most) {
            return;
        }
        let Some(shared) = self.set(hash) else {
            return;
        };
        let era = self.ghosts.take(hash);
        let returns = era.is_some_and(|era| self.eras.is_known(era));
        // Most rows are touched once: nothing else is looked at for them.
        if !shared.was_touched(tag(hash)) && !returns && !self.budget.has_room_for_rows() {
            return;
        }
        if self.note(hash) > mark.at {
            return;
        }
        let Some(mut set) = shared.try_lock() else {
            return;
        };
        let before = set.bytes();
        set.insert(tag(hash), key, value, seq, mark);
        let after = set.bytes();
        drop(set);
        self.budget.change_rows(before, after);
    }

    /// Notes a write. Call it for each written key before the write becomes visible.
    pub(crate) fn on_write(&self, hash: u64, seq: Seq) {
        if planted!("keep a cached row over a write") {
            return;
        }
        // Relaxed is enough: who sees the write has synchronised with its publication.
        if let Some(note) = self.stripe(hash) {
            note.fetch_max(seq.0, Ordering::Relaxed);
        }
    }

    /// Notes a write to many keys (a deleted range, ingested tables): all rows are void. Call it before
    /// the write becomes visible.
    pub(crate) fn on_range_write(&self, seq: Seq) {
        self.range_note.fetch_max(seq.0, Ordering::Relaxed);
    }

    /// Makes all rows void after contents changed without a write, as when a compaction dropped expired
    /// rows. Call it once the change is visible.
    pub(crate) fn start_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Lookups that found their row.
    pub(crate) fn hits(&self) -> u64 {
        self.hits.sum()
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.budget.rows()
    }

    /// The newest write that may have changed a key.
    fn note(&self, hash: u64) -> Seq {
        let key = self
            .stripe(hash)
            .map_or(0, |note| note.load(Ordering::Relaxed));
        Seq(key.max(self.range_note.load(Ordering::Relaxed)))
    }

    fn stripe(&self, hash: u64) -> Option<&AtomicU64> {
        let mask = self.notes.len().wrapping_sub(1);
        self.notes.get((hash >> 8) as usize & mask)
    }

    fn set(&self, hash: u64) -> Option<&SharedSet> {
        let mask = self.sets.len().wrapping_sub(1);
        self.sets.get((hash >> 40) as usize & mask)
    }

    /// Moves the hand on until rows take `bytes` less; false if there were not so many, or others were in the way.
    pub(crate) fn shrink(&self, bytes: u64) -> bool {
        let mut left = bytes as usize;
        // In two rounds every row was found untouched once, unless others use the cache at the same time.
        for _ in 0..2 * self.sets.len() {
            if left == 0 {
                return true;
            }
            let at = self.hand.fetch_add(1, Ordering::Relaxed) & (self.sets.len() - 1);
            if let Some(mut set) = self.sets[at].try_lock_filled() {
                let mut freed = 0;
                set.take_untouched(|row| {
                    let bytes = row.memory_bytes();
                    freed += bytes;
                    let era = self.eras.throw_out(bytes as u64);
                    self.ghosts.remember(key_hash(row.key()), era);
                });
                drop(set);
                if freed > 0 {
                    self.budget.change_rows(freed, 0);
                }
                left = left.saturating_sub(freed);
            }
        }
        left == 0
    }
}

/// The part of a hash that a set compares; never 0.
fn tag(hash: u64) -> u8 {
    ((hash >> 32) as u8).max(1)
}

impl fmt::Debug for RowCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowCache")
            .field("size_bytes", &self.size_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
