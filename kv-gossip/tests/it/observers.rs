//! Observers: who confirms, who is asked, who is probed out of turn.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kv_gossip::message::{Body, Claim, Message, Profile, Rumor};
use kv_gossip::{Config, Gossip, Incarnation, Input, Output, State, Time};
use kv_types::{Epoch, NodeId};

use crate::by_hand::{member, message};
use crate::world::{World, id, seconds};

const ME: NodeId = NodeId(1);

/// One member among others that are played: they answer pings and ping requests, but for the silent.
struct Stage {
    gossip: Gossip,
    now: Time,
    silent: BTreeSet<NodeId>,
    /// Whether ping requests about silent members are answered.
    has_nacks: bool,
    /// What it has sent.
    sent: Vec<(Time, NodeId, Message)>,
}

impl Stage {
    /// `ME` and `count` others.
    fn new(count: u128) -> Self {
        let mut stage = Self {
            gossip: member(Config::lan()),
            now: Time::ZERO,
            silent: BTreeSet::new(),
            has_nacks: true,
            sent: vec![],
        };
        for node in (2..2 + count).map(NodeId) {
            let profile = Profile {
                address: "b:1".to_owned(),
                boot: 1,
                heartbeat: 100,
                age: 100,
                epoch: Epoch::GENESIS,
            };
            let introduction = Rumor {
                node,
                incarnation: Incarnation(5),
                claim: Claim::Alive { cleared: 0 },
                profile: Some(profile),
            };
            stage.receive(node, Body::News, vec![introduction]);
        }
        stage
    }

    fn others(&self) -> Vec<NodeId> {
        let others = self.gossip.members().map(kv_gossip::Member::node);
        others.filter(|&node| node != ME).collect()
    }

    /// Another member, `index`-th of those that do or do not observe `subject`.
    fn other(&self, subject: NodeId, observes: bool, index: usize) -> NodeId {
        let observers = self.gossip.observers_of(subject);
        let fits = |node: &NodeId| *node != subject && observers.contains(node) == observes;
        let mut fitting = self.others().into_iter().filter(fits);
        fitting
            .nth(index)
            .expect("there are more members than that")
    }

    /// A member that `ME` does or does not observe.
    fn subject(&self, observed: bool) -> NodeId {
        let mut others = self.others().into_iter();
        let fits = |node: &NodeId| self.gossip.observers_of(*node).contains(&ME) == observed;
        others.find(fits).expect("it observes some and not all")
    }

    fn receive(&mut self, from: NodeId, body: Body, rumors: Vec<Rumor>) {
        let heartbeat = 100 + self.now.as_micros() / 1_000_000;
        let bytes = message(Incarnation(5), heartbeat, body, rumors);
        self.input(Input::Message { from, bytes });
    }

    fn input(&mut self, input: Input) {
        let mut out = vec![];
        self.gossip.handle(self.now, input, &mut out);
        for output in out {
            if let Output::Send { to, bytes, .. } = output {
                let message = Message::decode(&bytes).expect("its own message");
                let body = message.body.clone();
                self.sent.push((self.now, to, message));
                self.answer(to, &body);
            }
        }
    }

    fn answer(&mut self, by: NodeId, body: &Body) {
        if self.silent.contains(&by) {
            return;
        }
        match *body {
            Body::Ping { seq } => {
                let stalled = false;
                self.receive(by, Body::Ack { seq, stalled }, vec![]);
            }
            Body::PingRequest { seq, .. } if self.has_nacks => {
                self.receive(by, Body::Nack { seq }, vec![]);
            }
            Body::PingRequest { .. }
            | Body::Ack { .. }
            | Body::RelayedAck { .. }
            | Body::Nack { .. }
            | Body::News
            | Body::Digest { .. }
            | Body::State => {}
        }
    }

    fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        let mut proof = self.now;
        while let Some(due) = self.gossip.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            if self.now >= proof {
                proof = self.now + seconds(1.0);
                self.input(Input::LivenessProof { healthy: true });
            }
            self.input(Input::Tick);
        }
        self.now = end;
    }

    /// `by` says that `node` is silent.
    fn accuse(&mut self, node: NodeId, by: NodeId) {
        let claim = Claim::Suspect {
            cleared: 0,
            accused_at: 1_000_000,
            accuser: by,
        };
        let rumor = Rumor {
            node,
            incarnation: Incarnation(5),
            claim,
            profile: None,
        };
        self.receive(by, Body::News, vec![rumor]);
    }

    fn state(&self, node: NodeId) -> State {
        self.gossip.state_of(node).expect("all were introduced")
    }

    /// How many pings went to each member.
    fn pings(&self) -> BTreeMap<NodeId, usize> {
        let mut pings = BTreeMap::new();
        for (_, to, message) in &self.sent {
            if matches!(message.body, Body::Ping { .. }) {
                *pings.entry(*to).or_default() += 1;
            }
        }
        pings
    }

    fn pings_to(&self, node: NodeId) -> usize {
        self.pings().get(&node).copied().unwrap_or(0)
    }

    /// Whether it has told anybody that it has found a member silent itself.
    fn has_accused(&self, node: NodeId) -> bool {
        let rumors = self.sent.iter().flat_map(|(_, _, message)| &message.rumors);
        let mut about = rumors.filter(|rumor| rumor.node == node);
        about.any(|rumor| matches!(rumor.claim, Claim::Suspect { accuser: ME, .. }))
    }
}

