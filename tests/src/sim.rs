//! Whole nodes in one thread and virtual time.
//!
//! | module | simulates |
//! |---|---|
//! | [`executor`] | tasks, timers, time |
//! | [`host`] | one node's clocks, randomness, tasks and blocking jobs |
//! | [`network`] | messages with delays, and nodes that are cut off |
//! | [`cluster`] | nodes with disks: start, kill, cut power, pause |
//! | [`client`] | clients that choose their node |

pub mod client;
pub mod cluster;
pub mod executor;
pub mod host;
pub mod network;

pub use cluster::SimCluster;
pub use executor::{Executor, Group, Handle};
