//! Sorted table files (SSTables); bytes in `docs/formats/sstable.md`.
//!
//! Invariants:
//! 1. A table is written once, synced, and then only read until it is removed.
//! 2. Entries are in [`KeyVersion`](crate::key::KeyVersion) order: by key, then newest first. All
//!    versions of a key lie in one table of a run.
//! 3. Every byte is checked before it is used: blocks by the checksum in their handle, handles by
//!    the checksum of the block they lie in, the root handles by the footer's own.

mod block;
mod builder;
mod cursor;
mod filter;
mod format;
mod index;
mod reader;

pub(crate) use block::Block;
pub(crate) use builder::{TableBuilder, TableSummary};
pub(crate) use cursor::TableCursor;
pub(crate) use reader::{Fetch, Looked, Table, TableFiles};

#[cfg(test)]
mod tests;
