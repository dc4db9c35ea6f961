//! Why a request was answered as it was.

use kv_types::{Dot, Epoch, Level, NodeId};
use serde::{Deserialize, Serialize};

use super::{ErrorReplyV1, GetReplyV1, MemberState, PutReplyV1, ReadSource, Response};

/// Coordinator → client: why a request was answered as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplanationV1 {
    /// The epoch of the topology by which it was served.
    pub epoch: Epoch,
    /// The partition of the key.
    pub partition: u16,
    /// The epoch of that partition's last change.
    pub partition_epoch: Epoch,
    /// Who coordinated it.
    pub coordinator: NodeId,
    /// Who passed it on, being no replica of the key.
    pub forwarded_by: Option<NodeId>,
    /// The level at which it was served.
    pub level: Level,
    /// How many answers it needed.
    pub needed: u8,
    /// The nodes of the key: its owners, then those that may stand in for them, best first.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_MEMBERS }>")]
    pub preference: Vec<PreferredV1>,
    /// What happened, in order.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_PAGE }>")]
    pub steps: Vec<StepV1>,
}

/// A node in a key's preference list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreferredV1 {
    /// The node.
    pub node: NodeId,
    /// It owns a replica; others may stand in.
    pub is_owner: bool,
    /// How the coordinator saw it.
    pub state: MemberState,
    /// It kept requests of the coordinator waiting, and so was asked last.
    pub is_slow: bool,
}

/// Something that happened to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepV1 {
    /// When, in microseconds since it came.
    pub at_us: u64,
    /// At which node, or to which.
    pub node: NodeId,
    /// The owner for which that node stood in.
    pub stands_in_for: Option<NodeId>,
    /// What.
    pub what: StepKind,
}

/// What happened at a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepKind {
    /// It was asked for the object.
    AskedForObject,
    /// It was asked for the digest of the object.
    AskedForDigest,
    /// It holds an object.
    Object {
        /// The dots of the values and deletions in it.
        #[serde(
            deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_SIBLINGS }>"
        )]
        dots: Vec<Dot>,
        /// The bytes of the object.
        bytes: u32,
        /// Where it was found.
        source: Option<ReadSource>,
    },
    /// It holds an object with this digest.
    Digest {
        /// The digest.
        digest: u64,
        /// Where it was found.
        source: Option<ReadSource>,
    },
    /// It holds nothing.
    Nothing,
    /// What it holds is superseded in part by what others hold.
    Superseded {
        /// The dots of what is superseded.
        #[serde(
            deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_SIBLINGS }>"
        )]
        dots: Vec<Dot>,
    },
    /// The write was put in order there, under this dot.
    Coordinated {
        /// The dot.
        dot: Option<Dot>,
    },
    /// It was sent the object.
    Sent,
    /// It was sent the object, as what it held was older.
    Repaired,
    /// It holds the object durably.
    Acknowledged,
    /// No answer came, or a refusal.
    Failed {
        /// Why.
        why: String,
    },
    /// It holds the object in memory; more was not asked for.
    Taken,
    /// It had not answered when the request was.
    Silent,
    /// The write took the place of these values and deletions there.
    Replaced {
        /// Their dots.
        #[serde(
            deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_SIBLINGS }>"
        )]
        dots: Vec<Dot>,
    },
    /// These values and deletions are there, and are not shown.
    NotShown {
        /// Their dots.
        #[serde(
            deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_SIBLINGS }>"
        )]
        dots: Vec<Dot>,
        /// Why not.
        why: NotShown,
    },
}

/// Why something that is there is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotShown {
    /// It has expired.
    Expired,
    /// In a bucket of mode `lww` the last write wins, and this is an earlier one.
    EarlierWrite,
}

/// Coordinator → client: the answer to a read, and why it is so. The tail is that of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedGetV1 {
    /// The answer, or why there is none.
    pub answer: Result<GetReplyV1, ErrorReplyV1>,
    /// Why.
    pub explanation: ExplanationV1,
}

/// Coordinator → client: the answer to a write, and why it is so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedPutV1 {
    /// The answer, or why the write may not have been done.
    pub answer: Result<PutReplyV1, ErrorReplyV1>,
    /// Why.
    pub explanation: ExplanationV1,
}

impl Response {
    /// The response, unless it says that the request was not done.
    ///
    /// # Errors
    /// What it says then, and why, where that was asked for.
    pub fn done(self) -> Result<Self, (ErrorReplyV1, Option<Box<ExplanationV1>>)> {
        match self {
            Self::Error(error) => Err((error, None)),
            Self::ExplainGet(told, tail) => match told.answer {
                Err(error) => Err((error, Some(Box::new(told.explanation)))),
                Ok(_) => Ok(Self::ExplainGet(told, tail)),
            },
            Self::ExplainPut(told) => match told.answer {
                Err(error) => Err((error, Some(Box::new(told.explanation)))),
                Ok(_) => Ok(Self::ExplainPut(told)),
            },
            other => Ok(other),
        }
    }

    /// The epoch of the topology by which a coordinator served a client's request; `None` where the response does not say.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Get(reply, _) => Some(reply.epoch),
            Self::Put(reply) => Some(reply.epoch),
            Self::List(reply, _) => Some(reply.epoch),
            Self::ExplainGet(told, _) => told.answer.as_ref().ok().map(|reply| reply.epoch),
            Self::ExplainPut(told) => told.answer.as_ref().ok().map(|reply| reply.epoch),
            _ => None,
        }
    }
}
