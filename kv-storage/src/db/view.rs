//! What a reader looks at: one immutable list of memtables and tables.

use super::Found;
use crate::error::Error;
use crate::hash::key_hash;
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
    Value(Option<Found>),
    NeedsIo,
}

impl View {
    /// The value of `key` at number `at`: memtables from new to old, then tables from new to old.
    /// The first version found counts.
    pub(super) fn get(&self, key: &[u8], at: Seq, fetch: Fetch) -> Result<Answer, Error> {
        let hash = key_hash(key);
        for table in std::iter::once(&self.active).chain(&self.sealed) {
            if let Some(entry) = table.get(key, hash, at) {
                let value = Bytes::copy_from_slice(entry.value);
                return Ok(answer(entry.kind, entry.seq, value));
            }
        }
        for run in self.version.levels.iter().flat_map(|level| &level.runs) {
            let Some(table) = run.table_for(key) else {
                continue;
            };
            match table.reader.get(key, hash, at, fetch)? {
                Looked::Found { seq, kind, value } => return Ok(answer(kind, seq, value)),
                Looked::Absent => table.reads.note_miss(hash),
                Looked::NeedsIo => return Ok(Answer::NeedsIo),
            }
        }
        Ok(Answer::Value(None))
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
        let mut merge = Merge::new(direction);
        for table in std::iter::once(&self.active).chain(&self.sealed) {
            merge.add_memtable(table, start);
        }
        merge.add_version(&self.version, start, end, fetch)?;
        Ok(merge)
    }
}

fn answer(kind: Kind, seq: Seq, value: Bytes) -> Answer {
    Answer::Value(match kind {
        Kind::Put => Some(Found { value, seq }),
        Kind::Delete => None,
    })
}
