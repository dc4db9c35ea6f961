//! Scenarios over whole nodes.

mod arrows;
mod client;
mod epochs;
mod limits;
mod simulated_cluster;
