//! Every order of messages among three voters and two proposers, and random ones of many attempts: is at most one value
//! decided?
//!
//! Messages arrive in any order or never; voters may be restarted. Acceptors and proposers
//! are the crate's own. Each weaker rule must be caught, which shows that the search would find a hole.

use std::collections::{BTreeSet, HashSet};

use kv_ring::consensus::{Acceptor, Answer, Attempt, Ballot, Proposer, Step};
use kv_types::NodeId;

type Value = u8;

const VOTERS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
/// Who proposes what.
const PROPOSERS: [(NodeId, Value); 2] = [(NodeId(1), b'a'), (NodeId(2), b'b')];

/// The rules that are followed.
#[derive(Clone, Copy, Default)]
struct Rules {
    /// A restarted voter has lost its state.
    forgets: bool,
    /// A voter does not say what it has accepted.
    hides_accepted: bool,
    /// A voter accepts whatever it has promised.
    breaks_promises: bool,
    /// Each proposer asks for the votes of only one voter.
    asks_one: bool,
    /// A voter promises the same ballot again.
    promises_twice: bool,
    /// How often each proposer may try again.
    again: u8,
    /// Both proposers are the same node: it begins anew, with the same ballots and another value.
    is_one_node: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    voters: Vec<Acceptor<Value>>,
    proposers: Vec<Proposer<Value>>,
    /// How often each proposer may still try.
    again: Vec<u8>,
    /// On its way: from a proposer, to a voter.
    asked: BTreeSet<(usize, usize, Attempt<Value>)>,
    decided: BTreeSet<Value>,
}

impl World {
    fn begin(rules: Rules) -> Self {
        let mut world = Self {
            voters: vec![Acceptor::default(); VOTERS.len()],
            proposers: Vec::new(),
            again: vec![rules.again; PROPOSERS.len()],
            asked: BTreeSet::new(),
            decided: BTreeSet::new(),
        };
        for (index, (node, value)) in PROPOSERS.into_iter().enumerate() {
            let voters = if rules.asks_one {
                &VOTERS[index..=index]
            } else {
                &VOTERS[..]
            };
            let node = if rules.is_one_node { VOTERS[0] } else { node };
            let (proposer, attempt) = Proposer::begin(node, voters, value);
            world.proposers.push(proposer);
            world.ask(index, &attempt);
        }
        world
    }

    fn ask(&mut self, proposer: usize, attempt: &Attempt<Value>) {
        // What its earlier attempts asked may still arrive; what they are answered is ignored.
        for voter in 0..VOTERS.len() {
            self.asked.insert((proposer, voter, attempt.clone()));
        }
    }

    /// A message reaches a voter, and the answer its proposer, or nobody. That an answer takes its time needs no state
    /// of its own: it is as if the message had, unless the voter has changed meanwhile, and then it is as if it was lost.
    fn arrive(
        &self,
        rules: Rules,
        message: &(usize, usize, Attempt<Value>),
        is_heard: bool,
    ) -> Self {
        let mut next = self.clone();
        next.asked.remove(message);
        let (proposer, voter, attempt) = message.clone();
        let acceptor = &mut next.voters[voter];
        let (ballot, answer) = match attempt {
            Attempt::Prepare(ballot) => {
                if rules.promises_twice && acceptor.promised() == Some(ballot) {
                    *acceptor = Acceptor::restored(None, acceptor.accepted().cloned());
                }
                (ballot, acceptor.prepare(ballot))
            }
            Attempt::Accept(ballot, value) => {
                if rules.breaks_promises {
                    *acceptor = Acceptor::restored(None, acceptor.accepted().cloned());
                }
                (ballot, acceptor.accept(ballot, value))
            }
        };
        let answer = match answer {
            Answer::Promised(_) if rules.hides_accepted => Answer::Promised(None),
            answer => answer,
        };
        if is_heard {
            next.hear(proposer, voter, ballot, answer);
        }
        next
    }

    fn hear(&mut self, index: usize, voter: usize, ballot: Ballot, answer: Answer<Value>) {
        match self.proposers[index].on_answer(VOTERS[voter], ballot, answer) {
            Step::Wait | Step::Beaten => {}
            Step::Ask(attempt) => self.ask(index, &attempt),
            Step::Decided(value) => _ = self.decided.insert(value),
        }
    }

