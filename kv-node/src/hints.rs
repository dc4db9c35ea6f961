//! What this node keeps for owners that are away, so that writes go on without them (hinted handoff).
//!
//! Dynamo (2007), section 4.6. What is kept for an owner is one object for each key, merged from all writes that
//! came meanwhile, in the engine under a prefix of its own ([`crate::storage_key::stand_in`]): the queue of what is
//! to be brought to that owner is that range of keys. `replica` alone writes there; here is the account of it, and
//! [`delivery`] brings it home.
//!
//! Invariants:
//! 1. What is kept never expires. It goes when its owner has acknowledged it; after a change of owners, when all
//!    owners of the time have; when the owner is away for very long, when all others have.
//! 2. A copy that counts towards w is taken up to the limit, one for good measure only up to three quarters of it.

pub mod delivery;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kv_net::ErrorCode;
use kv_net::message::{HintsReplyV1, PendingHintsV1};
use kv_types::NodeId;

use crate::refusal::Refusal;

/// How much a node keeps for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HintOptions {
    /// The most bytes of objects.
    pub max_bytes: u64,
    /// An owner that is away for longer is not waited for: the other owners get what was kept for it.
    pub owner_patience: Duration,
}

impl Default for HintOptions {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 30,
            owner_patience: Duration::from_secs(3 * 60 * 60),
        }
    }
}

/// The account of what this node keeps for others.
#[derive(Debug)]
pub struct Kept {
    options: HintOptions,
    pending: Mutex<BTreeMap<NodeId, Pending>>,
    delivered: AtomicU64,
    refused: AtomicU64,
}

/// What is kept for one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Kept {
    /// Nothing is kept yet.
    #[must_use]
    pub fn new(options: HintOptions) -> Self {
        Self {
            options,
            pending: Mutex::default(),
            delivered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// The limits.
    #[must_use]
    pub fn options(&self) -> HintOptions {
        self.options
    }

    /// For whom something is kept.
    #[must_use]
    pub fn owners(&self) -> Vec<NodeId> {
        self.pending().keys().copied().collect()
    }

    /// Everything that is kept.
    #[must_use]
    pub fn total(&self) -> Pending {
        let pending = self.pending();
        pending
            .values()
            .fold(Pending::default(), |sum, one| Pending {
                objects: sum.objects + one.objects,
                bytes: sum.bytes + one.bytes,
            })
    }

    /// The account, for people.
    #[must_use]
    pub fn report(&self) -> HintsReplyV1 {
        let pending = self.pending();
        let pending = pending.iter().map(|(owner, kept)| PendingHintsV1 {
            owner: *owner,
            objects: kept.objects,
            bytes: kept.bytes,
        });
        HintsReplyV1 {
            pending: pending.collect(),
            max_bytes: self.options.max_bytes,
            delivered: self.delivered(),
            refused: self.refused(),
        }
    }

    /// Objects that went since the start, because they were acknowledged.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Objects that were not taken since the start, for want of room.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Makes room for an object of `bytes` in place of one of `was`.
    ///
    /// The room is given back unless it is [`stored`](Admitted::stored).
    ///
    /// # Errors
    /// [`Refusal`] when there is none; nothing was changed.
    pub(crate) fn admit(
        &self,
        owner: NodeId,
        was: Option<usize>,
        bytes: usize,
        is_owed: bool,
    ) -> Result<Admitted<'_>, Refusal> {
        let mut pending = self.pending();
        let total: u64 = pending.values().map(|kept| kept.bytes).sum();
        let grown = (total + bytes as u64).saturating_sub(was.unwrap_or(0) as u64);
        let most = self.options.max_bytes;
        let limit = if is_owed { most } else { most / 4 * 3 };
        if grown > limit {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let message = format!(
                "this node keeps {total} bytes for nodes that are away, and no more than {most}; nothing was stored; bring them back, see `kv hints`"
            );
            return Err(Refusal::new(ErrorCode::Overloaded, message));
        }
        let kept = pending.entry(owner).or_default();
        kept.objects += u64::from(was.is_none());
        kept.bytes = (kept.bytes + bytes as u64).saturating_sub(was.unwrap_or(0) as u64);
        Ok(Admitted {
            account: self,
            owner,
            was,
            bytes,
            is_stored: false,
        })
    }

    fn take_back(&self, owner: NodeId, was: Option<usize>, bytes: usize) {
        let mut pending = self.pending();
        let kept = pending.entry(owner).or_default();
        kept.objects -= u64::from(was.is_none());
        kept.bytes = (kept.bytes + was.unwrap_or(0) as u64).saturating_sub(bytes as u64);
        if kept.objects == 0 {
            pending.remove(&owner);
        }
    }

    /// An object was found at the start.
    pub(crate) fn found(&self, owner: NodeId, bytes: usize) {
        let mut pending = self.pending();
        let kept = pending.entry(owner).or_default();
        kept.objects += 1;
        kept.bytes += bytes as u64;
    }

    /// An object of `bytes` is kept no longer.
    pub(crate) fn discharged(&self, owner: NodeId, bytes: usize) {
        self.take_back(owner, None, bytes);
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<NodeId, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for an object that is about to be stored. Dropping it, also with a request that is cancelled, gives it back.
#[derive(Debug)]
#[must_use = "dropping it gives the room back"]
pub(crate) struct Admitted<'a> {
    account: &'a Kept,
    owner: NodeId,
    was: Option<usize>,
    bytes: usize,
    is_stored: bool,
}

impl Admitted<'_> {
    /// The object is stored.
    pub(crate) fn stored(mut self) {
        self.is_stored = true;
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if !self.is_stored {
            self.account.take_back(self.owner, self.was, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: NodeId = NodeId(1);

    fn kept() -> Kept {
        Kept::new(HintOptions {
            max_bytes: 1_000,
            ..HintOptions::default()
        })
    }

    #[test]
    fn the_account_follows_every_change() {
        let kept = kept();
        kept.found(OWNER, 100);
        kept.admit(OWNER, Some(100), 150, true)
            .expect("room")
            .stored();
        kept.admit(OWNER, None, 200, true).expect("room").stored();
        let pending = |objects, bytes| Pending { objects, bytes };
        assert_eq!(kept.total(), pending(2, 350));
        drop(kept.admit(OWNER, Some(200), 50, true).expect("less"));
        drop(kept.admit(NodeId(3), None, 50, true).expect("room"));
        assert_eq!(kept.total(), pending(2, 350));
        kept.discharged(OWNER, 150);
        kept.discharged(OWNER, 200);
        assert_eq!(kept.total(), Pending::default());
        assert!(kept.owners().is_empty());
        assert_eq!(kept.delivered(), 2);
    }

    #[test]
    fn at_the_limit_nothing_more_is_taken_and_what_does_not_count_goes_first() {
        let kept = kept();
        kept.admit(OWNER, None, 700, true).expect("room").stored();
        let refused = kept.admit(NodeId(2), None, 100, false);
        assert_eq!(
            refused.expect_err("for good measure").code,
            ErrorCode::Overloaded
        );
        kept.admit(NodeId(2), None, 100, true)
            .expect("owed")
            .stored();
        kept.admit(OWNER, None, 300, true).expect_err("too much");
        kept.admit(OWNER, Some(700), 900, true)
            .expect("in its place")
            .stored();
        assert_eq!((kept.total().bytes, kept.refused()), (1_000, 2));
    }
}