#[test]
fn every_member_has_four_observers_and_all_members_agree_which() {
    let mut world = World::settled(Config::lan(), 1, 60);
    for _ in 0..2 {
        for subject in 0..60 {
            let views = world.running().into_iter().map(|member| {
                let gossip = &world.processes[member].gossip;
                gossip.observers_of(id(subject))
            });
            let views: BTreeSet<_> = views.collect();
            assert_eq!(views.len(), 1, "{views:?}");
            assert!(views.iter().all(|observers| observers.len() == 4));
        }
        world.kill(7);
        let gone = world.run_until_true(seconds(60.0), World::everyone_knows_the_truth);
        assert!(gone.is_some());
    }
}

#[test]
fn only_observers_shorten_a_suspicion() {
    // The shortest suspicion of 31 members is 6 s, and one that nobody confirms lasts for 36 s.
    for (observers, bystanders, dead_after) in [
        (2, 0, 6.1),
        (2, 3, 6.1),
        (1, 3, 18.0),
        (0, 6, 36.1),
        (0, 0, 36.1),
    ] {
        let mut stage = Stage::new(30);
        let subject = stage.subject(false);
        stage.silent.insert(subject);
        let first = stage.other(subject, false, 0);
        let said: Vec<NodeId> = (1..=bystanders)
            .map(|index| stage.other(subject, false, index))
            .chain((0..observers).map(|index| stage.other(subject, true, index)))
            .collect();
        stage.accuse(subject, first);
        for by in said {
            stage.accuse(subject, by);
        }
        let case = format!("{observers} observers, {bystanders} others");
        stage.run_for(seconds(dead_after - 1.0));
        assert_eq!(stage.state(subject), State::Suspect, "{case}");
        stage.run_for(seconds(1.0));
        assert_eq!(stage.state(subject), State::Dead, "{case}");
    }
}

#[test]
fn an_observer_probes_a_suspect_at_once_and_confirms() {
    let mut stage = Stage::new(30);
    let subject = stage.subject(true);
    stage.silent.insert(subject);
    let by = stage.other(subject, false, 0);
    stage.accuse(subject, by);
    assert_eq!(stage.pings_to(subject), 1, "it waits for its turn");
    stage.run_for(seconds(1.5));
    assert!(stage.has_accused(subject));
    // Enough have confirmed: no more is asked of it.
    let mut enough = Stage::new(30);
    enough.silent.insert(subject);
    let bystander = NodeId(if by.0 == 2 { 3 } else { 2 });
    enough.silent.insert(bystander);
    enough.accuse(subject, by);
    for index in 0..2 {
        let observer = enough.other(subject, true, index);
        enough.accuse(subject, observer);
    }
    enough.sent.clear();
    enough.run_for(seconds(0.2));
    assert_eq!(enough.pings_to(subject), 0);
    // One that is no observer leaves it to those that are.
    let mut idle = Stage::new(30);
    let subject = idle.subject(false);
    idle.silent.insert(subject);
    let by = idle.other(subject, false, 0);
    idle.accuse(subject, by);
    assert_eq!(idle.pings_to(subject), 0);
}

#[test]
fn who_takes_the_place_of_a_suspected_observer_probes_its_suspects() {
    let mut taken_over = 0;
    for subject in (2..32).map(NodeId) {
        for observer in Stage::new(30).gossip.observers_of(subject) {
            let mut stage = Stage::new(30);
            stage.silent.extend([subject, observer]);
            let by = stage.other(subject, false, 0);
            stage.accuse(subject, by);
            if stage.gossip.observers_of(subject).contains(&ME) {
                continue;
            }
            assert_eq!(stage.pings_to(subject), 0);
            stage.accuse(observer, by);
            if stage.gossip.observers_of(subject).contains(&ME) {
                // At the latest when the probe of the period ends, and the first begins within one.
                stage.run_for(seconds(2.1));
                assert!(stage.pings_to(subject) > 0, "{subject}");
                taken_over += 1;
            }
        }
    }
    assert!(taken_over >= 3, "{taken_over} cases");
}

