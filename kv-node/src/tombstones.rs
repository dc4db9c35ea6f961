//! Deletes that stay deleted: when a tombstone may be forgotten.
//!
//! A deletion is a write, and the tombstone that it leaves must stay for as long as an older value may turn up anywhere.
//! Others bound that by a time (`gc_grace_seconds` of Cassandra), and a node that was away for longer brings deleted
//! values back. Here a tombstone goes when it is known that nothing older exists outside of the key's replicas, and that
//! all of these have the tombstone, however long that takes:
//!
//! 1. A node's **floor** ([`floor`]) is a promise: it mints nothing at or below, takes no new write from there, and keeps
//!    nothing from there for others. All members promise the same point ([`rounds`]), one that lies a while behind the
//!    clocks of all of them.
//! 2. *Then* the owners of a partition compare what they hold, until each has what any of them has.
//! 3. All of them make it durable.
//! 4. Then their **watermark** ([`watermarks`]) for that partition rises to the point: what arrives from there and is
//!    unknown was deleted.
//! 5. When the watermarks of all of them have risen, each forgets what is deleted up to there ([`crate::replica`]).
//!
//! The order matters: a floor that is read after comparing, or before it is durable, brings deleted values back or loses
//! acknowledged ones. See `docs/adr/0019-how-deletions-are-forgotten.md`.

pub mod answers;
pub mod floor;
pub mod promises;
pub mod rounds;
pub mod watermarks;

use std::cmp::Reverse;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::anti_entropy::trees::Place;

/// When deletions are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteOptions {
    /// The least time for which a tombstone is kept. A client that does not know what became of its write must not
    /// repeat it for longer.
    pub keep: Duration,
}

impl Default for DeleteOptions {
    fn default() -> Self {
        Self {
            keep: Duration::from_secs(120),
        }
    }
}

/// What forgetting came to since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Deletions that were forgotten here.
    pub forgotten: AtomicU64,
    /// Values that arrived after they had been deleted and the deletion forgotten.
    pub late: AtomicU64,
    overdue: Mutex<Vec<Overdue>>,
}

/// A place with deletions that its owner would have forgotten by now, if it could.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    /// Where.
    pub place: Place,
    /// For how many milliseconds the oldest of them has been waiting.
    pub by_ms: u64,
}

impl Counts {
    /// All places where deletions wait, the longest first; of a node's own partitions.
    #[must_use]
    pub fn overdue(&self) -> Vec<Overdue> {
        self.overdue_places().clone()
    }

    fn set_overdue(&self, mut places: Vec<Overdue>) {
        places.sort_unstable_by_key(|overdue| (Reverse(overdue.by_ms), overdue.place));
        *self.overdue_places() = places;
    }

    fn overdue_places(&self) -> MutexGuard<'_, Vec<Overdue>> {
        self.overdue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
