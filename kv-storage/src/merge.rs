//! Merges memtables and runs into one ordered stream of versions.

use crate::error::Error;
use crate::key::{KeyVersion, Kind, Seq};
use crate::memtable::{MemCursor, Memtable};
use crate::table::{Fetch, Table, TableCursor};
use crate::version::{Placed, Run};
use bytes::Bytes;
use std::ops::Bound;
use std::sync::Arc;

/// Which way a stream goes. Backwards, a key's oldest version comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

/// Where a stream begins: at the first version on the far side of this one, seen in the stream's direction.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a> {
    /// At the outermost entry.
    Edge,
    /// Forward: at or after it. Backward: before it.
    At(KeyVersion<'a>),
}

/// One ordered input.
#[derive(Debug)]
enum Source {
    Mem(MemCursor),
    Run(RunCursor),
}

impl Source {
    fn version(&self) -> Option<KeyVersion<'_>> {
        match self {
            Self::Mem(cursor) => cursor.entry().map(|entry| entry.version()),
            Self::Run(cursor) => cursor.table.as_ref().and_then(TableCursor::version),
        }
    }

    fn advance(&mut self) -> Result<(), Error> {
        match self {
            Self::Mem(cursor) => {
                cursor.advance();
                Ok(())
            }
            Self::Run(cursor) => cursor.advance(),
        }
    }
}

/// All inputs; stands at the next version of all, or at none.
#[derive(Debug)]
pub(crate) struct Merge {
    sources: Vec<Source>,
    direction: Direction,
    current: Option<usize>,
}

impl Merge {
    pub(crate) fn new(direction: Direction) -> Self {
        Self {
            sources: Vec::new(),
            direction,
            current: None,
        }
    }

    pub(crate) fn add_memtable(&mut self, table: &Arc<Memtable>, start: Start<'_>) {
        let forward = self.direction == Direction::Forward;
        let from = match (start, self.direction) {
            (Start::Edge, _) => Bound::Unbounded,
            (Start::At(version), Direction::Forward) => Bound::Included(version),
            (Start::At(version), Direction::Backward) => Bound::Excluded(version),
        };
        self.sources
            .extend(table.cursors(from, forward).map(Source::Mem));
    }

    pub(crate) fn add_run(
        &mut self,
        run: &Run<Arc<Table>>,
        start: Start<'_>,
        fetch: Fetch,
    ) -> Result<(), Error> {
        self.sources.push(Source::Run(RunCursor::new(
            run.tables.clone(),
            self.direction,
            start,
            fetch,
        )?));
        Ok(())
    }

    /// Finds the first version. Call once, after all inputs were added.
    pub(crate) fn begin(&mut self) {
        self.select();
    }

    pub(crate) fn version(&self) -> Option<KeyVersion<'_>> {
        self.sources.get(self.current?)?.version()
    }

    /// Kind and value of the present version.
    pub(crate) fn content(&self) -> Option<(Kind, &[u8])> {
        match self.sources.get(self.current?)? {
            Source::Mem(cursor) => cursor.entry().map(|entry| (entry.kind, entry.value)),
            Source::Run(cursor) => cursor.table.as_ref()?.content(),
        }
    }

    /// The present value, for keeping.
    pub(crate) fn value_bytes(&self) -> Bytes {
        match self.current.and_then(|current| self.sources.get(current)) {
            Some(Source::Mem(cursor)) => cursor
                .entry()
                .map(|entry| Bytes::copy_from_slice(entry.value))
                .unwrap_or_default(),
            Some(Source::Run(cursor)) => cursor
                .table
                .as_ref()
                .map(TableCursor::value_bytes)
                .unwrap_or_default(),
            None => Bytes::new(),
        }
    }

    pub(crate) fn advance(&mut self) -> Result<(), Error> {
        if let Some(current) = self.current {
            self.sources[current].advance()?;
            self.select();
        }
        Ok(())
    }

    /// With a handful of inputs, comparing all of them is as fast as a heap.
    fn select(&mut self) {
        let mut best: Option<(usize, KeyVersion<'_>)> = None;
        for (index, source) in self.sources.iter().enumerate() {
            let Some(version) = source.version() else {
                continue;
            };
            let better = best.is_none_or(|(_, leader)| match self.direction {
                Direction::Forward => version < leader,
                Direction::Backward => version > leader,
            });
            if better {
                best = Some((index, version));
            }
        }
        self.current = best.map(|(index, _)| index);
    }
}

