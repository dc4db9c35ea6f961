//! Sorted table files (SSTables); bytes in `docs/formats/sstable.md`.
//!
//! Invariants:
//! 1. A table is written once, synced, and then only read until it is removed.
//! 2. Entries are in [`KeyVersion`](crate::key::KeyVersion) order: by key, then newest first. All
//!    versions of a key lie in one table of a run.
//! 3. Every byte is checked before it is used: blocks by the checksum in their handle, handles by
//!    the checksum of the block they lie in, the root handles by the footer's own.
//! 4. The rows of an ingested table are stored with number 0. Whoever opens it says which number they have, and no
//!    reader meets another (`Block::decode`).
//! 5. A value of kind blob is a [`Pointer`](crate::blob::Pointer). Point lookups resolve it, cursors give it as
//!    it is; [`Table::value`] reads the value.
//! 6. Only version 2 is written; version 1 is translated when it is read.

mod block;
mod block_builder;
mod block_cursor;
mod block_writer;
mod builder;
mod cursor;
mod files;
mod filter;
mod format;
mod index;
mod index_format;
mod properties;
mod read_ahead;
mod reader;
mod spec;
mod v1;

pub(crate) use block::{Block, SharedBlock};
pub(crate) use builder::{TableBuilder, TableSummary};
pub(crate) use cursor::TableCursor;
pub(crate) use files::TableFiles;
pub(crate) use reader::{
    Damaged, Fetch, LOST_NUMBER, Looked, StoredVersion, Table, store_of, summary_of,
};
pub(crate) use spec::TableSpec;

#[cfg(test)]
mod tests;
