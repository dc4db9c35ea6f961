//! Large values in files of their own; bytes in `docs/formats/blob.md`.
//!
//! A flush puts each value of at least [`Options::blob_value_bytes`](crate::Options::blob_value_bytes) into a
//! blob file, and a [`Pointer`] in its place into the table. Compaction copies pointers, so a large value is
//! written once and not at every level (Lu et al., "WiscKey", 2016). Values whose blob file has become garbage
//! for a large part are *relocated* by the compactions that meet their pointers.
//!
//! Invariants:
//! 1. A blob file is written once, synced, and then only read until it is removed. The manifest edit that adds
//!    the first table with pointers into it also adds the file, and follows the sync. Later tables get their
//!    pointers from tables that are in the version until these later ones replace them.
//! 2. What is live is never counted up and down on its own: every table records in the manifest how many
//!    values and bytes of each blob file it points to ([`References`]), and a version sums that up. Garbage is
//!    the rest. So an edit that replaces tables changes the sums with them, whether a compaction installs its
//!    outputs at once or bit by bit, fails, or is cut off by a crash.
//! 3. While a compaction under way has some inputs and some outputs in the version, a pointer may be there
//!    twice. That only makes garbage look smaller.
//! 4. A blob file is in a version if and only if a table of it points into the file. Open tables hold their
//!    open blob files, so the file stays on disk until the last reader of the last such table is gone.
//! 5. A blob file gets its first pointers from exactly one table: it ends with that table at the latest. So no
//!    output of a compaction points into a file of another output that may already be gone.
//! 6. Bytes of a value are checked by the checksum in its pointer; damage touches that one key. Compaction
//!    leaves the pointer to a damaged value as it is, and collects nothing from that file any more.

mod builder;
mod format;
mod open;
mod pointer;
mod reader;
mod references;
mod walk;

pub(crate) use builder::{BlobBuilder, BlobSpec, BlobSummary};
pub(crate) use format::store_of;
pub(crate) use open::OpenBlobs;
pub(crate) use pointer::Pointer;
pub(crate) use reader::{Blob, StoredValue, Stretch};
pub(crate) use references::References;
pub(crate) use walk::{Record, Walk};

#[cfg(test)]
mod tests;
