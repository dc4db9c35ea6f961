//! A voter's memory of one instance.

use super::Ballot;

/// A value with the ballot under which it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Accepted<V> {
    /// Under which ballot.
    pub ballot: Ballot,
    /// What.
    pub value: V,
}

/// What a voter has promised and accepted in one instance.
///
/// It must be durable before an answer that follows from it is sent. A voter that has lost it must not vote.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acceptor<V> {
    promised: Option<Ballot>,
    accepted: Option<Accepted<V>>,
}

impl<V> Default for Acceptor<V> {
    fn default() -> Self {
        Self {
            promised: None,
            accepted: None,
        }
    }
}

/// What a voter answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer<V> {
    /// It will accept nothing below the ballot; this is what it has accepted so far.
    Promised(Option<Accepted<V>>),
    /// It has accepted the value.
    Accepted,
    /// It has promised this ballot, a higher one or, where a promise was asked for, the same.
    Beaten(Ballot),
}

impl<V: Clone> Acceptor<V> {
    /// What was read back from the disk.
    #[must_use]
    pub fn restored(promised: Option<Ballot>, accepted: Option<Accepted<V>>) -> Self {
        Self { promised, accepted }
    }

    /// The highest ballot that it has promised.
    #[must_use]
    pub fn promised(&self) -> Option<Ballot> {
        self.promised
    }

    /// What it has accepted last.
    #[must_use]
    pub fn accepted(&self) -> Option<&Accepted<V>> {
        self.accepted.as_ref()
    }

    /// A proposer asks for a promise. Each ballot is promised once: a node that proposes anew, after a restart or for
    /// somebody else, may come with a ballot that it has used for another value, and must not get a majority for it twice.
    pub fn prepare(&mut self, ballot: Ballot) -> Answer<V> {
        match self.promised {
            Some(promised) if promised >= ballot => Answer::Beaten(promised),
            _ => {
                self.promised = Some(ballot);
                Answer::Promised(self.accepted.clone())
            }
        }
    }

    /// A proposer asks to accept a value.
    pub fn accept(&mut self, ballot: Ballot, value: V) -> Answer<V> {
        match self.promised {
            Some(promised) if promised > ballot => Answer::Beaten(promised),
            _ => {
                self.promised = Some(ballot);
                self.accepted = Some(Accepted { ballot, value });
                Answer::Accepted
            }
        }
    }
}
