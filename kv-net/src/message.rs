//! The vocabulary between processes: every request and every reply, as frozen structures.
//!
//! A message is a method number, a body in postcard, and for some a tail of raw bytes (values,
//! objects, topology entries) that stands after the body so that it is neither copied nor parsed.
//! Structures end in `V1` and never change: a change is a new structure under a new method. Enums
//! only grow at their end. `docs/formats/wire.md` has the bytes, pinned by golden tests.

mod deletions;
mod explain;
mod fate;
mod topology;
mod trees;

use bytes::Bytes;
use kv_types::{
    BucketId, Context, Dot, Durability, Epoch, Hlc, Key, Level, NodeId, Outcome, WriteId,
};
use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;

pub use crate::bounded::MAX_PAGE;
pub use deletions::{
    FloorReplyV1, FloorV1, PlaceV1, RememberReplyV1, RememberV1, WatermarkReplyV1, WatermarkStep,
    WatermarkV1, WatermarksReplyV1, WatermarksV1,
};
pub use explain::{
    ExplainedGetV1, ExplainedPutV1, ExplanationV1, NotShown, PreferredV1, StepKind, StepV1,
};
pub use fate::{FateReplyV1, FateV1, WriteFate};
pub use topology::{
    BallotV1, ChangeKind, ChangeReplyV1, ChangeV1, MemberChangesV1, NewMemberV1, TopologyReplyV1,
    TopologyV1, VoteAnswer, VoteReplyV1, VoteStep, VoteV1,
};
pub use trees::{
    CompareReplyV1, CompareV1, TreeKeysReplyV1, TreeKeysV1, TreeNodesReplyV1, TreeNodesV1,
    TreeObjectsV1, TreeRootsReplyV1, TreeRootsV1,
};

/// What every request about data carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataHead {
    /// Of a client, the newest topology epoch that it knows. Of a coordinator that asks a replica, the one that the replica must know:
    /// that of the last change of what is asked about, as the coordinator knows it.
    pub epoch: Epoch,
    /// Ties together what one user request caused on several nodes; shown in logs.
    pub trace: u64,
    /// The client's name of the write; for reads, of the request.
    pub write_id: WriteId,
}

/// What a read asks for beyond its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReadOptions {
    /// The level, from which `r` follows.
    pub level: Level,
    /// An explicit `r` in place of the level's.
    pub r: Option<u8>,
    /// Leave the values out of the reply: headers, hashes and the context only.
    pub headers_only: bool,
}

/// What a write asks for beyond its key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WriteOptions {
    /// The level, from which `w` follows.
    pub level: Level,
    /// An explicit `w` in place of the level's.
    pub w: Option<u8>,
    /// After how many milliseconds the value expires, counted from the creation of its write id; 0 is never, `None` what
    /// the bucket says.
    pub ttl_ms: Option<u64>,
    /// What must be synced by the acknowledgement; `None` what the bucket says.
    pub durability: Option<Durability>,
    /// In how many zones those must be who acknowledge, at least; 0 and 1 ask for nothing.
    pub distinct_zones: u8,
}

/// Client → coordinator: read a key. Any node coordinates reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetV1 {
    /// Epoch, trace and request id.
    pub head: DataHead,
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Key,
    /// How many must answer, and what is wanted.
    pub options: ReadOptions,
    /// What the reader has seen of this key: the answer must cover it, whoever has to be asked.
    pub seen: Option<Context>,
}

/// One sibling in a reply; its value, if any, stands in the tail in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiblingHeadV1 {
    /// The write that made it.
    pub write_id: WriteId,
    /// Its newest dot: who minted it, and when.
    pub dot: Dot,
    /// Whether it is a deletion.
    pub tombstone: bool,
    /// The length of its value in bytes.
    pub value_bytes: u32,
    /// xxh3-64 of its value.
    pub value_hash: u64,
    /// When it expires, in milliseconds since the Unix epoch; `None` is never.
    pub expires_ms: Option<u64>,
}

/// Coordinator → client: the siblings of a key. The tail holds their values unless only headers
/// were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetReplyV1 {
    /// All concurrent values; empty when the key was never written.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_SIBLINGS }>")]
    pub siblings: Vec<SiblingHeadV1>,
    /// What to put next with, so that these siblings are replaced.
    pub context: Context,
    /// The replicas whose answers are in this reply.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_NODES }>")]
    pub answered: Vec<NodeId>,
    /// How many had to answer.
    pub needed: u8,
    /// The epoch of the topology by which the coordinator served it.
    pub epoch: Epoch,
}

/// What a write does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum WriteKind {
    /// Stores the value in the tail.
    Put = 0,
    /// Stores a tombstone; the tail is empty.
    Delete = 1,
}

