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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kv_net::ErrorCode;
use kv_net::message::{HintsReplyV1, PendingHintsV1};
use kv_types::{Hlc, NodeId, Object, Sibling};

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
    pending: Mutex<BTreeMap<NodeId, Queue>>,
    /// This node leaves the cluster: nothing more is taken.
    is_leaving: AtomicBool,
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

/// What one object counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    bytes: usize,
    /// The span of time in which its oldest dot lies.
    span: u64,
}

/// How long the spans are by which ages are counted, in milliseconds.
const SPAN_MS: u64 = 1_000;

impl Weight {
    /// That of an object which has so many bytes.
    #[must_use]
    pub fn of(object: &Object, bytes: usize) -> Self {
        let oldest = |sibling: &Sibling| {
            let oldest = sibling.dots().iter().map(|dot| dot.hlc).min();
            // A clock that was ahead made it no younger.
            oldest.map(|oldest| oldest.min(sibling.write_id().latest_dot()))
        };
        let oldest = object.all_siblings().filter_map(oldest).min();
        let oldest = oldest.unwrap_or(Hlc(u64::MAX));
        Self {
            bytes,
            span: oldest.millis() / SPAN_MS,
        }
    }
}

/// What is kept for one owner, and how old it is.
#[derive(Debug, Default)]
struct Queue {
    pending: Pending,
    /// How many objects have their oldest dot in which span of time.
    spans: BTreeMap<u64, u64>,
}

impl Queue {
    fn add(&mut self, weight: Weight) {
        self.pending.objects += 1;
        self.pending.bytes += weight.bytes as u64;
        *self.spans.entry(weight.span).or_default() += 1;
    }

    fn take(&mut self, weight: Weight) {
        self.pending.objects = self.pending.objects.saturating_sub(1);
        self.pending.bytes = self.pending.bytes.saturating_sub(weight.bytes as u64);
        if let Some(count) = self.spans.get_mut(&weight.span) {
            *count -= 1;
            if *count == 0 {
                self.spans.remove(&weight.span);
            }
        }
    }
}

