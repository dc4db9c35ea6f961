//! Scenarios over whole nodes.

mod arrows;
mod simulated_cluster;
