//! The topology, votes on the next one, and changes of it.

use kv_types::{BucketId, BucketName, BucketProperties, Epoch, NodeId};
use serde::{Deserialize, Serialize};

/// Anyone → node: the topology after mine; the newest one for whoever has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyV1 {
    /// The epoch the sender has; 0 for none.
    pub known: Epoch,
}

/// Node → anyone: how far it is. The tail is the chain entry that was asked for, empty when there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyReplyV1 {
    /// The node's newest epoch.
    pub epoch: Epoch,
    /// What time it is by the clocks of most members, as far as the node knows, in milliseconds since the Unix epoch.
    pub now_ms: u64,
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
    /// Members come, go, or weigh otherwise, by a plan that somebody has seen.
    Members {
        /// What is wanted.
        changes: MemberChangesV1,
        /// The plan that follows from it.
        plan: u64,
        /// Whether it is made although acknowledged writes may be lost with members that are given up.
        accepts_loss: bool,
    },
    /// All changes of owners are called off that have not finished. Members that were to leave stay.
    AbortMoves,
    /// A member that leaves, or is lost, and owns nothing any more is no member from now on.
    RemoveMember {
        /// Which member.
        node: NodeId,
    },
    /// Partitions begin the next change of owners on their way. Only nodes ask for it.
    BeginMoves {
        /// Which.
        #[serde(
            deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_PARTITIONS }>"
        )]
        partitions: Vec<u16>,
    },
    /// A node has all that it must have of the partitions that it gains. Only that node asks for it.
    FinishMoves {
        /// Which node.
        by: NodeId,
        /// Which partitions, and the epochs in which their owners became joint.
        #[serde(
            deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_PARTITIONS }>"
        )]
        partitions: Vec<(u16, Epoch)>,
    },
    /// The owners have all that a node still held of partitions that it lost. Only that node asks for it.
    Drained {
        /// Which node.
        by: NodeId,
        /// Which partitions.
        #[serde(
            deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_PARTITIONS }>"
        )]
        partitions: Vec<u16>,
    },
    /// Somebody has seen to what may have been lost with members that were given up.
    ClearLoss {
        /// The last epoch in which they were given up.
        through: Epoch,
    },
}

/// What is wanted of the members; what is not named stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemberChangesV1 {
    /// Nodes that become members.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_MEMBERS }>")]
    pub joins: Vec<NewMemberV1>,
    /// Members that give away all that they own and then go.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_MEMBERS }>")]
    pub leaves: Vec<NodeId>,
    /// Members that will never be back.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_MEMBERS }>")]
    pub lost: Vec<NodeId>,
    /// Other weights.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_MEMBERS }>")]
    pub weights: Vec<(NodeId, u32)>,
    /// Other zones.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_MEMBERS }>")]
    pub zones: Vec<(NodeId, String)>,
}

/// A node that becomes a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMemberV1 {
    /// Its id.
    pub node: NodeId,
    /// Its name, for people.
    pub name: String,
    /// The zone that it shares its failures with.
    pub zone: String,
    /// Its capacity relative to the other members.
    pub weight: u32,
    /// Where it listens.
    pub address: String,
    /// The fingerprint of its certificate.
    pub fingerprint: [u8; 32],
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
