//! The primitives of the commit pipeline, in one place, so that its tests can put a model checker's in
//! their stead.

pub(super) use std::hint::spin_loop;
pub(super) use std::sync::atomic::{AtomicU64, Ordering};
pub(super) use std::sync::{Condvar, Mutex, PoisonError};
