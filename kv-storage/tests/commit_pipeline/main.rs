//! The commit pipeline under a scheduler that tries many interleavings.
//!
//! Its source is compiled into this test with the checker's primitives in place of the standard library's, so
//! what is checked is what ships.

#![expect(
    clippy::unwrap_used,
    reason = "this binary is all tests; clippy sees its helpers as ordinary code"
)]

#[path = "../../src/db/group_commit.rs"]
mod group_commit;
#[path = "../../src/db/publisher.rs"]
mod publisher;

mod publishing;
mod syncing;

/// The primitives of the checker, under the names of the real ones.
mod lock {
    pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    pub(super) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};
    pub(super) use shuttle::thread::{self, Thread, yield_now as spin_loop};
    pub(super) use std::sync::PoisonError;

    /// Few, so that writers really go to sleep.
    pub(super) const SPINS: usize = 1;
}

const SCHEDULES: usize = 20_000;
