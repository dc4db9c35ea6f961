//! Members that come and go are damped, and forgiven.

use kv_gossip::{Config, Event, Input, State};

use crate::world::{World, id, seconds};

/// By how many running members, itself not counted, the member is damped.
fn dampers(world: &World, subject: usize) -> usize {
    let others = world
        .running()
        .into_iter()
        .filter(|&member| member != subject);
    others
        .filter(|&member| world.processes[member].gossip.is_damped(id(subject)))
        .count()
}

/// Stops a member until all suspect it, and lets it go on.
fn flap(world: &mut World, member: usize) {
    let gone = [State::Suspect, State::Dead];
    let others = world.running().len() - 1;
    world.pause(member);
    let found = world.run_until_true(seconds(20.0), |w| {
        w.count_believing(member, &gone) == others
    });
    assert!(found.is_some(), "not all suspect it");
    world.resume(member);
    let back = world.run_until_true(seconds(20.0), World::everyone_sees_everyone);
    assert!(back.is_some(), "it does not come back");
}

#[test]
fn a_member_that_flaps_four_times_is_damped_for_minutes_and_stays_a_member() {
    let mut world = World::settled(Config::lan(), 1, 10);
    for _ in 0..3 {
        flap(&mut world, 4);
    }
    assert_eq!(dampers(&world, 4), 0);
    flap(&mut world, 4);
    assert_eq!(dampers(&world, 4), 9);
    assert_eq!(world.count_believing(4, &[State::Alive]), 9);
    for other in (0..10).filter(|&other| other != 4) {
        assert_eq!(dampers(&world, other), 0, "{other} has not flapped");
    }
    let since = world.now;
    let forgiven = world.run_until_true(seconds(600.0), |w| dampers(w, 4) == 0);
    assert!(
        forgiven.is_some_and(|s| s >= 200.0),
        "forgiven after {forgiven:?} s"
    );
    // The time at which it is forgiven is known from the beginning, to whoever wants to wait for it.
    let until = world.processes[0]
        .gossip
        .member(id(4))
        .unwrap()
        .damped_until();
    let told = until.unwrap().since(since).as_secs_f64();
    assert!(told <= forgiven.unwrap() + 1.0, "told {told} s");
}

#[test]
fn clean_restarts_are_no_flapping_and_a_crash_counts_once() {
    let mut world = World::settled(Config::lan(), 2, 10);
    for _ in 0..6 {
        world.input(4, Input::Leave);
        world.run_for(Config::lan().leave_linger());
        world.kill(4);
        world.run_for(seconds(2.0));
        world.restart(4, &[0]);
        let back = world.run_until_true(seconds(20.0), World::everyone_sees_everyone);
        assert!(back.is_some());
    }
    assert_eq!(dampers(&world, 4), 0, "a clean restart counts");
    world.heard.clear();
    for crash in 1..=4 {
        world.kill(4);
        let dead = [State::Dead];
        let found = world.run_until_true(seconds(60.0), |w| w.count_believing(4, &dead) == 9);
        assert!(found.is_some());
        world.restart(4, &[0]);
        let back = world.run_until_true(seconds(20.0), World::everyone_sees_everyone);
        assert!(back.is_some());
        let expected = if crash < 4 { 0 } else { 9 };
        assert_eq!(dampers(&world, 4), expected, "after {crash} crashes");
    }
    assert!(world.was_heard(Event::Dead { node: id(4) }));
}