/// Client or forwarding node → coordinator: write a key. The tail is the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutV1 {
    /// Epoch, trace and write id.
    pub head: DataHead,
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Key,
    /// Put or delete.
    pub kind: WriteKind,
    /// What the writer had read of this key; without one the bucket's blind-put rule holds.
    pub context: Option<Context>,
    /// How many must acknowledge.
    pub options: WriteOptions,
    /// Whether a node that holds no replica already passed this on once.
    pub forwarded: bool,
    /// How long ago it was first sent, in milliseconds; 0 is now, for the first time.
    pub since_first_ms: u32,
}

/// Coordinator → client: the write is durable on as many replicas as were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutReplyV1 {
    /// What to put next with.
    pub context: Context,
    /// Who acknowledged before the reply was sent.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_NODES }>")]
    pub acked: Vec<NodeId>,
    /// How many had to.
    pub needed: u8,
    /// The epoch of the topology by which the coordinator served it.
    pub epoch: Epoch,
}

/// Client → coordinator: a page of one partition of a bucket, in hash order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListV1 {
    /// Epoch, trace and request id.
    pub head: DataHead,
    /// The bucket.
    pub bucket: BucketId,
    /// The partition.
    pub partition: u16,
    /// Only these rows; `None` is the whole partition.
    pub rows: Option<RowsV1>,
    /// Begin after this key; `None` begins at the first.
    pub after: Option<Key>,
    /// At most this many keys.
    pub max_items: u32,
    /// How many must answer, and what is wanted.
    pub options: ReadOptions,
}

/// Rows of one partition key, in the order of their sort keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsV1 {
    /// The partition key.
    pub partition_key: Bytes,
    /// The sort key at which they begin.
    pub from: Bytes,
    /// The sort key before which they end; `None` is their end.
    pub until: Option<Bytes>,
}

/// One key of a page; its siblings' values stand in the tail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListEntryV1 {
    /// The key.
    pub key: Key,
    /// Its siblings.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_SIBLINGS }>")]
    pub siblings: Vec<SiblingHeadV1>,
    /// Its context.
    pub context: Context,
}

/// Coordinator → client: a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListReplyV1 {
    /// The keys, in hash order; perhaps none, though there are more.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_PAGE }>")]
    pub entries: Vec<ListEntryV1>,
    /// After which key the next page begins; `None` when all were listed.
    pub next_after: Option<Key>,
    /// The epoch of the topology by which the coordinator served it.
    pub epoch: Epoch,
}

/// Coordinator → replica: merge this object. The tail is the whole object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaWriteV1 {
    /// Epoch, trace and write id.
    pub head: DataHead,
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Key,
    /// What the answer waits for.
    pub answer: AnswerWhen,
}

/// What a replica waits for before it says that it has a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerWhen {
    /// The write is in memory, and will be synced soon.
    Taken,
    /// It survives a loss of power.
    Synced,
    /// The same, and whoever sends it forgets it then: only a node on which others may count takes it.
    Delivered,
}

/// Replica → coordinator: the object is merged here, and durable if that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaWriteReplyV1 {
    /// The epoch of the partition's last change at the replica: answers of one tally share it.
    pub partition_epoch: Epoch,
}

/// Coordinator → fallback: keep this object for an owner that is away. The tail is the whole object; the answer is
/// that of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandInWriteV1 {
    /// Epoch, trace and write id.
    pub head: DataHead,
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Key,
    /// The owner of a replica, for which the fallback stands in.
    pub owner: NodeId,
    /// It may count towards w: it must reach the owner.
    pub obligation: bool,
    /// What the answer waits for.
    pub answer: AnswerWhen,
}

/// Coordinator → fallback: what do you keep for an owner that is away? The answer is that of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandInReadV1 {
    /// Epoch, trace and request id.
    pub head: DataHead,
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Key,
    /// The owner for which the fallback stands in.
    pub owner: NodeId,
    /// Answer with the digest only.
    pub digest_only: bool,
}

/// Anyone → node: what do you keep for others?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintsV1 {}

/// What a node keeps for one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingHintsV1 {
    /// The owner.
    pub owner: NodeId,
    /// Objects kept for it.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Node → anyone: what it keeps for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintsReplyV1 {
    /// By owner.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_MEMBERS }>")]
    pub pending: Vec<PendingHintsV1>,
    /// The most bytes that it keeps.
    pub max_bytes: u64,
    /// Objects that reached their owners since its start.
    pub delivered: u64,
    /// Objects that it did not take since its start, because it kept as much as it may.
    pub refused: u64,
}

/// Coordinator → replica: what do you hold?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReadV1 {
    /// Epoch, trace and request id.
    pub head: DataHead,
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Key,
    /// Answer with the digest only.
    pub digest_only: bool,
}

