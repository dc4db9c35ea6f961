//! Scrubs: read everything that is stored, in the background, to find damage while there are good copies.
//!
//! A scrub goes through the tables in the order of their numbers, block by block. It looks at the newest
//! version of the store at each step and holds no table between steps, so it keeps no file on disk that
//! compaction has replaced; tables that are written while it runs were just checked by their writer.
//! Values in blob files are read where a table points to them, so that damage can be told by its key; garbage
//! is not read. A block is never divided, so a step takes as long as the values of one block at least.

use super::inner::Inner;
use super::read::check_open;
use super::store_format;
use crate::blob::Pointer;
use crate::env::JobClass;
use crate::error::{Error, OpenError};
use crate::key::Kind;
use crate::table::Table;
use crate::version::{Manifest, Placed, read_current};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Most bytes that are read in one step.
const STEP_BYTES: u64 = 256 << 10;

/// How often the manifest is read again if it was replaced meanwhile.
const MANIFEST_TRIES: usize = 3;

/// Where a scrub stands. The default is the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ScrubCursor {
    /// The number of the table that comes next; all with lower numbers are done.
    pub table: u64,
    /// The block in it that comes next.
    pub block: u64,
}

/// What a scrub found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ScrubReport {
    /// Tables of which the last block was read.
    pub tables: u64,
    /// Data blocks read.
    pub blocks: u64,
    /// Values read that lie in files of their own.
    pub values: u64,
    /// Bytes of those blocks and values on disk.
    pub bytes: u64,
    /// Damage, and reads that the file system refused, in the order in which they were met. The hook for
    /// [events](crate::Events::damaged) is told of damage too, unless it was before.
    pub found: Vec<Error>,
    /// Where to go on, if the store was closed before the end.
    pub rest: Option<ScrubCursor>,
}

/// A scrub between two steps.
#[derive(Debug)]
pub(super) struct Scrub {
    cursor: ScrubCursor,
    /// Tables from this number on are newer than the scrub.
    end: u64,
    report: ScrubReport,
}

impl Scrub {
    pub(super) fn new(inner: &Inner, from: ScrubCursor) -> Self {
        Self {
            cursor: from,
            end: inner.state().next_file,
            report: ScrubReport::default(),
        }
    }

    /// Reads about [`STEP_BYTES`]. True if there is more. May block.
    pub(super) fn step(&mut self, inner: &Inner) -> bool {
        if check_open(inner).is_err() {
            self.report.rest = Some(self.cursor);
            return false;
        }
        if self.cursor == ScrubCursor::default() {
            self.note(inner, check_manifest(inner));
        }
        let began = self.report.bytes;
        while self.report.bytes - began < STEP_BYTES {
            let Some(table) = self.next_table(inner) else {
                return false;
            };
            self.check_blocks(inner, &table, began + STEP_BYTES);
        }
        inner.state().scrub_at = Some(self.cursor);
        true
    }

    /// The table at the cursor, or the next one that is still there.
    fn next_table(&mut self, inner: &Inner) -> Option<Arc<Placed<Arc<Table>>>> {
        let view = inner.view();
        let ahead = view
            .version
            .tables()
            .filter(|table| (self.cursor.table..self.end).contains(&table.summary.file));
        let table = ahead.min_by_key(|table| table.summary.file)?;
        if table.summary.file != self.cursor.table {
            self.cursor = ScrubCursor {
                table: table.summary.file,
                block: 0,
            };
        }
        Some(Arc::clone(table))
    }

    /// Reads blocks of a table until its end, or until so many bytes were read in all.
    fn check_blocks(&mut self, inner: &Inner, table: &Placed<Arc<Table>>, until: u64) {
        if self.cursor.block == 0 {
            let outcome = table.reader.check_outline(table.summary.file);
            let is_readable = outcome.is_ok();
            self.note(inner, outcome);
            if !is_readable {
                self.end_table();
                return;
            }
        }
        let blocks = table.reader.blocks() as u64;
        while self.cursor.block < blocks && self.report.bytes < until {
            let number = self.cursor.block as usize;
            let bytes = table.reader.block_bytes(number) + self.check_block(inner, table, number);
            self.report.blocks += 1;
            self.report.bytes += bytes;
            self.cursor.block += 1;
            inner.state().counts.scrubbed_bytes += bytes;
        }
        if self.cursor.block >= blocks {
            self.end_table();
        }
    }

