//! Genesis, lookups, transitions of partitions, preference lists.

use kv_types::Quorum;

use super::*;
use crate::preference::Role;

/// Members `n1`, `n2`, … spread over zones, with ids that are not in order of their names.
pub(crate) fn members(count: u32, zones: u32) -> Vec<Member> {
    let member = |number: u32| Member {
        node: NodeId(u128::from(number * 7919 % 1009) << 96 | u128::from(number)),
        name: format!("n{number}"),
        zone: format!("z{}", number % zones),
        weight: 1,
        address: format!("127.0.0.1:{}", 7400 + number),
        fingerprint: [number as u8; 32],
        state: MemberState::Active,
    };
    (1..=count).map(member).collect()
}

/// A cluster of 256 partitions and three replicas, with a bucket `pairs` of two.
pub(crate) fn spec(members: Vec<Member>) -> GenesisSpec {
    let pairs = BucketName::new("pairs").expect("a good name");
    let two = kv_types::BucketProperties::majority_of(2).expect("2 is in range");
    GenesisSpec {
        cluster_id: ClusterId(0x00c1_0000_0000_0000_0000_0000_0000_0001),
        cluster_name: "garden".to_owned(),
        secret: HashSecret([7; 16]),
        partitions: PartitionCount::MIN,
        replication_factor: 3,
        mode: ClusterMode::Ap,
        members,
        default_bucket: None,
        buckets: vec![(pairs, two)],
    }
}

fn topology(count: u32, zones: u32) -> Topology {
    Topology::genesis(spec(members(count, zones))).expect("a good specification")
}

fn refusal(change: impl FnOnce(&mut GenesisSpec)) -> String {
    let mut spec = spec(members(4, 2));
    change(&mut spec);
    Topology::genesis(spec)
        .expect_err("an impossible specification")
        .to_string()
}

#[test]
fn genesis_lists_what_it_was_given() {
    let topology = topology(5, 2);
    assert_eq!(topology.epoch(), Epoch(1));
    assert_eq!(topology.members().len(), 5);
    assert!(topology.members().is_sorted_by_key(|member| member.node));
    assert_eq!(topology.voters().len(), 5);
    let default = topology
        .bucket_by_name(&BucketName::default_bucket())
        .expect("made by genesis");
    assert_eq!(default.id, BucketId(1));
    assert_eq!(
        default.properties.quorum,
        Quorum::new(3, 2, 2).expect("possible")
    );
    assert_eq!(
        topology
            .bucket(BucketId(2))
            .map(|bucket| bucket.name.as_str()),
        Some("pairs")
    );
    assert_eq!(topology.bucket(BucketId(3)), None);
    for member in topology.members() {
        let actor = topology.actor_of(member.node).expect("granted at genesis");
        assert_eq!(topology.actors()[&actor], member.node);
        assert_eq!(topology.member(member.node), Some(member));
    }
}

#[test]
fn genesis_does_not_depend_on_the_order_of_members() {
    let mut reversed = members(7, 3);
    reversed.reverse();
    assert_eq!(
        Topology::genesis(spec(reversed)),
        Topology::genesis(spec(members(7, 3)))
    );
}

#[test]
fn voters_are_an_odd_number_from_as_many_zones_as_possible() {
    for (count, zones, voters) in [(3, 1, 3), (4, 4, 3), (6, 2, 5), (30, 5, 7)] {
        let topology = topology(count, zones);
        let of_zones: std::collections::BTreeSet<&str> = topology
            .voters()
            .iter()
            .filter_map(|&node| topology.member(node))
            .map(|member| member.zone.as_str())
            .collect();
        assert_eq!(topology.voters().len(), voters);
        assert_eq!(of_zones.len(), voters.min(zones as usize));
    }
}

#[test]
fn impossible_specifications_are_refused_with_their_numbers() {
    let cases: [(String, &str); 11] = [
        (
            refusal(|spec| spec.replication_factor = 5),
            "5 replicas need as many members, and there are 4",
        ),
        (
            refusal(|spec| spec.replication_factor = 17),
            "n=17 replicas is not possible; n is 1 to 16",
        ),
        (
            refusal(|spec| spec.members.clear()),
            "0 members are not possible; a cluster has 1 to 10000",
        ),
        (
            refusal(|spec| spec.cluster_name.clear()),
            "the cluster name `` is blank; give it 1 to 255 bytes",
        ),
        (
            refusal(|spec| spec.members[0].zone = " ".to_owned()),
            "the zone ` ` is blank; give it 1 to 255 bytes",
        ),
        (
            refusal(|spec| spec.members[2].weight = 0),
            "member `n3` has weight 0; a weight is at least 1",
        ),
        (
            refusal(|spec| spec.members[2].name = "n1".to_owned()),
            "the member name `n1` is given twice",
        ),
        (
            refusal(|spec| spec.members[2].address = spec.members[0].address.clone()),
            "the address `127.0.0.1:7401` is given twice",
        ),
        (
            refusal(|spec| spec.members[1].node = spec.members[0].node),
            "the node id `00000358000000000000000000000001` is given twice",
        ),
        (
            refusal(|spec| spec.buckets[0].0 = BucketName::default_bucket()),
            "the bucket `default` is given twice",
        ),
        (
            refusal(|spec| spec.replication_factor = 1),
            "bucket `pairs` has n=2, and the cluster has 1 replicas",
        ),
    ];
    for (message, expected) in cases {
        assert_eq!(message, expected);
    }
}

