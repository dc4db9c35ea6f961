//! Coming, going, coming back.

use kv_gossip::{Config, Event, State};

use crate::world::{World, id, seconds};

#[test]
fn a_hundred_members_that_join_at_once_are_seen_by_all_in_five_seconds() {
    let mut world = World::settled(Config::lan(), 1, 100);
    world.start_many(100, &[0, 1, 2]);
    let seen = world.run_until_true(seconds(20.0), World::everyone_sees_everyone);
    assert!(
        seen.is_some_and(|s| s <= 5.0),
        "all see all after {seen:?} s"
    );
    assert_eq!(world.false_deaths(), 0);
    world.run_for(seconds(30.0));
    assert!(world.agrees());
}

#[test]
fn members_that_start_before_their_seeds_find_them_later() {
    let mut world = World::new(Config::lan(), 2);
    world.start_many(1, &[0, 1, 2]);
    world.run_for(seconds(2.0));
    world.kill(0);
    world.start_many(1, &[0, 1, 2]);
    world.run_for(seconds(30.0));
    assert_eq!(world.state(1, 0), None);
    world.restart(0, &[0, 1, 2]);
    let met = world.run_until_true(seconds(3.0), World::everyone_sees_everyone);
    assert!(met.is_some(), "a lone member stopped trying its seeds");
}

#[test]
fn a_restarted_member_is_alive_again_with_a_higher_incarnation() {
    for seed in 1..=5 {
        let mut world = World::settled(Config::lan(), seed, 10);
        world.kill(6);
        world.run_for(seconds(40.0));
        assert_eq!(world.count_believing(6, &[State::Dead]), 9);
        let before = world.processes[0]
            .gossip
            .member(id(6))
            .unwrap()
            .incarnation();
        world.restart(6, &[0, 1]);
        let back = world.run_until_true(seconds(10.0), World::everyone_sees_everyone);
        assert!(
            back.is_some_and(|s| s <= 3.0),
            "seed {seed}: back after {back:?} s"
        );
        let after = world.processes[0].gossip.member(id(6)).unwrap();
        assert!(after.incarnation() > before);
        assert_eq!(after.boot(), 2);
    }
}

#[test]
fn the_silence_of_an_earlier_process_accuses_no_later_one() {
    for seed in 1..=30 {
        let mut world = World::settled(Config::lan(), seed, 10);
        world.kill(6);
        // Nearly a period: probes of the earlier process end when the later one is known.
        world.run_for(seconds(0.95));
        world.restart(6, &[0]);
        world.run_for(seconds(5.0));
        let refutations = world.processes[6].gossip.stats().refutations;
        assert_eq!(refutations, 0, "seed {seed}: it had to refute");
    }
}

#[test]
fn a_quick_restart_at_another_address_is_noticed() {
    let mut world = World::settled(Config::lan(), 4, 10);
    world.kill(6);
    world.run_for(seconds(0.5));
    world.restart_as(6, "10.9.9.9:7000".to_owned(), 2, &[0]);
    world.run_for(seconds(5.0));
    for observer in world.running() {
        assert_eq!(
            world.processes[observer]
                .gossip
                .member(id(6))
                .unwrap()
                .address(),
            "10.9.9.9:7000"
        );
    }
    assert!(world.everyone_sees_everyone());
}

#[test]
fn a_node_whose_disk_was_rolled_back_is_told() {
    let mut world = World::settled(Config::lan(), 5, 5);
    for boot in 2..=4 {
        world.kill(2);
        world.restart_as(2, "10.0.0.2:7000".to_owned(), boot, &[0]);
        world.run_for(seconds(5.0));
    }
    assert!(!world.was_heard(Event::OlderBoot { remembered: 4 }));
    world.kill(2);
    world.restart_as(2, "10.0.0.2:7000".to_owned(), 2, &[0]);
    world.run_for(seconds(5.0));
    assert!(world.was_heard(Event::OlderBoot { remembered: 4 }));
    assert!(
        world.everyone_sees_everyone(),
        "it is still a member, whatever its disk"
    );
}

#[test]
fn a_member_that_leaves_is_gone_at_once_and_suspected_by_nobody() {
    let mut world = World::settled(Config::lan(), 6, 50);
    world.input(9, kv_gossip::Input::Leave);
    let linger = Config::lan().leave_linger();
    world.run_for(linger);
    world.kill(9);
    let left = world.run_until_true(seconds(5.0), |w| w.count_believing(9, &[State::Left]) == 49);
    assert!(left.is_some_and(|s| s <= 1.0), "left after {left:?} s more");
    world.run_for(seconds(120.0));
    assert!(!world.was_heard(Event::Suspect { node: id(9) }));
    assert_eq!(world.count_believing(9, &[State::Left]), 49);
    assert!(world.agrees());
}

#[test]
fn a_member_that_left_may_come_back() {
    let mut world = World::settled(Config::lan(), 7, 5);
    world.input(1, kv_gossip::Input::Leave);
    world.run_for(seconds(1.0));
    world.kill(1);
    world.run_for(seconds(20.0));
    world.restart(1, &[0]);
    let back = world.run_until_true(seconds(10.0), World::everyone_sees_everyone);
    assert!(back.is_some_and(|s| s <= 3.0), "back after {back:?} s");
}

#[test]
fn no_message_grows_with_the_cluster() {
    let mut world = World::settled(Config::lan(), 8, 200);
    world.network.loss = 0.2;
    for member in 0..20 {
        world.kill(member);
    }
    world.run_for(seconds(30.0));
    // The world refuses longer ones; this says that the bound was reached and so tested.
    assert!(
        (900..=1120).contains(&world.longest_message),
        "{} bytes",
        world.longest_message
    );
}
