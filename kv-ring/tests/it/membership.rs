//! Members come and go at random, and what was planned is carried out in any order, called off, or overtaken.

use std::collections::BTreeSet;
use std::sync::Arc;

use kv_ring::topology::GenesisSpec;
use kv_ring::{
    ChainEntry, Change, ChangeError, ClusterMode, HashSecret, Member, MemberChanges, MemberState,
    PartitionCount, PartitionId, PlanId, Topology,
};
use kv_types::{BucketName, BucketProperties, ClusterId, NodeId, Quorum};
use proptest::prelude::*;

fn member(number: u32) -> Member {
    Member {
        node: NodeId(u128::from(number * 7919 % 1009) << 64 | u128::from(number)),
        name: format!("n{number}"),
        zone: format!("z{}", number % 5),
        weight: 1,
        address: format!("10.0.0.{number}:7400"),
        fingerprint: [number as u8; 32],
        state: MemberState::Active,
    }
}

fn genesis(count: u32) -> GenesisSpec {
    let pairs = BucketName::new("pairs").expect("a good name");
    GenesisSpec {
        cluster_id: ClusterId(1),
        cluster_name: "garden".to_owned(),
        secret: HashSecret([7; 16]),
        partitions: PartitionCount::MIN,
        replication_factor: 3,
        mode: ClusterMode::Ap,
        members: (1..=count).map(member).collect(),
        default_bucket: None,
        buckets: vec![(pairs, BucketProperties::majority_of(2).expect("in range"))],
    }
}

/// A cluster whose epochs follow each other.
struct Cluster {
    topology: Arc<Topology>,
    entry: ChainEntry,
    next_number: u32,
}

impl Cluster {
    fn new(count: u32) -> Self {
        Self::with(count, genesis(count))
    }

    fn with(count: u32, spec: GenesisSpec) -> Self {
        let topology = Arc::new(Topology::genesis(spec).expect("a good specification"));
        let entry = ChainEntry::genesis(Arc::clone(&topology)).expect("epoch 1");
        Self {
            topology,
            entry,
            next_number: count + 1,
        }
    }

    fn change(&mut self, change: Change) -> Result<(), ChangeError> {
        let before = Arc::clone(&self.topology);
        let next = Arc::new(before.changed_by(change)?);
        let entry = ChainEntry::snapshot(Arc::clone(&next), self.entry.chain_hash());
        let entry = entry.expect("the epoch follows");
        let read = ChainEntry::decode(&entry.encode()).expect("what was encoded");
        assert_eq!(read.topology(), &next);
        check_step(&before, &next);
        (self.topology, self.entry) = (next, entry);
        Ok(())
    }

    fn commit(&mut self, changes: MemberChanges) -> Result<(), ChangeError> {
        let plan = self.topology.plan_members(&changes)?.id;
        self.change(Change::Members { changes, plan })
    }

    fn newcomer(&mut self) -> Member {
        self.next_number += 1;
        member(self.next_number - 1)
    }

    /// All that may begin or end, does, once.
    fn step(&mut self) -> bool {
        let partitions: Vec<PartitionId> = self.topology.unsettled().collect();
        for partition in &partitions {
            let drains = self.topology.draining(*partition).next();
            if let Some(moving) = self.topology.moving(*partition) {
                let since = self.topology.changed_at(*partition);
                let partitions = vec![(*partition, since)];
                let by = moving.to;
                self.change(Change::FinishMoves { by, partitions })
                    .expect("it is in progress");
            } else if let Some(by) = drains {
                let partitions = vec![*partition];
                self.change(Change::Drained { by, partitions })
                    .expect("it drains");
            } else {
                let partitions = vec![*partition];
                self.change(Change::BeginMoves { partitions })
                    .expect("it may begin");
            }
        }
        !partitions.is_empty()
    }

    fn members(&self, state: MemberState) -> Vec<NodeId> {
        let members = self.topology.members().iter();
        let of_state = members.filter(|member| member.state == state);
        of_state.map(|member| member.node).collect()
    }
}

