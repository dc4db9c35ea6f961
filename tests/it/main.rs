//! Scenarios over whole nodes.

mod arrows;
mod client;
mod epochs;
mod simulated_cluster;