impl Kept {
    /// Nothing is kept yet.
    #[must_use]
    pub fn new(options: HintOptions) -> Self {
        Self {
            options,
            pending: Mutex::default(),
            is_leaving: AtomicBool::new(false),
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
        let queues = pending.values().map(|queue| queue.pending);
        queues.fold(Pending::default(), |sum, one| Pending {
            objects: sum.objects + one.objects,
            bytes: sum.bytes + one.bytes,
        })
    }

    /// The account, for people.
    #[must_use]
    pub fn report(&self) -> HintsReplyV1 {
        let pending = self.pending();
        let pending = pending.iter().map(|(owner, queue)| PendingHintsV1 {
            owner: *owner,
            objects: queue.pending.objects,
            bytes: queue.pending.bytes,
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

    /// No dot of what is kept is older than this; `None` if nothing is kept.
    #[must_use]
    pub fn oldest(&self) -> Option<Hlc> {
        let pending = self.pending();
        let spans = pending
            .values()
            .filter_map(|queue| queue.spans.first_key_value());
        spans
            .map(|(span, _)| Hlc::from_millis(span * SPAN_MS))
            .min()
    }

    /// Makes room for an object in place of another.
    ///
    /// The room is given back unless it is [`stored`](Admitted::stored).
    ///
    /// # Errors
    /// [`Refusal`] when there is none; nothing was changed.
    pub(crate) fn admit(
        &self,
        owner: NodeId,
        was: Option<Weight>,
        is: Weight,
        is_owed: bool,
    ) -> Result<Admitted<'_>, Refusal> {
        let mut pending = self.pending();
        if self.is_leaving.load(Ordering::Relaxed) {
            let message = "this node leaves the cluster and keeps nothing more for others; nothing was stored";
            return Err(Refusal::new(ErrorCode::Overloaded, message));
        }
        let total: u64 = pending.values().map(|queue| queue.pending.bytes).sum();
        let was_bytes = was.map_or(0, |was| was.bytes as u64);
        let grown = (total + is.bytes as u64).saturating_sub(was_bytes);
        let most = self.options.max_bytes;
        let limit = if is_owed { most } else { most / 4 * 3 };
        if grown > limit {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let message = format!(
                "this node keeps {total} bytes for nodes that are away, and no more than {most}; nothing was stored; bring them back, see `kv hints`"
            );
            return Err(Refusal::new(ErrorCode::Overloaded, message));
        }
        // What it replaces is accounted for until this is stored: it may not be.
        pending.entry(owner).or_default().add(is);
        Ok(Admitted {
            account: self,
            owner,
            was,
            is,
            is_stored: false,
        })
    }

    /// Whether nothing is kept, and nothing will be: from a call with `leaves` on, until one without, nothing more is taken.
    pub(crate) fn is_done(&self, leaves: bool) -> bool {
        // Under the lock: what was let in before is counted.
        let pending = self.pending();
        self.is_leaving.store(leaves, Ordering::Relaxed);
        leaves && pending.is_empty()
    }

    /// An object was found at the start.
    pub(crate) fn found(&self, owner: NodeId, weight: Weight) {
        self.pending().entry(owner).or_default().add(weight);
    }

    /// An object is kept no longer.
    pub(crate) fn discharged(&self, owner: NodeId, weight: Weight) {
        self.take(owner, weight);
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    fn take(&self, owner: NodeId, weight: Weight) {
        let mut pending = self.pending();
        let Some(queue) = pending.get_mut(&owner) else {
            return;
        };
        queue.take(weight);
        if queue.pending.objects == 0 {
            pending.remove(&owner);
        }
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<NodeId, Queue>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for an object that is about to be stored. Dropping it, also with a request that is cancelled, gives it back.
#[derive(Debug)]
#[must_use = "dropping it gives the room back"]
pub(crate) struct Admitted<'a> {
    account: &'a Kept,
    owner: NodeId,
    was: Option<Weight>,
    is: Weight,
    is_stored: bool,
}

impl Admitted<'_> {
    /// The object is stored, in place of the other.
    pub(crate) fn stored(mut self) {
        self.is_stored = true;
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        match (self.is_stored, self.was) {
            (true, Some(was)) => self.account.take(self.owner, was),
            (true, None) => {}
            (false, _) => self.account.take(self.owner, self.is),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: NodeId = NodeId(1);

    fn weight(bytes: usize) -> Weight {
        aged(bytes, 9)
    }

    fn aged(bytes: usize, span: u64) -> Weight {
        Weight { bytes, span }
    }

    fn kept() -> Kept {
        Kept::new(HintOptions {
            max_bytes: 1_000,
            ..HintOptions::default()
        })
    }

    #[test]
    fn the_account_follows_every_change() {
        let kept = kept();
        kept.found(OWNER, weight(100));
        kept.admit(OWNER, Some(weight(100)), weight(150), true)
            .expect("room")
            .stored();
        kept.admit(OWNER, None, weight(200), true)
            .expect("room")
            .stored();
        let pending = |objects, bytes| Pending { objects, bytes };
        assert_eq!(kept.total(), pending(2, 350));
        drop(
            kept.admit(OWNER, Some(weight(200)), weight(50), true)
                .expect("less"),
        );
        drop(kept.admit(NodeId(3), None, weight(50), true).expect("room"));
        assert_eq!(kept.total(), pending(2, 350));
        kept.discharged(OWNER, weight(150));
        kept.discharged(OWNER, weight(200));
        assert_eq!(kept.total(), Pending::default());
        assert!(kept.owners().is_empty());
        assert_eq!(kept.delivered(), 2);
    }

    #[test]
    fn at_the_limit_nothing_more_is_taken_and_what_does_not_count_goes_first() {
        let kept = kept();
        kept.admit(OWNER, None, weight(700), true)
            .expect("room")
            .stored();
        let refused = kept.admit(NodeId(2), None, weight(100), false);
        assert_eq!(
            refused.expect_err("for good measure").code,
            ErrorCode::Overloaded
        );
        kept.admit(NodeId(2), None, weight(100), true)
            .expect("owed")
            .stored();
        kept.admit(OWNER, None, weight(300), true)
            .expect_err("too much");
        kept.admit(OWNER, Some(weight(700)), weight(900), true)
            .expect("in its place")
            .stored();
        assert_eq!((kept.total().bytes, kept.refused()), (1_000, 2));
    }

    #[test]
    fn a_node_that_leaves_takes_nothing_more_and_knows_when_nothing_is_left() {
        let kept = kept();
        let admitted = kept.admit(OWNER, None, weight(100), true).expect("room");
        assert!(!kept.is_done(true), "about to be stored");
        admitted.stored();
        let more = kept.admit(OWNER, None, weight(100), true);
        assert_eq!(more.expect_err("it leaves").code, ErrorCode::Overloaded);
        kept.discharged(OWNER, weight(100));
        assert!(kept.is_done(true));
        assert!(!kept.is_done(false), "it stays");
        kept.admit(OWNER, None, weight(100), true)
            .expect("room")
            .stored();
    }

    #[test]
    fn it_knows_how_old_what_is_kept_is() {
        let kept = kept();
        assert_eq!(kept.oldest(), None);
        kept.found(OWNER, aged(100, 7));
        kept.found(NodeId(2), aged(100, 5));
        kept.found(NodeId(2), aged(100, 5));
        let at = |span| Some(Hlc::from_millis(span * SPAN_MS));
        assert_eq!(kept.oldest(), at(5));
        kept.discharged(NodeId(2), aged(100, 5));
        let admitted = kept.admit(NodeId(2), Some(aged(100, 5)), aged(100, 6), true);
        admitted.expect("room").stored();
        assert_eq!(kept.oldest(), at(6), "in the other's place");
        drop(
            kept.admit(NodeId(2), None, aged(100, 1), true)
                .expect("room"),
        );
        assert_eq!(kept.oldest(), at(6), "not stored");
        kept.discharged(NodeId(2), aged(100, 6));
        assert_eq!(kept.oldest(), at(7));
    }
}
