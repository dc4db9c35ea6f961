//! Compaction: rewrites tables so that reads meet few of them and dropped versions free their
//! space.
//!
//! [`Roster`] knows what is under way and picks the next compaction, [`Rewrite`] does the work in steps,
//! [`Retention`] says which versions live on. Installing the result is the business of `db`.
//!
//! # Lazy leveling of fragments
//! Level 0 gets one run per flush. The middle has a few runs, which only grow in number until their
//! bytes could replace too much of the bottom, which is one run (Dayan and Idreos, "Dostoevsky", 2018).
//! Runs consist of tables of 24 to 64 MiB that compactions take and free one by one (ScyllaDB's
//! "incremental compaction strategy"), so neither their pauses nor their space grow with the store.
//!
//! What it costs, by the simulation in `model/amplification.rs` (`cargo test -p kv-storage
//! amplification -- --nocapture`). Sizes are in memtables; *written* is table bytes for a user byte,
//! without the log and before compression; *space* is bytes for a live byte.
//!
//! | fill | written, leveled with growth 10 | written | space on average, at most, at rest | runs on average, at most |
//! |---|--:|--:|--:|--:|
//! | 6, overwritten 5 times | 2.48 | 2.08 | 1.30, 2.45, 1.15 | 3.0, 6 |
//! | 20, overwritten 10 times | 5.27 | 3.42 | 1.21, 1.67, 1.00 | 3.5, 7 |
//! | 100, overwritten 4 times | 9.37 | 4.44 | 1.28, 1.45, 1.26 | 7.1, 12 |
//! | 400, overwritten 2.5 times | 14.25 | 5.64 | 1.28, 1.36, 1.30 | 7.8, 12 |
//! | 100, zipfian, overwritten 4 times | 6.85 | 2.82 | 1.26, 1.50, 1.30 | 7.6, 12 |
//! | 100, two writes of five delete | 8.66 | 5.32 | 1.21, 2.13, 1.18 | 7.3, 12 |
//! | 60 inserted at random | 6.77 | 3.90 | 1.00, 1.30, 1.00 | 3.5, 8 |
//! | 400 inserted at random | 11.78 | 5.19 | 1.00, 1.01, 1.00 | 6.7, 12 |
//! | 400 inserted in order | 2.00 | 1.00 | 1.00, 1.00, 1.00 | 3.0, 6 |
//!
//! Left alone after that, each becomes one run with space 1.00 for at most 1.00 more written.

mod below;
mod choice;
mod covered;
mod cut;
mod debt;
mod filtering;
#[cfg(test)]
mod model;
mod pick;
mod release;
mod retain;
mod rewrite;
mod roster;
mod separation;
mod stack;

pub(crate) use below::Below;
pub(crate) use choice::{Choice, Place, Reason};
pub(crate) use covered::covered;
pub(crate) use cut::{Boundary, Cuts};
pub(crate) use debt::Debt;
pub(crate) use release::{RELEASE_TABLES, released};
pub(crate) use retain::Retention;
pub(crate) use rewrite::{Finished, Rewrite, Step, TableSink};
pub(crate) use roster::Roster;
pub(crate) use separation::Separation;
