//! The assigner against its rules and against the oracle, over random histories of small clusters.

use kv_ring::PartitionId;
use kv_ring::assign::{Candidate, PlanError, plan};
use kv_types::NodeId;
use proptest::prelude::*;

use crate::oracle::fewest_moves;
use crate::world::{World, moved, partitions};

/// A change of the members of a small cluster.
#[derive(Debug, Clone)]
enum Change {
    Join {
        zone: u32,
        weight: u32,
    },
    Leave {
        which: prop::sample::Index,
    },
    Weigh {
        which: prop::sample::Index,
        weight: u32,
    },
    Rezone {
        which: prop::sample::Index,
        zone: u32,
    },
}

fn change(zones: u32, weights: u32) -> impl Strategy<Value = Change> {
    let which = any::<prop::sample::Index>;
    prop_oneof![
        3 => (0..zones, 1..=weights).prop_map(|(zone, weight)| Change::Join { zone, weight }),
        3 => which().prop_map(|which| Change::Leave { which }),
        1 => (which(), 1..=weights).prop_map(|(which, weight)| Change::Weigh { which, weight }),
        1 => (which(), 0..zones).prop_map(|(which, zone)| Change::Rezone { which, zone }),
    ]
}

/// Members, then batches of changes, each of which is planned at once.
fn history(zones: u32, weights: u32) -> impl Strategy<Value = (World, Vec<Vec<Change>>)> {
    let members = prop::collection::vec((0..zones, 1..=weights), 3..=10);
    let batches =
        prop::collection::vec(prop::collection::vec(change(zones, weights), 1..=3), 1..=4);
    (4u32..=6, 1u8..=4, members, batches).prop_map(|(bits, replicas, members, batches)| {
        let mut world = World::new(1 << bits, replicas.min(members.len() as u8));
        for (number, (zone, weight)) in (0..).zip(members) {
            world.join(number, zone, weight);
        }
        (world, batches)
    })
}

fn apply(world: &mut World, change: &Change, fresh: &mut u32) {
    let at = |which: &prop::sample::Index, world: &World| which.index(world.members.len());
    match change {
        Change::Join { zone, weight } if world.members.len() < 12 => {
            world.join(*fresh, *zone, *weight);
            *fresh += 1;
        }
        Change::Leave { which } if world.members.len() > usize::from(world.replicas) => {
            world.members.remove(at(which, world));
        }
        Change::Join { .. } | Change::Leave { .. } => {}
        Change::Weigh { which, weight } => {
            let index = at(which, world);
            world.members[index].weight = *weight;
        }
        Change::Rezone { which, zone } => {
            let index = at(which, world);
            world.members[index].zone = format!("z{zone}");
        }
    }
}

