//! Genesis: the topology of epoch 1, from what an operator asks for.

use std::collections::BTreeMap;

use kv_types::{
    ActorId, BucketId, BucketName, BucketProperties, ClusterId, Epoch, NodeId, QuorumError,
};

use super::check::{self, TopologyError};
use super::member::{MemberState, count_zones};
use super::{Bucket, ClusterMode, Member, Topology};
use crate::assign::{Candidate, PlanError, PlanInput, plan};
use crate::hash::HashSecret;
use crate::partition::PartitionCount;

/// What a new cluster is made from.
#[derive(Debug, Clone)]
pub struct GenesisSpec {
    /// A fresh random id.
    pub cluster_id: ClusterId,
    /// A name for people, 1 to 255 bytes.
    pub cluster_name: String,
    /// 128 fresh random bits.
    pub secret: HashSecret,
    /// Into how many partitions the ring is cut.
    pub partitions: PartitionCount,
    /// Slots of each partition, 1 to 16 and not more than members.
    pub replication_factor: u8,
    /// What requests get that ask for nothing in particular.
    pub mode: ClusterMode,
    /// The first members, in any order.
    pub members: Vec<Member>,
    /// The properties of the bucket `default`; a majority of all replicas when there are none.
    pub default_bucket: Option<BucketProperties>,
    /// Buckets beside `default`, numbered from 2 in this order.
    pub buckets: Vec<(BucketName, BucketProperties)>,
}

/// A specification that no cluster can have. Nothing was made; correct what the message names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Replicas are distinct members; add members or ask for fewer replicas.
    #[error("{replication_factor} replicas need as many members, and there are {members}")]
    TooFewMembers {
        /// The members given.
        members: usize,
        /// The replicas asked for.
        replication_factor: u8,
    },
    /// The replication factor is not 1 to 16.
    #[error(transparent)]
    Replicas(#[from] QuorumError),
    /// A member, name or bucket is not possible.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The assigner refused the members for another reason.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl Topology {
    /// The topology of epoch 1: partitions assigned, an actor granted to every member, voters chosen.
    ///
    /// Equal specifications give equal topologies, whatever the order of the members.
    ///
    /// # Errors
    /// [`GenesisError`] when the specification is impossible.
    pub fn genesis(spec: GenesisSpec) -> Result<Self, GenesisError> {
        let replicas = spec.replication_factor;
        let majority = BucketProperties::majority_of(replicas)?;
        let mut members = spec.members;
        members.sort_by_key(|member| member.node);
        check::members(&members)?;
        if members.len() < usize::from(replicas) {
            let members = members.len();
            return Err(GenesisError::TooFewMembers {
                members,
                replication_factor: replicas,
            });
        }

        let candidates: Vec<Candidate> = members.iter().map(Candidate::from).collect();
        let partitions = spec.partitions.get();
        let input = PlanInput {
            members: &candidates,
            partitions,
            replicas,
            previous: None,
        };
        let topology = Self {
            epoch: Epoch::GENESIS,
            cluster_id: spec.cluster_id,
            cluster_name: spec.cluster_name,
            secret: spec.secret,
            partitions: spec.partitions,
            mode: spec.mode,
            table: plan(&input)?,
            actors: (1..)
                .map(ActorId)
                .zip(members.iter().map(|member| member.node))
                .collect(),
            voters: choose_voters(&members, &[]),
            zone_count: count_zones(&members),
            members,
            buckets: number_buckets(spec.default_bucket.unwrap_or(majority), spec.buckets),
            joint: BTreeMap::new(),
            moves: BTreeMap::new(),
            draining: BTreeMap::new(),
            removed: BTreeMap::new(),
            marked: BTreeMap::new(),
            changed: vec![Epoch::GENESIS; partitions as usize],
        };
        topology.check()?;
        Ok(topology)
    }
}

fn number_buckets(
    default: BucketProperties,
    others: Vec<(BucketName, BucketProperties)>,
) -> Vec<Bucket> {
    let default = (BucketName::default_bucket(), default);
    let all = [default].into_iter().chain(others);
    let numbered = (1..).map(BucketId).zip(all);
    numbered
        .map(|(id, (name, properties))| Bucket::new(id, name, properties, Epoch::GENESIS))
        .collect()
}

/// The largest odd number of members up to seven, from as many zones as possible, and of those as many as possible that were
/// voters before, and of those the ones that stay.
pub(super) fn choose_voters<'a>(
    members: impl IntoIterator<Item = &'a Member>,
    before: &[NodeId],
) -> Vec<NodeId> {
    /// From good to bad: whether it is new, whether it leaves, and which it is.
    type Rank = (bool, bool, NodeId);
    let mut zones: BTreeMap<&str, Vec<Rank>> = BTreeMap::new();
    for member in members {
        let is_new = !before.contains(&member.node);
        let leaves = member.state != MemberState::Active;
        let rank = (is_new, leaves, member.node);
        zones.entry(&member.zone).or_default().push(rank);
    }
    // The first of every zone, then the second of every zone, and so on.
    let mut ranked: Vec<(usize, Rank)> = Vec::new();
    for zone in zones.values_mut() {
        zone.sort_unstable();
        ranked.extend((0..).zip(zone.iter().copied()));
    }
    ranked.sort_unstable();
    let count = ranked.len().min(check::MAX_VOTERS);
    let odd = count.saturating_sub(usize::from(count.is_multiple_of(2)));
    let mut voters: Vec<NodeId> = ranked
        .into_iter()
        .take(odd)
        .map(|(_, (.., node))| node)
        .collect();
    voters.sort_unstable();
    voters
}
