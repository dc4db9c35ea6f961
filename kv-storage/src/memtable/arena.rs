//! Memory that one writer after the other appends to while any number of readers look at what is
//! already there, without locks.
//!
//! Invariants:
//! 1. `published <= reserved <= size`. Both only grow.
//! 2. Bytes below `published` never change again; only they are readable.
//! 3. Each byte at or above `published` and below `reserved` belongs to exactly one [`Slot`], and only
//!    through that slot is it written.
//! 4. Slots are published in the order in which they were reserved.
//!
//! Readers take no lock and pin no epoch: memory is given back only with the whole arena.

#![expect(
    unsafe_code,
    reason = "shared memory that is written while it is read, by ranges that never overlap"
)]

use super::pool::MemoryPool;
use memmap2::MmapMut;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Arenas made so far, which numbers them: the pool gives the memory of one to the next, so it is no name.
static MADE: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
pub(super) struct Arena {
    number: u64,
    base: NonNull<u8>,
    /// Keeps the memory; only ever reached through `base`. It is there until the arena is dropped.
    memory: Option<MmapMut>,
    pool: Arc<MemoryPool>,
    size: usize,
    reserved: AtomicUsize,
    published: AtomicUsize,
}

// SAFETY: The memory is owned, and shared access follows invariants 2 and 3: what is readable never
// changes, what is writable has one owner.
unsafe impl Send for Arena {}
// SAFETY: As above.
unsafe impl Sync for Arena {}

/// A reserved range, not yet readable. If it is never published, nothing after it can be.
#[derive(Debug)]
#[must_use = "later slots cannot be published before this one"]
pub(super) struct Slot {
    /// The arena it belongs to.
    arena: u64,
    at: usize,
    end: usize,
}

impl Arena {
    /// Memory of `size` bytes from a pool, to which it goes back. What it held before cannot be read.
    ///
    /// # Panics
    /// If the system has no room left in the address space.
    pub(super) fn new(pool: &Arc<MemoryPool>, size: usize) -> Self {
        assert!(size > 0);
        let mut memory = pool.take(size);
        let base = NonNull::new(memory.as_mut_ptr()).expect("a mapping is not at address 0");
        Self {
            number: MADE.fetch_add(1, Ordering::Relaxed),
            base,
            memory: Some(memory),
            pool: Arc::clone(pool),
            size,
            reserved: AtomicUsize::new(0),
            published: AtomicUsize::new(0),
        }
    }

    /// Takes the next `length` bytes, or none if there is no room for them.
    pub(super) fn reserve(&self, length: usize) -> Option<Slot> {
        let fits = |at: usize| at.checked_add(length).filter(|end| *end <= self.size);
        let at = self
            .reserved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .ok()?;
        Some(Slot {
            arena: self.number,
            at,
            end: at + length,
        })
    }

    /// The unpublished bytes of a slot.
    pub(super) fn bytes_mut<'a>(&'a self, slot: &'a mut Slot) -> &'a mut [u8] {
        assert_eq!(slot.arena, self.number);
        // SAFETY: The range lies inside the mapping, and by invariant 3 belongs to this slot alone,
        // which is borrowed exclusively for as long as the result lives. `publish` needs the slot too.
        unsafe { slice::from_raw_parts_mut(self.base.as_ptr().add(slot.at), slot.end - slot.at) }
    }

    /// Makes the first `length` bytes of a slot readable, and returns where they begin.
    ///
    /// # Panics
    /// If an earlier slot was not published whole, or the slot is shorter.
    pub(super) fn publish(&self, slot: &mut Slot, length: usize) -> usize {
        assert_eq!(slot.arena, self.number);
        assert!(length <= slot.end - slot.at);
        // Nobody else stores to it: all unpublished bytes below this slot's would have to be published first.
        assert_eq!(self.published.load(Ordering::Relaxed), slot.at);
        let at = slot.at;
        slot.at += length;
        // Release: whoever sees the new length sees the bytes.
        self.published.store(slot.at, Ordering::Release);
        at
    }

    /// True if `length` more bytes could be reserved.
    pub(super) fn has_room(&self, length: usize) -> bool {
        length <= self.size - self.reserved()
    }

    /// Bytes that can be read.
    pub(super) fn published(&self) -> usize {
        self.published.load(Ordering::Acquire)
    }

    /// Bytes given out, in all.
    pub(super) fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Published bytes.
    ///
    /// # Panics
    /// If the range reaches beyond what is published.
    pub(super) fn bytes(&self, at: usize, length: usize) -> &[u8] {
        assert!(
            at.checked_add(length)
                .is_some_and(|end| end <= self.published())
        );
        // SAFETY: The range lies inside the mapping, and by invariant 2 nobody writes to it any more.
        unsafe { slice::from_raw_parts(self.base.as_ptr().add(at), length) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.pool.give_back(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena(size: usize) -> Arena {
        Arena::new(&Arc::new(MemoryPool::new(0)), size)
    }

    #[test]
    fn memory_that_is_used_again_shows_nothing_of_before() {
        let pool = Arc::new(MemoryPool::new(1000));
        for round in 1..4 {
            let arena = Arena::new(&pool, super::super::arena_bytes(1000));
            assert_eq!((arena.published(), arena.reserved()), (0, 0));
            let mut slot = arena.reserve(500).unwrap();
            arena.bytes_mut(&mut slot).fill(round);
            arena.publish(&mut slot, 500);
            assert_eq!(arena.bytes(0, 500), [round; 500]);
        }
    }

    #[test]
    fn slots_do_not_overlap_and_are_readable_once_published() {
        let arena = arena(100);
        let mut first = arena.reserve(30).unwrap();
        let mut second = arena.reserve(70).unwrap();
        assert!(arena.reserve(1).is_none());
        arena.bytes_mut(&mut second).fill(2);
        arena.bytes_mut(&mut first).fill(1);
        assert_eq!(arena.publish(&mut first, 10), 0);
        assert_eq!(arena.bytes(0, 10), [1; 10]);
        assert_eq!(arena.bytes_mut(&mut first).len(), 20);
        assert_eq!(arena.publish(&mut first, 20), 10);
        assert_eq!(arena.publish(&mut second, 70), 30);
        assert_eq!(arena.bytes(29, 2), [1, 2]);
    }

    #[test]
    #[should_panic(expected = "left == right")]
    fn a_slot_is_not_published_before_an_earlier_one() {
        let arena = arena(10);
        let _first = arena.reserve(5).unwrap();
        let mut second = arena.reserve(5).unwrap();
        arena.publish(&mut second, 5);
    }

    #[test]
    #[should_panic(expected = "assertion failed")]
    fn unpublished_bytes_cannot_be_read() {
        let arena = arena(10);
        let mut slot = arena.reserve(10).unwrap();
        arena.publish(&mut slot, 4);
        let _ = arena.bytes(0, 5);
    }

    #[test]
    fn readers_on_other_threads_see_whole_records() {
        const RECORDS: usize = 20_000;
        let arena = arena(RECORDS * 16);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while arena.published() < RECORDS * 16 {
                        let end = arena.published();
                        if let Some(at) = end.checked_sub(16) {
                            let record = arena.bytes(at, 16);
                            assert_eq!(record, [record[0]; 16]);
                        }
                    }
                });
            }
            for number in 0..RECORDS {
                let mut slot = arena.reserve(16).unwrap();
                arena.bytes_mut(&mut slot).fill(number as u8);
                arena.publish(&mut slot, 16);
            }
        });
    }
}
