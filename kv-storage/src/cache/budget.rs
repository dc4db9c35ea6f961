//! One budget of memory for blocks and rows, which is divided by use.
//!
//! Until it is full, both take what they like. Then one of them must give way: rows if they have more than
//! their share, blocks otherwise. The [`Climber`] moves the share. With one thread, it depends only on the order of
//! calls.

use super::climber::{Climber, Memory, READ_COST, Uses};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// A window ends after one read, or what costs as much, for so many bytes of the budget.
const WINDOW_BYTES: u64 = 16 << 10;
/// But not after fewer reads than this: they would say nothing.
const WINDOW_READS_LEAST: u64 = 1024;
/// Whatever is pinned, blocks and rows have at least this part of the budget.
const LEAST_ROOM: u64 = 8;
/// What was thrown out is known until as much as the whole budget was thrown out after it, counted in so many eras.
const ERAS_KNOWN: u16 = 128;
/// One in so many rows that were thrown out is remembered.
const SAMPLE: u64 = 4;

/// How the memory is used. Shared by both caches.
#[derive(Debug)]
pub(crate) struct Budget {
    total: u64,
    /// Bytes of what is always in memory: indexes and filters of open tables.
    pinned: AtomicU64,
    blocks: AtomicU64,
    rows: AtomicU64,
    /// Bytes that rows may have while there is not enough for all.
    share: AtomicU64,
    /// Blocks, and values in blob files, that were read.
    reads: AtomicU64,
    /// What they and the searches in blocks cost.
    cost: AtomicU64,
    climber: Mutex<Climber>,
}

