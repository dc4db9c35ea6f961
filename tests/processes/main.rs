//! Scenarios over real processes, real QUIC and real disks.

mod bad_starts;
mod buckets;
mod failover;
mod full_disk;
mod networks;
mod planted;
