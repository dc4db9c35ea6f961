//! Reads many neighbouring blocks at once when a cursor walks through a table.

use super::block::SharedBlock;
use super::reader::{Fetch, Table};
use crate::error::Error;
use std::ops::Range;

/// Bytes of the first window; each further one is twice as large.
const WINDOW_FIRST: usize = 64 << 10;
/// Bytes of the largest window.
const WINDOW_MOST: usize = 256 << 10;
/// Misses in a row, one block beside the other, after which windows are read.
const SEQUENTIAL: usize = 2;
/// Blocks that one walk puts into the cache. A longer walk passes by, so that a scan of everything does
/// not throw out what point reads need.
const KEEP_MOST: usize = 64;

/// Gives a cursor its blocks.
#[derive(Debug)]
pub(super) struct ReadAhead {
    fetch: Fetch,
    /// The block of this table that the last miss asked for.
    last: Option<usize>,
    /// Misses in a row before the last.
    misses: usize,
    kept: usize,
    window_bytes: usize,
    /// Stored bytes of the blocks in `window`.
    bytes: Vec<u8>,
    window: Range<usize>,
}

impl ReadAhead {
    pub(super) fn new(fetch: Fetch) -> Self {
        // A compaction is known to read everything.
        let (misses, window_bytes) = match fetch {
            Fetch::Passing => (SEQUENTIAL, WINDOW_MOST),
            Fetch::CacheOnly | Fetch::Blocking => (0, WINDOW_FIRST),
        };
        Self {
            fetch,
            last: None,
            misses,
            kept: 0,
            window_bytes,
            bytes: Vec::new(),
            window: 0..0,
        }
    }

    /// Goes on with another table of the same walk.
    pub(super) fn leave_table(&mut self) {
        self.last = None;
        self.window = 0..0;
    }

    /// A block; `None` if it would have to be read although only the cache is allowed.
    pub(super) fn block(
        &mut self,
        table: &Table,
        number: usize,
    ) -> Result<Option<SharedBlock>, Error> {
        if let Some(block) = table.cached(number) {
            return Ok(Some(block));
        }
        if self.fetch == Fetch::CacheOnly {
            return Ok(None);
        }
        // At the first block of a table: the outermost block on one side, or the place of a seek.
        let forward = match self.last {
            Some(last) => last < number,
            None => number == 0 || number + 1 < table.index().len(),
        };
        let goes_on = match self.last {
            Some(last) => last.abs_diff(number) == 1,
            None => self.misses > 0,
        };
        self.misses = if goes_on { self.misses + 1 } else { 0 };
        self.last = Some(number);
        if !self.window.contains(&number) && self.misses >= SEQUENTIAL {
            // What cannot be read as one piece is read block by block, so that an error names one block.
            if self.fill(table, number, forward).is_err() {
                self.window = 0..0;
            }
        }
        let block = if self.window.contains(&number) {
            match table.decode(number, self.stored(table, number)) {
                // A bit may have flipped on its way: the block is read again.
                Err(error) if error.is_corrupt() => table.load(number)?,
                outcome => outcome?,
            }
        } else {
            table.load(number)?
        };
        if self.fetch == Fetch::Blocking && self.kept < KEEP_MOST {
            self.kept += 1;
            table.keep(number, &block);
        }
        Ok(Some(block))
    }

    /// Reads a window that begins (or, going backward, ends) with a block.
    fn fill(&mut self, table: &Table, number: usize, forward: bool) -> Result<(), Error> {
        self.window = 0..0;
        let handles = table.index().handles();
        let mut bytes = 0;
        let mut fits = |stored: u32| {
            bytes += stored as usize;
            bytes <= self.window_bytes
        };
        let range = if forward {
            let more = handles[number..].iter();
            let count = more.take_while(|handle| fits(handle.stored)).count();
            number..number + count.max(1)
        } else {
            let more = handles[..=number].iter().rev();
            let count = more.take_while(|handle| fits(handle.stored)).count();
            number + 1 - count.max(1)..number + 1
        };
        let length = handles[range.clone()]
            .iter()
            .map(|handle| handle.stored as usize)
            .sum();
        table.read_stored(&handles[range.start], length, &mut self.bytes)?;
        self.window = range;
        self.window_bytes = (self.window_bytes * 2).min(WINDOW_MOST);
        Ok(())
    }

    /// The stored bytes of a block in the window.
    fn stored(&self, table: &Table, number: usize) -> &[u8] {
        let handles = table.index().handles();
        let start = handles[number].offset - handles[self.window.start].offset;
        let stored = handles[number].stored as usize;
        // Blocks of a window follow each other, so each lies within its bytes.
        usize::try_from(start)
            .ok()
            .and_then(|start| self.bytes.get(start..)?.get(..stored))
            .unwrap_or_default()
    }
}
