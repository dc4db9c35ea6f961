//! The decision of a write: who has acknowledged, and is that enough? Pure.

use std::collections::{BTreeMap, BTreeSet};

use kv_ring::ReplicaSet;
use kv_types::{Epoch, NodeId, planted};

/// What a replica answered to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutAnswer {
    /// The write is there, durably if that was asked for, under this epoch of the partition.
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

/// What a write needs before its writer is told that it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// How many acknowledgements, one for each owner.
    pub count: u8,
    /// This node's must be among them.
    pub from: Option<NodeId>,
    /// In how many zones those must be who acknowledge; while owners change, for the old ones and for the new ones.
    pub zones: u8,
    /// The zone of each node; empty where it does not matter.
    pub zone_of: BTreeMap<NodeId, u16>,
}

impl Need {
    /// So many acknowledgements, from anyone.
    #[must_use]
    pub fn of(count: u8) -> Self {
        Self {
            count,
            from: None,
            zones: 0,
            zone_of: BTreeMap::new(),
        }
    }

    /// In how many zones nodes are.
    pub fn zones_of(&self, nodes: impl IntoIterator<Item = NodeId>) -> usize {
        let zones = nodes.into_iter().filter_map(|node| self.zone_of.get(&node));
        zones.collect::<BTreeSet<_>>().len()
    }

    /// In how many zones those are who hold it for old owners, or for new ones, whichever are fewer: pairs of an owner and who
    /// holds it in its place. After the change only the new ones are asked.
    pub fn zones_held(
        &self,
        replicas: &ReplicaSet,
        held: impl Iterator<Item = (NodeId, NodeId)> + Clone,
    ) -> usize {
        if self.zone_of.is_empty() {
            // Most writes ask for none.
            return 0;
        }
        let among = |owners: &[NodeId]| {
            let held = held.clone().filter(|(owner, _)| owners.contains(owner));
            self.zones_of(held.map(|(_, holder)| holder))
        };
        let old = among(replicas.old());
        let fewer = replicas.new_owners().map(|new| old.min(among(new)));
        fewer.unwrap_or(old)
    }
}

/// Counts acknowledgements of one write, once for each owner, all under one epoch of the partition. Who stands in for an
/// owner counts in its place.
#[derive(Debug)]
pub struct PutCore {
    replicas: ReplicaSet,
    need: Need,
    partition_epoch: Epoch,
    acked: BTreeSet<NodeId>,
    failed: BTreeSet<NodeId>,
    /// For which owner who has acknowledged.
    held: BTreeSet<(NodeId, NodeId)>,
}

impl PutCore {
    /// A write that needs acknowledgements from `replicas`, under one epoch.
    #[must_use]
    pub fn new(replicas: ReplicaSet, need: Need, partition_epoch: Epoch) -> Self {
        Self {
            replicas,
            need,
            partition_epoch,
            acked: BTreeSet::new(),
            failed: BTreeSet::new(),
            held: BTreeSet::new(),
        }
    }

    /// Takes in an answer that counts for an owner.
    pub fn on_answer(&mut self, owner: NodeId, from: NodeId, answer: PutAnswer) -> PutStep {
        match answer {
            PutAnswer::Acked(epoch)
                if epoch == self.partition_epoch || planted!("count answers of several epochs") =>
            {
                self.acked.insert(owner);
                self.held.insert((owner, from));
            }
            PutAnswer::Acked(epoch) | PutAnswer::Stale(epoch) if epoch > self.partition_epoch => {
                return PutStep::Restart(epoch);
            }
            PutAnswer::Acked(_) | PutAnswer::Stale(_) | PutAnswer::Failed => {
                self.failed.insert(owner);
            }
        }
        let mut needed = self.need.count;
        if planted!("acknowledge before the quorum") {
            needed = needed.min(1);
        }
        if planted!("count the coordinator twice") && self.acked.len() + 1 == usize::from(needed) {
            needed -= 1;
        }
        let has_acked = |owner| self.acked.contains(&owner);
        // An owner that failed may have been stood in for before.
        let may_ack = |owner| self.acked.contains(&owner) || !self.failed.contains(&owner);
        let has_it = |node: &NodeId| self.held.iter().any(|(_, holder)| holder == node);
        if self.replicas.is_met(has_acked, needed)
            && self.need.from.iter().all(has_it)
            && self.zones() >= self.need.zones
        {
            PutStep::Reply
        } else if self.replicas.is_met(may_ack, self.need.count) {
            PutStep::Wait
        } else {
            PutStep::Fail
        }
    }

    /// In how many zones those are who have acknowledged, as [`Need::zones_held`] counts them; not counted where nobody asks
    /// for it.
    #[must_use]
    pub fn zones(&self) -> u8 {
        let held = self.held.iter().copied();
        let zones = self.need.zones_held(&self.replicas, held);
        u8::try_from(zones).unwrap_or(u8::MAX)
    }

    /// What it needs.
    #[must_use]
    pub fn need(&self) -> &Need {
        &self.need
    }

    /// Whether an owner's acknowledgement is counted already.
    #[must_use]
    pub fn has_answered(&self, owner: NodeId) -> bool {
        self.acked.contains(&owner)
    }