/// Walks the tables of a run, opening a cursor on one at a time.
#[derive(Debug)]
struct RunCursor {
    tables: Vec<Arc<Placed<Arc<Table>>>>,
    number: usize,
    direction: Direction,
    fetch: Fetch,
    table: Option<TableCursor>,
}

impl RunCursor {
    fn new(
        tables: Vec<Arc<Placed<Arc<Table>>>>,
        direction: Direction,
        start: Start<'_>,
        fetch: Fetch,
    ) -> Result<Self, Error> {
        let number = match (start, direction) {
            (Start::Edge, Direction::Forward) => 0,
            (Start::Edge, Direction::Backward) => tables.len().wrapping_sub(1),
            (Start::At(version), Direction::Forward) => {
                tables.partition_point(|table| *table.summary.largest < *version.key)
            }
            (Start::At(version), Direction::Backward) => tables
                .partition_point(|table| *table.summary.smallest <= *version.key)
                .wrapping_sub(1),
        };
        let mut cursor = Self {
            tables,
            number,
            direction,
            fetch,
            table: None,
        };
        cursor.enter(start)?;
        Ok(cursor)
    }

    fn advance(&mut self) -> Result<(), Error> {
        if let Some(table) = &mut self.table {
            match self.direction {
                Direction::Forward => table.next()?,
                Direction::Backward => table.previous()?,
            }
            if table.version().is_none() {
                self.leave();
                self.enter(Start::Edge)?;
            }
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.number = match self.direction {
            Direction::Forward => self.number + 1,
            Direction::Backward => self.number.wrapping_sub(1),
        };
    }

    /// Positions in the present table, or in the first further one that has an entry.
    fn enter(&mut self, start: Start<'_>) -> Result<(), Error> {
        let mut start = start;
        self.table = None;
        while let Some(placed) = self.tables.get(self.number) {
            let mut table = TableCursor::new(Arc::clone(&placed.reader), self.fetch);
            match (start, self.direction) {
                (Start::Edge, Direction::Forward) => table.seek_first()?,
                (Start::Edge, Direction::Backward) => table.seek_last()?,
                (Start::At(version), Direction::Forward) => table.seek(version)?,
                (Start::At(version), Direction::Backward) => table.seek_before(version)?,
            }
            if table.version().is_some() {
                self.table = Some(table);
                return Ok(());
            }
            self.leave();
            start = Start::Edge;
        }
        Ok(())
    }
}

/// One live key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveEntry {
    pub key: Bytes,
    pub value: Bytes,
    pub seq: Seq,
}

/// The keys that live at a point in the store's history, in order.
#[derive(Debug)]
pub(crate) struct LiveCursor {
    merge: Merge,
    at: Seq,
    /// Forward: the key whose newest visible version was already seen.
    passed: Option<Vec<u8>>,
}

impl LiveCursor {
    /// Takes a merge that was begun.
    pub(crate) fn new(merge: Merge, at: Seq) -> Self {
        Self {
            merge,
            at,
            passed: None,
        }
    }

    pub(crate) fn next(&mut self) -> Result<Option<LiveEntry>, Error> {
        match self.merge.direction {
            Direction::Forward => self.next_forward(),
            Direction::Backward => self.next_backward(),
        }
    }

    /// The first visible version met of each key is its newest; the others are skipped.
    fn next_forward(&mut self) -> Result<Option<LiveEntry>, Error> {
        while let Some(version) = self.merge.version() {
            if version.seq > self.at || self.passed.as_deref() == Some(version.key) {
                self.merge.advance()?;
                continue;
            }
            let passed = self.passed.get_or_insert_default();
            passed.clear();
            passed.extend_from_slice(version.key);
            let live = self.present();
            self.merge.advance()?;
            if live.is_some() {
                return Ok(live);
            }
        }
        Ok(None)
    }

    /// A key's versions come oldest first: the last visible one before the key changes counts.
    fn next_backward(&mut self) -> Result<Option<LiveEntry>, Error> {
        while let Some(version) = self.merge.version() {
            let key = version.key.to_vec();
            let mut newest = None;
            while let Some(version) = self.merge.version().filter(|version| version.key == key) {
                if version.seq <= self.at {
                    newest = self.present();
                }
                self.merge.advance()?;
            }
            if newest.is_some() {
                return Ok(newest);
            }
        }
        Ok(None)
    }

    /// The present version if it is a put.
    fn present(&self) -> Option<LiveEntry> {
        let version = self.merge.version()?;
        let (kind, _) = self.merge.content()?;
        (kind == Kind::Put).then(|| LiveEntry {
            key: Bytes::copy_from_slice(version.key),
            value: self.merge.value_bytes(),
            seq: version.seq,
        })
    }
}
