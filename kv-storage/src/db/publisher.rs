//! Makes writes visible in the order of their numbers.
//!
//! Writers prepare their entries in parallel; only the last step, linking them into the memtable and
//! raising the visible number, is taken in turn. A writer who comes too early waits for the ones before
//! it, which at that moment are only copying memory.

use super::lock::{AtomicU64, Condvar, Mutex, Ordering, PoisonError, SPINS, spin_loop};

#[derive(Debug)]
pub(super) struct Publisher {
    /// Readers see writes up to this number.
    visible: AtomicU64,
    /// Writers that sleep, or are about to.
    sleepers: AtomicU64,
    sleep: Mutex<()>,
    woken: Condvar,
}

impl Publisher {
    /// Everything up to `last` is visible.
    pub(super) fn new(last: u64) -> Self {
        Self {
            visible: AtomicU64::new(last),
            sleepers: AtomicU64::new(0),
            sleep: Mutex::new(()),
            woken: Condvar::new(),
        }
    }

    /// The newest visible number. Whoever reads it sees everything linked up to it.
    pub(super) fn visible(&self) -> u64 {
        self.visible.load(Ordering::Acquire)
    }

    /// Waits for all writes before number `first`, links, and makes everything up to `last` visible.
    pub(super) fn publish(&self, first: u64, last: u64, link: impl FnOnce()) {
        self.wait_for(first - 1);
        link();
        // A sleeper counts itself before it looks at the number, and this thread does the reverse, both in
        // one total order: so either it sees the new number, or it is seen here.
        self.visible.store(last, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Taking the lock makes sure that the sleeper has either looked again or sleeps.
            drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.woken.notify_all();
        }
    }

    /// Blocks until everything up to `seq` is visible.
    pub(super) fn wait_for(&self, seq: u64) {
        for _ in 0..SPINS {
            if self.visible.load(Ordering::Acquire) >= seq {
                return;
            }
            spin_loop();
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        while self.visible.load(Ordering::SeqCst) < seq {
            guard = self
                .woken
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}
