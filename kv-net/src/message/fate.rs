//! What became of a write whose client does not know.

use kv_types::{BucketId, Key, WriteId};
use serde::{Deserialize, Serialize};

use super::DataHead;

/// Client → coordinator: what became of a write?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FateV1 {
    /// Epoch, trace and request id.
    pub head: DataHead,
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Key,
    /// The write.
    pub write_id: WriteId,
}

/// Coordinator → client: what became of the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FateReplyV1 {
    /// What became of it.
    pub fate: WriteFate,
}

/// What became of a write. All but the last are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteFate {
    /// It was applied, and so many replicas have it on their disks that every quorum read shows it, or what replaced it.
    Applied {
        /// It shows still.
        shows: bool,
    },
    /// It was never applied, and never will be.
    NotApplied,
    /// It does not show, and never will again; whether it ever did is not remembered any more.
    Gone,
    /// It was not found where it could be looked for, and may still turn up.
    Unknown {
        /// When it will be settled, in milliseconds since the Unix epoch by the node's clock, if all nodes answer then.
        settles_ms: u64,
    },
}
