//! Networks that break, in one or both directions, and heal.

use kv_gossip::{Config, Event, State};

use crate::world::{World, id, seconds};

#[test]
fn halves_that_split_heal_and_no_half_believes_the_other_about_its_own() {
    for (seed, split_seconds) in [(1, 30.0), (2, 180.0), (3, 180.0)] {
        let mut world = World::settled(Config::lan(), seed, 40);
        let (left, right): (Vec<_>, Vec<_>) = (0..40).partition(|member| member % 2 == 0);
        world.split(&left, &right);
        world.run_for(seconds(split_seconds));
        for &member in &left {
            assert_eq!(
                world.count_believing(member, &[State::Dead]),
                20,
                "seed {seed}"
            );
        }
        world.heard.clear();
        world.heal();
        let healed = world.run_until_true(seconds(60.0), World::everyone_sees_everyone);
        assert!(
            healed.is_some_and(|s| s <= 15.0),
            "seed {seed}: healed after {healed:?} s"
        );
        world.run_for(seconds(30.0));
        assert!(
            world.agrees() && world.everyone_sees_everyone(),
            "seed {seed}"
        );
        assert_eq!(world.false_deaths(), 0, "seed {seed}");
    }
}

#[test]
fn a_short_split_declares_nobody_dead() {
    let mut world = World::settled(Config::lan(), 4, 40);
    let (left, right): (Vec<_>, Vec<_>) = (0..40).partition(|member| member % 2 == 0);
    world.split(&left, &right);
    world.run_for(seconds(4.0));
    world.heal();
    let healed = world.run_until_true(seconds(60.0), World::everyone_sees_everyone);
    assert!(healed.is_some(), "suspicions outlive their cause");
    assert_eq!(world.false_deaths(), 0);
}

#[test]
fn one_of_three_that_is_cut_off_comes_back() {
    for seed in 1..=5 {
        let mut world = World::settled(Config::local(), seed, 3);
        world.split(&[0], &[1, 2]);
        world.run_for(seconds(60.0));
        assert_eq!(world.count_believing(0, &[State::Dead]), 2, "seed {seed}");
        assert_eq!(world.state(1, 2), Some(State::Alive), "seed {seed}");
        world.heal();
        let healed = world.run_until_true(seconds(20.0), World::everyone_sees_everyone);
        assert!(
            healed.is_some_and(|s| s <= 3.0),
            "seed {seed}: healed after {healed:?} s"
        );
    }
}

#[test]
fn one_broken_link_makes_nobody_suspect_for_long() {
    let mut world = World::settled(Config::lan(), 6, 20);
    world.split(&[3], &[7]);
    world.run_for(seconds(300.0));
    // Others reach both, and pass on what they say.
    assert_eq!(world.false_deaths(), 0);
    assert!(
        !world.was_heard(Event::Suspect { node: id(7) }),
        "indirect probes were not used"
    );
}

#[test]
fn a_member_that_sends_but_hears_nothing_is_found_dead() {
    let mut world = World::settled(Config::lan(), 7, 20);
    for other in (0..20).filter(|&other| other != 5) {
        world.network.cut.insert((other, 5));
    }
    let dead = world.run_until_true(seconds(60.0), |w| {
        w.count_believing(5, &[State::Dead]) == 19
    });
    assert!(dead.is_some(), "its own messages keep it alive");
    let steady = world.heard.len();
    world.run_for(seconds(60.0));
    let revived = world.heard[steady..]
        .iter()
        .any(|h| h.event == Event::Alive { node: id(5) });
    assert!(!revived, "what it sends revives it");
    // It hears no answers, so it is slow to judge, and nobody else believes it.
    assert_eq!(world.false_deaths() - 19, world.count_false_deaths_by(5));
}

#[test]
fn a_member_that_hears_but_cannot_send_is_found_dead_and_comes_back() {
    let mut world = World::settled(Config::lan(), 8, 20);
    for other in (0..20).filter(|&other| other != 5) {
        world.network.cut.insert((5, other));
    }
    let dead = world.run_until_true(seconds(60.0), |w| {
        w.count_believing(5, &[State::Dead]) == 19
    });
    assert!(dead.is_some());
    world.heal();
    let healed = world.run_until_true(seconds(30.0), World::everyone_sees_everyone);
    assert!(
        healed.is_some_and(|s| s <= 15.0),
        "healed after {healed:?} s"
    );
    world.run_for(seconds(30.0));
    assert!(world.agrees());
}

#[test]
fn dead_members_are_tried_for_ever() {
    let mut world = World::settled(Config::lan(), 9, 6);
    world.split(&[0, 1, 2], &[3, 4, 5]);
    world.run_for(seconds(3600.0));
    world.heal();
    let healed = world.run_until_true(seconds(30.0), World::everyone_sees_everyone);
    assert!(
        healed.is_some_and(|s| s <= 15.0),
        "healed after {healed:?} s"
    );
}

#[test]
fn views_agree_after_any_mixture_of_faults_has_ended() {
    for seed in 1..=6 {
        let mut world = World::settled(Config::local(), seed, 12);
        let mut faults = fastrand::Rng::with_seed(seed);
        for _ in 0..25 {
            let (a, b) = (faults.usize(0..12), faults.usize(0..12));
            match faults.u8(0..6) {
                0 if world.processes[a].up => world.kill(a),
                1 if !world.processes[a].up => world.restart(a, &[0, 1, 2]),
                2 => drop(world.network.cut.insert((a, b))),
                3 => world.split(&[a], &[b, (b + 1) % 12, (b + 2) % 12]),
                4 => world.heal(),
                _ => world.network.loss = faults.f64() * 0.4,
            }
            world.run_for(seconds(faults.f64() * 5.0));
        }
        world.heal();
        world.network.loss = 0.0;
        let settled = world.run_until_true(seconds(60.0), |w| {
            w.everyone_knows_the_truth() && w.agrees()
        });
        assert!(
            settled.is_some(),
            "seed {seed}: views differ a minute after the last fault"
        );
    }
}
