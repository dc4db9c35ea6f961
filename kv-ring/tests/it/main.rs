//! Tests of the crate from outside, in one binary.

mod assigner;
mod consensus;
mod growth;
mod handover;
mod oracle;
mod world;
