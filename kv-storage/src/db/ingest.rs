//! Ingest: many sorted rows enter the store as one write, past log and memtable.
//!
//! Rows are written straight to tables like those of the bottom, with number 0. The commit makes the tables
//! durable, stores a log frame that names them, and puts them into the queue of what waits for a flush: readers
//! see them there, between older and newer memtables, and the flush only enters them in the manifest.
//!
//! Invariants:
//! 1. The files, their names, and all their bytes survive power loss before the frame is stored. So whoever finds
//!    the frame finds the tables.
//! 2. Until the frame is stored nothing names the files: they are orphans, which this removes, or the next open.
//!    From then on they are never removed here, also not if storing failed, because nobody knows what the log has.
//! 3. A closed store's directory may belong to another process, which may give the same numbers to its files. So
//!    files are touched only while [`Work`] keeps the store from being closed.

use super::Commit;
use super::flush::{self, NewFiles, OpenTables, Opened, open_tables};
use super::front::Front;
use super::inner::Inner;
use super::layer::Layer;
use super::state::{Durability, Task};
use super::write::{self, Refused, check_size};
use super::{blocking, segments};
use crate::compaction::{Finished, TableSink};
use crate::error::{Error, WriteError};
use crate::hooks::MAX_NOTE_BYTES;
use crate::ingested::{self, Ingested};
use crate::key::{KeyVersion, Kind, Seq};
use crate::options::MAX_KEY_BYTES;
use crate::range::ShownKey;
use crate::table::{Table, TableBuilder, TableSpec};
use crate::version::{Placed, Run};
use crate::wal::{Payload, StoreError};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

/// Rows that will enter the store together; made by [`Db::ingest`](super::Db::ingest).
///
/// Its calls write to files, so they block. It holds little memory, however many rows there are. Dropped without
/// a commit, it removes its files.
pub struct Ingest {
    inner: Arc<Inner>,
    files: NewFiles,
    builder: Option<TableBuilder>,
    /// When the first row of the present table expires.
    expires: Option<u64>,
    finished: Vec<Finished>,
    /// The last row's.
    last_key: Option<Vec<u8>>,
    /// What made the files useless.
    failed: Option<Error>,
}

