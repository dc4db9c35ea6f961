//! The epochs of one hand-over, as the crate itself makes them.

use kv_ring::topology::GenesisSpec;
use kv_ring::{
    Change, ClusterMode, HashSecret, Member, MemberChanges, MemberState, PartitionCount,
    PartitionId, ReplicaSet, Topology,
};
use kv_types::{BucketProperties, ClusterId, NodeId, Quorum};

/// Nodes, as bits.
pub(crate) type Set = u8;

pub(crate) const MAX_NODES: usize = 4;
/// The node that joins.
pub(crate) const JOINER: usize = 3;

/// Epochs that may follow each other: a tree, since a move may finish or be called off.
pub(crate) struct Epochs {
    topologies: Vec<Topology>,
    /// What each one follows.
    before: Vec<Option<u8>>,
    pub(crate) partition: PartitionId,
}

pub(crate) fn node(index: usize) -> NodeId {
    NodeId(index as u128 + 1)
}

pub(crate) fn index(NodeId(id): NodeId) -> usize {
    usize::try_from(id - 1).expect("a small id")
}

fn member(number: usize) -> Member {
    Member {
        node: node(number),
        name: format!("n{number}"),
        zone: format!("z{number}"),
        weight: 1,
        address: format!("10.0.0.{number}:7400"),
        fingerprint: [0; 32],
        state: MemberState::Active,
    }
}

impl Epochs {
    /// Three owners, and a fourth node that takes a slot; where one leaves, that one's.
    pub(crate) fn new(quorum: Quorum, leaves: bool) -> Self {
        let properties = BucketProperties {
            quorum,
            ..BucketProperties::majority_of(3).expect("in range")
        };
        let genesis = Topology::genesis(GenesisSpec {
            cluster_id: ClusterId(1),
            cluster_name: "model".to_owned(),
            secret: HashSecret([7; 16]),
            partitions: PartitionCount::MIN,
            replication_factor: 3,
            mode: ClusterMode::Ap,
            members: (0..JOINER).map(member).collect(),
            default_bucket: Some(properties),
            buckets: Vec::new(),
        });
        let genesis = genesis.expect("a good specification");
        let changes = MemberChanges {
            joins: vec![member(JOINER)],
            leaves: if leaves { vec![node(1)] } else { Vec::new() },
            ..MemberChanges::default()
        };
        let plan = genesis.plan_members(&changes).expect("possible").id;
        let planned = genesis
            .changed_by(Change::Members {
                changes: changes.clone(),
                plan,
            })
            .expect("possible");
        let partition = planned.unsettled().next().expect("something moves");
        let mut this = Self {
            topologies: vec![planned],
            before: vec![None],
            partition,
        };
        let joint = this.follow(0, this.begin());
        this.finish(joint);
        let off = this.follow(joint, Change::AbortMoves);
        // A second attempt; the plan is another one, its first move is the same.
        let again = MemberChanges {
            weights: vec![(node(JOINER), 1)],
            leaves: changes.leaves,
            ..MemberChanges::default()
        };
        let plan = this.at(off).plan_members(&again).expect("possible").id;
        let planned = this.follow(
            off,
            Change::Members {
                changes: again,
                plan,
            },
        );
        let joint = this.follow(planned, this.begin());
        this.finish(joint);
        this
    }

    fn begin(&self) -> Change {
        Change::BeginMoves {
            partitions: vec![self.partition],
        }
    }

    /// The same, with epochs in which whoever lost its slot has drained.
    pub(crate) fn with_drains(mut self) -> Self {
        for epoch in (0u8..).take(self.topologies.len()) {
            let drains = self.at(epoch).draining(self.partition).next();
            if let Some(by) = drains {
                let partitions = vec![self.partition];
                self.follow(epoch, Change::Drained { by, partitions });
            }
        }
        self
    }

    fn finish(&mut self, joint: u8) {
        let since = self.at(joint).changed_at(self.partition);
        let partitions = vec![(self.partition, since)];
        let by = node(JOINER);
        self.follow(joint, Change::FinishMoves { by, partitions });
    }

    fn follow(&mut self, before: u8, change: Change) -> u8 {
        let next = self.at(before).changed_by(change).expect("possible");
        self.topologies.push(next);
        self.before.push(Some(before));
        u8::try_from(self.topologies.len() - 1).expect("a few")
    }

    pub(crate) fn at(&self, epoch: u8) -> &Topology {
        &self.topologies[usize::from(epoch)]
    }

    pub(crate) fn next(&self, epoch: u8) -> impl Iterator<Item = u8> {
        let all = (0u8..).zip(&self.before);
        all.filter_map(move |(next, before)| (*before == Some(epoch)).then_some(next))
    }

    /// The epochs up to one, latest first.
    pub(crate) fn up_to(&self, epoch: u8) -> impl Iterator<Item = u8> {
        std::iter::successors(Some(epoch), |epoch| self.before[usize::from(*epoch)])
    }

    pub(crate) fn replicas(&self, epoch: u8) -> ReplicaSet {
        self.at(epoch).replicas(self.partition, 3)
    }

    pub(crate) fn is_joint(&self, epoch: u8) -> bool {
        self.replicas(epoch).is_joint()
    }

    /// Whether one epoch comes after another.
    pub(crate) fn is_later(&self, epoch: u8, other: u8) -> bool {
        self.at(epoch).epoch() > self.at(other).epoch()
    }
}
