//! The stable numbers of what can go wrong with a request.

use serde::{Deserialize, Serialize};

/// Why a request was not done: the same code on the wire, in the client's error and in the exit
/// code of the command line. The list only grows at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum ErrorCode {
    /// The request makes no sense (r > n, unknown option, malformed body): correct it.
    BadRequest = 0,
    /// No such bucket in the node's topology: create it, or refresh the topology and try again.
    UnknownBucket = 1,
    /// Key, value, object or context is over its limit: make it smaller.
    TooLarge = 2,
    /// The key holds as many siblings as a key may: read, resolve, and put with the context.
    TooManySiblings = 3,
    /// The context belongs to another key, is damaged, or lies in the future: read again.
    WrongContext = 4,
    /// Too few replicas can be reached: wait for nodes to come back, or ask for less.
    NotEnoughReplicas = 5,
    /// The deadline passed before enough replicas answered.
    Timeout = 6,
    /// The node sheds load: try again a little later.
    Overloaded = 7,
    /// The sender's topology is older than the last change of the key's partition: refresh it.
    StaleEpoch = 8,
    /// The node holds no replica of the key and would have to pass the request on twice.
    NotReplica = 9,
    /// The certificate's role may not make this request.
    Denied = 10,
    /// The node's disk failed or is full; other nodes may still serve.
    Storage = 11,
    /// The node is stopping: try another.
    ShuttingDown = 12,
    /// The write id is older than what the key remembers, or from the future: whether it was
    /// applied before cannot be told any more.
    StaleWriteId = 13,
    /// The node does not know this method or version: upgrade it.
    Unsupported = 14,
    /// A defect in the node; its log has more.
    Internal = 15,
    /// The node has lost a part of what it held, and does not count until it has it again: try another.
    Incomplete = 16,
    /// The node's clock is far from those of the others, so it coordinates no writes: set it, or try another.
    ClockSkew = 17,
}

impl ErrorCode {
    /// Whether the same request may succeed at another node or a moment later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::NotEnoughReplicas
            | Self::Timeout
            | Self::Overloaded
            | Self::StaleEpoch
            | Self::NotReplica
            | Self::Storage
            | Self::ShuttingDown
            | Self::Internal
            | Self::Incomplete
            | Self::ClockSkew => true,
            Self::BadRequest
            | Self::UnknownBucket
            | Self::TooLarge
            | Self::TooManySiblings
            | Self::WrongContext
            | Self::Denied
            | Self::StaleWriteId
            | Self::Unsupported => false,
        }
    }
}