/// Replica → coordinator: what is durable here. The tail is the object, unless absent or only its
/// digest was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReadReplyV1 {
    /// The epoch of the partition's last change at the replica.
    pub partition_epoch: Epoch,
    /// The keyed digest of the object; `None` when the replica holds nothing.
    pub digest: Option<u64>,
    /// Where it was found.
    pub source: Option<ReadSource>,
    /// The replica's watermark of that moment: what lies below and is unknown to it was deleted; zero if it may lack what
    /// was acknowledged, or answers for another.
    pub through: Hlc,
}

/// Where a replica found what it holds, from the nearest to the farthest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum ReadSource {
    /// Among the rows that are kept in memory because they are read often.
    RowCache = 0,
    /// In a memtable.
    Memtable = 1,
    /// In a table's block that was in memory.
    BlockCache = 2,
    /// In a table's block that was read from the disk.
    Disk = 3,
}

/// Coordinator → replica: a page of what you hold of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaListV1 {
    /// Epoch, trace and request id.
    pub head: DataHead,
    /// The bucket.
    pub bucket: BucketId,
    /// The partition.
    pub partition: u16,
    /// Only these rows; `None` is the whole partition.
    pub rows: Option<RowsV1>,
    /// Begin after this key.
    pub after: Option<Key>,
    /// At most this many objects.
    pub max_items: u32,
    /// Stop once the objects reach this many bytes.
    pub max_bytes: u32,
}

/// One object of a replica's page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaListEntryV1 {
    /// The key.
    pub key: Key,
    /// The length of its object in the tail.
    pub object_bytes: u32,
}

/// A page of what a replica holds; the tail holds the objects in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectsV1 {
    /// The epoch of the partition's last change at the replica.
    pub partition_epoch: Epoch,
    /// The objects, in storage order.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_PAGE }>")]
    pub entries: Vec<ReplicaListEntryV1>,
    /// Up to which key these are all that were asked for; `None` if there are no more.
    pub until: Option<Key>,
}

/// Replica → coordinator: the page; the tail holds the objects in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaListReplyV1 {
    /// The objects.
    pub page: ObjectsV1,
    /// The replica's watermark of that moment, as in [`ReplicaReadReplyV1`].
    pub through: Hlc,
}

/// Client or admin → node: how are you?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusV1 {}

/// How a node sees one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum MemberState {
    /// It answers.
    Up = 0,
    /// It did not answer lately; requests avoid it.
    Suspect = 1,
    /// It has not answered for long.
    Down = 2,
    /// It said that it leaves.
    Left = 3,
    /// Listed in the topology, never heard of.
    Unknown = 4,
}

/// One member in a node's view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberViewV1 {
    /// The member.
    pub node: NodeId,
    /// How the answering node sees it.
    pub state: MemberState,
    /// For how long, in milliseconds.
    pub since_ms: u64,
    /// Its newest heartbeat known there.
    pub heartbeat: u64,
}

/// Node → client: its state, its view of the others, and its figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReplyV1 {
    /// The node.
    pub node: NodeId,
    /// The version of its binary.
    pub version: String,
    /// Its newest topology epoch.
    pub epoch: Epoch,
    /// A hash over its view of the members: equal hashes, equal views.
    pub view_hash: u64,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Its view of every member of the topology, itself included.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_MEMBERS }>")]
    pub members: Vec<MemberViewV1>,
    /// Objects that it holds, as the engine estimates.
    pub objects: u64,
    /// Bytes of its data files.
    pub disk_bytes: u64,
    /// Free bytes on its disk.
    pub disk_free_bytes: u64,
    /// Client reads that it coordinated since its start.
    pub gets: u64,
    /// Client writes that it coordinated since its start.
    pub puts: u64,
    /// Client requests that failed since its start.
    pub errors: u64,
    /// Median and 99th percentile of its reads, in microseconds.
    pub get_us: (u32, u32),
    /// Median and 99th percentile of its writes, in microseconds.
    pub put_us: (u32, u32),
}

/// Admin → node: all metrics. The reply's tail is Prometheus text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsV1 {}

/// Node → admin: the tail is Prometheus text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsReplyV1 {}

/// Any request that was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReplyV1 {
    /// What went wrong.
    pub code: ErrorCode,
    /// Whether this attempt changed something.
    pub outcome: Outcome,
    /// For people: what happened, with numbers, and what to do next.
    pub message: String,
    /// How many replicas had to answer; 0 where that does not apply.
    pub needed: u8,
    /// How many did.
    pub got: u8,
    /// The newest topology epoch of the answering node; 0 where the network layer answered, which
    /// knows of none.
    pub epoch: Epoch,
}