impl Budget {
    pub(crate) fn new(total_bytes: u64) -> Self {
        Self {
            total: total_bytes,
            pinned: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            share: AtomicU64::new(Climber::new().share(total_bytes)),
            reads: AtomicU64::new(0),
            cost: AtomicU64::new(0),
            climber: Mutex::new(Climber::new()),
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Counts memory that is not to be thrown out.
    pub(crate) fn pin(&self, bytes: u64) {
        self.pinned.fetch_add(bytes, Relaxed);
    }

    /// Takes back what [`pin`](Self::pin) counted.
    pub(crate) fn unpin(&self, bytes: u64) {
        self.pinned.fetch_sub(bytes, Relaxed);
    }

    /// Bytes of blocks and rows above what there is room for.
    pub(crate) fn excess(&self) -> u64 {
        (self.blocks() + self.rows()).saturating_sub(self.room())
    }

    /// Bytes that blocks and rows may take.
    fn room(&self) -> u64 {
        let left = self.total.saturating_sub(self.pinned.load(Relaxed));
        left.max(self.total / LEAST_ROOM)
    }

    /// True if rows are far from having their share.
    pub(super) fn has_room_for_rows(&self) -> bool {
        self.rows() < self.share.load(Relaxed) / 16 * 15
    }

    /// Bytes of rows above their share.
    pub(crate) fn rows_above_share(&self) -> u64 {
        self.rows().saturating_sub(self.share.load(Relaxed))
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks.load(Relaxed)
    }

    pub(super) fn set_blocks(&self, bytes: u64) {
        self.blocks.store(bytes, Relaxed);
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    pub(super) fn change_rows(&self, before: usize, after: usize) {
        self.rows.fetch_add(after as u64, Relaxed);
        self.rows.fetch_sub(before as u64, Relaxed);
    }

    #[cfg(test)]
    pub(super) fn set_share(&self, bytes: u64) {
        self.share.store(bytes, Relaxed);
    }

    /// Counts a read. True if a window ends with it: then call [`divide_anew`](Self::divide_anew).
    pub(crate) fn note_read(&self) -> bool {
        self.reads.fetch_add(1, Relaxed);
        self.note_cost(READ_COST)
    }

    /// Counts so many searches in blocks. True if a window ends with them.
    pub(crate) fn note_searches(&self, count: u64) -> bool {
        self.note_cost(count)
    }

    fn note_cost(&self, cost: u64) -> bool {
        let window = (self.total / WINDOW_BYTES).max(WINDOW_READS_LEAST) * READ_COST;
        let before = self.cost.fetch_add(cost, Relaxed);
        before / window != (before + cost) / window
    }

    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// Moves the share by what came of the last move. `uses` are those since the beginning.
    pub(crate) fn divide_anew(&self, uses: Uses) {
        // If somebody else is at it, this window is added to the next one.
        let Ok(mut climber) = self.climber.try_lock() else {
            return;
        };
        if self.blocks() + self.rows() < self.room() / 8 * 7 {
            climber.pass(uses);
            return;
        }
        let memory = Memory {
            rows: self.rows(),
            blocks: self.blocks(),
        };
        climber.climb(uses, memory);
        self.share.store(climber.share(self.room()), Relaxed);
    }
}

/// Counts what a cache throws out, to tell later how long ago something was.
#[derive(Debug)]
pub(super) struct Eras {
    era_bytes: u64,
    thrown_out: AtomicU64,
}

impl Eras {
    pub(super) fn new(budget: &Budget) -> Self {
        Self {
            era_bytes: (budget.total / u64::from(ERAS_KNOWN)).max(1),
            thrown_out: AtomicU64::new(0),
        }
    }

    /// The era in which something of so many bytes is thrown out. Eras come again after a long time.
    pub(super) fn throw_out(&self, bytes: u64) -> u16 {
        era(self.thrown_out.fetch_add(bytes, Relaxed) / self.era_bytes)
    }

    fn since(&self, then: u16) -> u16 {
        era(self.thrown_out.load(Relaxed) / self.era_bytes).wrapping_sub(then) & ERA_MASK
    }

    /// True if as much memory again would have.
    pub(super) fn is_known(&self, then: u16) -> bool {
        self.since(then) <= ERAS_KNOWN
    }
}

/// Eras have 15 bits.
const ERA_MASK: u16 = 0x7fff;

fn era(count: u64) -> u16 {
    count as u16 & ERA_MASK
}

/// Remembers rows that were thrown out lately, by a part of their hashes. Only one in [`SAMPLE`] hashes is
/// remembered and asked for: for all of them it would cost each read a cache line.
pub(super) struct Ghosts {
    /// The upper half of each is the part of the hash, the lower one the era; 0 is none.
    places: Box<[AtomicU32]>,
}

impl Ghosts {
    /// Enough for rows of 128 bytes; of smaller ones some are forgotten early.
    pub(super) fn new(budget: &Budget) -> Self {
        let count = match budget.total / 1024 / SAMPLE {
            0 => 0,
            count => count.next_power_of_two(),
        };
        Self {
            places: (0..count).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.places.len() as u64 * 4
    }

    pub(super) fn remember(&self, hash: u64, era: u16) {
        if is_sampled(hash)
            && let Some(place) = self.place(hash)
        {
            place.store(mark(hash) | u32::from(era), Relaxed);
        }
    }

    /// The era in which a row of this hash was thrown out, if it is remembered; it no longer is then.
    #[inline]
    pub(super) fn take(&self, hash: u64) -> Option<u16> {
        if !is_sampled(hash) {
            return None;
        }
        let place = self.place(hash)?;
        let found = place.load(Relaxed);
        if found & 0xffff_0000 != mark(hash) {
            return None;
        }
        place.store(0, Relaxed);
        Some(found as u16)
    }

    fn place(&self, hash: u64) -> Option<&AtomicU32> {
        let mask = self.places.len().wrapping_sub(1);
        self.places.get((hash >> 20) as usize & mask)
    }
}

fn is_sampled(hash: u64) -> bool {
    (hash >> 56).is_multiple_of(SAMPLE)
}

fn mark(hash: u64) -> u32 {
    // An empty place is no row's.
    ((hash as u32) | 1) << 16
}

/// Memory that an allocator takes for so many bytes: it has four sizes for each power of two.
pub(super) fn allocated_bytes(bytes: usize) -> usize {
    match bytes {
        0..=128 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(bytes.next_power_of_two() / 8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_have_four_sizes_for_each_power_of_two() {
        for (bytes, allocated) in [
            (1, 16),
            (128, 128),
            (129, 160),
            (257, 320),
            (1070, 1280),
            (4096, 4096),
            (4097, 5120),
        ] {
            assert_eq!(allocated_bytes(bytes), allocated, "{bytes}");
        }
    }

    #[test]
    fn pinned_memory_leaves_less_for_the_rest_but_never_nothing() {
        let budget = Budget::new(8000);
        budget.set_blocks(5000);
        budget.change_rows(0, 3000);
        assert_eq!(budget.excess(), 0);
        budget.pin(1000);
        assert_eq!(budget.excess(), 1000);
        budget.pin(100_000);
        assert_eq!(budget.excess(), 7000);
        budget.unpin(101_000);
        assert_eq!(budget.excess(), 0);
    }

    #[test]
    fn ghosts_tell_when_their_row_was_thrown_out_once() {
        let budget = Budget::new(1 << 20);
        let (ghosts, eras) = (Ghosts::new(&budget), Eras::new(&budget));
        let hash = 0x0034_5678_9abc_def0;
        assert_eq!(ghosts.take(hash), None);
        let unsampled = hash | 1 << 56;
        ghosts.remember(unsampled, 0);
        assert_eq!(ghosts.take(unsampled), None);
        ghosts.remember(hash, eras.throw_out(100));
        assert_eq!(ghosts.take(hash ^ 0xff00), None);
        eras.throw_out(1 << 16);
        let era = ghosts.take(hash).unwrap();
        assert!(eras.is_known(era));
        assert_eq!(ghosts.take(hash), None);
        eras.throw_out(15 << 16);
        assert!(eras.is_known(era));
        eras.throw_out(1 << 16);
        assert!(!eras.is_known(era));
    }
}
