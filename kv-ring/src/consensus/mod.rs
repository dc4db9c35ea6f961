//! Agreement on the next epoch: single-decree Paxos, one instance for each epoch (Lamport, "Paxos Made Simple", 2001).
//!
//! The voters of epoch e decide the entry of epoch e + 1. Any node may propose; there is no leader and no lease, and an
//! idle cluster sends nothing. An [`Acceptor`] is a voter's memory of one instance, a [`Proposer`] one attempt to have
//! something decided. Both are pure: whoever drives them makes an acceptor's state durable before its answer is sent,
//! and sends what a proposer says.
//!
//! Invariants, each checked over every order of messages in `tests/models/consensus.rs` of kv-tests
//! 1. At most one value is ever decided in an instance.
//! 2. An acceptor that has promised a ballot accepts nothing below it, and forgets neither when it is restarted.
//! 3. A ballot gets a majority of promises once, and so stands for one value, although its proposer may begin anew with
//!    the same ballots.
//! 4. A proposer that learns of an accepted value proposes that one, whatever it wanted.

mod acceptor;
mod proposer;

use core::fmt;

use kv_types::NodeId;

pub use acceptor::{Accepted, Acceptor, Answer};
pub use proposer::{Attempt, Proposer, Step};

/// One attempt, by one node. A later round beats an earlier one; nobody has another node's ballots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Counts attempts, from 1.
    pub round: u64,
    /// Who proposes.
    pub proposer: NodeId,
}

impl Ballot {
    /// The first ballot of a proposer.
    #[must_use]
    pub fn first(proposer: NodeId) -> Self {
        Self { round: 1, proposer }
    }

    /// A ballot of the same proposer that beats `other`. `None` when rounds have run out, which only a forger reaches.
    #[must_use]
    pub fn beating(self, other: Self) -> Option<Self> {
        let round = self.round.max(other.round).checked_add(1)?;
        Some(Self { round, ..self })
    }
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.proposer)
    }
}

/// How many of so many voters decide.
#[must_use]
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}
