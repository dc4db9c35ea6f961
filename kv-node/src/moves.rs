//! Partitions on their way from owner to owner: what this node gains, and what it gives away.
//!
//! Nobody directs it. The topology says where every partition is going; each node sees to what it gains and loses itself, and has
//! the voters decide step by step ([`kv_ring::topology`]):
//!
//! * what it is to **gain** ([`gains`]): it begins the change, pulls what was written before from as many of the old owners as
//!   are needed, and ends the change when all of that is on its disk;
//! * what it has **lost** ([`losses`]): it brings what only it has to the owners, says so, and deletes its copies.
//!
//! Invariants:
//! 1. What a node holds of a partition from before it gains it, an aborted attempt say, is deleted, and the partition is on
//!    record as incomplete, before the epoch in which it gains it is in force here.
//! 2. A node ends a change only when enough old owners, each of which knew of it, were compared with in this very attempt.
//! 3. Copies are deleted only when the topology says that they are no owner's and that they drain no more.

pub mod gains;
pub mod losses;

pub use gains::{Gains, Heir};
pub use losses::Losses;
