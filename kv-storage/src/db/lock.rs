//! The primitives of the commit pipeline, in one place, so that its tests can put a model checker's in
//! their stead.

/// Looks at a number before going to sleep. Copying a small batch takes less time than that.
pub(super) const SPINS: usize = 200;

pub(super) use std::hint::spin_loop;
pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub(super) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
pub(super) use std::thread::{self, Thread};