    /// Reads a block, and what it points to in blob files; returns the bytes of the latter.
    fn check_block(&mut self, inner: &Inner, table: &Placed<Arc<Table>>, number: usize) -> u64 {
        let versions = match table.reader.read_block(number) {
            Ok(versions) => versions,
            Err(error) => {
                self.note(inner, Err(error));
                return 0;
            }
        };
        let mut bytes = 0;
        for mut version in versions {
            if version.kind == Kind::Blob {
                let pointer = Pointer::decode(&version.value);
                bytes += pointer.map_or(0, |pointer| pointer.record_bytes());
                self.note(inner, table.reader.resolve(&mut version));
                self.report.values += 1;
            }
        }
        bytes
    }

    fn end_table(&mut self) {
        self.report.tables += 1;
        self.cursor = ScrubCursor {
            table: self.cursor.table + 1,
            block: 0,
        };
    }

    fn note(&mut self, inner: &Inner, outcome: Result<(), Error>) {
        if let Err(error) = outcome {
            inner.report_damage(&error);
            self.report.found.push(error);
        }
    }

    pub(super) fn finish(self, inner: &Inner) -> ScrubReport {
        let mut state = inner.state();
        state.scrub_at = None;
        state.counts.scrubs += u64::from(self.report.rest.is_none());
        drop(state);
        self.report
    }
}

/// Reads the store's format, and the manifest as it is on disk.
fn check_manifest(inner: &Inner) -> Result<(), Error> {
    let fs = &*inner.env.fs;
    if let Err(OpenError::Storage(error)) = store_format::read(fs, &inner.dir) {
        return Err(error);
    }
    let mut tries = 1;
    loop {
        let Some(id) = read_current(fs, &inner.dir)? else {
            let path = inner.dir.join(crate::files::CURRENT);
            return Err(Error::corrupt(&path, 0, "CURRENT is missing"));
        };
        let outcome = Manifest::read(fs, &inner.dir, inner.store, id).map(drop);
        // It may have been replaced, and removed, since it was named.
        if outcome.is_ok() || tries == MANIFEST_TRIES || read_current(fs, &inner.dir)? == Some(id) {
            return outcome;
        }
        tries += 1;
    }
}

/// A scrub in paced jobs.
pub(super) struct Paced {
    scrub: Scrub,
    rate: u64,
    began: Duration,
    done: Box<dyn FnOnce(ScrubReport) + Send>,
}

pub(super) fn begin(
    inner: &Arc<Inner>,
    rate: u64,
    from: ScrubCursor,
    done: Box<dyn FnOnce(ScrubReport) + Send>,
) {
    let paced = Paced {
        scrub: Scrub::new(inner, from),
        rate,
        began: inner.env.clock.now(),
        done,
    };
    submit(inner, Duration::ZERO, paced);
}

fn submit(inner: &Arc<Inner>, delay: Duration, paced: Paced) {
    let weak: Weak<Inner> = Arc::downgrade(inner);
    let job = move || {
        // The store may have been dropped since.
        if let Some(inner) = weak.upgrade() {
            paced.run(&inner);
        }
    };
    let jobs = &inner.env.jobs;
    jobs.submit_after(delay, JobClass::Compaction, Box::new(job));
}

impl Paced {
    fn run(mut self, inner: &Arc<Inner>) {
        if !self.scrub.step(inner) {
            let report = self.scrub.finish(inner);
            (self.done)(report);
            return;
        }
        let due = match self.rate {
            0 => Duration::ZERO,
            rate => {
                let nanos = u128::from(self.scrub.report.bytes) * 1_000_000_000 / u128::from(rate);
                Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
        };
        let passed = inner.env.clock.now().saturating_sub(self.began);
        submit(inner, due.saturating_sub(passed), self);
    }
}