/// Rules R1, R2, R3, R5 and R7 after every batch of changes.
fn follow(mut world: World, batches: &[Vec<Change>]) {
    let mut table = world.plan(None);
    world.assert_good(&table);
    let mut fresh = 100;
    for batch in batches {
        batch
            .iter()
            .for_each(|change| apply(&mut world, change, &mut fresh));
        let next = world.plan(Some(&table));
        world.assert_good(&next);
        assert_eq!(
            moved(&table, &next),
            fewest_moves(&world, &table),
            "R5: the fewest moves"
        );
        assert_eq!(
            next.moves_from(&table).len(),
            moved(&table, &next),
            "what stays keeps its slot"
        );
        assert!(
            world.plan(Some(&next)).moves_from(&next).is_empty(),
            "R7: planned twice, moved once"
        );
        table = next;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn uniform_tables_are_good_and_move_the_least((world, batches) in history(1, 1)) {
        follow(world, &batches);
    }

    #[test]
    fn weighted_tables_with_zones_are_good_and_move_the_least((world, batches) in history(5, 8)) {
        follow(world, &batches);
    }

    #[test]
    fn tables_of_two_zones_are_good_and_move_the_least((world, batches) in history(2, 3)) {
        follow(world, &batches);
    }
}

#[test]
fn the_order_of_members_does_not_matter() {
    let world = World::new(256, 3).with_members(9, 3, &[1, 2, 3]);
    let mut reversed = world.clone();
    reversed.members.reverse();
    assert_eq!(world.plan(None), reversed.plan(None));
    let before = World::new(256, 3).with_members(8, 3, &[1, 2, 3]).plan(None);
    assert_eq!(world.plan(Some(&before)), reversed.plan(Some(&before)));
}

/// R4. The sums were taken once; other machines and compilers must come to the same.
#[test]
fn the_same_input_gives_the_same_table_everywhere() {
    let sum = |table: &kv_ring::assign::Table| {
        let all = (0..table.partitions()).flat_map(|p| table.slots(PartitionId(p as u16)).to_vec());
        all.fold(0u64, |sum, slot| {
            sum.wrapping_mul(0x100_0000_01b3) ^ u64::from(slot)
        })
    };
    let world = World::new(4096, 3).with_members(11, 5, &[1, 1, 2, 4]);
    let first = world.plan(None);
    let mut smaller = world.clone();
    smaller.leave(5);
    let second = smaller.plan(Some(&first));
    assert_eq!(sum(&first), 7_091_440_893_406_428_245);
    assert_eq!(sum(&second), 16_779_568_801_470_350_710);
}

#[test]
fn a_changed_number_of_replicas_keeps_the_slots_there_are() {
    let mut world = World::new(64, 2).with_members(7, 3, &[1]);
    let two = world.plan(None);
    world.replicas = 3;
    let three = world.plan(Some(&two));
    world.assert_good(&three);
    assert!(moved(&two, &three) >= 64);
    for (old, new) in partitions(&two).zip(partitions(&three)) {
        assert!(old.intersection(&new).count() >= 1);
    }
    world.replicas = 2;
    world.assert_good(&world.plan(Some(&three)));
}

#[test]
fn a_replaced_node_hands_its_slots_to_its_successor_alone() {
    let mut world = World::new(1024, 3).with_members(9, 3, &[1]);
    let before = world.plan(None);
    world.leave(4);
    world.join(50, 1, 1);
    let after = world.plan(Some(&before));
    for change in after.moves_from(&before) {
        assert_eq!((change.from, change.to), (Some(NodeId(4)), NodeId(50)));
    }
}

#[test]
fn impossible_requests_are_refused_with_their_numbers() {
    let world = World::new(256, 3).with_members(4, 1, &[1]);
    type Spoil = fn(&mut World);
    let refusal = |change: Spoil| {
        let mut world = world.clone();
        change(&mut world);
        plan(&world.input(None)).expect_err("impossible")
    };
    let cases: [(Spoil, PlanError); 6] = [
        (
            |world| world.replicas = 0,
            PlanError::Replicas { replicas: 0 },
        ),
        (
            |world| world.replicas = 17,
            PlanError::Replicas { replicas: 17 },
        ),
        (
            |world| world.replicas = 5,
            PlanError::TooFewMembers {
                members: 4,
                replicas: 5,
            },
        ),
        (
            |world| world.members[1].weight = 0,
            PlanError::Weight { node: NodeId(1) },
        ),
        (
            |world| world.join(3, 0, 1),
            PlanError::Duplicate { node: NodeId(3) },
        ),
        (
            |world| world.partitions = 100,
            PlanError::Partitions { partitions: 100 },
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(refusal(change), expected);
    }
    let table = world.plan(None);
    let mut other = world.clone();
    other.partitions = 512;
    let expected = PlanError::PartitionsDiffer {
        partitions: 512,
        previous: 256,
    };
    assert_eq!(plan(&other.input(Some(&table))), Err(expected));
}

#[test]
fn extreme_weights_are_planned() {
    let mut world = World::new(4096, 3);
    for (number, weight) in (0..).zip([u32::MAX, u32::MAX, 1, 1, 7, u32::MAX]) {
        world.members.push(Candidate {
            node: NodeId(number),
            zone: "z".to_owned(),
            weight,
        });
    }
    let table = world.plan(None);
    world.assert_good(&table);
    assert_eq!(table.loads(3), [4096, 4096, 0, 0, 0, 4096]);
}
