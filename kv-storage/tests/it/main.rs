//! Tests of the whole engine through its public face.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that calls them"
)]

mod basics;
mod blobs;
mod checkpoint;
mod compaction;
mod corruption;
mod crash;
mod cuts;
mod determinism;
mod drops;
mod faults;
mod fences;
mod full_disk;
mod hooks;
mod ingest;
mod intervals;
mod lives;
mod meddling;
mod model;
mod observer;
mod pages;
mod ranges;
mod reads;
mod recovers;
mod scrub;
mod stage;
mod strays;
mod support;
mod syncs;
mod threads;
mod tools;
mod versions;
