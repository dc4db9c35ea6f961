//! Partitions on their way from owners to owners, one slot at a time.
//!
//! 1. [`Change::BeginMoves`](super::Change): the owners become joint. Whoever gains the slot takes writes from then on, and pulls
//!    what was written before from as many of the old owners as [`Topology::sources`] says.
//! 2. [`Change::FinishMoves`](super::Change): it has all of that, on its disk. The new owners stand alone; whoever lost the slot
//!    *drains*: it serves the partition no more, and brings what only it has to the owners.
//! 3. [`Change::Drained`](super::Change): the owners hold all that it held. Now it may delete it, and only now may the
//!    partition's watermark rise again: what it brings would be taken for deleted otherwise.
//!
//! Another change of the same partition begins after that. Until 2, all may be called off: every write that was acknowledged
//! meanwhile has its quorum among the old owners, too.

use std::collections::BTreeMap;

use kv_types::{BucketId, Epoch, NodeId, planted};

use super::change::ChangeError;
use super::member::{MemberState, Removal};
use super::{Topology, TopologyError};
use crate::assign::SlotMove;
use crate::partition::PartitionId;

/// The same owners as `present`, with those that are lost replaced: each by who is to have its slot, unless that one is there already;
/// then by anybody who is to come. As many come as are lost, or more.
fn without_lost(present: &[u16], wanted: &[u16], is_lost: impl Fn(u16) -> bool) -> Vec<u16> {
    let is_heir = |owner: &u16| !present.contains(owner);
    let mut left = present.to_vec();
    let mut heirs: Vec<u16> = wanted.iter().copied().filter(is_heir).collect();
    for (slot, heir) in left.iter_mut().zip(wanted) {
        if is_lost(*slot) && is_heir(heir) {
            *slot = *heir;
            heirs.retain(|other| other != heir);
        }
    }
    let mut heirs = heirs.into_iter();
    for slot in left.iter_mut().filter(|slot| is_lost(**slot)) {
        *slot = heirs.next().unwrap_or(*slot);
    }
    left
}

/// From whom an owner that is to gain a partition of a bucket must pull what was written before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Any of these.
    pub among: Vec<NodeId>,
    /// So many of them.
    pub needed: u8,
    /// More would be needed, and are lost: an acknowledged write may be lost with them.
    pub loses: bool,
}

impl Topology {
    /// The change in progress of a partition's owners: which slot, from whom, to whom.
    #[must_use]
    pub fn moving(&self, partition: PartitionId) -> Option<SlotMove> {
        self.first_move(partition, self.joint.get(&partition)?)
    }

    /// The partitions that a node is to gain in the changes in progress, with the epochs in which these began.
    #[must_use]
    pub fn gained_by(&self, node: NodeId) -> BTreeMap<PartitionId, Epoch> {
        let moving = self.joint.keys().filter_map(|joint| self.moving(*joint));
        moving
            .filter(|moving| moving.to == node)
            .map(|moving| (moving.partition, self.changed_at(moving.partition)))
            .collect()
    }

    /// The next change of a partition's owners on its way, if it may begin.
    #[must_use]
    pub fn next_move(&self, partition: PartitionId) -> Option<SlotMove> {
        let rests = !self.joint.contains_key(&partition) && !self.draining.contains_key(&partition);
        let wanted = self.moves.get(&partition).filter(|_| rests)?;
        self.first_move(partition, wanted)
    }

    /// The partitions that are on their way, in order.
    pub fn unsettled(&self) -> impl Iterator<Item = PartitionId> {
        let mut all: Vec<PartitionId> = self.moves.keys().copied().collect();
        all.extend(self.joint.keys());
        all.extend(self.draining.keys());
        all.sort_unstable();
        all.dedup();
        all.into_iter()
    }

    /// Who has lost a slot of a partition and may hold what its owners lack.
    pub fn draining(&self, partition: PartitionId) -> impl Iterator<Item = NodeId> {
        let nodes = self.draining.get(&partition).into_iter().flatten();
        nodes.map(|index| self.node_at(*index))
    }

    /// Whether a node is among the owners of a partition, or about to be, or drains it.
    #[must_use]
    pub fn has_or_drains(&self, node: NodeId, partition: PartitionId) -> bool {
        self.owns(node, partition) || self.draining(partition).any(|drains| drains == node)
    }

    /// Whether a node is a member that is not given up.
    #[must_use]
    pub fn is_counted_on(&self, node: NodeId) -> bool {
        let member = self.member(node);
        member.is_some_and(|member| member.state != MemberState::Lost)
    }

