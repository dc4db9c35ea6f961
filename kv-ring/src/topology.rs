//! The topology: everything the nodes of a cluster agree on, as the immutable value of one epoch.
//!
//! A request takes one topology and keeps it to its end; a change makes a new value of a later epoch.
//! Share it by `Arc`: it is tens of kilobytes, and no lookup changes it.

mod change;
mod check;
mod genesis;
mod loss;
mod member;
mod membership;
mod moving;
mod recovery;
mod walk;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use kv_types::{ActorId, BucketId, BucketMode, BucketName, ClusterId, Epoch, NodeId};

pub use change::{Change, ChangeError};
pub use check::TopologyError;
pub use genesis::{GenesisError, GenesisSpec};
pub(crate) use member::count_zones;
pub use member::{Bucket, ClusterMode, Member, MemberState, PartitionState, Past, Removal};
pub use membership::{MemberChanges, MembershipPlan, PlanId};
pub use moving::Sources;
pub use recovery::RecoveryError;

use crate::assign::Table;
use crate::hash::{HashSecret, KeyHash};
use crate::partition::{PartitionCount, PartitionId};
use crate::transition::ReplicaSet;

/// Members, buckets and the owners of every partition, at one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    pub(crate) epoch: Epoch,
    pub(crate) cluster_id: ClusterId,
    pub(crate) cluster_name: String,
    pub(crate) secret: HashSecret,
    pub(crate) partitions: PartitionCount,
    pub(crate) mode: ClusterMode,
    /// In order of node id; the slots of the table are indexes into them.
    pub(crate) members: Vec<Member>,
    /// How many zones the members are in.
    pub(crate) zone_count: usize,
    pub(crate) actors: BTreeMap<ActorId, NodeId>,
    /// In order of bucket id.
    pub(crate) buckets: Vec<Bucket>,
    pub(crate) voters: Vec<NodeId>,
    /// The owners; in a transition, the old ones.
    pub(crate) table: Table,
    /// The new owners of partitions in transition, as indexes into the members.
    pub(crate) joint: BTreeMap<PartitionId, Vec<u16>>,
    /// The owners in the end of partitions that are to change further, as indexes into the members.
    pub(crate) moves: BTreeMap<PartitionId, Vec<u16>>,
    /// Who has lost a slot of a partition and may hold what its owners lack, as indexes into the members.
    pub(crate) draining: BTreeMap<PartitionId, Vec<u16>>,
    /// Who was a member and will never be one again.
    pub(crate) removed: BTreeMap<NodeId, Removal>,
    /// Who may have lost acknowledged writes, since which epoch, and nobody has seen to it.
    pub(crate) marked: BTreeMap<PartitionId, Epoch>,
    /// The epoch of the last change of each partition: of its owners, or of how many of them must answer.
    pub(crate) changed: Vec<Epoch>,
}

impl Topology {
    /// The epoch whose value this is.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// The cluster's name, for people.
    #[must_use]
    pub fn cluster_name(&self) -> &str {
        &self.cluster_name
    }

    /// The key of all hashes of the cluster.
    #[must_use]
    pub fn secret(&self) -> &HashSecret {
        &self.secret
    }

    /// Into how many partitions the ring is cut.
    #[must_use]
    pub fn partition_count(&self) -> PartitionCount {
        self.partitions
    }

    /// Slots of each partition: the most replicas that a bucket can have.
    #[must_use]
    pub fn replication_factor(&self) -> u8 {
        self.table.replicas()
    }

    /// What requests get that ask for nothing in particular.
    #[must_use]
    pub fn mode(&self) -> ClusterMode {
        self.mode
    }

