//! Whole nodes in one thread and virtual time.
//!
//! | module | simulates |
//! |---|---|
//! | [`executor`] | tasks, timers, time |
//! | [`host`] | one node's clocks, randomness, tasks and blocking jobs |
//! | [`network`] | messages with delays, and nodes that are cut off |
//! | [`udp`], [`papers`], [`entropy`] | what nodes need that speak real QUIC: datagrams, certificates, seeded keys |
//! | [`cluster`], [`image`] | nodes with disks: start, kill, cut power, pause; what would survive on a disk |
//! | [`client`] | clients that choose their node |

pub mod client;
pub mod cluster;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod entropy;
pub mod executor;
pub mod host;
pub mod image;
pub mod network;
pub mod papers;
pub mod udp;

pub use cluster::SimCluster;
pub use executor::{Executor, Group, Handle};