/// What holds between two epochs, whatever is changed.
fn check_step(before: &Topology, next: &Topology) {
    let slots = next.replication_factor();
    for partition in next.partition_count().iter() {
        let (old, new) = (
            before.replicas(partition, slots),
            next.replicas(partition, slots),
        );
        let of = |replicas: &kv_ring::ReplicaSet| {
            replicas.old().iter().copied().collect::<BTreeSet<_>>()
        };
        assert_eq!(of(&new).len(), usize::from(slots), "distinct owners");
        if old != new {
            assert_eq!(
                next.changed_at(partition),
                next.epoch(),
                "old requests are fenced off"
            );
        }
        if new.is_joint() {
            let joint: BTreeSet<_> = new
                .new_owners()
                .unwrap_or_default()
                .iter()
                .copied()
                .collect();
            assert_eq!(
                of(&new).intersection(&joint).count() + 1,
                usize::from(slots),
                "one slot at a time"
            );
            assert!(next.moving(partition).is_some());
            assert_eq!(next.draining(partition).count(), 0, "one change at a time");
        }
        if old.new_owners().map(<[NodeId]>::to_vec) == Some(new.old().to_vec()) {
            let stays = |node: &NodeId| {
                next.member(*node)
                    .is_none_or(|member| member.state != MemberState::Lost)
            };
            let gone: Vec<NodeId> = of(&old)
                .difference(&of(&new))
                .copied()
                .filter(stays)
                .collect();
            let draining: Vec<NodeId> = next.draining(partition).collect();
            assert_eq!(gone, draining, "what only it has is not forgotten");
        } else if !old.is_joint() {
            assert_eq!(
                old.old(),
                new.old(),
                "no owner changes but over joint owners"
            );
        }
    }
}

#[derive(Debug, Clone)]
enum Act {
    Join(u8),
    Leave(u8),
    Lose(u8),
    Replace(u8),
    Weight(u8, u32),
    Step,
    Abort,
    Remove,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (1..3u8).prop_map(Act::Join),
        any::<u8>().prop_map(Act::Leave),
        any::<u8>().prop_map(Act::Lose),
        any::<u8>().prop_map(Act::Replace),
        (any::<u8>(), 1..4u32).prop_map(|(who, weight)| Act::Weight(who, weight)),
        Just(Act::Step),
        Just(Act::Step),
        Just(Act::Step),
        Just(Act::Abort),
        Just(Act::Remove),
    ]
}