    /// Who has acknowledged so far.
    #[must_use]
    pub fn holders(&self) -> Vec<NodeId> {
        let holders: BTreeSet<NodeId> = self.held.iter().map(|(_, holder)| *holder).collect();
        holders.into_iter().collect()
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
            let mut core = PutCore::new(stable(), Need::of(needed), EPOCH);
            for (from, answer, step) in answers {
                assert_eq!(
                    core.on_answer(node(*from), node(*from), *answer),
                    *step,
                    "w={needed}: {answers:?}"
                );
            }
        }
    }

    #[test]
    fn in_transition_both_sides_must_meet_the_quorum() {
        let joint = ReplicaSet::joint([node(1), node(2), node(3)], [node(1), node(2), node(4)]);
        let mut core = PutCore::new(joint, Need::of(2), EPOCH);
        assert_eq!(core.on_answer(node(3), node(3), ACK), PutStep::Wait);
        assert_eq!(
            core.on_answer(node(1), node(1), ACK),
            PutStep::Wait,
            "two of the old, one of the new"
        );
        assert_eq!(core.count(), 1);
        assert_eq!(core.on_answer(node(4), node(4), ACK), PutStep::Reply);
    }

    #[test]
    fn an_owner_that_fails_after_another_stood_in_for_it_counts_still() {
        let mut core = PutCore::new(stable(), Need::of(2), EPOCH);
        assert_eq!(core.on_answer(node(1), node(4), ACK), PutStep::Wait);
        assert_eq!(core.on_answer(node(1), node(1), LOST), PutStep::Wait);
        assert_eq!(core.on_answer(node(2), node(2), LOST), PutStep::Wait);
        assert_eq!(core.on_answer(node(3), node(3), ACK), PutStep::Reply);
    }

    #[test]
    fn answers_of_a_newer_epoch_end_the_tally() {
        let mut core = PutCore::new(stable(), Need::of(2), EPOCH);
        assert_eq!(core.on_answer(node(1), node(1), ACK), PutStep::Wait);
        assert_eq!(
            core.on_answer(node(2), node(2), PutAnswer::Acked(Epoch(6))),
            PutStep::Restart(Epoch(6))
        );
        assert_eq!(
            core.on_answer(node(3), node(3), PutAnswer::Stale(Epoch(7))),
            PutStep::Restart(Epoch(7))
        );
    }

    #[test]
    fn an_answer_of_an_older_epoch_does_not_count() {
        let mut core = PutCore::new(stable(), Need::of(2), EPOCH);
        assert_eq!(
            core.on_answer(node(1), node(1), PutAnswer::Acked(Epoch(4))),
            PutStep::Wait
        );
        assert_eq!(core.on_answer(node(2), node(2), ACK), PutStep::Wait);
        assert_eq!(core.on_answer(node(3), node(3), ACK), PutStep::Reply);
    }

    #[test]
    fn an_acknowledgement_may_be_needed_from_one_of_them() {
        let need = Need {
            from: Some(node(1)),
            ..Need::of(2)
        };
        let mut core = PutCore::new(stable(), need.clone(), EPOCH);
        assert_eq!(core.on_answer(node(2), node(2), ACK), PutStep::Wait);
        assert_eq!(core.on_answer(node(3), node(3), ACK), PutStep::Wait);
        assert_eq!(core.on_answer(node(1), node(1), ACK), PutStep::Reply);
        let mut core = PutCore::new(stable(), need, EPOCH);
        assert_eq!(core.on_answer(node(2), node(2), ACK), PutStep::Wait);
        let stands_in = core.on_answer(node(1), node(4), ACK);
        assert_eq!(
            stands_in,
            PutStep::Wait,
            "another in its place is not enough"
        );
    }

    #[test]
    fn zones_are_those_of_the_nodes_that_hold_it() {
        let need = Need {
            zones: 2,
            zone_of: [(1, 0), (2, 0), (3, 1), (4, 2)]
                .map(|(number, zone)| (node(number), zone))
                .into(),
            ..Need::of(2)
        };
        let mut core = PutCore::new(stable(), need.clone(), EPOCH);
        assert_eq!(core.on_answer(node(1), node(1), ACK), PutStep::Wait);
        assert_eq!(core.on_answer(node(2), node(2), ACK), PutStep::Wait);
        assert_eq!(core.zones(), 1);
        assert_eq!(core.on_answer(node(3), node(3), ACK), PutStep::Reply);
        // Who stands in for the second is elsewhere.
        let mut core = PutCore::new(stable(), need, EPOCH);
        assert_eq!(core.on_answer(node(1), node(1), ACK), PutStep::Wait);
        assert_eq!(core.on_answer(node(2), node(4), ACK), PutStep::Reply);
    }

    #[test]
    fn in_transition_each_side_must_be_in_enough_zones() {
        let need = Need {
            zones: 3,
            zone_of: [1, 2, 3, 4]
                .map(|number: u16| (node(number.into()), number))
                .into(),
            ..Need::of(2)
        };
        let joint = ReplicaSet::joint([node(1), node(2), node(3)], [node(1), node(2), node(4)]);
        let mut core = PutCore::new(joint, need, EPOCH);
        for number in [1, 3, 4] {
            let step = core.on_answer(node(number), node(number), ACK);
            assert_eq!(step, PutStep::Wait);
        }
        assert_eq!(core.zones(), 2, "the third of the new ones lacks it");
        assert_eq!(core.on_answer(node(2), node(2), ACK), PutStep::Reply);
    }
}
