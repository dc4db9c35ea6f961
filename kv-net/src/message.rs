//! The vocabulary between processes: every request and every reply, as frozen structures.
//!
//! A message is a method number, a body in postcard, and for some a tail of raw bytes (values,
//! objects, topology entries) that stands after the body so that it is neither copied nor parsed.
//! Structures end in `V1` and never change: a change is a new structure under a new method. Enums
//! only grow at their end. `docs/formats/wire.md` has the bytes, pinned by golden tests.

mod fate;

use bytes::Bytes;
use kv_types::{
    BucketId, BucketName, BucketProperties, Context, Dot, Durability, Epoch, Hlc, Key, Level,
    NodeId, Outcome, WriteId,
};
use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;

pub use fate::{FateReplyV1, FateV1, WriteFate};

/// What every request about data carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataHead {
    /// The newest topology epoch that the sender knows.
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
    /// Begin after this key; `None` begins at the partition's start.
    pub after: Option<Key>,
    /// At most this many keys.
    pub max_items: u32,
    /// How many must answer, and what is wanted.
    pub options: ReadOptions,
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
    /// The keys, in hash order.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_PAGE }>")]
    pub entries: Vec<ListEntryV1>,
    /// Where the next page begins; `None` when the partition is done.
    pub next_after: Option<Key>,
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

/// Replica → coordinator: the page; the tail holds the objects in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaListReplyV1 {
    /// The epoch of the partition's last change at the replica.
    pub partition_epoch: Epoch,
    /// The objects, in storage order.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_PAGE }>")]
    pub entries: Vec<ReplicaListEntryV1>,
    /// Whether the partition ends with this page.
    pub complete: bool,
}

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
}

/// Node → node: the sums of their children, sixteen of each, u64 little-endian in the tail; none if the tree is not that
/// deep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeNodesReplyV1 {}

/// Node → node: what lies under the nodes; in the tail a pair for each key, of its name and its object's digest, u64
/// little-endian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeKeysReplyV1 {
    /// Whether these are all.
    pub complete: bool,
}

/// Node → node: the objects of these keys, as many as fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeObjectsV1 {
    /// Under which nodes they lie.
    pub under: TreeNodesV1,
    /// The keys' names.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_PAGE }>")]
    pub ids: Vec<u64>,
}

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
}

/// Coordinator → client: the answer to a read, and why it is so. The tail is that of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedGetV1 {
    /// The answer.
    pub reply: GetReplyV1,
    /// Why.
    pub explanation: ExplanationV1,
}

/// Coordinator → client: the answer to a write, and why it is so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedPutV1 {
    /// The answer.
    pub reply: PutReplyV1,
    /// Why.
    pub explanation: ExplanationV1,
}

/// Node → node: how far back does what you have not promised begin, and will you promise up to here?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloorV1 {
    /// From now on to take nothing new that was minted up to this point; `None` asks for nothing.
    pub promise: Option<Hlc>,
}

/// Node → node: its answer, durable before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloorReplyV1 {
    /// How often it was started: what it promised for others holds for this run of it.
    pub boot: u64,
    /// What its clock showed some time ago: it mints nothing up to there, and would promise no more.
    pub reading: Hlc,
    /// Up to where it has promised.
    pub floor: Hlc,
    /// No dot that it gave to a write is later than both this point and a minute after the write's creation.
    pub late_through: Hlc,
    /// It may have lost, with a part of its disk, what was made up to here.
    pub lost_through: Hlc,
}

/// A partition of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlaceV1 {
    /// The bucket.
    pub bucket: BucketId,
    /// The partition.
    pub partition: u16,
}

/// The steps in which what was deleted is forgotten; each is taken when all owners have taken the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatermarkStep {
    /// Make durable all that you hold.
    Seal,
    /// Treat what was deleted up to there as if it were forgotten, and what is unknown from there as deleted.
    Raise,
    /// Forget what was deleted up to there.
    Forget,
}

/// Node → owner: all owners of these places hold the same up to here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkV1 {
    /// The epoch by which they are the owners.
    pub epoch: Epoch,
    /// The run of the answering node in which it promised its floor.
    pub boot: u64,
    /// Up to where.
    pub through: Hlc,
    /// What is to be done.
    pub step: WatermarkStep,
    /// The places.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_PAGE }>")]
    pub places: Vec<PlaceV1>,
}

/// Owner → node: done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkReplyV1 {}

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

/// Node → node: I have been started so often. What do you remember of me?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberV1 {
    /// The sender's boot counter, durable before it is sent: it rises with every start, and while the node runs.
    pub boot: u64,
}

/// Node → node: its answer, durable before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberReplyV1 {
    /// The highest boot counter that the asker ever told.
    pub boot: u64,
    /// What the answering node's wall clock shows, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Up to where the answering node has promised to take nothing new.
    pub floor: Hlc,
}

/// Owner → owner: up to where do you know what was deleted?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarksV1 {
    /// The epoch by which both own the places.
    pub epoch: Epoch,
    /// The places.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_PAGE }>")]
    pub places: Vec<PlaceV1>,
}

/// Owner → owner: its watermarks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarksReplyV1 {
    /// One for each place, in order; `None` where the answering node's own copies are incomplete.
    #[serde(deserialize_with = "crate::bounded::vec::<_, _, { crate::bounded::MAX_PAGE }>")]
    pub marks: Vec<Option<Hlc>>,
}

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
        /// Its properties from now on.
        properties: BucketProperties,
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
    TreeKeys(TreeNodesV1),
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
    TreeObjects(ReplicaListReplyV1, Bytes),
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
