//! Walks a table's entries in either direction. May block.

use super::block::{BlockCursor, Malformed};
use super::reader::{Fetch, Table};
use crate::error::Error;
use crate::key::{KeyVersion, Kind};
use bytes::Bytes;
use std::sync::Arc;

/// A position in a table: at an entry, or at none.
#[derive(Debug)]
pub(crate) struct TableCursor {
    table: Arc<Table>,
    fetch: Fetch,
    /// Number of the present block and the position in it.
    place: Option<(usize, BlockCursor)>,
}

impl TableCursor {
    /// A cursor at no entry.
    pub(crate) fn new(table: Arc<Table>, fetch: Fetch) -> Self {
        Self {
            table,
            fetch,
            place: None,
        }
    }

    pub(crate) fn version(&self) -> Option<KeyVersion<'_>> {
        self.place.as_ref().and_then(|(_, cursor)| cursor.version())
    }

    /// Kind and value of the present entry, if there is one.
    pub(crate) fn content(&self) -> Option<(Kind, &[u8])> {
        self.place
            .as_ref()
            .map(|(_, cursor)| (cursor.kind(), cursor.value()))
    }

    /// The value for keeping; empty if there is no entry.
    pub(crate) fn value_bytes(&self) -> Bytes {
        self.place
            .as_ref()
            .map(|(_, cursor)| cursor.value_bytes())
            .unwrap_or_default()
    }

    pub(crate) fn seek_first(&mut self) -> Result<(), Error> {
        self.enter(0, BlockCursor::seek_first)
    }

    pub(crate) fn seek_last(&mut self) -> Result<(), Error> {
        self.enter(
            self.table.block_count().wrapping_sub(1),
            BlockCursor::seek_last,
        )
    }

    /// Moves to the first entry at or after `target`, or to none.
    pub(crate) fn seek(&mut self, target: KeyVersion<'_>) -> Result<(), Error> {
        self.enter(self.table.find_block(target), |cursor| cursor.seek(target))
    }

    /// Moves to the last entry before `target`, or to none.
    pub(crate) fn seek_before(&mut self, target: KeyVersion<'_>) -> Result<(), Error> {
        self.seek(target)?;
        if self.place.is_some() {
            self.previous()
        } else {
            self.seek_last()
        }
    }

    pub(crate) fn next(&mut self) -> Result<(), Error> {
        let Some((number, cursor)) = &mut self.place else {
            return Ok(());
        };
        let number = *number;
        cursor
            .next()
            .map_err(|Malformed| self.table.malformed(number))?;
        if cursor.version().is_none() {
            self.enter(number + 1, BlockCursor::seek_first)?;
        }
        Ok(())
    }

    pub(crate) fn previous(&mut self) -> Result<(), Error> {
        let Some((number, cursor)) = &mut self.place else {
            return Ok(());
        };
        let number = *number;
        cursor
            .previous()
            .map_err(|Malformed| self.table.malformed(number))?;
        if cursor.version().is_none() {
            self.enter(number.wrapping_sub(1), BlockCursor::seek_last)?;
        }
        Ok(())
    }

    /// Goes to a block, if there is one of that number, and to a position in it.
    fn enter(
        &mut self,
        number: usize,
        position: impl FnOnce(&mut BlockCursor) -> Result<(), Malformed>,
    ) -> Result<(), Error> {
        self.place = None;
        if number < self.table.block_count()
            && let Some(block) = self.table.block(number, self.fetch)?
        {
            let mut cursor = BlockCursor::new(block);
            position(&mut cursor).map_err(|Malformed| self.table.malformed(number))?;
            self.place = cursor.version().is_some().then_some((number, cursor));
        }
        Ok(())
    }
}
