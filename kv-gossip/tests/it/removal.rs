//! Whom the topology has removed is forgotten, and stays so.

use kv_gossip::message::{Body, Claim, Message, Profile, Rumor};
use kv_gossip::{Config, Event, Gossip, Incarnation, Input, Output, State, Time};
use kv_types::{Epoch, NodeId};

use crate::by_hand;
use crate::world::{World, id, seconds};

const SECOND_EPOCH: Epoch = Epoch(2);
const SECOND_HASH: u64 = 0xbeef;

/// `member` adopts the topology that has removed `gone`.
fn adopt(world: &mut World, member: usize, gone: &[usize]) {
    let (epoch, chain_hash) = (SECOND_EPOCH, SECOND_HASH);
    world.input(member, Input::Topology { epoch, chain_hash });
    let gone = gone.iter().map(|&gone| id(gone)).collect();
    world.input(member, Input::Removed(gone));
}

#[test]
fn removed_members_are_forgotten_and_never_tried_again() {
    let mut world = World::settled(Config::lan(), 1, 10);
    world.kill(7);
    world.run_for(seconds(60.0));
    for member in world.running() {
        assert_eq!(world.state(member, 7), Some(State::Dead));
        adopt(&mut world, member, &[7]);
        assert_eq!(world.state(member, 7), None);
        assert_eq!(world.processes[member].gossip.members().count(), 9);
    }
    world.run_for(seconds(1.0));
    world.sent_to.clear();
    world.run_for(seconds(120.0));
    assert!(!world.sent_to.contains_key(&7), "it is still tried");
    assert!(world.everyone_sees_everyone() && world.agrees());
}

#[test]
fn a_peer_that_is_behind_brings_no_removed_member_back() {
    let mut world = World::settled(Config::lan(), 2, 10);
    // Half of the members do not know that a member which goes on running was removed.
    for member in 0..5 {
        adopt(&mut world, member, &[7]);
    }
    world.run_for(seconds(120.0));
    for member in 0..5 {
        assert_eq!(world.state(member, 7), None, "{member} took it in again");
        assert_eq!(world.state(member, 9), Some(State::Alive));
    }
    for member in [5, 6, 8, 9] {
        assert_eq!(
            world.state(member, 7),
            Some(State::Alive),
            "{member} is behind"
        );
        adopt(&mut world, member, &[7]);
    }
    world.run_for(seconds(60.0));
    for member in [0, 1, 2, 3, 4, 5, 6, 8, 9] {
        assert_eq!(world.state(member, 7), None);
    }
}

#[test]
fn a_removed_node_that_still_runs_is_told_of_the_newer_topology() {
    let mut world = World::settled(Config::lan(), 3, 10);
    for member in (0..10).filter(|&member| member != 7) {
        adopt(&mut world, member, &[7]);
    }
    world.heard.clear();
    world.run_for(seconds(5.0));
    let told = world.heard.iter().any(|heard| {
        let newer =
            matches!(heard.event, Event::NewerTopology { epoch, .. } if epoch == SECOND_EPOCH);
        heard.observer == 7 && newer
    });
    assert!(told, "it goes on as if it were a member");
    let spoken_of = world.heard.iter().filter(|heard| heard.observer != 7);
    assert_eq!(spoken_of.count(), 0, "members say something about it");
}

#[test]
fn a_removed_node_that_was_away_until_all_were_dead_to_it_is_told_when_it_is_back() {
    let mut world = World::settled(Config::lan(), 5, 10);
    let others: Vec<usize> = (0..=10).filter(|&member| member != 7).collect();
    world.split(&[7], &others);
    world.run_for(seconds(180.0));
    for member in (0..10).filter(|&member| member != 7) {
        assert_eq!(world.state(7, member), Some(State::Dead));
        adopt(&mut world, member, &[7]);
    }
    // One that came only then knows no address of it.
    world.start_many(1, &[0]);
    adopt(&mut world, 10, &[7]);
    world.run_for(seconds(30.0));
    world.heard.clear();
    world.heal();
    world.run_for(seconds(30.0));
    let told = world.heard.iter().any(|heard| {
        let newer =
            matches!(heard.event, Event::NewerTopology { epoch, .. } if epoch == SECOND_EPOCH);
        heard.observer == 7 && newer
    });
    assert!(told, "it goes on as if it were a member");
}

#[test]
fn a_node_that_removes_members_still_meets_those_it_does_not_list_yet() {
    let mut world = World::settled(Config::lan(), 4, 10);
    world.kill(7);
    for member in world.running() {
        adopt(&mut world, member, &[7]);
    }
    // Two are added by a topology that no member but the new ones themselves has.
    world.start_many(2, &[0]);
    for member in [10, 11] {
        adopt(&mut world, member, &[7]);
        let (epoch, chain_hash) = (Epoch(3), 0xfade);
        world.input(member, Input::Topology { epoch, chain_hash });
    }
    let met = world.run_until_true(seconds(10.0), World::everyone_sees_everyone);
    assert!(met.is_some_and(|s| s <= 5.0), "met after {met:?} s");
}

