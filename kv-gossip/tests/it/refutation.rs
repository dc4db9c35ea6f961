//! The accused answer, and others answer for them.

use bytes::Bytes;
use kv_gossip::message::{Body, Claim, Header, Message, Profile, Rumor};
use kv_gossip::{Config, Event, Gossip, Incarnation, Input, Output, State, Time};
use kv_types::{Epoch, NodeId};

use crate::by_hand;
use crate::world::{World, id, seconds};

/// A message of `sender` that accuses `subject`, as a confused member might send it.
fn accusation(world: &World, sender: usize, subject: usize, dead: bool) -> Input {
    let gossip = &world.processes[sender].gossip;
    let incarnation = gossip
        .member(id(subject))
        .expect("members know each other")
        .incarnation();
    let claim = if dead {
        Claim::Dead {
            cleared: 0,
            accused_at: 1_000_000,
        }
    } else {
        Claim::Suspect {
            cleared: 0,
            accused_at: 1_000_000,
            accuser: id(sender),
        }
    };
    let own = gossip.member(id(sender)).expect("members know each other");
    let header = Header {
        incarnation: own.incarnation(),
        heartbeat: own.heartbeat(),
        epoch: Epoch::GENESIS,
        chain_hash: 0xc0ffee,
    };
    let rumors = vec![Rumor {
        node: id(subject),
        incarnation,
        claim,
        profile: None,
    }];
    let bytes = Message {
        header,
        body: Body::News,
        rumors,
    }
    .encode();
    Input::Message {
        from: id(sender),
        bytes,
    }
}

#[test]
fn suspect_that_refutes_becomes_alive_with_a_higher_incarnation() {
    let mut world = World::settled(Config::lan(), 1, 20);
    let before = world.processes[7]
        .gossip
        .member(id(7))
        .unwrap()
        .incarnation();
    let lie = accusation(&world, 0, 7, false);
    world.input(3, lie);
    assert_eq!(world.state(3, 7), Some(State::Suspect));
    let cleared = world.run_until_true(seconds(5.0), World::everyone_sees_everyone);
    assert!(cleared.is_some(), "an accusation outlives its refutation");
    world.run_for(seconds(10.0));
    let after = world.processes[3]
        .gossip
        .member(id(7))
        .unwrap()
        .incarnation();
    assert_eq!(after, before.next());
    assert_eq!(world.processes[7].gossip.stats().refutations, 1);
    assert!(world.agrees());
}

#[test]
fn a_false_death_is_undone_by_its_subject() {
    let mut world = World::settled(Config::lan(), 2, 20);
    let lie = accusation(&world, 0, 7, true);
    world.input(3, lie);
    assert!(world.was_heard(Event::Dead { node: id(7) }));
    world.run_for(seconds(5.0));
    assert!(world.everyone_sees_everyone() && world.agrees());
}

#[test]
fn a_suspicion_that_ran_out_during_a_pause_can_still_be_refuted() {
    let mut world = World::settled(Config::lan(), 4, 10);
    let lie = accusation(&world, 0, 7, false);
    world.input(3, lie);
    world.pause(3);
    world.run_for(seconds(120.0));
    world.heard.clear();
    world.resume(3);
    world.run_for(seconds(20.0));
    assert!(!world.was_heard(Event::Dead { node: id(7) }));
    assert!(world.everyone_sees_everyone());
}

#[test]
fn nobody_raises_the_incarnation_of_another() {
    let mut world = World::settled(Config::lan(), 3, 30);
    world.network.loss = 0.25;
    world.run_for(seconds(300.0));
    for subject in 0..30 {
        let own = world.processes[subject]
            .gossip
            .member(id(subject))
            .unwrap()
            .incarnation();
        for observer in 0..30 {
            let seen = world.processes[observer]
                .gossip
                .member(id(subject))
                .unwrap()
                .incarnation();
            assert!(
                seen <= own,
                "{observer} has a later incarnation of {subject} than {subject} itself"
            );
        }
    }
}

/// A machine that is fed by hand, with one peer that it knows.
struct Bench {
    gossip: Gossip,
    now: Time,
    peer_incarnation: Incarnation,
}

