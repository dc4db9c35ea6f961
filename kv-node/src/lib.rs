//! A node of kv.
//!
//! Read [`node`] first: it makes every component and joins them. Data flows one way.
//!
//! ```text
//! request → service → coordinator ─→ replica → store → engine
//!                         │             ↑
//!                         └→ transport ⇒ service of another node
//! ```
//!
//! | module | does |
//! |---|---|
//! | [`service`] | one match: request → the component that owns it |
//! | [`coordinator`] | plans, fans out, and feeds answers to pure cores |
//! | [`replica`] | what this node holds; the only code that writes user data |
//! | [`fates`] | what became of a write whose client does not know |
//! | [`hints`] | what this node keeps for owners that are away |
//! | [`anti_entropy`] | replicas compare what they hold, all the time |
//! | [`tombstones`] | when what was deleted is forgotten |
//! | [`minter`] | where this node's dots come from |
//! | [`turns`] | writes of one key, one after another |
//! | [`store`], [`storage_key`] | the engine as futures; the order of its keys |
//! | [`topologies`] | the topology that this node lives by |
//! | [`changes`], [`voting`] | changes of the topology, and this node's vote on them |
//! | [`membership`], [`liveness`] | gossip, and what requests see of it |
//! | [`metrics`] | what is counted |
//! | [`env`](mod@env), [`transport`] | everything from outside; [`adapters`] are the real ones |
//! | [`refusal`] | why a request was not done |
//!
//! All node code takes time, randomness, tasks, files and the network from [`env::Env`], so that
//! whole nodes run in one thread and virtual time. Only [`adapters`], the command line and `main`
//! touch the real world.

pub mod adapters;
pub mod anti_entropy;
pub mod changes;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock_watch;
pub mod completeness;
pub mod config;
pub mod coordinator;
pub mod env;
pub mod evidence;
pub mod fates;
pub(crate) mod fork;
pub mod healing;
pub mod hints;
pub mod liveness;
pub mod membership;
pub mod metrics;
pub mod minter;
pub mod moves;
pub mod node;
pub mod reaper;
pub mod refusal;
pub mod replica;
pub mod service;
pub mod setup;
pub mod storage_key;
pub mod store;
pub mod tombstones;
pub mod topologies;
pub mod transport;
pub mod turns;
pub mod voting;

pub use node::{Node, NodeOptions, StartError};
