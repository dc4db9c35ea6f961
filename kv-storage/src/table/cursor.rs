//! Walks a table's entries in either direction. May block.

use super::block::Malformed;
use super::block_cursor::BlockCursor;
use super::read_ahead::ReadAhead;
use super::reader::{Fetch, Table};
use crate::error::Error;
use crate::key::{KeyVersion, Kind};
use bytes::Bytes;
use std::sync::Arc;

/// A position in a table: at an entry, or at none.
#[derive(Debug)]
pub(crate) struct TableCursor {
    table: Arc<Table>,
    blocks: ReadAhead,
    /// Number of the present block.
    number: usize,
    /// The position in it: at an entry.
    place: Option<BlockCursor>,
}

impl TableCursor {
    /// A cursor at no entry.
    pub(crate) fn new(table: Arc<Table>, fetch: Fetch) -> Self {
        Self {
            table,
            blocks: ReadAhead::new(fetch),
            number: 0,
            place: None,
        }
    }

    /// A cursor at no entry of the next table of a walk.
    pub(crate) fn into_table(self, table: Arc<Table>) -> Self {
        let mut blocks = self.blocks;
        blocks.leave_table();
        Self {
            table,
            blocks,
            number: 0,
            place: None,
        }
    }

    #[inline]
    pub(crate) fn version(&self) -> Option<KeyVersion<'_>> {
        self.place.as_ref().map(BlockCursor::version)
    }

    /// Kind and value of the present entry, if there is one.
    pub(crate) fn content(&self) -> Option<(Kind, &[u8])> {
        self.place
            .as_ref()
            .map(|cursor| (cursor.kind(), cursor.value()))
    }

    /// The table that it walks.
    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The value for keeping; empty if there is no entry.
    pub(crate) fn value_bytes(&self) -> Bytes {
        self.place
            .as_ref()
            .map(BlockCursor::value_bytes)
            .unwrap_or_default()
    }

    pub(crate) fn seek_first(&mut self) -> Result<(), Error> {
        self.enter(0, BlockCursor::seek_first)
    }

    pub(crate) fn seek_last(&mut self) -> Result<(), Error> {
        self.enter_before(self.table.index().len())
    }

    /// Moves to the first entry at or after `target`, or to none.
    pub(crate) fn seek(&mut self, target: KeyVersion<'_>) -> Result<(), Error> {
        let number = self.table.index().find(target);
        self.enter(number, |cursor| cursor.seek(target))?;
        // The target may lie between the block's last entry and its separator.
        if self.place.is_none() {
            self.enter(number + 1, BlockCursor::seek_first)?;
        }
        Ok(())
    }

    /// Moves to the last entry before `target`, or to none.
    pub(crate) fn seek_before(&mut self, target: KeyVersion<'_>) -> Result<(), Error> {
        let number = self.table.index().find(target);
        self.enter(number, |cursor| cursor.seek_before(target))?;
        if self.place.is_none() {
            self.enter_before(number)?;
        }
        Ok(())
    }

    /// Moves on by one. At no entry it stays there.
    pub(crate) fn next(&mut self) -> Result<(), Error> {
        let Some(cursor) = &mut self.place else {
            return Ok(());
        };
        cursor
            .next()
            .map_err(|Malformed| self.table.malformed(self.number))?;
        if cursor.is_valid() {
            return Ok(());
        }
        self.enter(self.number + 1, BlockCursor::seek_first)
    }

    /// Moves back by one. At no entry it stays there.
    pub(crate) fn previous(&mut self) -> Result<(), Error> {
        let Some(cursor) = &mut self.place else {
            return Ok(());
        };
        cursor
            .previous()
            .map_err(|Malformed| self.table.malformed(self.number))?;
        if cursor.is_valid() {
            return Ok(());
        }
        self.enter_before(self.number)
    }

    /// Goes to the last entry of the block before one.
    fn enter_before(&mut self, number: usize) -> Result<(), Error> {
        match number.checked_sub(1) {
            Some(before) => self.enter(before, BlockCursor::seek_last),
            None => {
                self.place = None;
                Ok(())
            }
        }
    }

    /// Goes to a block, if there is one of that number, and to a position in it.
    fn enter(
        &mut self,
        number: usize,
        position: impl FnOnce(&mut BlockCursor) -> Result<(), Malformed>,
    ) -> Result<(), Error> {
        let key = self.place.take().map(BlockCursor::into_key);
        if number < self.table.index().len()
            && let Some(block) = self.blocks.block(&self.table, number)?
        {
            let mut cursor = BlockCursor::new(block, key.unwrap_or_default());
            position(&mut cursor).map_err(|Malformed| self.table.malformed(number))?;
            self.number = number;
            self.place = cursor.is_valid().then_some(cursor);
        }
        Ok(())
    }
}
