//! The topology, votes on the next one, and changes of it.

use kv_types::{BucketId, BucketName, BucketProperties, Epoch, NodeId};
use serde::{Deserialize, Serialize};

/// Anyone → node: the newest topology, if newer than mine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyV1 {
    /// The epoch the sender has; 0 for none.
    pub known: Epoch,
}

/// Node → anyone: its newest topology. The tail is the chain entry, empty when not newer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyReplyV1 {
    /// The node's newest epoch.
    pub epoch: Epoch,
}

/// A ballot of the consensus on topologies: a later round beats an earlier one, then the larger node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BallotV1 {
    /// Counts attempts, from 1.
    pub round: u64,
    /// Whose attempt it is.
    pub proposer: NodeId,
}

/// What a voter is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoteStep {
    /// To accept nothing below the ballot.
    Prepare,
    /// To accept the entry in the tail.
    Accept,
}

/// Node → voter: a step towards the next entry of the chain of topologies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteV1 {
    /// The epoch of the entry.
    pub epoch: Epoch,
    /// The hash of the chain before it.
    pub previous: [u8; 16],
    /// The attempt.
    pub ballot: BallotV1,
    /// What is asked.
    pub step: VoteStep,
}

/// What a voter answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoteAnswer {
    /// It accepts nothing below the ballot. If it has accepted an entry before, this is under which ballot, and the
    /// tail is the entry.
    Promised(Option<BallotV1>),
    /// It has accepted the entry.
    Accepted,
    /// It has promised a higher ballot.
    Beaten(BallotV1),
    /// The entry of that epoch is decided, and known here: ask for it.
    Decided,
}

/// Voter → node: its answer, durable before it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteReplyV1 {
    /// The answer.
    pub answer: VoteAnswer,
}

/// What one epoch changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// A new bucket.
    CreateBucket {
        /// Its name.
        name: BucketName,
        /// Its properties.
        properties: BucketProperties,
    },
    /// Other properties for a bucket.
    SetBucket {
        /// Which bucket.
        id: BucketId,
        /// Its properties until now.
        was: BucketProperties,
        /// Its properties from now on.
        properties: BucketProperties,
        /// The epoch in which all nodes have compared all of it with each other.
        repaired: Option<Epoch>,
    },
    /// A bucket goes, and what is in it can no longer be reached.
    DropBucket {
        /// Which bucket.
        id: BucketId,
    },
    /// A member mints under an actor that nobody had before.
    GrantActor {
        /// Which member.
        node: NodeId,
    },
    /// A member is found elsewhere.
    MoveMember {
        /// Which member.
        node: NodeId,
        /// Where it listens now.
        address: String,
    },
}

/// Admin → node: have the voters decide on a change of the topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeV1 {
    /// What changes.
    pub change: ChangeKind,
}

/// Node → admin: the change is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReplyV1 {
    /// The epoch that it made.
    pub epoch: Epoch,
}