/// A row was not taken, or the rows could not be committed. No row is in the store.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The key is not behind the one before it. The row was left out; go on with a larger key, or sort the rows.
    #[error("key {} does not come after {}; push rows in ascending order of their keys", ShownKey(.key), ShownKey(.before))]
    OutOfOrder {
        /// The key that was pushed.
        key: Vec<u8>,
        /// The last key that was taken.
        before: Vec<u8>,
    },
    /// The row, or the note, is over a limit, or the store takes no writes at present. Nothing was changed. After
    /// `TooLarge` for a row, others may be pushed.
    #[error(transparent)]
    Refused(#[from] WriteError),
    /// Nothing was pushed, so there is nothing to commit.
    #[error("no row was pushed")]
    Empty,
    /// A table could not be written: also if the disk is full. Drop the ingest, which frees its space, and begin
    /// again. Unless the store was poisoned by another failure, it goes on.
    #[error("could not write the rows: {0}")]
    Storage(#[from] Error),
}

impl Ingest {
    pub(super) fn begin(inner: &Arc<Inner>) -> Result<Self, WriteError> {
        let mut front = inner.front();
        let admitted = front.admit_ingest();
        let attention = std::mem::take(&mut front.attention);
        drop(front);
        if attention {
            inner.schedule();
        }
        admitted?;
        Ok(Self {
            inner: Arc::clone(inner),
            files: NewFiles::new(inner, TableSpec::bottom(&inner.options)),
            builder: None,
            expires: None,
            finished: Vec::new(),
            last_key: None,
            failed: None,
        })
    }

    /// Adds a row. Its key must be larger than that of the row before. Blocks now and then.
    ///
    /// # Errors
    /// See [`IngestError`].
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), IngestError> {
        check_size("key", key.len(), MAX_KEY_BYTES)?;
        let most = self.inner.options.max_batch_bytes;
        check_size("row", key.len() + value.len(), most)?;
        if let Some(before) = self.last_key.as_ref().filter(|before| *key <= ***before) {
            return Err(IngestError::OutOfOrder {
                key: key.to_vec(),
                before: before.clone(),
            });
        }
        self.work(|ingest| ingest.append(key, value))?;
        let last_key = self.last_key.get_or_insert_default();
        last_key.clear();
        last_key.extend_from_slice(key);
        Ok(())
    }

    /// Makes the rows part of the store, all at once, as one write. They are visible when this returns, and durable
    /// when the ticket says so. Blocks while the rest of the files is written and synced.
    ///
    /// # Errors
    /// See [`IngestError`]. No row is in the store then, unless the store was poisoned: in that case the next open
    /// has all of them or none.
    pub fn commit(self, durability: Durability) -> Result<Commit, IngestError> {
        self.commit_noted(durability, &[])
    }

    /// Like [`commit`](Self::commit), with a note for the [`WriteObserver`](crate::WriteObserver).
    ///
    /// # Errors
    /// Like those of `commit`, and a note over its limit.
    pub fn commit_noted(
        mut self,
        durability: Durability,
        note: &[u8],
    ) -> Result<Commit, IngestError> {
        check_size("note", note.len(), MAX_NOTE_BYTES)?;
        let tables = self.work(|ingest| {
            ingest.end_table()?;
            open_tables(&ingest.inner, std::mem::take(&mut ingest.finished))
        })?;
        if tables.is_empty() {
            return Err(IngestError::Empty);
        }
        let summaries = tables.values().map(|opened| opened.table.clone());
        let bytes = Ingested {
            tables: summaries.collect(),
            note,
        }
        .encode();
        check_size(
            "list of tables",
            bytes.len(),
            self.inner.options.max_batch_bytes,
        )?;
        let payload = Payload::new(self.inner.store, &bytes, 1);
        let seq = self.publish(&payload, tables, note)?;
        Ok(write::ticket(&self.inner, seq, durability))
    }

    /// Stores the frame and shows the tables, once there is room in the log and in the queue.
    fn publish(
        &mut self,
        payload: &Payload<'_>,
        tables: OpenTables,
        note: &[u8],
    ) -> Result<Seq, IngestError> {
        let inner = Arc::clone(&self.inner);
        let mut tables = Some(tables);
        let mut tries = 0;
        loop {
            let steps = inner.steps.load(Ordering::Acquire);
            let work = Work::begin(&inner)?;
            let mut front = inner.front();
            let outcome = accept(&inner, &mut front, payload, &mut tables, note);
            let attention = std::mem::take(&mut front.attention);
            drop(front);
            if !matches!(outcome, Err(Refused::Now(_))) {
                self.files.forget();
            }
            drop(work);
            if let Err(Refused::LogFailed(error)) = &outcome {
                return Err(write::log_failed(&inner, error).into());
            }
            if attention {
                inner.schedule();
            }
            match outcome {
                Ok(seq) => return Ok(seq),
                Err(Refused::LogFailed(_)) => unreachable!("told above"),
                Err(Refused::Now(WriteError::Busy(delay))) if tries < blocking::BUSY_TRIES => {
                    tries += 1;
                    // What this waits for, it does itself if nobody else does.
                    if !segments::help(&inner)
                        && (flush::flush_oldest(&inner).is_err() || tries > 1)
                    {
                        blocking::wait_for_progress(&inner, steps, delay);
                    }
                }
                Err(Refused::Now(error)) => return Err(error.into()),
            }
        }
    }

    /// Does something with the files.
    fn work<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let inner = Arc::clone(&self.inner);
        let _work = Work::begin(&inner)?;
        run(self).inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn append(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let size = self.builder.as_ref().map_or(0, TableBuilder::size_bytes);
        if size >= self.inner.options.table_bytes {
            self.end_table()?;
        }
        let builder = match &mut self.builder {
            Some(builder) => builder,
            None => {
                let mut builder = self.files.create()?;
                builder.leave_number_open();
                self.builder.insert(builder)
            }
        };
        builder.push(KeyVersion::new(key, Seq::ZERO), Kind::Put, value)?;
        let filter = self.inner.env.hooks.filter.as_ref();
        if let Some(at) = filter.and_then(|filter| filter.expires(key, value)) {
            self.expires = Some(self.expires.map_or(at, |first| first.min(at)));
        }
        Ok(())
    }

    fn end_table(&mut self) -> Result<(), Error> {
        if let Some(builder) = self.builder.take() {
            let mut table = builder.finish()?;
            table.expires = self.expires.take();
            let blobs = Vec::new();
            self.finished.push(Finished { table, blobs });
        }
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let inner = Arc::clone(&self.inner);
        self.builder = None;
        match Work::begin(&inner) {
            Ok(_work) => {
                self.files.discard();
                inner.files.empty_trash();
            }
            Err(_) => self.files.forget(),
        }
    }
}

