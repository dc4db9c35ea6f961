//! News of newer topologies.

use kv_gossip::{Config, Event, Input};
use kv_types::Epoch;

use crate::world::{World, id, seconds};

#[test]
fn a_newer_topology_reaches_all_within_two_seconds() {
    let mut world = World::settled(Config::lan(), 1, 50);
    world.input(
        9,
        Input::Topology {
            epoch: Epoch(2),
            chain_hash: 0xbeef,
        },
    );
    let start = world.now;
    let mut adopted = vec![9];
    // The driver of each member adopts what it is told of; here without delay.
    while adopted.len() < 50 && world.now.since(start) < seconds(20.0) {
        world.run_for(seconds(0.01));
        for heard in std::mem::take(&mut world.heard) {
            if let Event::NewerTopology {
                node,
                epoch,
                chain_hash,
            } = heard.event
            {
                assert_eq!((epoch, chain_hash), (Epoch(2), 0xbeef));
                assert!(
                    adopted.iter().any(|&member| id(member) == node),
                    "named by one that has it"
                );
                if !adopted.contains(&heard.observer) {
                    adopted.push(heard.observer);
                    world.input(heard.observer, Input::Topology { epoch, chain_hash });
                }
            }
        }
    }
    let took = world.now.since(start).as_secs_f64();
    assert!(
        adopted.len() == 50 && took <= 2.0,
        "{} of 50 after {took} s",
        adopted.len()
    );
    world.run_for(seconds(200.0));
    assert!(world.heard.is_empty(), "nothing newer is left to tell");
    let epochs = world.processes[0]
        .gossip
        .members()
        .map(kv_gossip::Member::epoch);
    assert!(epochs.into_iter().all(|epoch| epoch == Epoch(2)));
}

#[test]
fn another_chain_at_the_same_epoch_raises_an_alarm() {
    let mut world = World::settled(Config::lan(), 2, 5);
    world.input(
        3,
        Input::Topology {
            epoch: Epoch(1),
            chain_hash: 0xbad,
        },
    );
    world.run_for(seconds(5.0));
    let node = id(3);
    assert!(world.was_heard(Event::ConflictingTopology {
        node,
        epoch: Epoch(1),
        chain_hash: 0xbad
    }));
}
