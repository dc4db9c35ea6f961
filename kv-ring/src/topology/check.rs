//! What makes a topology well formed; checked wherever one is made or read.

use std::collections::BTreeSet;

use kv_types::{Epoch, Level, NodeId};

use super::{Bucket, ClusterMode, Member, Topology};
use crate::assign::MAX_MEMBERS;
use crate::partition::PartitionId;

/// The most voters.
pub(super) const MAX_VOTERS: usize = 7;

/// The longest name, zone or address of a member, and name of a cluster, in bytes.
pub(crate) const MAX_TEXT_BYTES: usize = 255;

/// Something that cannot be a topology. Nothing was changed; correct what the message names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// There is no member, or more than a table can name.
    #[error("{count} members are not possible; a cluster has 1 to {MAX_MEMBERS}")]
    MemberCount {
        /// The members given.
        count: usize,
    },
    /// A text is empty, or nothing but white space.
    #[error("the {what} `{text}` is blank; give it 1 to {MAX_TEXT_BYTES} bytes")]
    Blank {
        /// Which text.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// A text is too long.
    #[error("the {what} `{text}` has {} bytes; it has at most {MAX_TEXT_BYTES}", .text.len())]
    TooLong {
        /// Which text.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// Two members, buckets or voters share something that must be unique.
    #[error("the {what} `{value}` is given twice")]
    Duplicate {
        /// What must be unique.
        what: &'static str,
        /// What was given twice.
        value: String,
    },
    /// A list is not in ascending order of its ids.
    #[error("the {what} are not in order of their ids")]
    Unsorted {
        /// Which list.
        what: &'static str,
    },
    /// A member of weight 0 could own nothing.
    #[error("member `{name}` has weight 0; a weight is at least 1")]
    Weight {
        /// The member's name.
        name: String,
    },
    /// A bucket wants more replicas than partitions have slots.
    #[error("bucket `{bucket}` has n={n}, and the cluster has {replicas} replicas")]
    BucketReplicas {
        /// The bucket's name.
        bucket: String,
        /// Its n.
        n: u8,
        /// The cluster's replication factor.
        replicas: u8,
    },
    /// A cluster in mode cp has no sloppy quorums.
    #[error(
        "bucket `{bucket}` has level eventual, which a cluster in mode cp does not have; use quorum"
    )]
    SloppyBucket {
        /// The bucket's name.
        bucket: String,
    },
    /// The voters are none, too many, or not an odd number.
    #[error("{count} voters are not possible; there are 1, 3, 5 or 7")]
    VoterCount {
        /// The voters given.
        count: usize,
    },
    /// Something names a node that is not a member.
    #[error("node {node} is not a member")]
    NotAMember {
        /// The node.
        node: NodeId,
    },
    /// The owners of a partition are not N distinct members.
    #[error(
        "partition {partition} has owners {slots:?} where {replicas} distinct members are needed"
    )]
    Slots {
        /// The partition.
        partition: PartitionId,
        /// The slots, as indexes into the members.
        slots: Vec<u16>,
        /// The slots of each partition.
        replicas: u8,
    },
    /// There is no such partition.
    #[error("there is no partition {partition}; the ring has {count}")]
    NoSuchPartition {
        /// The partition.
        partition: PartitionId,
        /// The partitions of the ring.
        count: u32,
    },
    /// A later value cannot have an earlier epoch.
    #[error("epoch {to} cannot follow epoch {from}")]
    EpochGoesBack {
        /// The epoch there is.
        from: Epoch,
        /// The epoch given.
        to: Epoch,
    },
    /// A partition's last change lies outside the epochs so far.
    #[error("partition {partition} changed at epoch {changed}, which is not 1 to {epoch}")]
    ChangedAt {
        /// The partition.
        partition: PartitionId,
        /// The epoch of its last change.
        changed: Epoch,
        /// The epoch of the topology.
        epoch: Epoch,
    },
}

impl Topology {
    /// Checks everything that the types leave open.
    pub(crate) fn check(&self) -> Result<(), TopologyError> {
        text("cluster name", &self.cluster_name)?;
        members(&self.members)?;
        self.check_references()?;
        self.check_buckets()?;
        self.check_partitions()
    }

    fn check_references(&self) -> Result<(), TopologyError> {
        let count = self.voters.len();
        if count == 0 || count > MAX_VOTERS || count.is_multiple_of(2) {
            return Err(TopologyError::VoterCount { count });
        }
        if let Some(node) = self
            .voters
            .iter()
            .find(|&&node| self.member(node).is_none())
        {
            return Err(TopologyError::NotAMember { node: *node });
        }
        unique("voter", self.voters.iter().map(NodeId::to_string))
    }

