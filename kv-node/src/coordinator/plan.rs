//! The plan of a request: where its key lives, who replicates it, how many must answer.

use std::sync::Arc;
use std::time::Duration;

use kv_net::ErrorCode;
use kv_net::message::{DataHead, ReadOptions, WriteOptions};
use kv_ring::{Fence, PartitionId, ReplicaSet, Topology, fence};
use kv_types::{BucketId, BucketProperties, Epoch, Key, NodeId, Quorum};

use crate::liveness::Liveness;
use crate::refusal::Refusal;
use crate::replica::Target;

/// Where a key lives, under one topology that the request keeps to its end.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The topology.
    pub topology: Arc<Topology>,
    /// The key and its place.
    pub target: Target,
    /// The properties of its bucket.
    pub properties: BucketProperties,
    /// Its replicas.
    pub replicas: ReplicaSet,
    /// The epoch of its partition's last change: all answers must share it.
    pub partition_epoch: Epoch,
}

impl Plan {
    /// Plans a request for one key.
    ///
    /// # Errors
    /// [`Refusal`] for an unknown bucket, or a request made under an outdated topology.
    pub fn for_key(
        topology: Arc<Topology>,
        head: &DataHead,
        bucket: BucketId,
        key: Key,
    ) -> Result<Self, Refusal> {
        let (hash, partition) = topology.locate(bucket, key.partition_key());
        let (properties, partition_epoch) = check(&topology, head, bucket, partition)?;
        let replicas = topology.replicas(partition, properties.quorum.n());
        let target = Target {
            bucket,
            key,
            hash,
            partition,
            epoch: topology.epoch(),
        };
        Ok(Self {
            topology,
            target,
            properties,
            replicas,
            partition_epoch,
        })
    }

    /// The quorum of a read.
    ///
    /// # Errors
    /// [`Refusal`] for an impossible `r`.
    pub fn read_quorum(&self, options: &ReadOptions) -> Result<Quorum, Refusal> {
        quorum(
            options
                .level
                .quorum(self.properties.quorum)
                .with(options.r, None),
        )
    }

    /// The quorum of a write.
    ///
    /// # Errors
    /// [`Refusal`] for an impossible `w`.
    pub fn write_quorum(&self, options: &WriteOptions) -> Result<Quorum, Refusal> {
        quorum(
            options
                .level
                .quorum(self.properties.quorum)
                .with(None, options.w),
        )
    }

    /// Whether a node is among the replicas.
    #[must_use]
    pub fn has_replica(&self, node: NodeId) -> bool {
        self.replicas.nodes().any(|replica| replica == node)
    }
}

/// The properties of a bucket, and the epoch of a partition's last change, for a request that may
/// be served under them.
///
/// # Errors
/// [`Refusal`] for an unknown bucket, or a request made under an outdated topology.
pub fn check(
    topology: &Topology,
    head: &DataHead,
    bucket: BucketId,
    partition: PartitionId,
) -> Result<(BucketProperties, Epoch), Refusal> {
    let partition_epoch = topology.changed_at(partition);
    match fence(head.epoch, topology.epoch(), partition_epoch) {
        Fence::Serve => {}
        Fence::StaleRequest => return Err(Refusal::stale(topology.epoch())),
        Fence::BehindRequest => return Err(Refusal::behind(topology.epoch(), head.epoch)),
    }
    let bucket = topology.bucket(bucket).ok_or_else(|| {
        let message = format!(
            "no bucket has id {} at epoch {}; refresh the topology",
            bucket.0,
            topology.epoch()
        );
        Refusal::new(ErrorCode::UnknownBucket, message)
    })?;
    Ok((bucket.properties, partition_epoch))
}

/// Refuses at once, with numbers, what the replicas cannot meet without those that are down.
///
/// # Errors
/// [`Refusal`] with `needed` and `got`; nothing was sent.
pub fn reachable(
    replicas: &ReplicaSet,
    needed: u8,
    liveness: &Liveness,
    now: Duration,
    doing: &str,
) -> Result<(), Refusal> {
    if replicas.is_met(|node| liveness.may_answer(node, now), needed) {
        return Ok(());
    }
    Err(Refusal::not_enough(
        needed,
        replicas.count(|node| liveness.may_answer(node, now)),
        doing,
    ))
}

fn quorum(checked: Result<Quorum, kv_types::QuorumError>) -> Result<Quorum, Refusal> {
    checked.map_err(|impossible| Refusal::new(ErrorCode::BadRequest, impossible.to_string()))
}