/// A request, with its tail where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Read a key.
    Get(GetV1),
    /// Write a key; the bytes are the value.
    Put(PutV1, Bytes),
    /// A page of a partition.
    List(ListV1),
    /// The newest topology.
    Topology(TopologyV1),
    /// State and figures of a node.
    Status(StatusV1),
    /// Metrics of a node.
    Metrics(MetricsV1),
    /// Change the topology.
    Change(ChangeV1),
    /// What a node keeps for others.
    Hints(HintsV1),
    /// Read a key, and say why it is answered so.
    ExplainGet(GetV1),
    /// Write a key, and say why it is answered so; the bytes are the value.
    ExplainPut(PutV1, Bytes),
    /// What became of a write.
    Fate(FateV1),
    /// Compare copies with the other owners.
    Compare(CompareV1),
    /// Merge an object; the bytes are the object.
    ReplicaWrite(ReplicaWriteV1, Bytes),
    /// Read what a replica holds.
    ReplicaRead(ReplicaReadV1),
    /// A page of what a replica holds.
    ReplicaList(ReplicaListV1),
    /// A step towards the next topology; the bytes are the entry that is to be accepted.
    Vote(VoteV1, Bytes),
    /// Keep an object for an owner that is away; the bytes are the object.
    StandInWrite(StandInWriteV1, Bytes),
    /// Read what is kept for an owner that is away.
    StandInRead(StandInReadV1),
    /// Merge an object that nobody waits for; the bytes are the object.
    Repair(ReplicaWriteV1, Bytes),
    /// The roots of Merkle trees.
    TreeRoots(TreeRootsV1),
    /// Sums of a Merkle tree.
    TreeNodes(TreeNodesV1),
    /// The keys under nodes of a Merkle tree.
    TreeKeys(TreeKeysV1),
    /// The objects under nodes of a Merkle tree.
    TreeObjects(TreeObjectsV1),
    /// Up to where a node takes nothing new any more.
    Floor(FloorV1),
    /// A step towards forgetting what was deleted.
    Watermark(WatermarkV1),
    /// Node → node: its boot counter.
    Remember(RememberV1),
    /// Owner → owner: its watermarks.
    Watermarks(WatermarksV1),
}

/// A reply, with its tail where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To [`Request::Get`]; the bytes are the values.
    Get(GetReplyV1, Bytes),
    /// To [`Request::Put`].
    Put(PutReplyV1),
    /// To [`Request::List`]; the bytes are the values.
    List(ListReplyV1, Bytes),
    /// To [`Request::Topology`]; the bytes are a chain entry.
    Topology(TopologyReplyV1, Bytes),
    /// To [`Request::Status`].
    Status(StatusReplyV1),
    /// To [`Request::Metrics`]; the bytes are text.
    Metrics(MetricsReplyV1, Bytes),
    /// To [`Request::Change`].
    Change(ChangeReplyV1),
    /// To [`Request::Hints`].
    Hints(HintsReplyV1),
    /// To [`Request::ExplainGet`]; the bytes are the values.
    ExplainGet(ExplainedGetV1, Bytes),
    /// To [`Request::ExplainPut`].
    ExplainPut(ExplainedPutV1),
    /// To [`Request::Fate`].
    Fate(FateReplyV1),
    /// To [`Request::Compare`].
    Compare(CompareReplyV1),
    /// To [`Request::ReplicaWrite`].
    ReplicaWrite(ReplicaWriteReplyV1),
    /// To [`Request::ReplicaRead`]; the bytes are the object.
    ReplicaRead(ReplicaReadReplyV1, Bytes),
    /// To [`Request::ReplicaList`]; the bytes are the objects.
    ReplicaList(ReplicaListReplyV1, Bytes),
    /// To [`Request::Vote`]; the bytes are the entry that was accepted before.
    Vote(VoteReplyV1, Bytes),
    /// To [`Request::StandInWrite`].
    StandInWrite(ReplicaWriteReplyV1),
    /// To [`Request::StandInRead`]; the bytes are the object.
    StandInRead(ReplicaReadReplyV1, Bytes),
    /// To [`Request::Repair`].
    Repair(ReplicaWriteReplyV1),
    /// To [`Request::TreeRoots`]; the bytes are the roots.
    TreeRoots(TreeRootsReplyV1, Bytes),
    /// To [`Request::TreeNodes`]; the bytes are the sums.
    TreeNodes(TreeNodesReplyV1, Bytes),
    /// To [`Request::TreeKeys`]; the bytes are names and digests.
    TreeKeys(TreeKeysReplyV1, Bytes),
    /// To [`Request::TreeObjects`]; the bytes are the objects.
    TreeObjects(ObjectsV1, Bytes),
    /// To [`Request::Floor`].
    Floor(FloorReplyV1),
    /// To [`Request::Watermark`].
    Watermark(WatermarkReplyV1),
    /// To [`Request::Remember`].
    Remember(RememberReplyV1),
    /// To [`Request::Watermarks`].
    Watermarks(WatermarksReplyV1),
    /// To any request.
    Error(ErrorReplyV1),
}
