//! Merkle trees that peers compare, and what they bring each other.

use kv_types::{BucketId, Epoch, Key};
use serde::{Deserialize, Serialize};

/// Node → node: the sum of the roots of all Merkle trees that both keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeRootsV1 {
    /// The epoch by which both know what they share.
    pub epoch: Epoch,
    /// The sum of the asking node's roots.
    pub sum: u64,
}

/// Node → node: the roots, u64 little-endian in the tail, in order of bucket and partition; none when the sums are equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeRootsReplyV1 {
    /// Whether the answering node has all its trees.
    pub ready: bool,
}

/// Which nodes of a Merkle tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeNodesV1 {
    /// The newest topology epoch that the sender knows.
    pub epoch: Epoch,
    /// The bucket.
    pub bucket: BucketId,
    /// The partition.
    pub partition: u16,
    /// How far below the root.
    pub depth: u8,
    /// The nodes at that depth, counted from 0.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_TREE_NODES }>")]
    pub nodes: Vec<u32>,
    /// The answer counts only if the answering node's copies have been complete all the while since it told this number of its
    /// losses ([`WatermarksReplyV1`](super::WatermarksReplyV1)): otherwise it refuses. `None`: complete or not.
    pub whole_since: Option<u64>,
}

/// Node → node: the sums of their children, sixteen of each, u64 little-endian in the tail; none if the tree is not that
/// deep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeNodesReplyV1 {}

/// A stretch of the keys under nodes of a Merkle tree, in the order in which they are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeKeysV1 {
    /// Under which nodes they lie, ascending.
    pub under: TreeNodesV1,
    /// Behind which key the stretch begins; `None` is the first node's beginning.
    pub after: Option<Key>,
    /// With which key it ends; `None` is the last node's end.
    pub until: Option<Key>,
}

/// Node → node: what lies there; in the tail a pair for each key, of its name and its object's digest, u64 little-endian, in
/// the order of the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeKeysReplyV1 {
    /// Up to which key these are all; `None` if that is the whole stretch.
    pub until: Option<Key>,
}

/// Node → node: the first objects of these keys, as many as fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeObjectsV1 {
    /// Where they lie.
    pub stretch: TreeKeysV1,
    /// The keys' names.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_PAGE }>")]
    pub ids: Vec<u64>,
}

/// Admin → node: compare what you hold with all other owners, now, and bring each the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareV1 {
    /// Of this bucket only; `None` is all.
    pub bucket: Option<BucketId>,
    /// The first partition.
    pub first: u16,
    /// The last partition; what lies beyond the ring is left out.
    pub last: u16,
}

/// Node → admin: it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareReplyV1 {
    /// Partitions of buckets, each counted once for each other owner.
    pub shared: u32,
    /// Those of them where both held the same in the end. The others could not be compared: the other owner is away, is
    /// started anew, or has another topology.
    pub settled: u32,
    /// Objects that this node fetched meanwhile.
    pub fetched: u64,
    /// Objects that it brought to others meanwhile.
    pub sent: u64,
}