    /// A proposer gives its attempt up and begins another one.
    fn try_again(&self, proposer: usize) -> Option<Self> {
        let left = self.again[proposer].checked_sub(1)?;
        let mut next = self.clone();
        next.again[proposer] = left;
        let attempt = next.proposers[proposer].again()?;
        next.ask(proposer, &attempt);
        Some(next)
    }

    fn next(&self, rules: Rules) -> Vec<Self> {
        let both = || {
            self.asked
                .iter()
                .flat_map(|message| [(message, true), (message, false)])
        };
        let arrivals = both().map(|(message, is_heard)| self.arrive(rules, message, is_heard));
        let again = (0..PROPOSERS.len()).filter_map(|proposer| self.try_again(proposer));
        let mut all: Vec<Self> = arrivals.chain(again).collect();
        if rules.forgets {
            for voter in 0..VOTERS.len() {
                let mut restarted = self.clone();
                restarted.voters[voter] = Acceptor::default();
                all.push(restarted);
            }
        }
        all
    }
}

/// Visits every state that can be reached; how many there were, and whether two values were decided in one.
fn search(rules: Rules) -> (usize, bool, BTreeSet<Value>) {
    let begin = World::begin(rules);
    let mut seen = HashSet::from([begin.clone()]);
    let mut open = vec![begin];
    let mut decided = BTreeSet::new();
    while let Some(world) = open.pop() {
        decided.extend(world.decided.iter().copied());
        if world.decided.len() > 1 {
            return (seen.len(), true, decided);
        }
        for next in world.next(rules) {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    (seen.len(), false, decided)
}

#[test]
fn at_most_one_value_is_decided_and_each_may_be() {
    let (states, two, decided) = search(Rules::default());
    assert!(!two);
    assert_eq!(decided, BTreeSet::from([b'a', b'b']));
    assert!(states > 5_000, "{states} states: too few to be interesting");
}

#[test]
fn a_node_that_begins_anew_with_the_same_ballots_decides_one_value() {
    let one_node = Rules {
        is_one_node: true,
        ..Rules::default()
    };
    let (_, two, decided) = search(one_node);
    assert!(!two);
    assert_eq!(decided, BTreeSet::from([b'a', b'b']));
    let again = Rules {
        again: 3,
        ..one_node
    };
    assert_eq!(walk(again, 3_000), 0);
}

/// Random walks in which proposers try again and again; how many ended with two values decided.
fn walk(rules: Rules, walks: u64) -> u64 {
    let mut two = 0;
    for seed in 0..walks {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut world = World::begin(rules);
        for _ in 0..60 {
            let mut next = world.next(rules);
            if next.is_empty() {
                break;
            }
            // xorshift64
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let chosen = usize::try_from(random % next.len() as u64).expect("an index");
            world = next.swap_remove(chosen);
        }
        two += u64::from(world.decided.len() > 1);
    }
    two
}

#[test]
fn proposers_that_try_again_and_again_decide_one_value() {
    let rules = Rules {
        again: 3,
        ..Rules::default()
    };
    assert_eq!(walk(rules, 3_000), 0);
    let weaker = Rules {
        hides_accepted: true,
        ..rules
    };
    assert!(walk(weaker, 3_000) > 0, "the walks would find it");
}

#[test]
fn each_weaker_rule_decides_two_values() {
    let weaker = [
        (
            "forgets",
            Rules {
                forgets: true,
                ..Rules::default()
            },
        ),
        (
            "hides what it accepted",
            Rules {
                hides_accepted: true,
                ..Rules::default()
            },
        ),
        (
            "breaks promises",
            Rules {
                breaks_promises: true,
                ..Rules::default()
            },
        ),
        (
            "promises a ballot twice",
            Rules {
                promises_twice: true,
                is_one_node: true,
                ..Rules::default()
            },
        ),
        (
            "asks one",
            Rules {
                asks_one: true,
                ..Rules::default()
            },
        ),
    ];
    for (name, rules) in weaker {
        let (_, two, _) = search(rules);
        assert!(two, "{name}: not caught");
    }
}