impl fmt::Debug for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingest")
            .field("tables", &self.finished.len())
            .finish_non_exhaustive()
    }
}

/// Keeps the store from being closed while files are touched.
struct Work<'a>(&'a Inner);

impl<'a> Work<'a> {
    fn begin(inner: &'a Inner) -> Result<Self, Error> {
        let mut state = inner.state();
        if let Some(halt) = state.halted() {
            return Err(halt);
        }
        state.ingests_at_work += 1;
        Ok(Self(inner))
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.ingests_at_work -= 1;
        let is_awaited = state.closed;
        drop(state);
        if is_awaited {
            self.0.progress.notify_all();
        }
    }
}

/// Everything that must happen in the order of the numbers. Takes the tables if it succeeds.
fn accept(
    inner: &Inner,
    front: &mut MutexGuard<'_, Front>,
    payload: &Payload<'_>,
    tables: &mut Option<OpenTables>,
    note: &[u8],
) -> Result<Seq, Refused> {
    front.admit_tables(&inner.options).map_err(Refused::Now)?;
    let seq = front.last.next();
    match front.wal.store(payload, seq, inner.commits.position()) {
        Ok(()) => {
            front.attention |= front.segment_task == Task::Idle && front.wants_segment();
        }
        Err(StoreError::NoSpare { needed }) => {
            return Err(Refused::Now(front.wait_for_segment(needed)));
        }
        Err(StoreError::Failed(error)) => {
            front.gate.poison = Some(error.to_string().into());
            return Err(Refused::LogFailed(error));
        }
    }
    // From here on nothing may fail: the frame is in the log.
    let run = numbered_run(tables.take().unwrap_or_default(), seq);
    let bytes = run.size_bytes();
    if !front.active.is_empty() {
        inner.seal(front, 0);
    }
    front.last = seq;
    front.queue(Layer::Tables(Arc::new(run)), None);
    front.ingests += 1;
    front.ingested_bytes += bytes;
    // Before the number is visible: who reads at it must find the rows, and no older value in the row cache.
    inner.publish_memtables(front);
    inner.files.rows.on_range_write(seq);
    let hooks = &inner.env.hooks;
    let observe = || hooks.observe_ingest(seq, note);
    inner.publisher.publish(seq.0, seq.0, observe);
    // Later writes cannot begin, so this belongs to exactly what was observed.
    front.set_attachment(hooks.attachment(seq));
    Ok(seq)
}

/// The tables as one run, all of whose rows are numbered by the write.
fn numbered_run(tables: OpenTables, seq: Seq) -> Run<Arc<Table>> {
    let number = |opened: Opened| {
        let Opened {
            table: mut summary,
            reader,
            ..
        } = opened;
        ingested::number(&mut summary, seq);
        reader.set_number(seq);
        Placed::new(summary, reader)
    };
    let mut tables: Vec<_> = tables.into_values().map(number).collect();
    // Files are numbered in the order of their keys already.
    tables.sort_by(|a, b| a.summary.smallest.cmp(&b.summary.smallest));
    Run::new(0, tables)
}
