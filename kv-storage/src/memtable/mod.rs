//! The memtable: recent writes in memory, every version of every key.
//!
//! An append-only arena holds the entries; a hash index finds them by key; their order is made only
//! when a scan or the flush asks for it (`order.rs`). Compared with an ordered map this makes puts and
//! gets several times faster, and a scan pays for what came in since the last one.
//!
//! Writing takes three steps, so that writers wait for one another as little as possible:
//! [`reserve`](Memtable::reserve) under the writer's lock, [`fill`](Memtable::fill) without it, and
//! [`publish`](Memtable::publish) in the order of the reservations. Readers take no lock.
//!
//! Invariants:
//! 1. A bucket's chain runs from newer to older entries, because entries are chained in the order of
//!    their numbers. So the first entry of a key at or below a number is its newest there.
//! 2. An entry is chained only after it was published, and its place in the chain never changes.
//! 3. Deleted ranges are entries of the arena too, but neither chained nor ordered: readers ask
//!    `ranges.rs` for them.

mod arena;
mod cells;
mod cursor;
mod entry;
mod order;
mod pool;
mod ranges;

pub(crate) use cursor::MemCursor;
pub(crate) use entry::{Entry, entry_bytes};
pub(crate) use pool::MemoryPool;
pub(crate) use ranges::RANGES_MOST;

use crate::batch::Operation;
use crate::hash::key_hash;
use crate::key::Seq;
use crate::prefetch::prefetch;
use crate::ranges::Fragments;
use arena::{Arena, Slot};
use cells::Cells;
use entry::Peeked;
use order::Order;
use ranges::Ranges;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Offset 0 means "none", so the first entry begins behind it.
const FIRST: usize = 8;

/// Arena bytes for each bucket of the index: about one entry with small values.
const BYTES_PER_BUCKET: usize = 128;

/// Versions of one stretch of the log. Shared by writers and any number of readers.
#[derive(Debug)]
pub(crate) struct Memtable {
    arena: Arena,
    /// Newest entry of each bucket, 0 if none. Their number is a power of two.
    buckets: Cells,
    entries: AtomicU64,
    order: Order,
    ranges: Ranges,
}

/// What a batch takes up in a memtable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// Bytes of entries, as counted by [`entry_bytes`].
    pub bytes: usize,
    /// Deleted ranges.
    pub ranges: u32,
}

/// Room for the entries of a batch.
#[derive(Debug)]
#[must_use = "later reservations cannot be published before this one"]
pub(crate) struct Reservation {
    slot: Slot,
}

impl Memtable {
    /// A memtable for `size_bytes` of entries, as counted by [`entry_bytes`]. Its memory goes round in the pool.
    pub(crate) fn new(pool: &Arc<MemoryPool>, size_bytes: usize) -> Self {
        let arena = Arena::new(pool, arena_bytes(size_bytes));
        let mut first = arena.reserve(FIRST).expect("an arena is larger than that");
        arena.publish(&mut first, FIRST);
        let buckets = (size_bytes / BYTES_PER_BUCKET).next_power_of_two().max(16);
        Self {
            arena,
            buckets: Cells::new(buckets),
            entries: AtomicU64::new(0),
            order: Order::new(FIRST),
            ranges: Ranges::default(),
        }
    }

