//! Floors, watermarks and boot counters: what nodes promise and remember, so that deletions can be forgotten.

use kv_types::{BucketId, Epoch, Hlc};
use serde::{Deserialize, Serialize};

/// Node → node: how far back does what you have not promised begin, and will you promise up to here?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloorV1 {
    /// From now on to take nothing new that was minted up to this point; `None` asks for nothing.
    pub promise: Option<Hlc>,
    /// From now on to take in no write from a coordinator whose minute ended at or before this point; `None` asks for nothing.
    pub settle: Option<Hlc>,
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

/// Node → node: I have been started so often. What do you remember of me?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RememberV1 {
    /// The sender's boot counter, durable before it is sent: it rises with every start, and while the node runs.
    pub boot: u64,
    /// The random number of the sender's run, durable before it is sent; 0: it only asks.
    pub run: u64,
    /// The run that the receiver remembers, as far as the sender has heard; its disk is from after that run. The receiver
    /// forgets no other one for this.
    pub after: u64,
    /// The counter that the receiver remembers of that run, as far as the sender has heard.
    pub heard: u64,
}

/// Node → node: its answer, durable before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberReplyV1 {
    /// The highest boot counter of the asker that was heard of, be it through others.
    pub boot: u64,
    /// The run of the asker that told the answering node its counter last before this; 0: none did.
    pub run: u64,
    /// The highest counter that this run told before.
    pub told: u64,
    /// What the answering node's wall clock shows, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Up to where the answering node has promised to take nothing new.
    pub floor: Hlc,
    /// Up to where it takes in no write any more from a coordinator, by the end of the write's minute.
    pub settled: Hlc,
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
    /// Another one after each time that any of the answering node's copies became incomplete.
    pub losses: u64,
}