#[test]
fn the_silence_of_a_member_that_is_removed_while_it_is_probed_does_not_count() {
    for seed in 1..=10 {
        // With two members nobody can be asked for the other: its silence would be blamed on this one.
        let mut world = World::settled(Config::lan(), seed, 2);
        world.kill(1);
        world.run_for(seconds(0.1) * u32::try_from(seed).unwrap());
        let score = |world: &World| world.processes[0].gossip.stats().health_score;
        let before = score(&world);
        adopt(&mut world, 0, &[1]);
        world.run_for(seconds(10.0));
        assert_eq!(score(&world), before, "seed {seed}");
    }
}

#[test]
fn probes_go_on_when_their_target_is_removed() {
    for seed in 1..=10 {
        let mut world = World::settled(Config::lan(), seed, 3);
        world.kill(2);
        world.run_for(seconds(0.2) * u32::try_from(seed).unwrap());
        adopt(&mut world, 0, &[2]);
        let before = world.processes[0].gossip.stats().probes;
        world.run_for(seconds(10.0));
        let ended = world.processes[0].gossip.stats().probes - before;
        assert!(ended >= 9, "seed {seed}: {ended} probes in ten periods");
    }
}

#[test]
fn removed_members_make_room_and_their_seeds_are_passed_over() {
    let config = Config {
        members_limit: 3,
        ..Config::lan()
    };
    let mut gossip = by_hand::member(config);
    let hear = |gossip: &mut Gossip, from: u128, about: u128| {
        let profile = Profile {
            address: format!("host{about}:1"),
            boot: 1,
            heartbeat: 1,
            age: 1,
            epoch: Epoch::GENESIS,
        };
        let rumor = Rumor {
            node: NodeId(about),
            incarnation: Incarnation(1),
            claim: Claim::Alive { cleared: 0 },
            profile: Some(profile),
        };
        let bytes = by_hand::message(Incarnation(1), 1, Body::News, vec![rumor]);
        let (from, mut out) = (NodeId(from), vec![]);
        gossip.handle(Time::ZERO, Input::Message { from, bytes }, &mut out);
        out
    };
    for about in [2, 3, 4] {
        hear(&mut gossip, 2, about);
    }
    assert_eq!(gossip.stats().members_refused, 1);
    let mut out = vec![];
    gossip.handle(
        Time::ZERO,
        Input::Removed(vec![NodeId(3), NodeId(1)]),
        &mut out,
    );
    let tick = gossip.next_deadline().unwrap();
    gossip.handle(tick, Input::Tick, &mut out);
    let spoken_of = |output: &Output| match output {
        Output::Send { bytes, .. } => {
            let rumors = Message::decode(bytes).unwrap().rumors;
            rumors.iter().any(|rumor| rumor.node == NodeId(3))
        }
        Output::Event(_) => false,
    };
    assert!(!out.is_empty() && !out.iter().any(spoken_of), "{out:?}");
    hear(&mut gossip, 2, 4);
    let known = |gossip: &Gossip| gossip.members().map(|m| m.node().0).collect::<Vec<_>>();
    assert_eq!(known(&gossip), [1, 2, 4], "a removed member takes up room");
    // Neither others nor the node itself bring it back, and nobody asks for it.
    assert_eq!(hear(&mut gossip, 2, 3), []);
    assert_eq!(hear(&mut gossip, 3, 3), []);
    assert_eq!(known(&gossip), [1, 2, 4]);
    assert_eq!(
        gossip.stats().members_refused,
        1,
        "it was refused as removed"
    );
    // It is answered where it was last reached, by an ack and nothing else.
    let bytes = by_hand::message(Incarnation(1), 1, Body::Ping { seq: 5 }, vec![]);
    let (from, mut answer) = (NodeId(3), vec![]);
    gossip.handle(tick, Input::Message { from, bytes }, &mut answer);
    let [Output::Send { to, address, bytes }] = &answer[..] else {
        panic!("{answer:?}");
    };
    assert_eq!((*to, &address[..]), (NodeId(3), "host3:1"));
    let answer = Message::decode(bytes).unwrap();
    assert!(matches!(answer.body, Body::Ack { seq: 5, .. }) && answer.rumors.is_empty());
    out.clear();
    let seeds = vec![(NodeId(3), "host3:1".to_owned())];
    gossip.handle(Time::ZERO, Input::Seeds(seeds), &mut out);
    let tried = |output: &Output| matches!(output, Output::Send { to: NodeId(3), .. });
    assert!(!out.iter().any(tried), "a removed seed is tried");
}
