//! Whole clients over a simulated network, in one thread and virtual time; and over the real one.

mod cluster;
mod requests;
mod scans;
mod topology;
mod troubles;
mod typed;
mod wire;
mod world;
