//! The plan of a request: where its key lives, who replicates it, how many must answer.

use std::sync::Arc;
use std::time::Duration;

use kv_net::ErrorCode;
use kv_net::message::{DataHead, ReadOptions, StepKind, WriteOptions};
use kv_ring::{ClusterMode, Fence, PartitionId, ReplicaSet, Topology, fence};
use kv_types::{
    BucketId, BucketProperties, Durability, Epoch, Key, Level, NodeId, Quorum, planted,
};

use super::journal::Journal;
use super::places::Places;
use super::put_core::Need;
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
    /// In how many zones those should be who answer; 0 and 1 ask for nothing.
    pub distinct_zones: u8,
    /// Where it is noted what happens, if the client wants to know.
    pub journal: Option<Arc<Journal>>,
}

impl Plan {
    /// Plans a client's request for one key.
    ///
    /// # Errors
    /// As [`check`].
    pub fn for_client(
        topology: Arc<Topology>,
        head: &DataHead,
        bucket: BucketId,
        key: Key,
    ) -> Result<Self, Refusal> {
        let properties = check(&topology, head, bucket)?;
        Ok(Self::new(topology, properties, bucket, key))
    }

    /// Plans what a coordinator wants of a replica.
    ///
    /// # Errors
    /// As [`check_fenced`].
    pub fn for_coordinator(
        topology: Arc<Topology>,
        head: &DataHead,
        bucket: BucketId,
        key: Key,
    ) -> Result<Self, Refusal> {
        let (_, partition) = topology.locate(bucket, key.partition_key());
        let properties = check_fenced(&topology, head, bucket, partition)?;
        Ok(Self::new(topology, properties, bucket, key))
    }

    fn new(
        topology: Arc<Topology>,
        properties: BucketProperties,
        bucket: BucketId,
        key: Key,
    ) -> Self {
        let (hash, partition) = topology.locate(bucket, key.partition_key());
        let partition_epoch = topology.changed_at(partition);
        let replicas = topology.replicas(partition, properties.quorum.n());
        let target = Target {
            bucket,
            key,
            hash,
            partition,
            epoch: topology.epoch(),
            mode: properties.mode,
            stands_in_for: None,
        };
        Self {
            topology,
            target,
            properties,
            replicas,
            partition_epoch,
            distinct_zones: 0,
            journal: None,
        }
    }

    /// What is sent to a replica, or to another owner that is to coordinate: the epoch is the one that it must know to serve the key
    /// as this plan does. What has changed elsewhere since it need not have learnt first.
    pub fn head(&self, head: DataHead) -> DataHead {
        let (bucket, partition) = (self.target.bucket, self.target.partition);
        DataHead {
            epoch: self.topology.served_since(bucket, partition),
            ..head
        }
    }

    /// Notes what happens at a node, which stands in for an owner perhaps, if anyone wants to know.
    pub fn note(
        &self,
        now: Duration,
        node: NodeId,
        stands_in_for: Option<NodeId>,
        what: impl FnOnce() -> StepKind,
    ) {
        if let Some(journal) = &self.journal {
            journal.note(now, node, stands_in_for, what());
        }
    }

    /// The quorum of a read.
    ///
    /// # Errors
    /// [`Refusal`] for an impossible `r`.
    pub fn read_quorum(&self, options: &ReadOptions) -> Result<Quorum, Refusal> {
        let level = self.level(options.level, options.r)?;
        quorum(level.quorum(self.properties.quorum).with(options.r, None))
    }

    /// The quorum of a write.
    ///
    /// # Errors
    /// [`Refusal`] for an impossible `w`.
    pub fn write_quorum(&self, options: &WriteOptions) -> Result<Quorum, Refusal> {
        let level = self.level(options.level, options.w)?;
        let number = options
            .w
            .filter(|_| !planted!("forget how many replicas a write asks for"));
        quorum(level.quorum(self.properties.quorum).with(None, number))
    }

    /// What of a write must be on disks before it is acknowledged.
    #[must_use]
    pub fn durability(&self, options: &WriteOptions) -> Durability {
        options.durability.unwrap_or(self.properties.durability)
    }

    /// What a write needs, whoever coordinates it.
    ///
    /// # Errors
    /// [`Refusal`] for an impossible `w`, or more zones than there are.
    pub fn need(&self, options: &WriteOptions) -> Result<Need, Refusal> {
        let quorum = self.write_quorum(options)?;
        let count = match self.durability(options) {
            Durability::All => quorum.n(),
            _ => quorum.w(),
        };
        if options.distinct_zones < 2 {
            return Ok(Need::of(count));
        }
        let need = Need {
            zones: options.distinct_zones,
            zone_of: self.topology.zone_numbers(),
            ..Need::of(count)
        };
        let most = need.zones_of(need.zone_of.keys().copied());
        let most = most.min(usize::from(quorum.n()));
        if usize::from(need.zones) > most {
            let message = format!(
                "a write to {} zones cannot be: it has {} replicas, and the nodes are in {} zones",
                need.zones,
                quorum.n(),
                need.zones_of(need.zone_of.keys().copied())
            );
            return Err(Refusal::new(ErrorCode::BadRequest, message));
        }
        Ok(need)
    }

