//! The rules of safety while partitions change owners: who must answer, and who must refuse.
//!
//! Coordinators, checkers and models all call these functions, so that there is one place where the
//! rule can be right or wrong.
//!
//! 1. In `Joint{O, M}` an operation succeeds only with its quorum among the first n slots of O *and*
//!    among the first n of M ([`ReplicaSet::is_met`]).
//! 2. A replica serves no request from an epoch older than its partition's last change ([`fence`]).
//! 3. A replica that is behind the request adopts the newer epoch, durably, before it serves.
//!
//! The rules and ten weaker ones are checked over every interleaving by `tests/models/handover.rs` of kv-tests, with
//! these very functions.

use kv_types::{Epoch, NodeId, Quorum, planted};

/// Up to sixteen nodes in slot order, held in place: lookups allocate nothing.
#[derive(Clone, Copy)]
struct Nodes {
    len: u8,
    ids: [NodeId; Quorum::MAX_N as usize],
}

impl Nodes {
    fn collect(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let mut collected = Self {
            len: 0,
            ids: [NodeId(0); Quorum::MAX_N as usize],
        };
        for (node, place) in nodes.into_iter().zip(&mut collected.ids) {
            *place = node;
            collected.len += 1;
        }
        collected
    }

    fn as_slice(&self) -> &[NodeId] {
        &self.ids[..usize::from(self.len)]
    }
}

/// The replicas of a partition for a bucket with n replicas, and the rule for its quorums.
///
/// It belongs to one topology: answers counted against it must all be of that epoch.
#[derive(Clone)]
pub struct ReplicaSet {
    old: Nodes,
    /// Boxed because a partition is seldom in transition, and the rest should stay small.
    new: Option<Box<Nodes>>,
}

impl ReplicaSet {
    /// The replicas of a partition at rest, in slot order.
    ///
    /// Nodes beyond the sixteenth are left out; no topology has as many.
    #[must_use]
    pub fn stable(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            old: Nodes::collect(nodes),
            new: None,
        }
    }

    /// The replicas of a partition that moves from `old` to `new`, each in slot order.
    #[must_use]
    pub fn joint(
        old: impl IntoIterator<Item = NodeId>,
        new: impl IntoIterator<Item = NodeId>,
    ) -> Self {
        Self {
            old: Nodes::collect(old),
            new: Some(Box::new(Nodes::collect(new))),
        }
    }

    /// The owners before the change in progress; the owners, when there is none.
    #[must_use]
    pub fn old(&self) -> &[NodeId] {
        self.old.as_slice()
    }

    /// The owners after the change in progress, if there is one.
    #[must_use]
    pub fn new_owners(&self) -> Option<&[NodeId]> {
        self.new.as_deref().map(Nodes::as_slice)
    }

    /// Whether a change of this partition is in progress.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.new.is_some()
    }

    /// Every node that a request is sent to, each once: old owners in slot order, then new ones.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        let old = self.old();
        let joining = self.new_owners().unwrap_or_default();
        let joining = joining.iter().filter(move |node| !old.contains(node));
        old.iter().chain(joining).copied()
    }

    /// Whether the node is an old or a new owner.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.nodes().any(|owner| owner == node)
    }

    /// Whether an answer of this owner counts as fully as any can: among the old owners and, in a change, among the new ones,
    /// too.
    #[must_use]
    pub fn counts_fully(&self, owner: NodeId) -> bool {
        let is_new = |new: &[NodeId]| new.contains(&owner);
        self.old().contains(&owner) && self.new_owners().is_none_or(is_new)
    }

    /// Answers that count: those from old owners or those from new ones, whichever are fewer.
    ///
    /// This is the number for messages: `needed 2, got 1`.
    #[must_use]
    pub fn count(&self, answered: impl Fn(NodeId) -> bool) -> u8 {
        let among = |nodes: &Nodes| {
            nodes
                .as_slice()
                .iter()
                .filter(|&&node| answered(node))
                .count()
        };
        let old = among(&self.old);
        if planted!("count only the old owners while owners change") {
            return u8::try_from(old).unwrap_or(u8::MAX);
        }
        let fewer = self.new.as_deref().map_or(old, |new| old.min(among(new)));
        u8::try_from(fewer).unwrap_or(u8::MAX)
    }

    /// Whether `need` old owners, and in a transition also `need` new owners, have answered.
    #[must_use]
    pub fn is_met(&self, answered: impl Fn(NodeId) -> bool, need: u8) -> bool {
        self.count(answered) >= need
    }

    /// Whether `need` can still be met by the nodes that answered or may yet answer.
    #[must_use]
    pub fn can_be_met(&self, still_possible: impl Fn(NodeId) -> bool, need: u8) -> bool {
        self.count(still_possible) >= need
    }
}

impl core::fmt::Debug for ReplicaSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.new_owners() {
            None => f.debug_tuple("Stable").field(&self.old()).finish(),
            Some(new) => f
                .debug_struct("Joint")
                .field("old", &self.old())
                .field("new", &new)
                .finish(),
        }
    }
}

impl PartialEq for ReplicaSet {
    fn eq(&self, other: &Self) -> bool {
        self.old() == other.old() && self.new_owners() == other.new_owners()
    }
}

impl Eq for ReplicaSet {}

/// What a replica does with a request, by the epochs of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// The partition has not changed between the two epochs: serve.
    Serve,
    /// The coordinator does not know the partition's last change: do nothing, answer `StaleEpoch`.
    StaleRequest,
    /// The coordinator knows a newer epoch: adopt it durably, then judge the request again.
    BehindRequest,
}

/// Judges a request of `request_epoch` at a replica of `own_epoch`, in whose topology the partition
/// last changed at `partition_changed` (≤ `own_epoch`).
///
/// Changes of other partitions never fence: only the partition's own last change counts.
#[must_use]
pub fn fence(request_epoch: Epoch, own_epoch: Epoch, partition_changed: Epoch) -> Fence {
    debug_assert!(
        partition_changed <= own_epoch,
        "a change later than the topology it is in"
    );
    let is_served = planted!("serve requests from before a change of owners");
    if request_epoch < partition_changed && !is_served {
        Fence::StaleRequest
    } else if request_epoch > own_epoch {
        Fence::BehindRequest
    } else {
        Fence::Serve
    }
}

#[cfg(test)]
mod tests;