#[test]
fn buckets_with_fewer_replicas_use_the_first_slots() {
    let topology = topology(6, 3);
    for partition in topology.partition_count().iter() {
        let three = topology.replicas(partition, 3);
        let two = topology.replicas(partition, 2);
        assert_eq!(three.old().len(), 3);
        assert_eq!(two.old(), &three.old()[..2]);
        assert!(!three.is_joint());
    }
}

#[test]
fn a_key_is_located_in_the_partition_of_its_hash() {
    let topology = topology(3, 1);
    let (hash, partition) = topology.locate(BucketId(1), b"user:1024");
    assert_eq!(hash, topology.secret().key_hash(BucketId(1), b"user:1024"));
    assert!(
        topology
            .partition_count()
            .hash_range(partition)
            .contains(&hash.0)
    );
}

#[test]
fn a_partition_in_transition_has_old_and_new_owners_until_it_is_stable_again() {
    let first = topology(4, 1);
    let partition = PartitionId(17);
    let PartitionState::Stable(old) = first.partition_state(partition) else {
        panic!("genesis is stable");
    };
    let joiner = first
        .members()
        .iter()
        .map(|m| m.node)
        .find(|node| !old.contains(node));
    let joiner = joiner.expect("four members, three slots");
    let new = vec![old[0], joiner, old[2]];

    let state = PartitionState::Joint {
        old: old.clone(),
        new: new.clone(),
    };
    let second = first
        .with_partition_state(partition, &state, Epoch(2))
        .expect("possible");
    assert_eq!(second.epoch(), Epoch(2));
    assert_eq!(second.partition_state(partition), state);
    assert_eq!(second.changed_at(partition), Epoch(2));
    assert_eq!(second.changed_at(PartitionId(18)), Epoch(1));
    let replicas = second.replicas(partition, 3);
    assert_eq!(
        replicas.nodes().collect::<Vec<_>>(),
        [old[0], old[1], old[2], joiner]
    );
    assert_eq!(second.replicas(partition, 1).new_owners(), Some(&new[..1]));

    let third =
        second.with_partition_state(partition, &PartitionState::Stable(new.clone()), Epoch(3));
    let third = third.expect("possible");
    assert_eq!(third.replicas(partition, 3), ReplicaSet::stable(new));
    assert_eq!(third.changed_at(partition), Epoch(3));
}

#[test]
fn impossible_states_of_partitions_are_refused() {
    let topology = topology(4, 1);
    let ids: Vec<NodeId> = topology
        .members()
        .iter()
        .map(|member| member.node)
        .collect();
    let set = |partition, owners: &[NodeId], epoch| {
        let state = PartitionState::Stable(owners.to_vec());
        topology.with_partition_state(PartitionId(partition), &state, Epoch(epoch))
    };
    assert!(matches!(
        set(0, &ids[..2], 2),
        Err(TopologyError::Slots { .. })
    ));
    assert!(matches!(
        set(0, &[ids[0], ids[1], ids[0]], 2),
        Err(TopologyError::Slots { .. })
    ));
    assert!(matches!(
        set(256, &ids[..3], 2),
        Err(TopologyError::NoSuchPartition { .. })
    ));
    assert!(matches!(
        set(0, &ids[..3], 0),
        Err(TopologyError::EpochGoesBack { .. })
    ));
    let stranger = NodeId(99);
    let refused = set(0, &[ids[0], ids[1], stranger], 2);
    assert_eq!(refused, Err(TopologyError::NotAMember { node: stranger }));
}

#[test]
fn a_preference_list_names_every_member_once_and_other_zones_first() {
    let topology = topology(12, 4);
    for partition in topology.partition_count().iter() {
        let list = topology.preference(partition, 2);
        let owners = topology.replicas(partition, 2);
        assert_eq!(list.primaries().collect::<Vec<_>>(), owners.old());
        let mut nodes: Vec<NodeId> = list.entries().iter().map(|entry| entry.node).collect();
        let zone = |node: &NodeId| topology.member(*node).map(|member| member.zone.clone());
        let first_four: std::collections::BTreeSet<_> = nodes[..4].iter().map(zone).collect();
        assert_eq!(
            first_four.len(),
            4,
            "two replicas and two fallbacks, all in other zones"
        );
        nodes.sort_unstable();
        nodes.dedup();
        assert_eq!(nodes.len(), 12);
    }
}

#[test]
fn fallbacks_are_spread_over_the_members() {
    let topology = topology(12, 1);
    let mut first = BTreeMap::new();
    for partition in topology.partition_count().iter() {
        let fallback = topology.preference(partition, 3).fallbacks().next();
        *first.entry(fallback).or_insert(0) += 1;
    }
    assert_eq!(first.len(), 12);
    assert!(first.values().all(|&times| times < 256 / 4), "{first:?}");
}

#[test]
fn joining_owners_are_listed_after_the_old_ones() {
    let first = topology(5, 1);
    let PartitionState::Stable(old) = first.partition_state(PartitionId(0)) else {
        panic!("genesis is stable");
    };
    let joiner = first
        .members()
        .iter()
        .map(|m| m.node)
        .find(|node| !old.contains(node));
    let joiner = joiner.expect("five members, three slots");
    let state = PartitionState::Joint {
        old: old.clone(),
        new: vec![old[0], joiner, old[2]],
    };
    let second = first
        .with_partition_state(PartitionId(0), &state, Epoch(2))
        .expect("possible");
    let list = second.preference(PartitionId(0), 3);
    assert_eq!(list.entries()[3].node, joiner);
    assert_eq!(list.entries()[3].role, Role::Joining { slot: 1 });
    assert_eq!(list.fallbacks().count(), 1);
}