fn perform(cluster: &mut Cluster, act: &Act) {
    let active = cluster.members(MemberState::Active);
    let pick = |who: &u8| active[usize::from(*who) % active.len()];
    let mut changes = MemberChanges::default();
    match act {
        Act::Join(count) => {
            if active.len() > 12 {
                return;
            }
            changes.joins = (0..*count).map(|_| cluster.newcomer()).collect();
        }
        Act::Leave(who) if active.len() > 3 => changes.leaves = vec![pick(who)],
        Act::Lose(who) if active.len() > 3 => changes.lost = vec![pick(who)],
        Act::Replace(who) => {
            changes.joins = vec![cluster.newcomer()];
            changes.lost = vec![pick(who)];
        }
        Act::Weight(who, weight) => changes.weights = vec![(pick(who), *weight)],
        Act::Leave(_) | Act::Lose(_) => return,
        Act::Step => {
            cluster.step();
            return;
        }
        Act::Abort => {
            cluster.change(Change::AbortMoves).expect("always possible");
            return;
        }
        Act::Remove => {
            for node in cluster
                .members(MemberState::Leaving)
                .into_iter()
                .chain(cluster.members(MemberState::Lost))
            {
                match cluster.change(Change::RemoveMember { node }) {
                    Ok(()) | Err(ChangeError::OwnsStill { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            return;
        }
    }
    cluster.commit(changes).expect("a possible change");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_happens_all_arrive_in_the_end(
        count in 3..7u32,
        acts in prop::collection::vec(act(), 1..14),
    ) {
        let mut cluster = Cluster::new(count);
        for act in &acts {
            perform(&mut cluster, act);
        }
        while cluster.step() {}
        for node in cluster.members(MemberState::Leaving).into_iter().chain(cluster.members(MemberState::Lost)) {
            cluster
                .change(Change::RemoveMember { node })
                .expect("it owns nothing any more");
        }
        // A member that leaves stays after an abort; one that is lost goes all the same.
        prop_assert!(cluster.members(MemberState::Lost).is_empty());
    }
}

#[test]
fn a_node_that_joins_takes_its_share_and_nothing_else_moves() {
    let mut cluster = Cluster::new(4);
    let before = cluster.topology.arrived();
    let changes = MemberChanges {
        joins: vec![cluster.newcomer()],
        ..MemberChanges::default()
    };
    let plan = cluster.topology.plan_members(&changes).expect("possible");
    let joining = changes.joins[0].node;
    // Its share of 768 slots.
    assert!(
        (153..=154).contains(&plan.moves.len()),
        "{}",
        plan.moves.len()
    );
    assert!(plan.moves.iter().all(|moved| moved.to == joining));
    cluster
        .change(Change::Members {
            changes,
            plan: plan.id,
        })
        .expect("the plan is new");
    assert_eq!(cluster.topology.table().owners(PartitionId(0)).count(), 3);
    while cluster.step() {}
    let after = cluster.topology.arrived();
    assert_eq!(after.moves_from(&before.clone()).len(), plan.moves.len());
    assert!(cluster.topology.unsettled().next().is_none());
    assert!(cluster.topology.actor_of(joining).is_some());
}

#[test]
fn a_plan_that_was_overtaken_is_refused() {
    let mut cluster = Cluster::new(4);
    let leave = |node| MemberChanges {
        leaves: vec![node],
        ..MemberChanges::default()
    };
    let nodes = cluster.members(MemberState::Active);
    let seen = cluster
        .topology
        .plan_members(&leave(nodes[0]))
        .expect("possible");
    cluster
        .commit(MemberChanges {
            weights: vec![(nodes[1], 2)],
            ..MemberChanges::default()
        })
        .expect("possible");
    let refused = cluster.change(Change::Members {
        changes: leave(nodes[0]),
        plan: seen.id,
    });
    assert_eq!(refused, Err(ChangeError::StalePlan { plan: seen.id }));
    let refused = cluster.change(Change::Members {
        changes: leave(nodes[0]),
        plan: PlanId(0),
    });
    assert_eq!(refused, Err(ChangeError::StalePlan { plan: PlanId(0) }));
}

#[test]
fn who_was_removed_never_comes_back_and_who_stays_is_not_removed() {
    let mut cluster = Cluster::new(5);
    let leaving = cluster.topology.members()[2].clone();
    let node = leaving.node;
    let refused = cluster.change(Change::RemoveMember { node });
    assert_eq!(refused, Err(ChangeError::Stays { node }));
    cluster
        .commit(MemberChanges {
            leaves: vec![node],
            ..MemberChanges::default()
        })
        .expect("possible");
    let refused = cluster.change(Change::RemoveMember { node });
    assert_eq!(refused, Err(ChangeError::OwnsStill { node }));
    while cluster.step() {}
    assert_eq!(cluster.topology.voters().len(), 5, "it votes until it goes");
    cluster
        .change(Change::RemoveMember { node })
        .expect("it owns nothing");
    assert!(!cluster.topology.removed()[&node].may_lose);
    assert_eq!(cluster.topology.voters().len(), 3, "of four");
    assert!(!cluster.topology.voters().contains(&node));
    let back = MemberChanges {
        joins: vec![leaving],
        ..MemberChanges::default()
    };
    let refused = cluster.topology.plan_members(&back).map(|plan| plan.id);
    assert_eq!(refused, Err(ChangeError::WasRemoved { node }));
}

#[test]
fn what_was_pulled_in_an_attempt_that_was_called_off_counts_for_nothing() {
    let mut cluster = Cluster::new(3);
    let changes = MemberChanges {
        joins: vec![cluster.newcomer()],
        ..MemberChanges::default()
    };
    let by = changes.joins[0].node;
    cluster.commit(changes).expect("possible");
    let partition = cluster.topology.unsettled().next().expect("some move");
    cluster
        .change(Change::BeginMoves {
            partitions: vec![partition],
        })
        .expect("it rests");
    let since = cluster.topology.changed_at(partition);
    let owners = cluster.topology.replicas(partition, 3).old().to_vec();
    cluster.change(Change::AbortMoves).expect("always possible");
    assert_eq!(
        cluster
            .topology
            .replicas(partition, 3)
            .nodes()
            .collect::<Vec<_>>(),
        owners
    );
    let again = MemberChanges {
        weights: vec![(by, 2)],
        ..MemberChanges::default()
    };
    cluster.commit(again).expect("possible");
    let partition = cluster.topology.unsettled().next().expect("some move");
    cluster
        .change(Change::BeginMoves {
            partitions: vec![partition],
        })
        .expect("it rests");
    let partitions = vec![(partition, since)];
    let refused = cluster.change(Change::FinishMoves { by, partitions });
    assert_eq!(
        refused,
        Err(ChangeError::NotMoving {
            partition,
            node: by,
            since
        })
    );
}

#[test]
fn sources_meet_every_write_and_every_read_of_old_owners() {
    let mut cluster = Cluster::new(3);
    let changes = MemberChanges {
        joins: vec![cluster.newcomer()],
        ..MemberChanges::default()
    };
    cluster.commit(changes).expect("possible");
    let all: Vec<PartitionId> = cluster.topology.unsettled().collect();
    cluster
        .change(Change::BeginMoves {
            partitions: all.clone(),
        })
        .expect("they rest");
    let topology = &cluster.topology;
    let default = topology.buckets()[0].id;
    let pairs = topology.buckets()[1].id;
    for partition in all {
        let moving = topology.moving(partition).expect("joint");
        let sources = topology
            .sources(default, partition)
            .expect("three replicas");
        assert_eq!(
            (sources.needed, sources.among.len(), sources.loses),
            (2, 3, false)
        );
        match topology.sources(pairs, partition) {
            // Its two replicas do not change.
            None => assert_eq!(moving.slot, 2),
            Some(sources) => assert_eq!((sources.needed, sources.among.len()), (1, 2)),
        }
    }
}

#[test]
fn an_abort_leaves_it_at_that_somebody_takes_the_place_of_a_lost_member() {
    let mut cluster = Cluster::new(3);
    let changes = MemberChanges {
        joins: vec![cluster.newcomer()],
        ..MemberChanges::default()
    };
    cluster.commit(changes).expect("possible");
    let all: Vec<PartitionId> = cluster.topology.unsettled().collect();
    let begin = Change::BeginMoves { partitions: all };
    cluster.change(begin).expect("they rest");
    let lost = cluster.topology.members()[1].node;
    let changes = MemberChanges {
        lost: vec![lost],
        ..MemberChanges::default()
    };
    // Where another owner had begun to give its slot to the newcomer, it was to take the lost one's.
    cluster.commit(changes).expect("three are left");
    cluster.change(Change::AbortMoves).expect("always possible");
    while cluster.step() {}
    cluster
        .change(Change::RemoveMember { node: lost })
        .expect("it owns nothing any more");
}

#[test]
fn whoever_takes_the_place_of_a_lost_owner_has_each_write_that_another_one_has() {
    let majority = BucketProperties::majority_of(5).expect("in range");
    let mut cluster = Cluster::with(
        6,
        GenesisSpec {
            replication_factor: 5,
            default_bucket: Some(BucketProperties {
                quorum: Quorum::new(5, 2, 2).expect("possible"),
                ..majority
            }),
            ..genesis(6)
        },
    );
    let lost = cluster.topology.members()[0].node;
    let changes = MemberChanges {
        lost: vec![lost],
        ..MemberChanges::default()
    };
    cluster.commit(changes).expect("five are left");
    let partitions: Vec<PartitionId> = cluster.topology.unsettled().collect();
    let begin = Change::BeginMoves {
        partitions: partitions.clone(),
    };
    cluster.change(begin).expect("they rest");
    let default = cluster.topology.buckets()[0].id;
    for partition in partitions {
        let sources = cluster.topology.sources(default, partition);
        let sources = sources.expect("five replicas");
        // Of two that had acknowledged a write one may be lost; the other one is any of these four.
        assert_eq!((sources.needed, sources.among.len()), (4, 4));
    }
}

#[test]
fn a_lost_owner_is_no_source_and_what_only_it_could_tell_is_marked() {
    let mut cluster = Cluster::new(4);
    let bucket = cluster.topology.buckets()[0].clone();
    let properties = BucketProperties {
        quorum: Quorum::new(3, 3, 1).expect("possible"),
        ..bucket.properties
    };
    for quorum in [Quorum::new(3, 3, 2).expect("possible"), properties.quorum] {
        let bucket = cluster.topology.buckets()[0].clone();
        cluster
            .change(Change::SetBucket {
                id: bucket.id,
                was: bucket.properties,
                properties: BucketProperties {
                    quorum,
                    ..properties
                },
                repaired: Some(cluster.topology.epoch()),
            })
            .expect("they meet");
    }
    let lost = cluster.topology.members()[0].node;
    let changes = MemberChanges {
        lost: vec![lost],
        ..MemberChanges::default()
    };
    cluster.commit(changes).expect("possible");
    let all: Vec<PartitionId> = cluster.topology.unsettled().collect();
    cluster
        .change(Change::BeginMoves {
            partitions: all.clone(),
        })
        .expect("they rest");
    for partition in all {
        let sources = cluster
            .topology
            .sources(bucket.id, partition)
            .expect("three replicas");
        assert!(!sources.among.contains(&lost));
        assert_eq!(
            (sources.needed, sources.loses),
            (2, true),
            "a write may be on one only"
        );
    }
    while cluster.step() {}
    cluster
        .change(Change::RemoveMember { node: lost })
        .expect("it owns nothing");
    assert!(cluster.topology.removed()[&lost].may_lose);
}