    /// The level of a request, as [`level`] says.
    ///
    /// # Errors
    /// As [`level`].
    pub fn level(&self, asked: Level, number: Option<u8>) -> Result<Level, Refusal> {
        level(self.topology.mode(), self.properties.level, asked, number)
    }

    /// All nodes that may stand in for owners, best first.
    #[must_use]
    pub fn fallbacks(&self) -> Vec<NodeId> {
        // A cluster without further nodes is common, and the walk is not free.
        if self.topology.members().len() <= self.replicas.nodes().count() {
            return Vec::new();
        }
        let list = self
            .topology
            .preference(self.target.partition, self.properties.quorum.n());
        list.fallbacks().collect()
    }

    /// Whether a node is among the replicas.
    #[must_use]
    pub fn has_replica(&self, node: NodeId) -> bool {
        self.replicas.nodes().any(|replica| replica == node)
    }
}

/// The level of a request: where it names none, that of its bucket, or else of the cluster's mode; but who names a number of
/// replicas means the key's own, so that r + w > n keeps its promise.
///
/// # Errors
/// [`Refusal`] for a sloppy quorum in a cluster that has none.
pub fn level(
    mode: ClusterMode,
    of_bucket: Level,
    asked: Level,
    number: Option<u8>,
) -> Result<Level, Refusal> {
    let asked = match asked {
        Level::Usual if number.is_none() => of_bucket,
        asked => asked,
    };
    match (asked, mode) {
        (Level::Usual, ClusterMode::Ap) if number.is_none() => Ok(Level::Eventual),
        (Level::Usual, _) if planted!("let others stand in where that is not allowed") => {
            Ok(Level::Eventual)
        }
        (Level::Usual, _) => Ok(Level::Quorum),
        (Level::Eventual, ClusterMode::Cp) => Err(Refusal::new(
            ErrorCode::BadRequest,
            "this cluster is in mode cp, which has no level `eventual`; use `quorum`, or name no level",
        )),
        (level, _) => Ok(level),
    }
}

/// The properties of a bucket, for a client's request that this node may serve.
///
/// A client's topology only decides whom it asks; the coordinator plans by its own. So a request of an older epoch is served,
/// and its reply says that there is a newer one (`docs/adr/0026-requests-of-an-older-topology.md`).
///
/// # Errors
/// [`Refusal`] for an unknown bucket, or an epoch that this node could not learn of.
pub fn check(
    topology: &Topology,
    head: &DataHead,
    bucket: BucketId,
) -> Result<BucketProperties, Refusal> {
    if head.epoch > topology.epoch() {
        return Err(Refusal::behind(topology.epoch(), head.epoch));
    }
    properties(topology, bucket)
}

/// The properties of a bucket, for a coordinator's request that this replica may serve.
///
/// # Errors
/// [`Refusal`] for an unknown bucket, or where the coordinator does not know of the partition's last change.
pub fn check_fenced(
    topology: &Topology,
    head: &DataHead,
    bucket: BucketId,
    partition: PartitionId,
) -> Result<BucketProperties, Refusal> {
    match fence(head.epoch, topology.epoch(), topology.changed_at(partition)) {
        Fence::Serve => properties(topology, bucket),
        Fence::StaleRequest => Err(Refusal::stale(topology.epoch())),
        Fence::BehindRequest => Err(Refusal::behind(topology.epoch(), head.epoch)),
    }
}

fn properties(topology: &Topology, bucket: BucketId) -> Result<BucketProperties, Refusal> {
    let found = topology.bucket(bucket).ok_or_else(|| {
        let message = format!(
            "no bucket has id {} at epoch {}; refresh the topology",
            bucket.0,
            topology.epoch()
        );
        Refusal::new(ErrorCode::UnknownBucket, message)
    })?;
    Ok(found.properties)
}

/// Refuses at once, with numbers, what cannot be met without those that are down.
///
/// # Errors
/// [`Refusal`] with `needed` and `got`; nothing was sent.
pub fn reachable(
    replicas: &ReplicaSet,
    places: &Places,
    needed: u8,
    liveness: &Liveness,
    now: Duration,
    doing: &str,
) -> Result<(), Refusal> {
    let may_answer = |owner| liveness.may_answer(places.node_for(owner), now);
    if replicas.is_met(may_answer, needed) {
        return Ok(());
    }
    Err(Refusal::not_enough(
        needed,
        replicas.count(may_answer),
        doing,
    ))
}

fn quorum(checked: Result<Quorum, kv_types::QuorumError>) -> Result<Quorum, Refusal> {
    checked.map_err(|impossible| Refusal::new(ErrorCode::BadRequest, impossible.to_string()))
}
