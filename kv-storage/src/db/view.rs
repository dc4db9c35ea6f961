//! What a reader looks at: one immutable list of memtables and tables.

use super::front::Front;
use super::layer::Layer;
use super::{Found, Source};
use crate::error::Error;
use crate::key::{KeyVersion, Kind, Seq};
use crate::memtable::Memtable;
use crate::merge::{Direction, Merge, Start};
use crate::table::{Fetch, Looked, Table};
use crate::version::{Run, Version};
use bytes::Bytes;
use std::ops::Bound;
use std::sync::Arc;

/// Swapped as a whole whenever a memtable is sealed, tables are ingested, or the version changes. The active memtable
/// still grows, but only with numbers above those that a reader looks at.
#[derive(Debug)]
pub(super) struct View {
    pub active: Arc<Memtable>,
    /// Newest first.
    pub sealed: Vec<Layer>,
    pub version: Arc<Version>,
}

/// The outcome of a point read.
#[derive(Debug)]
pub(super) enum Answer {
    /// A memtable has the newest version, or a table that was just ingested.
    Memtable(Option<Found>),
    /// A table has it, or nothing does.
    Table(Option<Found>),
    /// What is at this place may have it, and must be read; all before it have not.
    NeedsIo(Place),
}

impl Answer {
    /// The outcome of a lookup that was allowed to read.
    pub(super) fn complete(self) -> Option<Found> {
        match self {
            Self::Memtable(found) | Self::Table(found) => found,
            Self::NeedsIo(_) => unreachable!("a blocking lookup reads what it needs"),
        }
    }
}

/// Where a lookup stands, counted from the newest: the active memtable is 0, then what is sealed, then the runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

impl View {
    /// What the front holds, over a version.
    pub(super) fn of(front: &Front, version: Arc<Version>) -> Self {
        let sealed = front.sealed.iter().rev();
        Self {
            active: Arc::clone(&front.active),
            sealed: sealed.map(|sealed| sealed.layer.clone()).collect(),
            version,
        }
    }

    /// The value of `key` at number `at`: memtables and what was ingested from new to old, then tables from new to
    /// old. The first version found counts.
    pub(super) fn get(
        &self,
        key: &[u8],
        hash: u64,
        at: Seq,
        fetch: Fetch,
    ) -> Result<Answer, Error> {
        match get_from_memtable(&self.active, key, hash, at) {
            Some(answer) => Ok(answer),
            None => self.get_from(key, hash, at, fetch, Place(1)),
        }
    }

    /// Goes on with a lookup at the place where it stopped.
    pub(super) fn get_from(
        &self,
        key: &[u8],
        hash: u64,
        at: Seq,
        fetch: Fetch,
        place: Place,
    ) -> Result<Answer, Error> {
        for (number, layer) in (1..).zip(&self.sealed).skip(place.0 - 1) {
            let answer = match layer {
                Layer::Memtable(table) => get_from_memtable(table, key, hash, at),
                Layer::Tables(run) => match look_up(run, key, hash, at, fetch)? {
                    Looked::Found {
                        seq, kind, value, ..
                    } => Some(Answer::Memtable(found(kind, seq, value, Source::Memtable))),
                    Looked::Absent => None,
                    Looked::NeedsIo => return Ok(Answer::NeedsIo(Place(number))),
                },
            };
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
        let first = 1 + self.sealed.len();
        let runs = || self.version.runs();
        if place.0 <= first && runs().nth(1).is_some() {
            // All filters come from memory at the same time, instead of one after the other.
            for table in runs().filter_map(|run| run.table_for(key)) {
                table.reader.prefetch(hash);
            }
        }
        for (number, run) in (first..).zip(runs()).skip(place.0.saturating_sub(first)) {
            match look_up(run, key, hash, at, fetch)? {
                Looked::Found { seq, kind, value } => {
                    return Ok(Answer::Table(found(kind, seq, value, Source::BlockCache)));
                }
                Looked::Absent => {}
                Looked::NeedsIo => return Ok(Answer::NeedsIo(Place(number))),
            }
        }
        Ok(Answer::Table(None))
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
        merge.add_memtable(&self.active, start);
        for layer in &self.sealed {
            match layer {
                Layer::Memtable(table) => merge.add_memtable(table, start),
                Layer::Tables(run) => merge.add_ingested(run, start, end, fetch)?,
            }
        }
        merge.add_version(&self.version, start, end, fetch)?;
        merge.stop_at_damage();
        Ok(merge)
    }
}

/// The answer of a memtable, if it has one.
fn get_from_memtable(table: &Memtable, key: &[u8], hash: u64, at: Seq) -> Option<Answer> {
    // An empty memtable is not worth the cache line of its index.
    if table.is_empty() {
        return None;
    }
    let deleted = table.deleted_at(key, at);
    let entry = table.get(key, hash, at);
    if let Some(entry) = entry.filter(|entry| deleted.is_none_or(|it| it < entry.seq)) {
        let value = Bytes::copy_from_slice(entry.value);
        let found = found(entry.kind, entry.seq, value, Source::Memtable);
        return Some(Answer::Memtable(found));
    }
    // All that is older than this memtable is older than its deletes.
    deleted.map(|_| Answer::Memtable(None))
}

fn look_up(
    run: &Run<Arc<Table>>,
    key: &[u8],
    hash: u64,
    at: Seq,
    fetch: Fetch,
) -> Result<Looked, Error> {
    let Some(table) = run.table_for(key) else {
        return Ok(Looked::Absent);
    };
    let looked = table.reader.get(key, hash, at, fetch)?;
    if matches!(looked, Looked::Absent) {
        table.reads.note_miss(hash);
    }
    Ok(looked)
}

fn found(kind: Kind, seq: Seq, value: Bytes, source: Source) -> Option<Found> {
    match kind {
        Kind::Put => Some(Found { value, seq, source }),
        // Lookups in tables read what lies in blob files, and memtables do not point there.
        Kind::Blob => unreachable!("a lookup gives values, not pointers"),
        Kind::Delete => None,
    }
}