    /// All members, in order of node id.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// One member.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        let index = self
            .members
            .binary_search_by_key(&node, |member| member.node)
            .ok()?;
        self.members.get(index)
    }

    /// The zone of each member, as a number.
    #[must_use]
    pub fn zone_numbers(&self) -> BTreeMap<NodeId, u16> {
        let mut numbers = BTreeMap::new();
        let mut number = |zone| {
            let next = u16::try_from(numbers.len()).unwrap_or(u16::MAX);
            *numbers.entry(zone).or_insert(next)
        };
        let zones = self.members.iter();
        zones
            .map(|member| (member.node, number(member.zone.as_str())))
            .collect()
    }

    /// The actor under which a member mints dots: the latest granted to it.
    #[must_use]
    pub fn actor_of(&self, node: NodeId) -> Option<ActorId> {
        self.actors
            .iter()
            .rev()
            .find(|&(_, &holder)| holder == node)
            .map(|(&actor, _)| actor)
    }

    /// Every actor ever granted, and to whom.
    #[must_use]
    pub fn actors(&self) -> &BTreeMap<ActorId, NodeId> {
        &self.actors
    }

    /// All buckets, in order of their ids.
    #[must_use]
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// One bucket, by id.
    #[must_use]
    pub fn bucket(&self, id: BucketId) -> Option<&Bucket> {
        let index = self
            .buckets
            .binary_search_by_key(&id, |bucket| bucket.id)
            .ok()?;
        self.buckets.get(index)
    }

    /// How a bucket treats concurrent writes; [`BucketMode::Siblings`], which drops nothing, of one that is gone.
    #[must_use]
    pub fn mode_of(&self, bucket: BucketId) -> BucketMode {
        let bucket = self.bucket(bucket);
        bucket.map_or(BucketMode::Siblings, |bucket| bucket.properties.mode)
    }

    /// One bucket, by name.
    #[must_use]
    pub fn bucket_by_name(&self, name: &BucketName) -> Option<&Bucket> {
        self.buckets.iter().find(|bucket| bucket.name == *name)
    }

    /// The members that decide the next epoch.
    #[must_use]
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// The owners of all partitions; of those in transition, the old ones.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Where the keys of one partition key live, in one bucket.
    #[must_use]
    pub fn locate(&self, bucket: BucketId, partition_key: &[u8]) -> (KeyHash, PartitionId) {
        let hash = self.secret.key_hash(bucket, partition_key);
        (hash, self.partitions.partition_of(hash))
    }

    /// The replicas of a partition for a bucket with `n` replicas: the first `n` slots, old and new.
    ///
    /// # Panics
    /// When the partition is none of [`Self::partition_count`].
    #[must_use]
    pub fn replicas(&self, partition: PartitionId, n: u8) -> ReplicaSet {
        let n = usize::from(n);
        let old = self.table.owners(partition).take(n);
        match self.joint.get(&partition) {
            None => ReplicaSet::stable(old),
            Some(new) => {
                ReplicaSet::joint(old, new.iter().take(n).map(|&index| self.node_at(index)))
            }
        }
    }

    /// Who owns a partition, in all slots.
    ///
    /// # Panics
    /// When the partition is none of [`Self::partition_count`].
    #[must_use]
    pub fn partition_state(&self, partition: PartitionId) -> PartitionState {
        let old = self.table.owners(partition).collect();
        match self.joint.get(&partition) {
            None => PartitionState::Stable(old),
            Some(new) => {
                let new = new.iter().map(|&index| self.node_at(index)).collect();
                PartitionState::Joint { old, new }
            }
        }
    }

    /// The epoch in which a partition's owners last changed, or how many of them must answer.
    ///
    /// # Panics
    /// When the partition is none of [`Self::partition_count`].
    #[must_use]
    pub fn changed_at(&self, partition: PartitionId) -> Epoch {
        self.changed[partition.index()]
    }

    /// The epoch that a node must know of to serve a partition of a bucket as this topology has it served: that in which its owners, how
    /// many of them must answer, or the bucket last changed, or in which the generation began. All that has changed since lies
    /// elsewhere, so a topology of any epoch from there on says the same of it.
    ///
    /// # Panics
    /// When the partition is none of [`Self::partition_count`].
    #[must_use]
    pub fn served_since(&self, bucket: BucketId, partition: PartitionId) -> Epoch {
        let made = self.bucket(bucket).map_or(self.epoch, |it| it.past.since);
        let changed = self.changed_at(partition);
        changed.max(made).max(self.generation_began())
    }

    /// The topology of `epoch` that differs from this one in the owners of one partition.
    ///
    /// Several partitions change in one epoch by calling this again with the same epoch.
    ///
    /// # Errors
    /// [`TopologyError`] when the epoch is older than this one, the partition does not exist, or the
    /// slots are not N distinct members.
    pub fn with_partition_state(
        &self,
        partition: PartitionId,
        state: &PartitionState,
        epoch: Epoch,
    ) -> Result<Self, TopologyError> {
        let mut next = self.clone();
        next.set_partition_state(partition, state, epoch)?;
        Ok(next)
    }

    fn set_partition_state(
        &mut self,
        partition: PartitionId,
        state: &PartitionState,
        epoch: Epoch,
    ) -> Result<(), TopologyError> {
        if epoch < self.epoch {
            return Err(TopologyError::EpochGoesBack {
                from: self.epoch,
                to: epoch,
            });
        }
        if partition.index() >= self.changed.len() {
            return Err(TopologyError::NoSuchPartition {
                partition,
                count: self.partitions.get(),
            });
        }
        let (old, new) = match state {
            PartitionState::Stable(owners) => (self.indexes(partition, owners)?, None),
            PartitionState::Joint { old, new } => (
                self.indexes(partition, old)?,
                Some(self.indexes(partition, new)?),
            ),
        };
        self.table.slots_mut(partition).copy_from_slice(&old);
        match new {
            None => self.joint.remove(&partition),
            Some(new) => self.joint.insert(partition, new),
        };
        self.changed[partition.index()] = epoch;
        self.epoch = epoch;
        Ok(())
    }

    fn indexes(&self, partition: PartitionId, nodes: &[NodeId]) -> Result<Vec<u16>, TopologyError> {
        let index = |&node| {
            self.table
                .index_of(node)
                .ok_or(TopologyError::NotAMember { node })
        };
        let indexes: Vec<u16> = nodes.iter().map(index).collect::<Result<_, _>>()?;
        check::slots(
            partition,
            &indexes,
            self.replication_factor(),
            self.members.len(),
        )?;
        Ok(indexes)
    }

    /// The node of an index that a check has found in range.
    fn node_at(&self, index: u16) -> NodeId {
        self.members[usize::from(index)].node
    }
}
