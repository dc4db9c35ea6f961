//! Plain values of kv and their algebra.
//!
//! A type stands here only if it crosses two crates that must not know each other. Nothing in this
//! crate does IO, reads a clock, draws randomness or waits; time and random bytes come in as
//! arguments.
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | who and where: [`NodeId`], [`ClusterId`], [`ActorId`], [`BucketId`], [`Epoch`] |
//! | [`key`] | [`Key`] = partition key + sort key, and the limits of keys |
//! | [`bucket`] | [`BucketName`] and [`BucketProperties`]: what a bucket promises |
//! | [`hlc`] | [`Hlc`]: hybrid logical time, the second half of a dot |
//! | [`clock`] | [`Dot`] and the interval [`Clock`]: causality |
//! | [`write_id`] | [`WriteId`]: the client's name for one write, kept over its retries |
//! | [`object`] | [`Object`]: what a replica stores under a key; its merge and its write rule |
//! | [`context`] | [`Context`]: the opaque token between a read and the write that follows it |
//! | [`quorum`] | [`Quorum`], [`Level`]: how many replicas must answer |
//! | [`outcome`] | [`Outcome`]: what became of a write |
//!
//! Encodings ([`Clock`], [`Object`], [`Context`]) are specified byte for byte in
//! `docs/formats/object.md` and pinned by golden bytes.

pub mod bucket;
pub mod clock;
pub mod context;
mod durability;
pub mod hlc;
pub mod id;
pub mod key;
pub mod object;
pub mod outcome;
#[doc(hidden)]
pub mod planted;
pub mod quorum;
mod wire;
pub mod write_id;

pub use bucket::{BlindPut, BucketMode, BucketName, BucketNameError, BucketProperties, RowCache};
pub use clock::{Clock, Dot, Interval};
pub use context::{Context, ContextError, ContextKey};
pub use durability::Durability;
pub use hlc::{Hlc, HybridClock};
pub use id::{ActorId, BucketId, ClusterId, Epoch, IdError, NodeId};
pub use key::{Key, KeyError};
pub use object::{Admission, Object, Payload, Retired, Sibling, Write, WriteRefused};
pub use outcome::Outcome;
pub use quorum::{Level, Quorum, QuorumError};
pub use wire::DecodeError;
pub use write_id::{WriteId, WriteIdError};