    /// Whether a node is among the owners of a partition, or about to be.
    #[must_use]
    pub fn owns(&self, node: NodeId, partition: PartitionId) -> bool {
        let slots = self.replication_factor();
        self.replicas(partition, slots).contains(node)
    }

    /// Whether a partition's owners hold all that anybody holds of it and is no owner's copy on its way.
    #[must_use]
    pub fn is_settled(&self, partition: PartitionId) -> bool {
        !self.joint.contains_key(&partition) && !self.draining.contains_key(&partition)
    }

    /// From whom the node that gains a slot must pull what a bucket holds, in the change in progress; `None` where the bucket
    /// has fewer replicas, so that the slot holds none of it.
    ///
    /// Every acknowledged write is with the least number of old owners that a write of the bucket ever waited for, and may be read
    /// with the least number that a read did: so many sources meet each of both. A bucket whose numbers do not meet promises
    /// nothing, and is pulled from a majority; but where the slot's owner is given up, from so many others that each write that is
    /// with one of them is with as many again: else those that are given up one after the other could have been all that had it.
    #[must_use]
    pub fn sources(&self, bucket: BucketId, partition: PartitionId) -> Option<Sources> {
        let SlotMove { slot, from, .. } = self.moving(partition)?;
        let bucket = self.bucket(bucket)?;
        let quorum = bucket.properties.quorum;
        let n = quorum.n();
        if slot >= n {
            return None;
        }
        let needed = if quorum.is_strict() {
            n + 1 - bucket.past.written.min(bucket.past.read)
        } else {
            n / 2 + 1
        };
        let is_there = |node: &NodeId| self.is_counted_on(*node);
        let owners = self.table.owners(partition).take(usize::from(n));
        let among: Vec<NodeId> = owners.filter(is_there).collect();
        let there = u8::try_from(among.len()).unwrap_or(u8::MAX);
        let meets_writes = n + 1 - bucket.past.written;
        let is_given_up = from.is_some_and(|from| !is_there(&from));
        // If more are gone than acknowledged a write, that is marked.
        let needed = match is_given_up && meets_writes <= there {
            true => needed.max(meets_writes),
            false => needed,
        };
        Some(Sources {
            needed: needed.min(there),
            loses: needed > there,
            among,
        })
    }

    /// Every node that was a member and is none any more, with how that came.
    #[must_use]
    pub fn removed(&self) -> &BTreeMap<NodeId, Removal> {
        &self.removed
    }

    fn first_move(&self, partition: PartitionId, wanted: &[u16]) -> Option<SlotMove> {
        let present = self.table.slots(partition);
        let mut slots = (0u8..).zip(present.iter().zip(wanted));
        let (slot, (from, to)) = slots.find(|(_, (from, to))| from != to)?;
        Some(SlotMove {
            partition,
            slot,
            from: Some(self.node_at(*from)),
            to: self.node_at(*to),
        })
    }

    pub(super) fn begin_moves(&mut self, partitions: &[PartitionId]) -> Result<(), ChangeError> {
        for partition in partitions {
            let next = self.next_move(*partition);
            let next = next.ok_or(ChangeError::NothingToMove {
                partition: *partition,
            })?;
            let wanted = &self.moves[partition];
            let mut new = self.table.slots(*partition).to_vec();
            new[usize::from(next.slot)] = wanted[usize::from(next.slot)];
            if new == *wanted {
                self.moves.remove(partition);
            }
            self.joint.insert(*partition, new);
            self.changed[partition.index()] = self.epoch;
        }
        Ok(())
    }

    pub(super) fn finish_moves(
        &mut self,
        by: NodeId,
        partitions: &[(PartitionId, Epoch)],
    ) -> Result<(), ChangeError> {
        for (partition, since) in partitions {
            let moving = self.moving(*partition).filter(|moving| moving.to == by);
            // What it has pulled in an earlier attempt may lack what was written in between.
            let is_of_this_one = || {
                self.changed_at(*partition) == *since
                    || planted!("count the vote of an earlier attempt")
            };
            let moving = moving.filter(|_| is_of_this_one());
            let moving = moving.ok_or(ChangeError::NotMoving {
                partition: *partition,
                node: by,
                since: *since,
            })?;
            let Some(new) = self.joint.remove(partition) else {
                continue;
            };
            let slot = usize::from(moving.slot);
            let leaver = self.table.slots(*partition)[slot];
            self.table.slots_mut(*partition).copy_from_slice(&new);
            self.changed[partition.index()] = self.epoch;
            let is_lost = self.members[usize::from(leaver)].state == MemberState::Lost;
            if !is_lost && !planted!("delete at once what a former owner holds") {
                let nodes = self.draining.entry(*partition).or_default();
                nodes.push(leaver);
                nodes.sort_unstable();
            }
        }
        self.choose_voters_anew();
        Ok(())
    }