#[test]
fn probes_of_suspects_are_few_at_a_time_and_say_nothing_about_the_own_health() {
    let mut stage = Stage::new(30);
    stage.silent.extend(stage.others());
    for node in stage.others() {
        let by = stage.other(node, false, 0);
        stage.accuse(node, by);
    }
    let at_once: usize = stage.pings().values().sum();
    assert_eq!(at_once, 4);

    let mut stage = Stage::new(30);
    stage.has_nacks = false;
    let subject = stage.subject(true);
    stage.silent.insert(subject);
    let by = stage.other(subject, false, 0);
    stage.accuse(subject, by);
    stage.run_for(seconds(1.5));
    assert!(stage.has_accused(subject), "the probe has not ended");
    assert_eq!(stage.gossip.stats().health_score, 0);
}

#[test]
fn probes_of_suspects_end_with_what_ends_all_probes() {
    let begin = || {
        let mut stage = Stage::new(30);
        let subject = stage.subject(true);
        stage.silent.insert(subject);
        let by = stage.other(subject, false, 0);
        stage.accuse(subject, by);
        assert_eq!(stage.pings_to(subject), 1);
        stage.sent.clear();
        (stage, subject)
    };
    let (mut removed, subject) = begin();
    removed.input(Input::Removed(vec![subject]));
    removed.run_for(seconds(3.0));
    assert_eq!(removed.pings_to(subject), 0, "a removed member is pinged");

    let (mut leaving, subject) = begin();
    leaving.input(Input::Leave);
    leaving.run_for(seconds(3.0));
    assert_eq!(leaving.pings_to(subject), 0, "one that leaves asks on");

    let (mut asleep, subject) = begin();
    asleep.now = asleep.now + seconds(20.0);
    asleep.input(Input::Tick);
    asleep.sent.clear();
    asleep.run_for(seconds(0.5));
    assert!(
        !asleep.has_accused(subject),
        "the answer may have come while it slept"
    );
}

#[test]
fn an_answer_that_came_while_this_member_was_held_up_counts() {
    let mut stage = Stage::new(30);
    let subject = stage.subject(true);
    stage.silent.insert(subject);
    while stage.pings_to(subject) == 0 {
        stage.run_for(seconds(0.05));
    }
    let seq = stage
        .sent
        .iter()
        .find_map(|(_, to, message)| match message.body {
            Body::Ping { seq } if *to == subject => Some(seq),
            _ => None,
        });
    let seq = seq.expect("it was pinged");
    // The process stands still for a while, and then sees to its timers before its socket.
    stage.now = stage.now + seconds(0.7);
    stage.input(Input::LivenessProof { healthy: true });
    stage.input(Input::Tick);
    let stalled = false;
    stage.receive(subject, Body::Ack { seq, stalled }, vec![]);
    stage.run_for(seconds(1.0));
    assert!(!stage.has_accused(subject));
    assert_eq!(stage.gossip.stats().health_score, 0);
}

#[test]
fn the_observers_of_a_silent_member_are_asked_first() {
    let mut stage = Stage::new(30);
    let subject = stage.subject(true);
    stage.silent.insert(subject);
    stage.run_for(seconds(20.0));
    let asked: BTreeSet<NodeId> = stage
        .sent
        .iter()
        .filter(|(_, _, message)| matches!(message.body, Body::PingRequest { target, .. } if target == subject))
        .map(|(_, to, _)| *to)
        .take(6)
        .collect();
    assert_eq!(asked.len(), 6);
    let mut observers = Stage::new(30).gossip.observers_of(subject);
    observers.retain(|&observer| observer != ME);
    assert_eq!(observers.len(), 3);
    assert!(
        observers.iter().all(|observer| asked.contains(observer)),
        "{asked:?} and not {observers:?}"
    );
}

#[test]
fn every_other_probe_goes_to_whom_one_observes() {
    let mut stage = Stage::new(100);
    stage.run_for(seconds(160.0));
    let pings = stage.pings();
    let observed = |node: &NodeId| stage.gossip.observers_of(*node).contains(&ME);
    for node in stage.others() {
        let count = pings.get(&node).copied().unwrap_or(0);
        if observed(&node) {
            assert!(
                count >= 18,
                "{node} is observed, but was pinged {count} times"
            );
        } else {
            assert!(count <= 2, "{node} was pinged {count} times");
        }
    }
    assert!(
        pings.len() >= 75,
        "the round goes on: {} members",
        pings.len()
    );
}

#[test]
fn half_of_a_cluster_that_dies_together_is_found_in_half_a_minute() {
    for seed in 1..=5 {
        let mut world = World::settled(Config::lan(), seed, 60);
        (0..30).for_each(|member| world.kill(member));
        let found = world.run_until_true(seconds(120.0), World::everyone_knows_the_truth);
        assert!(
            found.is_some_and(|s| s <= 30.0),
            "seed {seed}: all are known after {found:?} s"
        );
        assert_eq!(world.false_deaths(), 0, "seed {seed}");
    }
}
