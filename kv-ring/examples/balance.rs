//! Prints how well the assigner balances, and how little it moves, from 3 to 1001 nodes.
//!
//! `cargo run -p kv-ring --example balance`
//!
//! Each row is a cluster of 4096 partitions with three replicas. `max` and `min` are the largest and
//! the smallest load relative to its share (the mean, when members are alike; with weights and zones,
//! what the weight gives within the limits of zones); `first 1` and `first 2` show the same for buckets
//! with fewer replicas. `join` and `leave` are what moves when one node comes and when one goes,
//! relative to a bound that no assigner can go below. `peers` is how many nodes share a partition with
//! one in the middle: as many help to rebuild it.
#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::collections::BTreeSet;

use kv_ring::PartitionId;
use kv_ring::assign::{Candidate, PlanError, PlanInput, Share, Table, plan, shares};
use kv_types::NodeId;

const PARTITIONS: u32 = 4096;
const REPLICAS: u8 = 3;

fn main() -> Result<(), PlanError> {
    println!("nodes  members    max   min   | first 1     | first 2     | join  leave | peers");
    for (label, zones, weights) in [
        ("alike", 1, &[1][..]),
        ("weights, 5 zones", 5, &[1, 1, 2, 4]),
    ] {
        println!("-- {label}");
        for count in [3, 6, 11, 21, 101, 1001] {
            print_row(&members(count, zones, weights), count, zones, weights)?;
        }
    }
    Ok(())
}

fn print_row(
    alike: &[Candidate],
    count: u32,
    zones: u32,
    weights: &[u32],
) -> Result<(), PlanError> {
    let table = plan_from(alike, None)?;
    let shares = shares(&input(alike, None))?;
    let [(first_min, first_max), (second_min, second_max), (min, max)] =
        [1, 2, 3].map(|prefix| spread(&table, &shares, prefix));

    let larger = members(count + 1, zones, weights);
    let joined = plan_from(&larger, Some(&table))?;
    let middle = NodeId(u128::from(count / 2));
    let smaller: Vec<Candidate> = larger
        .iter()
        .filter(|m| m.node != middle)
        .cloned()
        .collect();
    let left = plan_from(&smaller, Some(&joined))?;
    let join = ratio(&table, &joined, &larger)?;
    let leave = ratio(&joined, &left, &smaller)?;

    println!(
        "{count:5}             {max:.3} {min:.3} | {first_max:.3} {first_min:.3} \
         | {second_max:.3} {second_min:.3} | {join:.3} {leave:.3} | {:5}",
        peers(&table, middle)
    );
    if weights == [1] && count <= 101 {
        assert!(max <= 1.01, "{count} nodes alike: max/mean is {max}");
    }
    Ok(())
}

fn members(count: u32, zones: u32, weights: &[u32]) -> Vec<Candidate> {
    let member = |number: u32| Candidate {
        node: NodeId(number.into()),
        zone: format!("z{}", number % zones),
        weight: weights[number as usize % weights.len()],
    };
    (0..count).map(member).collect()
}

fn input<'a>(members: &'a [Candidate], previous: Option<&'a Table>) -> PlanInput<'a> {
    PlanInput {
        members,
        partitions: PARTITIONS,
        replicas: REPLICAS,
        previous,
    }
}

fn plan_from(members: &[Candidate], previous: Option<&Table>) -> Result<Table, PlanError> {
    plan(&input(members, previous))
}

/// The smallest and the largest load in the first slots, relative to the share.
fn spread(table: &Table, shares: &[Share], prefix: u8) -> (f64, f64) {
    let of_share = |(load, share): (u32, &Share)| {
        f64::from(load) / (share.as_f64() * f64::from(prefix) / f64::from(REPLICAS))
    };
    let loads = table.loads(prefix).into_iter().zip(shares).map(of_share);
    loads.fold((f64::MAX, 0.0), |(least, most), load| {
        (load.min(least), load.max(most))
    })
}

/// What moved, relative to what the loads alone force to move: members short of their share rounded
/// down must gain the difference, and what exceeds shares rounded up, or is nobody's, must find a place.
fn ratio(from: &Table, to: &Table, members: &[Candidate]) -> Result<f64, PlanError> {
    let before = from.loads(REPLICAS);
    let (mut short, mut homeless) = (0, PARTITIONS * u32::from(REPLICAS));
    for (node, share) in to.nodes().iter().zip(shares(&input(members, None))?) {
        let index = from.nodes().binary_search(node);
        let load = index.map_or(0, |index| before[index]);
        short += share.floor().saturating_sub(load);
        homeless -= load.min(share.ceil());
    }
    let least = short.max(homeless);
    let moves = to.moves_from(from).len();
    Ok(if moves == 0 {
        1.0
    } else {
        moves as f64 / f64::from(least)
    })
}

fn peers(table: &Table, node: NodeId) -> usize {
    let owners = |p| table.owners(PartitionId(p as u16));
    let shared = (0..table.partitions()).filter(|&p| owners(p).any(|owner| owner == node));
    let others: BTreeSet<NodeId> = shared
        .flat_map(owners)
        .filter(|&other| other != node)
        .collect();
    others.len()
}