    pub(super) fn drained(
        &mut self,
        by: NodeId,
        partitions: &[PartitionId],
    ) -> Result<(), ChangeError> {
        let index = self
            .table
            .index_of(by)
            .ok_or(TopologyError::NotAMember { node: by })?;
        for partition in partitions {
            let nodes = self.draining.get_mut(partition);
            let place = nodes
                .as_ref()
                .and_then(|nodes| nodes.iter().position(|node| *node == index));
            let (Some(nodes), Some(place)) = (nodes, place) else {
                return Err(ChangeError::NotDraining {
                    partition: *partition,
                    node: by,
                });
            };
            nodes.remove(place);
            if nodes.is_empty() {
                self.draining.remove(partition);
            }
        }
        Ok(())
    }

    /// Nobody waits any more for what a node may hold of partitions that it lost.
    pub(super) fn give_up_draining(&mut self, node: NodeId) {
        let index = self.table.index_of(node);
        self.draining.retain(|_, nodes| {
            nodes.retain(|node| Some(*node) != index);
            !nodes.is_empty()
        });
    }

    /// Ends the changes in progress whose joining owner is such a node, in favour of the old owners.
    pub(super) fn call_off(&mut self, is_such: impl Fn(&Self, NodeId) -> bool) {
        let moving: Vec<SlotMove> = self
            .joint
            .keys()
            .filter_map(|partition| self.moving(*partition))
            .collect();
        for moving in moving {
            if !is_such(self, moving.to) {
                continue;
            }
            let new = self.joint.remove(&moving.partition);
            if planted!("call off in favour of the new owners")
                && let Some(new) = new
            {
                self.table.slots_mut(moving.partition).copy_from_slice(&new);
            }
            self.changed[moving.partition.index()] = self.epoch;
        }
    }

    /// Calls off all changes, but for those by which somebody takes the place of a member that is lost: it has to be taken.
    pub(super) fn abort_moves(&mut self) {
        let mut wanted = self.joint.clone();
        wanted.append(&mut self.moves);
        self.call_off(|_, _| true);
        let is_lost = |owner: u16| self.members[usize::from(owner)].state == MemberState::Lost;
        let mut moves = BTreeMap::new();
        for (partition, wanted) in wanted {
            let present = self.table.slots(partition);
            let left = without_lost(present, &wanted, is_lost);
            if left != present {
                moves.insert(partition, left);
            }
        }
        self.moves = moves;
        for member in &mut self.members {
            if member.state == MemberState::Leaving {
                member.state = MemberState::Active;
            }
        }
    }

    pub(super) fn remove_member(&mut self, node: NodeId) -> Result<(), ChangeError> {
        let member = self
            .member(node)
            .ok_or(TopologyError::NotAMember { node })?;
        let removal = match member.state {
            MemberState::Active => return Err(ChangeError::Stays { node }),
            MemberState::Leaving => Removal {
                epoch: self.epoch,
                may_lose: false,
            },
            MemberState::Lost => Removal {
                epoch: self.epoch,
                may_lose: true,
            },
        };
        let members = self
            .members
            .iter()
            .filter(|member| member.node != node)
            .cloned()
            .collect();
        self.set_members(members)?;
        self.removed.insert(node, removal);
        self.choose_voters_anew();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heir_of_a_lost_owner_has_its_slot_where_that_is_possible() {
        let is_lost = |owner| owner == 9;
        let left = |present: [u16; 3], wanted: [u16; 3]| without_lost(&present, &wanted, is_lost);
        // Another slot was on its way, too.
        assert_eq!(left([1, 2, 9], [5, 2, 6]), [1, 2, 6]);
        assert_eq!(left([1, 2, 9], [5, 2, 1]), [1, 2, 5], "1 stays where it is");
        assert_eq!(left([9, 2, 3], [4, 2, 3]), [4, 2, 3]);
        assert_eq!(left([1, 2, 3], [4, 2, 3]), [1, 2, 3]);
    }
}
