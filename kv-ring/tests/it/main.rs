//! Tests of the crate from outside, in one binary.

mod assigner;
mod growth;
mod membership;
mod oracle;
mod world;
