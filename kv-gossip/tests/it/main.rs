//! Whole clusters of members in a small simulated world: one seed, one virtual clock, no threads.

mod by_hand;
mod detection;
mod figures;
mod flapping;
mod format;
mod joining;
mod merging;
mod observers;
mod partitions;
mod refutation;
mod removal;
mod topology;
mod world;
