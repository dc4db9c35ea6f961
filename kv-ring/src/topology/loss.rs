//! What may be lost with members that are given up.

use std::collections::BTreeMap;

use kv_types::{Epoch, NodeId};

use super::{ChangeError, MemberState, Topology};
use crate::partition::PartitionId;

impl Topology {
    /// The partitions that may lose acknowledged writes if `committed` follows on this topology and gives up `lost`: so many of
    /// their owners would be gone that these may be all that had acknowledged a write.
    ///
    /// It counts owners, by the numbers of the buckets. What a request asked fewer of, and what those who are given up kept for
    /// other owners and had not delivered, may be lost with fewer of them.
    #[must_use]
    pub fn may_lose(&self, committed: &Self, lost: &[NodeId]) -> Vec<PartitionId> {
        if lost.is_empty() {
            return Vec::new();
        }
        let is_lost = |node: &NodeId| {
            let member = committed.member(*node);
            member.is_some_and(|member| member.state == MemberState::Lost)
        };
        let loses = |partition: &PartitionId| {
            self.buckets().iter().any(|bucket| {
                let n = usize::from(bucket.properties.quorum.n());
                let owners: Vec<NodeId> = self.table().owners(*partition).take(n).collect();
                let gone = owners.iter().filter(|owner| is_lost(owner)).count();
                let is_given_up_now =
                    |owner: &NodeId| lost.contains(owner) && self.is_counted_on(*owner);
                let is_new = owners.iter().any(is_given_up_now);
                is_new && gone >= usize::from(bucket.past.written)
            })
        };
        self.partition_count().iter().filter(loses).collect()
    }

    /// Partitions that may have lost acknowledged writes with members that were given up, and since which epoch; until somebody
    /// says that he has seen to it.
    #[must_use]
    pub fn marked(&self) -> &BTreeMap<PartitionId, Epoch> {
        &self.marked
    }

    pub(super) fn mark(&mut self, partitions: Vec<PartitionId>) {
        let marks = partitions
            .into_iter()
            .map(|partition| (partition, self.epoch));
        self.marked.extend(marks);
    }

    /// Takes off the marks that are not younger than an epoch: whoever has seen those has not seen younger ones.
    pub(super) fn clear_marks(&mut self, through: Epoch) -> Result<(), ChangeError> {
        let count = self.marked.len();
        self.marked.retain(|_, since| *since > through);
        if self.marked.len() == count {
            return Err(ChangeError::NothingMarked { through });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{members, spec};
    use super::*;

    #[test]
    fn what_was_marked_after_somebody_looked_stays_marked() {
        let mut topology = Topology::genesis(spec(members(5, 5))).expect("a good specification");
        let nothing = topology.clear_marks(Epoch(9));
        assert!(matches!(nothing, Err(ChangeError::NothingMarked { .. })));
        topology.mark(vec![PartitionId(3), PartitionId(4)]);
        topology.epoch = Epoch(2);
        topology.mark(vec![PartitionId(4), PartitionId(5)]);
        topology.clear_marks(Epoch(1)).expect("one is that old");
        let left: Vec<PartitionId> = topology.marked().keys().copied().collect();
        assert_eq!(left, [PartitionId(4), PartitionId(5)]);
    }
}
