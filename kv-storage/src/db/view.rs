//! What a reader looks at: one immutable list of memtables and tables.

use super::Found;
use crate::error::Error;
use crate::key::{KeyVersion, Kind, Seq};
use crate::memtable::Memtable;
use crate::merge::{Direction, Merge, Start};
use crate::table::{Fetch, Looked};
use crate::version::Version;
use bytes::Bytes;
use std::ops::Bound;
use std::sync::Arc;

/// Swapped as a whole whenever a memtable is sealed or the version changes. The active memtable
/// still grows, but only with numbers above those that a reader looks at.
#[derive(Debug)]
pub(super) struct View {
    pub active: Arc<Memtable>,
    /// Newest first.
    pub sealed: Vec<Arc<Memtable>>,
    pub version: Arc<Version>,
}

/// The outcome of a point read.
#[derive(Debug)]
pub(super) enum Answer {
    /// A memtable has the newest version.
    Memtable(Option<Found>),
    /// A table has it, or nothing does.
    Table {
        found: Option<Found>,
        /// The block with it was not in memory.
        was_read: bool,
    },
    /// The run of this place may have it, and must be read; all before it have not.
    NeedsIo(RunPlace),
}

impl Answer {
    /// The outcome of a lookup that was allowed to read.
    pub(super) fn complete(self) -> Option<Found> {
        match self {
            Self::Memtable(found) | Self::Table { found, .. } => found,
            Self::NeedsIo(_) => unreachable!("a blocking lookup reads what it needs"),
        }
    }
}

/// Where a lookup stands among the runs, counted from the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunPlace(usize);

impl View {
    /// The value of `key` at number `at`: memtables from new to old, then tables from new to old.
    /// The first version found counts.
    pub(super) fn get(
        &self,
        key: &[u8],
        hash: u64,
        at: Seq,
        fetch: Fetch,
    ) -> Result<Answer, Error> {
        // An empty memtable is not worth the cache line of its index.
        let memtables = std::iter::once(&self.active).chain(&self.sealed);
        for table in memtables.filter(|table| !table.is_empty()) {
            let deleted = table.deleted_at(key, at);
            let entry = table.get(key, hash, at);
            if let Some(entry) = entry.filter(|entry| deleted.is_none_or(|it| it < entry.seq)) {
                let value = Bytes::copy_from_slice(entry.value);
                return Ok(Answer::Memtable(found(entry.kind, entry.seq, value)));
            }
            if deleted.is_some() {
                // All that is older than this memtable is older than its deletes.
                return Ok(Answer::Memtable(None));
            }
        }
        self.get_from_runs(key, hash, at, fetch, RunPlace(0))
    }

    /// Goes on with a lookup at the run where it stopped.
    pub(super) fn get_from_runs(
        &self,
        key: &[u8],
        hash: u64,
        at: Seq,
        fetch: Fetch,
        place: RunPlace,
    ) -> Result<Answer, Error> {
        let runs = self.version.levels.iter().flat_map(|level| &level.runs);
        for (number, run) in runs.enumerate().skip(place.0) {
            let Some(table) = run.table_for(key) else {
                continue;
            };
            match table.reader.get(key, hash, at, fetch)? {
                Looked::Found {
                    seq,
                    kind,
                    value,
                    was_read,
                } => {
                    let found = found(kind, seq, value);
                    return Ok(Answer::Table { found, was_read });
                }
                Looked::Absent => table.reads.note_miss(hash),
                Looked::NeedsIo => return Ok(Answer::NeedsIo(RunPlace(number))),
            }
        }
        Ok(Answer::Table {
            found: None,
            was_read: false,
        })
    }

    /// All versions from a position on, in one direction; `end` spares tables beyond it.
    pub(super) fn merge(
        &self,
        direction: Direction,
        start: Option<KeyVersion<'_>>,
        end: Bound<&[u8]>,
        fetch: Fetch,
    ) -> Result<Merge, Error> {
        if let Some(start) = start {
            self.version.note_scan(start.key);
        }
        let start = start.map_or(Start::Edge, Start::At);
        let mut merge = Merge::up_to_damage(direction, end);
        for table in std::iter::once(&self.active).chain(&self.sealed) {
            merge.add_memtable(table, start);
        }
        merge.add_version(&self.version, start, end, fetch)?;
        merge.stop_at_damage();
        Ok(merge)
    }
}

fn found(kind: Kind, seq: Seq, value: Bytes) -> Option<Found> {
    match kind {
        Kind::Put => Some(Found { value, seq }),
        // Lookups in tables read what lies in blob files, and memtables do not point there.
        Kind::Blob => unreachable!("a lookup gives values, not pointers"),
        Kind::Delete => None,
    }
}
