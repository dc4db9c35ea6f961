//! One budget of memory for blocks and rows, which is divided by use.
//!
//! Until it is full, both take what they like. Then one of them must give way: rows if they have more than
//! their share, blocks otherwise. The share moves by what was missed: a block that is read again soon after it
//! was thrown out says that blocks have too little, a row that is asked for soon after it was thrown out says
//! the same of rows (Megiddo and Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST 2003). Soon
//! means: before so many bytes of its kind were thrown out after it, the same number for both. So both
//! counts estimate what the next bytes would save, and the share rests where they save the same.
//!
//! A row whose block was in memory anyway saves little, and counts less. With one thread, the share depends
//! only on the order of calls.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The bytes thrown out that count as "soon" are so many times smaller than the budget.
const SOON: u64 = 8;
/// So many eras are "soon": eras measure how much was thrown out since something was.
const ERAS_SOON: u16 = 16;
/// A row that saves a search in a block, but no reading, counts so many times less.
const SEARCH_COUNTS_LESS: u64 = 16;
/// Rows always have at least this part of the budget: with none, nothing would tell that they need more.
const LEAST_SHARE: u64 = 256;
/// And blocks this part.
const LEAST_REST: u64 = 16;
/// One in so many rows tells what rows lose.
const SAMPLE: u64 = 4;
/// What one miss moves, as a part of the budget.
const STEP: u64 = 1 << 14;

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
}

impl Budget {
    pub(crate) fn new(total_bytes: u64) -> Self {
        Self {
            total: total_bytes,
            pinned: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            share: AtomicU64::new(total_bytes / 4),
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
        // However much is pinned, something is left to work with.
        let room = self.total.saturating_sub(self.pinned.load(Relaxed));
        let room = room.max(self.total / SOON);
        (self.blocks() + self.rows()).saturating_sub(room)
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

    /// A block was read that more memory for blocks would have kept.
    pub(super) fn note_lost_block(&self) {
        let least = self.total / LEAST_SHARE;
        self.move_share(|share| share.saturating_sub(self.step()).max(least));
    }

    /// A row was looked up that more memory for rows would have kept. `was_read` says that its block had to be
    /// read.
    pub(super) fn note_lost_row(&self, was_read: bool) {
        let step = SAMPLE * self.step();
        let step = if was_read {
            step
        } else {
            step / SEARCH_COUNTS_LESS
        };
        let most = self.total - self.total / LEAST_REST;
        self.move_share(|share| (share + step).min(most));
    }

    fn step(&self) -> u64 {
        (self.total / STEP).max(SEARCH_COUNTS_LESS)
    }

    fn move_share(&self, moved: impl Fn(u64) -> u64) {
        // If two threads meet, one of the steps may be lost, which does no harm.
        self.share.store(moved(self.share.load(Relaxed)), Relaxed);
    }

    #[cfg(test)]
    pub(super) fn share(&self) -> u64 {
        self.share.load(Relaxed)
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
            era_bytes: (budget.total / SOON / u64::from(ERAS_SOON)).max(1),
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

    /// True if a little more memory would have kept what was thrown out then.
    pub(super) fn is_soon(&self, then: u16) -> bool {
        self.since(then) <= ERAS_SOON
    }

    /// True if as much memory again would have.
    pub(super) fn is_known(&self, then: u16) -> bool {
        u64::from(self.since(then)) <= SOON * u64::from(ERAS_SOON)
    }
}

/// Eras have 15 bits.
const ERA_MASK: u16 = 0x7fff;

fn era(count: u64) -> u16 {
    count as u16 & ERA_MASK
}

/// Remembers rows that were thrown out lately, by a part of their hashes. Only one in [`SAMPLE`] hashes is
/// remembered and asked for, and counts for all of them: it would cost each read a cache line.
pub(super) struct Ghosts {
    /// The upper half of each is the part of the hash, the lower one the era; 0 is none.
    places: Box<[AtomicU32]>,
}

impl Ghosts {
    /// Enough for rows of 128 bytes; of smaller ones some are forgotten early.
    pub(super) fn new(budget: &Budget) -> Self {
        let count = match budget.total / SOON / 128 / SAMPLE {
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
    fn the_share_moves_towards_what_was_lost_and_stops_at_its_bounds() {
        let budget = Budget::new(64 << 20);
        let before = budget.share();
        budget.note_lost_row(true);
        let moved = budget.share() - before;
        for _ in 0..SEARCH_COUNTS_LESS {
            budget.note_lost_row(false);
        }
        assert_eq!(budget.share(), before + 2 * moved);
        (0..2 * SAMPLE).for_each(|_| budget.note_lost_block());
        assert_eq!(budget.share(), before);
        (0..1 << 15).for_each(|_| budget.note_lost_block());
        assert_eq!(budget.share(), 256 << 10);
        (0..1 << 15).for_each(|_| budget.note_lost_row(true));
        assert_eq!(budget.share(), 60 << 20);
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
        assert!(eras.is_soon(era) && eras.is_known(era));
        assert_eq!(ghosts.take(hash), None);
        eras.throw_out(1 << 17);
        assert!(!eras.is_soon(era) && eras.is_known(era));
        eras.throw_out(1 << 20);
        assert!(!eras.is_known(era));
    }
}