const PEER: NodeId = NodeId(77);
const ACCUSER: NodeId = NodeId(88);

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            gossip: by_hand::member(Config::lan()),
            now: Time::ZERO,
            peer_incarnation: Incarnation(5),
        };
        for node in [PEER, ACCUSER] {
            let profile = Profile {
                address: "b:1".to_owned(),
                boot: 1,
                heartbeat: 100,
                age: 100,
                epoch: Epoch::GENESIS,
            };
            let claim = Claim::Alive { cleared: 0 };
            let rumor = Rumor {
                node,
                incarnation: Incarnation(5),
                claim,
                profile: Some(profile),
            };
            bench.receive(node, 100, Body::News, vec![rumor]);
        }
        bench
    }

    fn receive(
        &mut self,
        from: NodeId,
        heartbeat: u64,
        body: Body,
        rumors: Vec<Rumor>,
    ) -> Vec<Output> {
        let bytes = by_hand::message(self.peer_incarnation, heartbeat, body, rumors);
        let mut out = vec![];
        self.gossip
            .handle(self.now, Input::Message { from, bytes }, &mut out);
        out
    }

    /// Lets time pass until a ping goes to the peer; its sequence number.
    fn ping_to_peer(&mut self) -> u32 {
        for _ in 0..1000 {
            self.now = self
                .gossip
                .next_deadline()
                .expect("it always waits for something");
            let mut out = vec![];
            self.gossip.handle(self.now, Input::Tick, &mut out);
            self.gossip
                .handle(self.now, Input::LivenessProof { healthy: true }, &mut out);
            for output in out {
                if let Output::Send {
                    to: PEER, bytes, ..
                } = output
                    && let Body::Ping { seq } =
                        Message::decode(&bytes).expect("its own message").body
                {
                    return seq;
                }
            }
        }
        panic!("the peer is never pinged");
    }

    fn accuse(&mut self, accused_at: u64) {
        let claim = Claim::Suspect {
            cleared: 0,
            accused_at,
            accuser: ACCUSER,
        };
        let rumor = Rumor {
            node: PEER,
            incarnation: Incarnation(5),
            claim,
            profile: None,
        };
        self.receive(ACCUSER, 100, Body::News, vec![rumor]);
    }

    fn peer_state(&self) -> State {
        self.gossip.state_of(PEER).expect("the peer was introduced")
    }
}

#[test]
fn an_ack_with_a_later_heartbeat_clears_a_suspect() {
    let mut bench = Bench::new();
    bench.accuse(200);
    assert_eq!(bench.peer_state(), State::Suspect);
    let seq = bench.ping_to_peer();
    bench.receive(
        PEER,
        200,
        Body::Ack {
            seq,
            stalled: false,
        },
        vec![],
    );
    assert_eq!(
        bench.peer_state(),
        State::Suspect,
        "not later than the accusation"
    );
    let seq = bench.ping_to_peer();
    bench.receive(
        PEER,
        201,
        Body::Ack {
            seq,
            stalled: false,
        },
        vec![],
    );
    assert_eq!(bench.peer_state(), State::Alive);
    assert_eq!(bench.gossip.stats().clearances, 1);
}

#[test]
fn an_accusation_is_rejected_by_whoever_holds_a_later_ack() {
    let mut bench = Bench::new();
    let seq = bench.ping_to_peer();
    bench.receive(
        PEER,
        300,
        Body::Ack {
            seq,
            stalled: false,
        },
        vec![],
    );
    bench.accuse(299);
    assert_eq!(bench.peer_state(), State::Alive);
    bench.accuse(300);
    assert_eq!(
        bench.peer_state(),
        State::Alive,
        "older than the clearance that was just made"
    );
    assert_eq!(bench.gossip.stats().clearances, 1);
}

#[test]
fn what_a_suspect_merely_sends_does_not_clear_it() {
    let mut bench = Bench::new();
    bench.accuse(200);
    bench.receive(PEER, 500, Body::News, vec![]);
    bench.receive(PEER, 501, Body::Ping { seq: 9 }, vec![]);
    bench.receive(
        PEER,
        502,
        Body::Ack {
            seq: 12_345,
            stalled: false,
        },
        vec![],
    );
    assert_eq!(bench.peer_state(), State::Suspect);
}

