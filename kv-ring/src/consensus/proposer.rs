//! One node's attempts to have a value decided.

use std::collections::BTreeSet;

use kv_types::{NodeId, planted};

use super::{Accepted, Answer, Ballot, majority};

/// What is asked of all voters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attempt<V> {
    /// Promise this ballot.
    Prepare(Ballot),
    /// Accept this value under this ballot.
    Accept(Ballot, V),
}

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<V> {
    /// More answers are needed.
    Wait,
    /// Ask all voters this.
    Ask(Attempt<V>),
    /// This value is decided; it may be another's.
    Decided(V),
    /// A higher ballot is about: rest a while, then [`Proposer::again`].
    Beaten,
}

/// Tries to have a value decided. Answers to earlier attempts are told apart by their ballots and ignored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Proposer<V> {
    voters: Vec<NodeId>,
    wanted: V,
    ballot: Ballot,
    /// The highest ballot that was heard of.
    highest: Ballot,
    phase: Phase<V>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Phase<V> {
    Preparing {
        promised: BTreeSet<NodeId>,
        /// Of what voters have accepted so far, that of the highest ballot.
        found: Option<Accepted<V>>,
    },
    Accepting {
        value: V,
        accepted: BTreeSet<NodeId>,
    },
    Over,
}

impl<V: Clone> Proposer<V> {
    /// Begins with the first ballot of `me`; ask all voters what is returned.
    #[must_use]
    pub fn begin(me: NodeId, voters: &[NodeId], wanted: V) -> (Self, Attempt<V>) {
        let ballot = Ballot::first(me);
        let proposer = Self {
            voters: voters.to_vec(),
            wanted,
            ballot,
            highest: ballot,
            phase: Self::preparing(),
        };
        (proposer, Attempt::Prepare(ballot))
    }

    fn preparing() -> Phase<V> {
        Phase::Preparing {
            promised: BTreeSet::new(),
            found: None,
        }
    }

    /// The ballot of the present attempt: answers to others are ignored.
    #[must_use]
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Tries again with a ballot that beats all that were heard of. `None` when there is none.
    pub fn again(&mut self) -> Option<Attempt<V>> {
        self.ballot = self.ballot.beating(self.highest)?;
        self.highest = self.ballot;
        self.phase = Self::preparing();
        Some(Attempt::Prepare(self.ballot))
    }

    /// Takes in a voter's answer to an attempt under `ballot`.
    pub fn on_answer(&mut self, from: NodeId, ballot: Ballot, answer: Answer<V>) -> Step<V> {
        if let Answer::Beaten(higher) = answer {
            self.highest = self.highest.max(higher);
            if ballot == self.ballot && !matches!(self.phase, Phase::Over) {
                self.phase = Phase::Over;
                return Step::Beaten;
            }
            return Step::Wait;
        }
        if ballot != self.ballot || !self.voters.contains(&from) {
            return Step::Wait;
        }
        let needed = match planted!("decide without a majority") {
            true => 1,
            false => majority(self.voters.len()),
        };
        match (&mut self.phase, answer) {
            (Phase::Preparing { promised, found }, Answer::Promised(accepted)) => {
                promised.insert(from);
                let is_newer = |old: &Accepted<V>, new: &Accepted<V>| new.ballot > old.ballot;
                if let Some(accepted) = accepted
                    && found.as_ref().is_none_or(|old| is_newer(old, &accepted))
                {
                    *found = Some(accepted);
                }
                if promised.len() < needed {
                    return Step::Wait;
                }
                let value = match found.take() {
                    Some(found) => found.value,
                    None => self.wanted.clone(),
                };
                self.phase = Phase::Accepting {
                    value: value.clone(),
                    accepted: BTreeSet::new(),
                };
                Step::Ask(Attempt::Accept(self.ballot, value))
            }
            (Phase::Accepting { value, accepted }, Answer::Accepted) => {
                accepted.insert(from);
                if accepted.len() < needed {
                    return Step::Wait;
                }
                let value = value.clone();
                self.phase = Phase::Over;
                Step::Decided(value)
            }
            _ => Step::Wait,
        }
    }
}
