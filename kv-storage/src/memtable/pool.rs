//! Memory of memtables that went, for those that come.
//!
//! The system clears memory when it is first touched, which costs a writer as much as all else it does. While one
//! memtable fills and another is flushed, two pieces of memory go round; at rest the spare one is given back.

use memmap2::{Advice, MmapMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keeps at most one piece of memory.
#[derive(Debug)]
pub(crate) struct MemoryPool {
    /// Size of a piece. Memory of other sizes is neither kept nor given out.
    size: usize,
    spare: Mutex<Option<Spare>>,
}

#[derive(Debug)]
struct Spare {
    memory: MmapMut,
    /// It was there at the last tick already.
    is_idle: bool,
}

impl MemoryPool {
    /// A pool for memtables of `size_bytes`.
    pub(crate) fn new(size_bytes: usize) -> Self {
        Self {
            size: super::arena_bytes(size_bytes),
            spare: Mutex::new(None),
        }
    }

    /// Memory of `size` bytes that holds anything, in large pages if the system has them.
    ///
    /// # Panics
    /// If the system has no room left in the address space.
    pub(super) fn take(&self, size: usize) -> MmapMut {
        if size == self.size
            && let Some(spare) = self.spare().take()
        {
            return spare.memory;
        }
        let memory = MmapMut::map_anon(size).expect("there is address space for a memtable");
        // With small pages a fill spends a tenth of its time in page faults. It is advice: failing is no harm.
        let _ = memory.advise(Advice::HugePage);
        memory
    }

    /// Takes memory back.
    pub(super) fn give_back(&self, memory: MmapMut) {
        if memory.len() == self.size {
            let spare = Spare {
                memory,
                is_idle: false,
            };
            let surplus = self.spare().replace(spare);
            // Without the lock: giving memory back to the system takes a while.
            drop(surplus);
        }
    }

    /// Gives memory back to the system that nobody took since the last call. Call it about once a second.
    pub(crate) fn tick(&self) {
        let mut spare = self.spare();
        let unused = spare.take_if(|spare| std::mem::replace(&mut spare.is_idle, true));
        drop(spare);
        drop(unused);
    }

    fn spare(&self) -> MutexGuard<'_, Option<Spare>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_round_until_nobody_takes_it() {
        let pool = MemoryPool::new(10_000);
        let mut memory = pool.take(pool.size);
        memory[5] = 7;
        pool.give_back(memory);
        assert_eq!(pool.take(100).len(), 100);
        let memory = pool.take(pool.size);
        assert_eq!(memory[5], 7);
        assert_eq!(pool.take(pool.size)[5], 0, "there was one only");
        pool.give_back(memory);
        pool.tick();
        assert!(pool.spare().is_some());
        pool.tick();
        assert!(pool.spare().is_none());
        pool.give_back(pool.take(100));
        assert!(pool.spare().is_none());
    }
}