#[test]
fn the_ack_of_a_stalled_member_does_not_clear_it() {
    let mut bench = Bench::new();
    bench.accuse(200);
    let seq = bench.ping_to_peer();
    bench.receive(PEER, 500, Body::Ack { seq, stalled: true }, vec![]);
    assert_eq!(bench.peer_state(), State::Suspect);
}

#[test]
fn a_view_that_holds_a_living_member_dead_is_checked_and_not_believed() {
    let mut bench = Bench::new();
    let claim = Claim::Dead {
        cleared: 0,
        accused_at: 200,
    };
    let record = Rumor {
        node: PEER,
        incarnation: Incarnation(5),
        claim,
        profile: None,
    };
    let out = bench.receive(ACCUSER, 100, Body::State, vec![record.clone()]);
    assert_eq!(bench.peer_state(), State::Alive);
    let told = out.iter().any(|output| match output {
        Output::Send {
            to: PEER, bytes, ..
        } => Message::decode(bytes).unwrap().rumors.contains(&record),
        Output::Send { .. } | Output::Event(_) => false,
    });
    assert!(told, "the accused is not asked");
    // It does not answer, so it is suspected; a view that holds a suspect dead is believed.
    let first = bench.ping_to_peer();
    assert_eq!(bench.ping_to_peer(), first, "it is asked twice");
    bench.ping_to_peer();
    assert_eq!(bench.peer_state(), State::Suspect);
    bench.receive(ACCUSER, 100, Body::State, vec![record]);
    assert_eq!(bench.peer_state(), State::Dead);
}

#[test]
fn the_same_as_news_is_believed() {
    let mut bench = Bench::new();
    let claim = Claim::Dead {
        cleared: 0,
        accused_at: 200,
    };
    let rumor = Rumor {
        node: PEER,
        incarnation: Incarnation(5),
        claim,
        profile: None,
    };
    bench.receive(ACCUSER, 100, Body::News, vec![rumor]);
    assert_eq!(bench.peer_state(), State::Dead);
}

#[test]
fn a_suspect_is_told_with_every_ping_that_it_is_accused() {
    let mut bench = Bench::new();
    bench.accuse(200);
    let out = bench.receive(PEER, 500, Body::Ping { seq: 9 }, vec![]);
    let told = out.iter().any(|output| match output {
        Output::Send {
            to: PEER, bytes, ..
        } => Message::decode(bytes).unwrap().rumors.iter().any(|r| {
            r.node == PEER
                && matches!(
                    r.claim,
                    Claim::Suspect {
                        accused_at: 200,
                        ..
                    }
                )
        }),
        Output::Send { .. } | Output::Event(_) => false,
    });
    assert!(told);
}

#[test]
fn a_process_that_starts_no_higher_than_an_earlier_one_raises_itself() {
    let mut bench = Bench::new();
    let own = |bench: &Bench| bench.gossip.member(NodeId(1)).unwrap().incarnation();
    let before = own(&bench);
    let profile = Profile {
        address: "old:1".to_owned(),
        boot: 0,
        heartbeat: 9,
        age: 9,
        epoch: Epoch(1),
    };
    let claim = Claim::Alive { cleared: 0 };
    let rumor = Rumor {
        node: NodeId(1),
        incarnation: before,
        claim,
        profile: Some(profile),
    };
    bench.receive(ACCUSER, 100, Body::State, vec![rumor]);
    assert_eq!(own(&bench), before.next());
}

#[test]
fn bytes_that_do_not_decode_are_counted_and_dropped() {
    let mut bench = Bench::new();
    let mut out = vec![];
    for bytes in [&b""[..], b"\x01", b"\x02hello", &[1; 1201]] {
        let bytes = Bytes::copy_from_slice(bytes);
        bench
            .gossip
            .handle(bench.now, Input::Message { from: PEER, bytes }, &mut out);
    }
    assert!(out.is_empty());
    assert_eq!(bench.gossip.stats().malformed, 4);
}
