//! The dead are found quickly, the living are left alone.

use kv_gossip::{Config, Event, State};

use crate::world::{World, id, seconds};

const GONE: [State; 2] = [State::Suspect, State::Dead];

#[test]
fn twenty_minutes_of_five_percent_loss_declare_nobody_dead() {
    let mut world = World::settled(Config::lan(), 1, 100);
    world.network.loss = 0.05;
    world.run_for(seconds(1200.0));
    assert_eq!(world.false_deaths(), 0);

    world.kill(50);
    let suspected = world.run_until_true(seconds(10.0), |w| w.count_believing(50, &GONE) >= 99);
    assert!(
        suspected.is_some_and(|s| s <= 4.0),
        "suspect at 99 % after {suspected:?} s"
    );
    let dead = world.run_until_true(seconds(60.0), |w| {
        w.count_believing(50, &[State::Dead]) == 99
    });
    assert!(dead.is_some(), "dead everywhere after {dead:?} s");
    assert_eq!(world.false_deaths(), 0);
}

#[test]
fn a_killed_member_is_suspected_in_three_seconds_and_dead_when_its_timer_ends() {
    let (mut suspected, mut dead) = (vec![], vec![]);
    for seed in 1..=9 {
        let mut world = World::settled(Config::lan(), seed, 100);
        world.kill(50);
        let start = world.now;
        let limit = seconds(60.0);
        let known = world.run_until_true(limit, |w| w.count_believing(50, &GONE) >= 98);
        suspected.push(known.expect("98 of 99 members suspect it"));
        let known = world.run_until_true(limit, |w| w.count_believing(50, &[State::Dead]) == 99);
        known.expect("all members know that it is dead");
        dead.push(world.now.since(start).as_secs_f64());
        world.run_for(seconds(30.0));
        assert!(
            world.agrees() && world.everyone_knows_the_truth(),
            "seed {seed}"
        );
    }
    suspected.sort_by(f64::total_cmp);
    dead.sort_by(f64::total_cmp);
    // Who probes it first, and when, is up to chance: one probe a second on average.
    assert!(suspected[4] <= 2.0 && suspected[8] <= 3.0, "{suspected:?}");
    // The shortest suspicion of 100 members is 8 s.
    assert!(dead[4] <= 11.5 && dead[8] <= 17.0, "{dead:?}");
}

#[test]
fn three_members_find_a_dead_one_and_each_other() {
    for seed in 1..=10 {
        let mut world = World::settled(Config::local(), seed, 3);
        world.kill(2);
        let suspected = world.run_until_true(seconds(5.0), |w| w.count_believing(2, &GONE) == 2);
        assert!(
            suspected.is_some_and(|s| s <= 1.0),
            "seed {seed}: suspect after {suspected:?} s"
        );
        let dead =
            world.run_until_true(seconds(20.0), |w| w.count_believing(2, &[State::Dead]) == 2);
        assert!(
            dead.is_some_and(|s| s <= 3.5),
            "seed {seed}: dead after {dead:?} s more"
        );
        assert_eq!(world.state(0, 1), Some(State::Alive));
        assert_eq!(world.state(1, 0), Some(State::Alive));
    }
}

#[test]
fn slow_members_are_not_declared_dead() {
    let mut world = World::settled(Config::lan(), 7, 100);
    world.network.slow.insert(13, seconds(2.0));
    world.network.slow.insert(77, seconds(2.0));
    world.run_for(seconds(600.0));
    assert_eq!(world.false_deaths(), 0);
}

#[test]
fn several_members_that_die_together_are_all_found() {
    let mut world = World::settled(Config::lan(), 8, 40);
    for member in 0..10 {
        world.kill(member);
    }
    let dead = world.run_until_true(seconds(90.0), World::everyone_knows_the_truth);
    assert!(dead.is_some(), "not all dead members are known");
    assert_eq!(world.false_deaths(), 0);
    world.run_for(seconds(20.0));
    assert!(world.agrees());
}

#[test]
fn a_member_that_wakes_from_a_pause_accuses_nobody() {
    for seed in 1..=10 {
        let mut world = World::settled(Config::lan(), seed, 5);
        // Acks take a third of a period, so that some pauses fall between a ping and its ack.
        world.network.delay = (seconds(0.15), seconds(0.2));
        world.run_for(seconds(0.1) * u32::try_from(seed).unwrap());
        world.pause(3);
        world.run_for(seconds(30.0));
        assert_eq!(
            world.count_believing(3, &[State::Dead]),
            4,
            "seed {seed}: a paused member is found dead"
        );
        world.heard.clear();
        world.resume(3);
        let back = world.run_until_true(seconds(20.0), World::everyone_sees_everyone);
        assert!(back.is_some(), "seed {seed}: it does not come back");
        let accused_by_it = world.heard.iter().any(|heard| {
            heard.observer == 3 && matches!(heard.event, Event::Suspect { .. } | Event::Dead { .. })
        });
        assert!(
            !accused_by_it,
            "seed {seed}: it accuses others of its own sleep"
        );
    }
}

#[test]
fn a_member_with_a_stuck_disk_is_suspected_although_it_answers() {
    let mut world = World::settled(Config::lan(), 3, 10);
    world.processes[4].healthy = false;
    let found = world.run_until_true(seconds(10.0), |w| w.count_believing(4, &GONE) == 9);
    assert!(found.is_some(), "nobody minds a node whose proofs fail");
    let dead = world.run_until_true(seconds(60.0), |w| w.count_believing(4, &[State::Dead]) == 9);
    assert!(dead.is_some());
    world.processes[4].healthy = true;
    let back = world.run_until_true(seconds(20.0), World::everyone_sees_everyone);
    assert!(
        back.is_some(),
        "it is not taken back when its proofs pass again"
    );
    assert!(world.was_heard(Event::Dead { node: id(4) }));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let mut world = World::settled(Config::lan(), seed, 20);
        world.network.loss = 0.1;
        world.kill(4);
        world.run_for(seconds(30.0));
        world.restart(4, &[0, 1]);
        world.run_for(seconds(30.0));
        (world.trace, world.heard)
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5).0, run(6).0);
}
