//! Compaction: rewrites tables so that reads meet few of them and dropped versions free their
//! space.
//!
//! [`pick`] decides, [`Rewrite`] does the work in steps, [`Retention`] says which versions live on.
//! Installing the result is the business of `db`.

mod pick;
mod retain;
mod rewrite;

pub(crate) use pick::{Choice, pick};
pub(crate) use retain::Retention;
pub(crate) use rewrite::{Rewrite, Step, TableSink};
