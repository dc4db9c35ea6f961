//! Whole clients over a simulated network, in one thread and virtual time.

mod cluster;
mod requests;
mod scans;
mod topology;
mod troubles;
mod typed;
mod world;
