//! The quorum rule and the fence, by tables.

use super::*;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
const D: NodeId = NodeId(4);

#[test]
fn a_stable_partition_needs_its_quorum_once() {
    let set = ReplicaSet::stable([A, B, C]);
    assert!(set.is_met(|node| [A, C].contains(&node), 2));
    assert!(!set.is_met(|node| node == B, 2));
    assert_eq!(set.count(|node| node == D), 0);
    assert_eq!(set.nodes().collect::<Vec<_>>(), [A, B, C]);
}

#[test]
fn a_joint_partition_needs_its_quorum_on_both_sides() {
    let set = ReplicaSet::joint([A, B, C], [A, B, D]);
    let met = |nodes: &[NodeId]| set.is_met(|node| nodes.contains(&node), 2);
    assert!(met(&[A, B]), "the common nodes are a quorum of both sides");
    assert!(!met(&[A, C]), "one answer among the new owners");
    assert!(!met(&[B, D]), "one answer among the old owners");
    assert!(!met(&[C, D]), "two answers, one on each side");
    assert!(met(&[A, C, D]));
    assert_eq!(set.count(|node| node == C || node == D), 1);
    assert_eq!(set.nodes().collect::<Vec<_>>(), [A, B, C, D]);
}

#[test]
fn it_is_known_when_a_quorum_cannot_be_met_any_more() {
    let set = ReplicaSet::joint([A, B, C], [A, B, D]);
    assert!(set.can_be_met(|node| node != C, 2));
    assert!(!set.can_be_met(|node| node != A && node != C, 2));
}

#[test]
fn sixteen_replicas_fit() {
    let set = ReplicaSet::stable((0..16).map(NodeId));
    assert_eq!(set.count(|_| true), 16);
    assert!(set.contains(NodeId(15)) && !set.contains(NodeId(16)));
}

#[test]
fn the_fence_follows_the_partition_and_not_the_topology() {
    let judge = |request, own, changed| fence(Epoch(request), Epoch(own), Epoch(changed));
    assert_eq!(judge(1, 1, 1), Fence::Serve);
    assert_eq!(judge(1, 9, 1), Fence::Serve, "other partitions changed");
    assert_eq!(judge(4, 9, 5), Fence::StaleRequest);
    assert_eq!(judge(5, 9, 5), Fence::Serve);
    assert_eq!(judge(10, 9, 5), Fence::BehindRequest);
    assert_eq!(judge(2, 1, 1), Fence::BehindRequest);
}
