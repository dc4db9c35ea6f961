//! Walks the tables of a run.

use super::{Direction, Start};
use crate::error::Error;
use crate::key::{KeyVersion, Kind};
use crate::table::{Fetch, Table, TableCursor};
use crate::version::{Placed, Run, Version};
use bytes::Bytes;
use std::ops::Bound;
use std::sync::Arc;

/// Sorted tables that do not overlap.
#[derive(Debug)]
pub(super) enum Tables {
    /// All of a run, shared with the version.
    Run {
        version: Arc<Version>,
        level: usize,
        run: usize,
    },
    /// Those of an ingest.
    Ingested(Arc<Run<Arc<Table>>>),
    /// Some of a run.
    Chosen(Vec<Arc<Placed<Arc<Table>>>>),
}

impl Tables {
    pub(super) fn all(&self) -> &[Arc<Placed<Arc<Table>>>] {
        match self {
            Self::Run {
                version,
                level,
                run,
            } => &version.levels[*level].runs[*run].tables,
            Self::Ingested(run) => &run.tables,
            Self::Chosen(tables) => tables,
        }
    }

    /// Number of the first table that a cursor from `start` on comes to.
    fn first(&self, start: Start<'_>, direction: Direction) -> usize {
        let all = self.all();
        match (start, direction) {
            (Start::Edge, Direction::Forward) => 0,
            (Start::Edge, Direction::Backward) => all.len().wrapping_sub(1),
            // A table that only has the excluded key at its end is not touched: it may be damaged.
            (Start::At(version), Direction::Forward) => all
                .partition_point(|table| KeyVersion::after_all(&table.summary.largest) <= version),
            (Start::At(version), Direction::Backward) => all
                .partition_point(|table| KeyVersion::before_all(&table.summary.smallest) < version)
                .wrapping_sub(1),
        }
    }
}

/// A position in a run: at an entry, or at none. One table at a time is open.
#[derive(Debug)]
pub(super) struct RunCursor {
    tables: Tables,
    /// Number of the present table.
    number: usize,
    direction: Direction,
    /// Tables on the far side of it are not entered.
    end: Bound<Vec<u8>>,
    fetch: Fetch,
    table: Option<TableCursor>,
}

impl RunCursor {
    /// A cursor at the first entry, or nothing if there is none.
    pub(super) fn new(
        tables: Tables,
        direction: Direction,
        start: Start<'_>,
        end: Bound<&[u8]>,
        fetch: Fetch,
    ) -> Result<Option<Self>, Error> {
        let mut cursor = Self {
            number: tables.first(start, direction),
            tables,
            direction,
            end: end.map(<[u8]>::to_vec),
            fetch,
            table: None,
        };
        cursor.enter(start)?;
        Ok(cursor.table.is_some().then_some(cursor))
    }

    /// Moves on to the first entry on the far side of `version`, seen in the cursor's direction, or to none.
    pub(super) fn seek(&mut self, version: KeyVersion<'_>) -> Result<(), Error> {
        let start = Start::At(version);
        self.number = self.tables.first(start, self.direction);
        self.enter(start)
    }

    /// Moves to no entry.
    pub(super) fn end(&mut self) {
        self.table = None;
    }

    #[inline]
    pub(super) fn version(&self) -> Option<KeyVersion<'_>> {
        self.table.as_ref().and_then(TableCursor::version)
    }

    pub(super) fn content(&self) -> Option<(Kind, &[u8])> {
        self.table.as_ref().and_then(TableCursor::content)
    }

    pub(super) fn value_bytes(&self) -> Bytes {
        self.table
            .as_ref()
            .map(TableCursor::value_bytes)
            .unwrap_or_default()
    }

    pub(super) fn advance(&mut self) -> Result<(), Error> {
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
        let mut before = self.table.take();
        while let Some(placed) = self.tables.all().get(self.number)
            && !self.is_past_end(placed)
        {
            let reader = Arc::clone(&placed.reader);
            let mut table = match before.take() {
                Some(cursor) => cursor.into_table(reader),
                None => TableCursor::new(reader, self.fetch),
            };
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
            before = Some(table);
            self.leave();
            start = Start::Edge;
        }
        Ok(())
    }

    fn is_past_end(&self, table: &Placed<Arc<Table>>) -> bool {
        let (smallest, largest) = (&table.summary.smallest, &table.summary.largest);
        match (&self.end, self.direction) {
            (Bound::Unbounded, _) => false,
            (Bound::Included(end), Direction::Forward) => smallest > end,
            (Bound::Excluded(end), Direction::Forward) => smallest >= end,
            (Bound::Included(end), Direction::Backward) => largest < end,
            (Bound::Excluded(end), Direction::Backward) => largest <= end,
        }
    }
}