    /// Begins to load what [`publish`](Self::publish) changes for a key with this hash.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch(self.bucket(hash as u32));
    }

    /// Takes room for a batch, or none if the memtable is too full. Not for two threads at once.
    pub(crate) fn reserve(&self, need: Need) -> Option<Reservation> {
        if !self.ranges.have_room(need.ranges) {
            return None;
        }
        let slot = self.arena.reserve(need.bytes)?;
        self.ranges.reserve(need.ranges);
        Some(Reservation { slot })
    }

    /// True if [`reserve`](Self::reserve) would succeed.
    pub(crate) fn has_room(&self, need: Need) -> bool {
        self.ranges.have_room(need.ranges) && self.arena.has_room(need.bytes)
    }

    /// Writes a batch's operations into their room, numbered from `first` on, and calls `note` with each, the
    /// hash of its key, and its number. Readers do not see them yet.
    pub(crate) fn fill<'a>(
        &self,
        reservation: &mut Reservation,
        first: Seq,
        operations: impl Iterator<Item = Operation<'a>>,
        mut note: impl FnMut(&Operation<'_>, u64, Seq),
    ) {
        let bytes = self.arena.bytes_mut(&mut reservation.slot);
        let mut at = 0;
        let mut seq = first;
        for operation in operations {
            let hash = key_hash(operation.key);
            note(&operation, hash, seq);
            at += Entry::write(&mut bytes[at..], hash as u32, seq, &operation);
            seq = seq.next();
        }
        assert_eq!(
            at,
            bytes.len(),
            "a reservation is exactly as large as its batch"
        );
    }

    /// Lets readers see a filled reservation. Call in the order in which they were made.
    ///
    /// Readers must not look above the last number that the store made visible, so they see all of
    /// a batch or nothing.
    pub(crate) fn publish(&self, mut reservation: Reservation) {
        let slot = &mut reservation.slot;
        loop {
            let bytes = self.arena.bytes_mut(slot);
            if bytes.is_empty() {
                return;
            }
            let Peeked {
                hash,
                size,
                is_range,
            } = Entry::peek(bytes);
            self.entries.fetch_add(1, Ordering::Relaxed);
            if is_range {
                let at = self.arena.publish(slot, size);
                let entry = self.entry(offset(at));
                self.ranges.add(entry.key, entry.value, entry.seq);
                continue;
            }
            let bucket = self.bucket(hash);
            // Only the publisher of the moment stores to buckets.
            Entry::write_next(bytes, bucket.load(Ordering::Relaxed));
            let at = self.arena.publish(slot, size);
            // Release: a reader who finds the entry finds its bytes and its chain.
            bucket.store(offset(at), Ordering::Release);
        }
    }

    /// The newest version of `key`, whose hash is `hash`, numbered at most `at`.
    pub(crate) fn get(&self, key: &[u8], hash: u64, at: Seq) -> Option<Entry<'_>> {
        let hash = hash as u32;
        let mut offset = self.bucket(hash).load(Ordering::Acquire);
        while offset != 0 {
            let entry = Entry::read(&self.arena, offset);
            if entry.hash == hash && entry.seq <= at && entry.key == key {
                return Some(entry);
            }
            offset = entry.next;
        }
        None
    }

    /// The newest delete of a range with `key`, numbered at most `at`.
    #[inline]
    pub(crate) fn deleted_at(&self, key: &[u8], at: Seq) -> Option<Seq> {
        self.ranges.covering(key, at)
    }

    /// Its deleted ranges, in a few parts that overlap.
    pub(crate) fn ranges(&self) -> Vec<Arc<Fragments>> {
        self.ranges.parts()
    }

    fn bucket(&self, hash: u32) -> &AtomicU32 {
        let buckets = self.buckets.as_slice();
        &buckets[hash as usize & (buckets.len() - 1)]
    }

    /// Memory that entries take, reserved ones included, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        self.arena.reserved() - FIRST
    }

    /// Versions held, tombstones included.
    pub(crate) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.size_bytes() == 0
    }

    fn entry(&self, offset: u32) -> Entry<'_> {
        Entry::read(&self.arena, offset)
    }
}

/// Most bytes of entries in one memtable.
pub(crate) const MAX_MEMTABLE_BYTES: usize = 1 << 30;

/// Memory for entries of so many bytes.
fn arena_bytes(size_bytes: usize) -> usize {
    FIRST + size_bytes
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("memtables are limited to 1 GiB")
}

#[cfg(test)]
mod tests;