    fn check_buckets(&self) -> Result<(), TopologyError> {
        if !self.buckets.is_sorted_by(|a, b| a.id < b.id) {
            return Err(TopologyError::Unsorted { what: "buckets" });
        }
        unique(
            "bucket",
            self.buckets.iter().map(|bucket| bucket.name.to_string()),
        )?;
        let sloppy = |bucket: &&Bucket| bucket.properties.level == Level::Eventual;
        if self.mode == ClusterMode::Cp
            && let Some(bucket) = self.buckets.iter().find(sloppy)
        {
            let bucket = bucket.name.to_string();
            return Err(TopologyError::SloppyBucket { bucket });
        }
        let replicas = self.replication_factor();
        match self
            .buckets
            .iter()
            .find(|bucket| bucket.properties.quorum.n() > replicas)
        {
            None => Ok(()),
            Some(bucket) => Err(TopologyError::BucketReplicas {
                bucket: bucket.name.to_string(),
                n: bucket.properties.quorum.n(),
                replicas,
            }),
        }
    }

    fn check_partitions(&self) -> Result<(), TopologyError> {
        let (replicas, epoch) = (self.replication_factor(), self.epoch);
        for partition in self.partitions.iter() {
            slots(
                partition,
                self.table.slots(partition),
                replicas,
                self.members.len(),
            )?;
            let changed = self.changed_at(partition);
            if changed < Epoch::GENESIS || changed > epoch {
                return Err(TopologyError::ChangedAt {
                    partition,
                    changed,
                    epoch,
                });
            }
        }
        for (&partition, new) in self.joint.iter().chain(&self.moves) {
            slots(partition, new, replicas, self.members.len())?;
        }
        let mut draining = self.draining.iter();
        match draining.find(|(_, nodes)| {
            nodes
                .iter()
                .any(|node| usize::from(*node) >= self.members.len())
        }) {
            None => Ok(()),
            Some((&partition, nodes)) => Err(TopologyError::Slots {
                partition,
                slots: nodes.clone(),
                replicas,
            }),
        }
    }
}

/// Checks the slots of one partition: N distinct members.
pub(super) fn slots(
    partition: PartitionId,
    slots: &[u16],
    replicas: u8,
    members: usize,
) -> Result<(), TopologyError> {
    let distinct = |(position, index): (usize, &u16)| !slots[..position].contains(index);
    let well_formed = slots.len() == usize::from(replicas)
        && slots.iter().all(|&index| usize::from(index) < members)
        && slots.iter().enumerate().all(distinct);
    if well_formed {
        return Ok(());
    }
    Err(TopologyError::Slots {
        partition,
        slots: slots.to_vec(),
        replicas,
    })
}

/// Checks a list of members: texts, weights, order, and what must be unique.
pub(super) fn members(members: &[Member]) -> Result<(), TopologyError> {
    if members.is_empty() || members.len() > MAX_MEMBERS {
        return Err(TopologyError::MemberCount {
            count: members.len(),
        });
    }
    for member in members {
        text("member name", &member.name)?;
        text("zone", &member.zone)?;
        text("address", &member.address)?;
        if member.weight == 0 {
            return Err(TopologyError::Weight {
                name: member.name.clone(),
            });
        }
    }
    unique(
        "node id",
        members.iter().map(|member| member.node.to_string()),
    )?;
    unique(
        "member name",
        members.iter().map(|member| member.name.clone()),
    )?;
    unique(
        "address",
        members.iter().map(|member| member.address.clone()),
    )?;
    if !members.is_sorted_by_key(|member| member.node) {
        return Err(TopologyError::Unsorted { what: "members" });
    }
    Ok(())
}

fn text(what: &'static str, text: &str) -> Result<(), TopologyError> {
    let text = text.to_owned();
    if text.trim().is_empty() {
        return Err(TopologyError::Blank { what, text });
    }
    if text.len() > MAX_TEXT_BYTES {
        return Err(TopologyError::TooLong { what, text });
    }
    Ok(())
}

fn unique(what: &'static str, values: impl Iterator<Item = String>) -> Result<(), TopologyError> {
    let mut seen = BTreeSet::new();
    for value in values {
        if let Some(value) = seen.replace(value) {
            return Err(TopologyError::Duplicate { what, value });
        }
    }
    Ok(())
}
