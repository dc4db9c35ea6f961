//! Scenarios over whole nodes.

mod anti_entropy;
mod arrows;
mod blind;
mod buckets;
mod client;
mod clocks;
mod damage;
mod durability;
mod epochs;
mod explain;
mod fates;
mod hedges;
mod limits;
mod lost_disks;
mod members;
mod metadata;
mod presets;
mod read_stages;
mod sessions;
mod simulated_cluster;
mod sloppy;
mod tombstones;
