//! Many numbers that begin as 0, in memory that the system clears when it is first touched.
//!
//! A memtable is begun while writers wait. Clearing a few megabytes then would take a millisecond.

#![expect(
    unsafe_code,
    reason = "the standard library has no array of atomics made of cleared memory"
)]

use memmap2::{Advice, MmapMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::AtomicU32;

#[derive(Debug)]
pub(super) struct Cells {
    base: NonNull<AtomicU32>,
    count: usize,
    /// Keeps the memory; only ever reached through `base`.
    _memory: MmapMut,
}

// SAFETY: The memory is owned, and reached as atomics only.
unsafe impl Send for Cells {}
// SAFETY: As above.
unsafe impl Sync for Cells {}

impl Cells {
    /// # Panics
    /// If there are none, or the system has no room left in the address space.
    pub(super) fn new(count: usize) -> Self {
        assert!(count > 0);
        let bytes = count * size_of::<AtomicU32>();
        let mut memory = MmapMut::map_anon(bytes).expect("there is address space for an index");
        // It is advice: failing is no harm.
        let _ = memory.advise(Advice::HugePage);
        let base = NonNull::new(memory.as_mut_ptr()).expect("a mapping is not at address 0");
        Self {
            base: base.cast(),
            count,
            _memory: memory,
        }
    }

    pub(super) fn as_slice(&self) -> &[AtomicU32] {
        // SAFETY: The mapping begins at a page, is as long as these cells, holds zeros or what was stored through
        // them, each of which is a valid number, and lives as long as this value.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn cells_begin_as_zeros_and_keep_what_threads_store() {
        let cells = Cells::new(5000);
        assert_eq!(cells.as_slice().len(), 5000);
        assert!(cells.as_slice().iter().all(|cell| cell.load(Relaxed) == 0));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let cells = &cells;
                scope.spawn(move || {
                    for (number, cell) in cells.as_slice().iter().enumerate() {
                        if number % 4 == thread {
                            cell.store(number as u32, Relaxed);
                        }
                    }
                });
            }
        });
        let stored = cells.as_slice().iter().map(|cell| cell.load(Relaxed));
        assert!(stored.eq(0..5000));
    }
}
