//! Scenarios over whole nodes.

mod arrows;
mod chaos;
mod client;
mod epochs;
mod limits;
mod simulated_cluster;
