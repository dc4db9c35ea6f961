//! The decision of a write: who has acknowledged, and is that enough? Pure.

use std::collections::BTreeSet;

use kv_ring::ReplicaSet;
use kv_types::{Epoch, NodeId, planted};

/// What a replica answered to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutAnswer {
    /// The write is durable there, under this epoch of the partition.
    Acked(Epoch),
    /// It knows a newer topology of the partition, and did nothing.
    Stale(Epoch),
    /// It refused, or no answer came.
    Failed,
}

/// What is to be done after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutStep {
    /// Wait for more.
    Wait,
    /// Enough replicas hold it: tell the client.
    Reply,
    /// Too many failed: it may be applied, but not on enough replicas.
    Fail,
    /// The partition changed owners: answers counted so far are of another epoch.
    Restart(Epoch),
}

/// Counts acknowledgements of one write, once for each owner, all under one epoch of the partition. Who stands in for an
/// owner counts in its place.
#[derive(Debug)]
pub struct PutCore {
    replicas: ReplicaSet,
    needed: u8,
    partition_epoch: Epoch,
    acked: BTreeSet<NodeId>,
    failed: BTreeSet<NodeId>,
}

impl PutCore {
    /// A write that needs `needed` acknowledgements from `replicas`, under one epoch.
    #[must_use]
    pub fn new(replicas: ReplicaSet, needed: u8, partition_epoch: Epoch) -> Self {
        Self {
            replicas,
            needed,
            partition_epoch,
            acked: BTreeSet::new(),
            failed: BTreeSet::new(),
        }
    }

    /// Takes in an answer.
    pub fn on_answer(&mut self, from: NodeId, answer: PutAnswer) -> PutStep {
        match answer {
            PutAnswer::Acked(epoch) if epoch == self.partition_epoch => {
                self.acked.insert(from);
            }
            PutAnswer::Acked(epoch) | PutAnswer::Stale(epoch) if epoch > self.partition_epoch => {
                return PutStep::Restart(epoch);
            }
            PutAnswer::Acked(_) | PutAnswer::Stale(_) | PutAnswer::Failed => {
                self.failed.insert(from);
            }
        }
        let mut needed = self.needed;
        if planted!("acknowledge before the quorum") {
            needed = needed.min(1);
        }
        if planted!("count the coordinator twice") && self.acked.len() + 1 == usize::from(needed) {
            needed -= 1;
        }
        if self
            .replicas
            .is_met(|node| self.acked.contains(&node), needed)
        {
            PutStep::Reply
        } else if self
            .replicas
            .is_met(|node| !self.failed.contains(&node), self.needed)
        {
            PutStep::Wait
        } else {
            PutStep::Fail
        }
    }

    /// Whether an owner's acknowledgement is counted already.
    #[must_use]
    pub fn has_answered(&self, owner: NodeId) -> bool {
        self.acked.contains(&owner)
    }

    /// For which owners it was acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> Vec<NodeId> {
        self.acked.iter().copied().collect()
    }

    /// How many acknowledgements count towards the need.
    #[must_use]
    pub fn count(&self) -> u8 {
        self.replicas.count(|node| self.acked.contains(&node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(5);
    const ACK: PutAnswer = PutAnswer::Acked(EPOCH);
    const LOST: PutAnswer = PutAnswer::Failed;

    fn node(n: u128) -> NodeId {
        NodeId(n)
    }

    fn stable() -> ReplicaSet {
        ReplicaSet::stable([node(1), node(2), node(3)])
    }

    #[test]
    fn a_write_replies_at_its_quorum_and_fails_when_it_cannot_be_met() {
        use PutStep::{Fail, Reply, Wait};
        type Answered = (u128, PutAnswer, PutStep);
        let table: [(u8, &[Answered]); 7] = [
            (1, &[(1, ACK, Reply)]),
            (2, &[(1, ACK, Wait), (2, ACK, Reply)]),
            (2, &[(1, ACK, Wait), (2, LOST, Wait), (3, ACK, Reply)]),
            (2, &[(1, ACK, Wait), (2, LOST, Wait), (3, LOST, Fail)]),
            (3, &[(1, ACK, Wait), (2, LOST, Fail)]),
            // The same node twice is one node.
            (2, &[(1, ACK, Wait), (1, ACK, Wait), (2, ACK, Reply)]),
            // A node outside the replicas counts for nothing.
            (2, &[(1, ACK, Wait), (9, ACK, Wait), (2, ACK, Reply)]),
        ];
        for (needed, answers) in table {
            let mut core = PutCore::new(stable(), needed, EPOCH);
            for (from, answer, step) in answers {
                assert_eq!(
                    core.on_answer(node(*from), *answer),
                    *step,
                    "w={needed}: {answers:?}"
                );
            }
        }
    }

    #[test]
    fn in_transition_both_sides_must_meet_the_quorum() {
        let joint = ReplicaSet::joint([node(1), node(2), node(3)], [node(1), node(2), node(4)]);
        let mut core = PutCore::new(joint, 2, EPOCH);
        assert_eq!(core.on_answer(node(3), ACK), PutStep::Wait);
        assert_eq!(
            core.on_answer(node(1), ACK),
            PutStep::Wait,
            "two of the old, one of the new"
        );
        assert_eq!(core.count(), 1);
        assert_eq!(core.on_answer(node(4), ACK), PutStep::Reply);
    }

    #[test]
    fn answers_of_a_newer_epoch_end_the_tally() {
        let mut core = PutCore::new(stable(), 2, EPOCH);
        assert_eq!(core.on_answer(node(1), ACK), PutStep::Wait);
        assert_eq!(
            core.on_answer(node(2), PutAnswer::Acked(Epoch(6))),
            PutStep::Restart(Epoch(6))
        );
        assert_eq!(
            core.on_answer(node(3), PutAnswer::Stale(Epoch(7))),
            PutStep::Restart(Epoch(7))
        );
    }

    #[test]
    fn an_answer_of_an_older_epoch_does_not_count() {
        let mut core = PutCore::new(stable(), 2, EPOCH);
        assert_eq!(
            core.on_answer(node(1), PutAnswer::Acked(Epoch(4))),
            PutStep::Wait
        );
        assert_eq!(core.on_answer(node(2), ACK), PutStep::Wait);
        assert_eq!(core.on_answer(node(3), ACK), PutStep::Reply);
    }
}
