//! Scenarios over real processes, real QUIC and real disks.

mod bad_starts;
mod buckets;
mod cluster_commands;
mod failover;
mod full_disk;
mod members;
mod networks;
mod planted;
mod recovery;
mod sessions;
mod shell;
