//! What this node minted last for keys of which it writes copies for others.
//!
//! As an owner a node knows that its copy holds all that it minted for a key since it began to hold it. What it minted as
//! a stand-in may lie in copies for several owners, and be gone from here. Without more knowledge each of its dots
//! stands alone in the key's clock, which grows with each write until it is too large for any.
//!
//! Invariants:
//! 1. While a key has an entry, its dot is the last one that this node minted for the key, in whatever copy it was stored.
//! 2. An entry is taken out before the next dot is minted, and comes back when that one is stored. So what is cut short
//!    in between leaves none.
//!
//! Both need that one write of a key is coordinated here at a time: callers have the key's turn.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kv_types::{ActorId, Dot, Hlc};

/// Keys that are remembered at most. With one more all are forgotten, which costs their clocks an interval each.
const MOST: usize = 4096;

/// The last dots.
#[derive(Debug, Default)]
pub(super) struct StandInMints {
    /// By the key under which the node's own copy would be stored.
    last: Mutex<BTreeMap<Bytes, Dot>>,
    /// There are some: owners, who write far more, need not look while there are none.
    any: AtomicBool,
}

impl StandInMints {
    /// Takes out the dot that was minted last for a key, if that is known.
    pub(super) fn take(&self, key: &Bytes) -> Option<Dot> {
        // What was noted of this key was noted in an earlier turn, so it is seen.
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        self.last().remove(key)
    }

    /// Notes the dot that was minted last for a key, and stored.
    pub(super) fn stored(&self, key: Bytes, dot: Dot) {
        let mut last = self.last();
        if last.len() >= MOST {
            last.clear();
        }
        last.insert(key, dot);
        self.any.store(true, Ordering::Relaxed);
    }

    fn last(&self) -> MutexGuard<'_, BTreeMap<Bytes, Dot>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Since when a copy holds all that `actor` minted for its key, if `last` is what it minted last: the copy's clock may be
/// extended from there.
pub(super) fn held_since(last: Option<Dot>, actor: ActorId) -> Hlc {
    match last {
        Some(last) if last.actor == actor => last.hlc,
        _ => Hlc(u64::MAX),
    }
}
