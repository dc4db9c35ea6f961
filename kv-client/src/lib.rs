//! Client of kv: a typed, asynchronous connection to a cluster.
//!
//! ```no_run
//! # async fn example() -> Result<(), kv_client::Error> {
//! let client = kv_client::Client::connect("kv://127.0.0.1:7401?context=dev").await?;
//! client.put("hello", "world").await?;
//! assert_eq!(client.get("hello").await?.one()?.as_deref(), Some(&b"world"[..]));
//! # Ok(()) }
//! ```
//!
//! A key may hold several concurrent values, its *siblings*. A [`Read`] has them all, and a *context*;
//! a write with that context replaces what the read saw. [`Client::update`] does both. Nothing in here
//! drops a sibling unless it is told to ([`Read::latest`], [`Latest`]).
//!
//! Every request has one deadline (1 s by default). Within it the client goes to a replica of the key,
//! sends again elsewhere when that helps, and keeps one write id over all attempts of a write, so that
//! a retry makes no second sibling. An [`Error`] says by [`Error::outcome`] whether the write may have
//! been applied: the worst over all attempts. All futures may be dropped at any time.
//!
//! | module | holds |
//! |---|---|
//! | [`client`], [`bucket`], [`collection`] | [`Client`], [`Bucket`], [`Collection`]: where requests begin |
//! | [`get`], [`put`], [`update`], [`scan`], [`many`], [`fate`] | the requests |
//! | [`read`], [`resolve`], [`view`] | what a read found, and how to make one value of several |
//! | [`key_codec`], [`codec`], [`into_key`] | typed keys and values as bytes |
//! | [`target`], [`context_file`], [`options`] | which cluster, as whom, with which defaults |
//! | [`error`] | [`Error`], its codes and exit codes |
//! | [`cluster`] | state and metrics of single nodes |
//! | [`transport`] | the seam below: calls, time, randomness; simulated in tests |
//!
//! Beneath, unseen: `attempts` (when to send again) and `route` (where to) are pure; `session` drives
//! them; `directory` keeps the topology, `health` the evidence about nodes, `retry_budget` the number
//! of retries; `net` is the one module that opens sockets and reads clocks.

mod attempts;
pub mod bucket;
pub mod client;
pub mod cluster;
mod cluster_time;
pub mod codec;
pub mod collection;
mod connect_error;
pub mod context_file;
pub mod cursor;
mod directory;
pub mod error;
pub mod explain;
mod failure;
pub mod fate;
pub mod get;
mod health;
pub mod into_key;
pub mod key_codec;
pub mod many;
mod net;
pub mod options;
pub mod put;
pub mod read;
mod reply;
pub mod resolve;
mod retry_budget;
mod route;
pub mod scan;
mod session;
pub mod session_token;
pub mod target;
pub mod transport;
pub mod update;
pub mod view;

pub use bucket::Bucket;
pub use client::{Client, ClientBuilder};
pub use codec::{Codec, Json, Postcard};
pub use collection::Collection;
pub use context_file::{ContextDirectory, ContextFile};
pub use cursor::Cursor;
pub use error::{ConnectError, Error};
pub use fate::{Fate, WriteFate};
pub use into_key::IntoKey;
pub use key_codec::{KeyCodec, KeyPart};
pub use many::Many;
pub use options::Options;
pub use put::Written;
pub use read::{Conflict, Read, Sibling};
pub use resolve::{Latest, Refuse, Resolver, Union};
pub use scan::{Entry, Scan};
pub use session_token::SessionToken;
pub use target::Target;
pub use update::Change;
pub use view::Digest;

pub use kv_net::ErrorCode;
pub use kv_ring as ring;
pub use kv_types::{
    BlindPut, BucketMode, BucketName, BucketProperties, ClusterId, Context, Dot, Durability, Epoch,
    Hlc, Key, KeyError, Level, NodeId, Outcome, Quorum, RowCache, WriteId, WriteIdError,
};

/// The README's snippet is compiled with the documentation's examples.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
