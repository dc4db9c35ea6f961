//! The block cache: decoded blocks. It shares a [`Budget`] with the row cache.
//!
//! Each open table has a slot for each of its blocks, so a hit is one load from an array: no hashing,
//! no lock, no shared reference count. Only misses meet in the lock, where the queues of S3-FIFO decide
//! what goes (Yang et al., "FIFO Queues are All You Need for Cache Eviction", SOSP 2023): a new block
//! waits in a small queue, and only one that is used again there, or comes back after it was thrown
//! out, gets into the main queue. So a scan or a sweep of single reads does not displace what is in use.

use super::budget::{Budget, Eras, allocated_bytes};
use super::counter::Counter;
use crate::table::{Block, SharedBlock};
use arc_swap::{ArcSwapAny, Guard};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Uses that are counted at most; each saves a block in the main queue once.
const USES_MOST: u16 = 3;
/// The state of a block that was thrown out has this bit, and the era in which it was.
const THROWN_OUT: u16 = 0x8000;
/// Memory of a block that lies in front of its bytes.
const BLOCK_HEADER: usize = 32;
/// Memory that a block takes in a queue and in its table's slots, roughly.
const BLOCK_PLACE: usize = 48;

/// The blocks of one table that are in memory.
#[derive(Debug)]
pub(crate) struct BlockSlots {
    blocks: Box<[ArcSwapAny<Option<SharedBlock>>]>,
    /// Of a block in memory, its uses since it was last considered; otherwise when it was thrown out, if it was.
    states: Box<[AtomicU16]>,
    /// Weight of the blocks that are in memory.
    weight: AtomicU64,
    /// The table is closed. Changed with the queues locked.
    closed: AtomicBool,
}

impl BlockSlots {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            blocks: (0..count).map(|_| ArcSwapAny::new(None)).collect(),
            states: (0..count).map(|_| AtomicU16::new(0)).collect(),
            weight: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        })
    }
}

/// Shared by all tables of a store. Eviction depends only on the order of calls, so a single-threaded
/// run repeats exactly.
pub(crate) struct BlockCache {
    budget: Arc<Budget>,
    eras: Eras,
    queues: Mutex<Queues>,
    hits: Counter,
    misses: Counter,
}

impl BlockCache {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            eras: Eras::new(budget),
            queues: Mutex::new(Queues::default()),
            hits: Counter::default(),
            misses: Counter::default(),
        }
    }

    /// A block, borrowed from the cache: it stays readable while the guard lives, even if it is thrown out.
    #[inline]
    pub(crate) fn get(&self, slots: &BlockSlots, number: usize) -> Guard<Option<SharedBlock>> {
        let found = slots.blocks[number].load();
        if found.is_some() {
            self.hits.add(number);
            let state = &slots.states[number];
            let uses = state.load(Relaxed);
            // A lost count does no harm, a write for every hit would.
            if uses < USES_MOST {
                state.store(uses + 1, Relaxed);
            }
        } else {
            self.misses.add(number);
        }
        found
    }

    /// Keeps a block. The caller makes room afterwards.
    pub(crate) fn insert(&self, slots: &Arc<BlockSlots>, number: usize, block: SharedBlock) {
        let weight = weight_of(&block);
        if weight > self.budget.total() / 4 {
            return;
        }
        let mut queues = self.queues();
        // Another thread may have read the same block.
        if slots.blocks[number].load().is_some() {
            return;
        }
        slots.blocks[number].store(Some(block));
        slots.weight.fetch_add(weight, Relaxed);
        let state = slots.states[number].swap(0, Relaxed);
        let thrown_out = (state & THROWN_OUT != 0).then_some(state & !THROWN_OUT);
        let entry = Entry {
            slots: Arc::downgrade(slots),
            number,
            weight,
        };
        if thrown_out.is_some_and(|era| self.eras.is_known(era)) {
            queues.main.push(entry);
        } else {
            queues.small.push(entry);
        }
        self.budget.set_blocks(queues.live());
    }

    /// Throws out blocks until `bytes` less are in use; false if there were not so many.
    pub(crate) fn shrink(&self, bytes: u64) -> bool {
        let mut queues = self.queues();
        let target = queues.live().saturating_sub(bytes);
        let is_enough = queues.live() >= bytes;
        queues.shrink(target, &self.eras);
        self.budget.set_blocks(queues.live());
        is_enough
    }

    /// Tells that a table is closed: its blocks go with it.
    pub(crate) fn forget(&self, slots: &BlockSlots) {
        let mut queues = self.queues();
        slots.closed.store(true, Relaxed);
        queues.forget(slots.weight.load(Relaxed), self.budget.total());
        self.budget.set_blocks(queues.live());
    }

    /// Hits and misses so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.hits.sum(), self.misses.sum())
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.budget.blocks()
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache")
            .field("size_bytes", &self.size_bytes())
            .finish_non_exhaustive()
    }
}

/// Memory that a block takes, with its places in queue and slots.
fn weight_of(block: &SharedBlock) -> u64 {
    let size = Block::of(block).size_bytes();
    (allocated_bytes(BLOCK_HEADER + size) + BLOCK_PLACE) as u64
}

/// A block in a queue.
struct Entry {
    slots: Weak<BlockSlots>,
    number: usize,
    weight: u64,
}

impl Entry {
    /// The slots, unless the table is closed.
    fn open_slots(&self) -> Option<Arc<BlockSlots>> {
        let slots = self.slots.upgrade()?;
        (!slots.closed.load(Relaxed)).then_some(slots)
    }
}

/// Entries in the order in which they came, with the sum of their weights.
#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    weight: u64,
}

