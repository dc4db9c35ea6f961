//! Compaction: rewrites tables so that reads meet few of them and dropped versions free their
//! space.
//!
//! [`Roster`] knows what is under way and picks the next compaction, [`Rewrite`] does the work in steps,
//! [`Retention`] says which versions live on. Installing the result is the business of `db`.
//!
//! # Lazy leveling of fragments
//! Level 0 gets one run per flush. The middle has a few runs, which only grow in number until their
//! bytes could replace too much of the bottom, which is one run (Dayan and Idreos, "Dostoevsky", 2018).
//! Runs consist of tables of 32 to 64 MiB that compactions take and free one by one (ScyllaDB's
//! "incremental compaction strategy"), so neither their pauses nor their space grow with the store.
//!
//! What it costs, by the simulation in `model/amplification.rs` (`cargo test -p kv-storage
//! amplification -- --nocapture`). Sizes are in memtables; *written* is table bytes for a user byte,
//! without the log and before compression; *space* is bytes for a live byte.
//!
//! | fill | written, leveled with growth 10 | written | space on average, at most, at rest | runs on average, at most |
//! |---|--:|--:|--:|--:|
//! | 6, overwritten 5 times | 2.48 | 2.08 | 1.30, 2.78, 1.15 | 3.0, 6 |
//! | 20, overwritten 10 times | 5.27 | 3.42 | 1.21, 1.87, 1.00 | 3.5, 7 |
//! | 100, overwritten 4 times | 9.37 | 4.44 | 1.27, 1.44, 1.26 | 7.2, 12 |
//! | 400, overwritten 2.5 times | 14.25 | 5.63 | 1.27, 1.33, 1.28 | 7.8, 12 |
//! | 100, zipfian, overwritten 4 times | 6.85 | 2.75 | 1.25, 1.44, 1.26 | 7.2, 12 |
//! | 100, two writes of five delete | 8.66 | 5.16 | 1.20, 2.11, 1.14 | 7.2, 12 |
//! | 60 inserted at random | 6.77 | 3.90 | 1.00, 1.08, 1.00 | 3.5, 8 |
//! | 400 inserted at random | 11.78 | 5.19 | 1.00, 1.03, 1.00 | 6.8, 12 |
//! | 400 inserted in order | 2.00 | 1.00 | 1.00, 1.00, 1.00 | 3.0, 6 |
//!
//! Left alone after that, each becomes one run with space 1.00 for at most 1.00 more written.

mod below;
mod choice;
mod cut;
mod filtering;
#[cfg(test)]
mod model;
mod pick;
mod release;
mod retain;
mod rewrite;
mod roster;
mod stack;

pub(crate) use below::Below;
pub(crate) use choice::{Choice, Place, Reason};
pub(crate) use cut::{Boundary, Cuts};
pub(crate) use release::{RELEASE_TABLES, released};
pub(crate) use retain::Retention;
pub(crate) use rewrite::{Rewrite, Step, TableSink};
pub(crate) use roster::Roster;
