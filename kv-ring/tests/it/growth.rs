//! Long histories at full size: balance, moves and prefixes after a cluster has grown and shrunk.

use kv_ring::assign::Table;

use crate::world::World;

/// How far the fullest and the emptiest member are from the mean, in the first `prefix` slots.
fn spread(world: &World, table: &Table, prefix: u8) -> (f64, f64) {
    let loads = table.loads(prefix);
    let mean = f64::from(world.partitions) * f64::from(prefix) / loads.len() as f64;
    let of_mean = |load: Option<&u32>| f64::from(*load.expect("there are members")) / mean;
    (of_mean(loads.iter().min()), of_mean(loads.iter().max()))
}

#[test]
fn first_tables_are_balanced_up_to_101_nodes() {
    for count in [3, 6, 11, 21, 101] {
        let world = World::new(4096, 3).with_members(count, 1, &[1]);
        let table = world.plan(None);
        world.assert_good(&table);
        for prefix in 1..=3 {
            let (least, most) = spread(&world, &table, prefix);
            let slot = f64::from(count) / (4096.0 * f64::from(prefix));
            assert!(
                most <= 1.0 + slot * 2.0,
                "{count} nodes, first {prefix}: {most}"
            );
            assert!(
                least >= 1.0 - slot * 2.0,
                "{count} nodes, first {prefix}: {least}"
            );
        }
        assert!(spread(&world, &table, 3).1 <= 1.01);
    }
}

/// How far, in slots, any member's part of a prefix is from its part of all slots.
fn drift(table: &Table, prefix: u8) -> f64 {
    let part = f64::from(prefix) / f64::from(table.replicas());
    let loads = table
        .loads(prefix)
        .into_iter()
        .zip(table.loads(table.replicas()));
    let off = |(held, all): (u32, u32)| (f64::from(held) - f64::from(all) * part).abs();
    loads.map(off).fold(0.0, f64::max)
}

/// Moves along the table; how many slots moved, and the worst drift of its prefixes.
fn step(world: &World, table: &mut Table) -> (u32, f64) {
    let next = world.plan(Some(table));
    let moves = next.moves_from(table).len() as u32;
    *table = next;
    (moves, drift(table, 1).max(drift(table, 2)))
}

#[test]
fn a_cluster_grows_to_1000_nodes_and_shrinks_again_without_wear() {
    let mut world = World::new(4096, 3).with_members(3, 3, &[1]);
    let mut table = world.plan(None);
    let (mut moved, mut share, mut worst) = (0, 0.0, 0.0f64);
    for number in 3..1000 {
        world.join(number, number % 3, 1);
        let (moves, drift) = step(&world, &mut table);
        moved += moves;
        share += 4096.0 * 3.0 / f64::from(number + 1);
        worst = worst.max(drift);
        if number % 50 == 0 {
            world.assert_good(&table);
        }
    }
    let most = spread(&world, &table, 3).1;
    assert!(most <= 1.06, "the fullest of 1,000 has {most} of the mean");
    // Less than the newcomers' shares, because uneven zones let some of them hold less for a while.
    assert!(
        f64::from(moved) <= share,
        "{moved} slots moved, {share} is the newcomers' share"
    );
    assert!(worst < 3.0, "a prefix was {worst} slots off");
    let mut worst = 0.0f64;
    for number in (0..999).filter(|number| number % 10 != 0) {
        world.leave(number);
        worst = worst.max(step(&world, &mut table).1);
    }
    assert!(worst < 3.0, "a prefix was {worst} slots off");
    world.assert_good(&table);
}