impl Queue {
    fn push(&mut self, entry: Entry) {
        self.weight += entry.weight;
        self.entries.push_back(entry);
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.weight -= entry.weight;
        Some(entry)
    }
}

#[derive(Default)]
struct Queues {
    small: Queue,
    main: Queue,
    /// Weight of entries whose table is closed.
    dead: u64,
}

impl Queues {
    fn live(&self) -> u64 {
        self.small.weight + self.main.weight - self.dead
    }

    fn shrink(&mut self, target: u64, eras: &Eras) {
        while self.live() > target {
            // The small queue may have a tenth.
            let from_small = self.small.weight > self.live() / 10 || self.main.entries.is_empty();
            let entry = if from_small {
                self.small.pop()
            } else {
                self.main.pop()
            };
            let Some(entry) = entry else { return };
            self.consider(entry, from_small, eras);
        }
    }

    /// Throws an entry out, or gives it another turn in the main queue.
    fn consider(&mut self, entry: Entry, from_small: bool, eras: &Eras) {
        let Some(slots) = entry.open_slots() else {
            self.dead -= entry.weight;
            return;
        };
        let state = &slots.states[entry.number];
        let uses = state.load(Relaxed);
        if uses > 0 {
            let left = if from_small { 0 } else { uses - 1 };
            state.store(left, Relaxed);
            self.main.push(entry);
        } else {
            state.store(THROWN_OUT | eras.throw_out(entry.weight), Relaxed);
            slots.blocks[entry.number].store(None);
            slots.weight.fetch_sub(entry.weight, Relaxed);
        }
    }

    fn forget(&mut self, weight: u64, capacity: u64) {
        self.dead += weight;
        // Otherwise the entries of closed tables would pile up while there is room.
        if self.dead > capacity / 2 {
            for queue in [&mut self.small, &mut self.main] {
                let mut gone = 0;
                queue.entries.retain(|entry| {
                    let lives = entry.open_slots().is_some();
                    gone += if lives { 0 } else { entry.weight };
                    lives
                });
                queue.weight -= gone;
                self.dead -= gone;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Seq;

    fn block() -> SharedBlock {
        let mut bytes = vec![1, 0, 0, 0, 0, 0, 2, 0, 7, 0, 0, 1, 1, 0];
        bytes.resize(896 - BLOCK_HEADER, 0);
        Block::share(&bytes, Seq::ZERO).unwrap()
    }

    const WEIGHT: u64 = 896 + BLOCK_PLACE as u64;

    fn cache(blocks: u64) -> BlockCache {
        BlockCache::new(&Arc::new(Budget::new(blocks * WEIGHT)))
    }

    fn insert(cache: &BlockCache, slots: &Arc<BlockSlots>, number: usize) {
        cache.insert(slots, number, block());
        cache.shrink(cache.budget.excess());
    }

    fn resident(slots: &BlockSlots) -> Vec<usize> {
        let is_in = |number: &usize| slots.blocks[*number].load().is_some();
        (0..slots.blocks.len()).filter(is_in).collect()
    }

    #[test]
    fn blocks_in_use_outlive_a_sweep_of_single_reads() {
        let cache = cache(20);
        let slots = BlockSlots::new(1000);
        for number in 0..10 {
            insert(&cache, &slots, number);
        }
        for number in 10..1000 {
            for used in 0..10 {
                assert!(cache.get(&slots, used).is_some(), "{used} at {number}");
            }
            assert!(cache.get(&slots, number).is_none());
            insert(&cache, &slots, number);
            assert!(cache.size_bytes() <= 20 * WEIGHT);
        }
        assert_eq!(resident(&slots).len(), 20);
        let (hits, misses) = cache.counts();
        assert_eq!((hits, misses), (9900, 990));
    }

    #[test]
    fn a_block_that_comes_back_in_time_stays_longer() {
        let cache = cache(20);
        let slots = BlockSlots::new(1000);
        // Block 0 is thrown out, and then 10 others.
        (0..31).for_each(|number| insert(&cache, &slots, number));
        assert!(cache.get(&slots, 0).is_none());
        insert(&cache, &slots, 0);
        (100..120).for_each(|number| insert(&cache, &slots, number));
        assert!(cache.get(&slots, 0).is_some());
        assert!(cache.get(&slots, 100).is_none());
        // Block 1 is forgotten.
        (200..300).for_each(|number| insert(&cache, &slots, number));
        insert(&cache, &slots, 1);
        (300..320).for_each(|number| insert(&cache, &slots, number));
        assert!(cache.get(&slots, 1).is_none());
    }

    #[test]
    fn closed_tables_give_their_room_back() {
        let cache = cache(20);
        for _ in 0..50 {
            let slots = BlockSlots::new(20);
            (0..20).for_each(|number| insert(&cache, &slots, number));
            assert_eq!(resident(&slots).len(), 20);
            assert_eq!(cache.size_bytes(), 20 * WEIGHT);
            cache.forget(&slots);
            assert_eq!(cache.size_bytes(), 0);
        }
        let queues = cache.queues();
        assert!(queues.small.entries.len() + queues.main.entries.len() <= 40);
    }

    #[test]
    fn a_guard_keeps_its_block_when_it_is_thrown_out() {
        let cache = cache(4);
        let slots = BlockSlots::new(100);
        insert(&cache, &slots, 0);
        let guard = slots.blocks[0].load();
        (1..100).for_each(|number| insert(&cache, &slots, number));
        assert!(cache.get(&slots, 0).is_none());
        assert_eq!(
            Block::of(guard.as_ref().unwrap()).size_bytes(),
            896 - BLOCK_HEADER
        );
    }
}
