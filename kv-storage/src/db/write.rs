//! The commit pipeline: checks, log, memtable, visibility; and tickets.
//!
//! A write takes the front's lock once, to get its numbers, to copy its frame into the log, and to
//! take room in the memtable. The checksum is made before that, the memtable entries are written after
//! it, and [`Publisher`](super::publisher::Publisher) makes writes visible in order. (After Pebble's
//! commit pipeline, with the log mapped into memory instead of queued.)

use super::front::Front;
use super::inner::Inner;
use super::state::{Durability, Task};
use super::sync;
use crate::batch::{Operation, WriteBatch};
use crate::error::{Error, WriteError};
use crate::hooks::MAX_NOTE_BYTES;
use crate::key::{OperationKind, Seq};
use crate::memtable::{MAX_MEMTABLE_BYTES, Memtable, RANGES_MOST, Reservation};
use crate::options::MAX_KEY_BYTES;
use crate::wal::{Payload, StoreError};
use std::sync::{Arc, MutexGuard};

/// The ticket of an accepted write.
#[must_use = "a write is only known to be durable once its ticket says so"]
pub struct Commit {
    /// The number of the batch's last operation. Readers of the batch see its numbers up to this one.
    pub seq: Seq,
    need: Durability,
    inner: Arc<Inner>,
}

impl Commit {
    /// Calls `done` when the write is as durable as was asked for: at once if it is, otherwise from
    /// the log job.
    ///
    /// An error means that its outcome is unknown until the store is opened again.
    pub fn on_durable(self, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        match self.need {
            Durability::Sync => sync::notify(&self.inner, self.seq, Box::new(done)),
            Durability::Process | Durability::Interval(_) => done(Ok(())),
        }
    }

    /// Blocks until the write is as durable as was asked for. If no log job runs, this thread does its work,
    /// for all who wait.
    ///
    /// # Errors
    /// The store was poisoned or closed: the write's outcome is unknown until it is opened again.
    pub fn wait(self) -> Result<(), Error> {
        match self.need {
            Durability::Sync => sync::wait(&self.inner, self.seq),
            Durability::Process | Durability::Interval(_) => Ok(()),
        }
    }
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commit")
            .field("seq", &self.seq)
            .field("need", &self.need)
            .finish_non_exhaustive()
    }
}

/// Applies a batch and schedules what follows from it.
pub(super) fn write(
    inner: &Arc<Inner>,
    batch: &WriteBatch,
    need: Durability,
) -> Result<Commit, WriteError> {
    let seq = append(inner, batch)?;
    Ok(ticket(inner, seq, need))
}

/// Asks for the sync that an accepted write needs.
pub(super) fn ticket(inner: &Arc<Inner>, seq: Seq, need: Durability) -> Commit {
    match need {
        Durability::Sync => sync::ask(inner, seq),
        Durability::Interval(delay) => sync::ask_within(inner, delay),
        Durability::Process => {}
    }
    Commit {
        seq,
        need,
        inner: Arc::clone(inner),
    }
}

/// Applies a batch: it survives the death of the process and is visible when this returns. Returns the
/// number of its last operation.
pub(super) fn append(inner: &Arc<Inner>, batch: &WriteBatch) -> Result<Seq, WriteError> {
    check_batch(inner, batch)?;
    // The checksum and the copy into the log take about as long as these lines need to come.
    let hash = batch.first_hash();
    inner.files.rows.prefetch_note(hash);
    let payload = Payload::of(inner.store, batch);
    let mut front = inner.front();
    front.active.prefetch(hash);
    let outcome = accept(inner, &mut front, batch, &payload);
    let attention = std::mem::take(&mut front.attention);
    drop(front);
    let outcome = match outcome {
        Ok(accepted) => Ok(accepted.publish(inner, batch)),
        Err(Refused::Now(error)) => Err(error),
        Err(Refused::LogFailed(error)) => Err(log_failed(inner, &error)),
    };
    // Also after a refusal: what the writer must wait for has to be under way.
    if attention {
        inner.schedule();
    }
    outcome
}

/// A batch that is in the log, and has its numbers and its room in the memtable.
struct Accepted {
    first: Seq,
    table: Arc<Memtable>,
    room: Reservation,
}

/// A write was not accepted.
pub(super) enum Refused {
    Now(WriteError),
    /// It is unknown what the log holds, so the gate is closed already: nothing may be stored behind it.
    LogFailed(Error),
}

/// Everything that must happen in the order of the numbers.
fn accept(
    inner: &Inner,
    front: &mut MutexGuard<'_, Front>,
    batch: &WriteBatch,
    payload: &Payload<'_>,
) -> Result<Accepted, Refused> {
    let now = || inner.env.clock.now();
    front
        .admit(&inner.options, batch, now)
        .map_err(Refused::Now)?;
    if !front.active.has_room(batch.need()) {
        // In front of the log: this may panic, in the caller's attachment or for lack of memory.
        inner.seal(front, batch.entry_bytes());
    }
    let first = front.last.next();
    let promise = inner.commits.position();
    match front.wal.store(payload, first, promise) {
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
    let room = front.active.reserve(batch.need());
    let room = room.expect("there was room, or a fresh memtable was made large enough");
    front.last = Seq(front.last.0 + batch.len() as u64);
    Ok(Accepted {
        first,
        table: Arc::clone(&front.active),
        room,
    })
}

impl Accepted {
    fn publish(mut self, inner: &Inner, batch: &WriteBatch) -> Seq {
        // Before the write is visible: see the row cache's first invariant.
        let rows = &inner.files.rows;
        let note = |operation: &Operation<'_>, hash, seq| match operation.kind {
            OperationKind::Put | OperationKind::Delete => rows.on_write(hash, seq),
            OperationKind::DeleteRange => rows.on_range_write(seq),
        };
        self.table
            .fill(&mut self.room, self.first, batch.operations(), note);
        let last = Seq(self.first.0 + batch.len() as u64 - 1);
        let (table, room) = (self.table, self.room);
        inner.publisher.publish(self.first.0, last.0, || {
            // In turn, so the observer meets one operation after the other, in the order of the log.
            inner.env.hooks.observe(self.first, batch.operations());
            table.publish(room);
        });
        last
    }
}

/// Ends all writes, because it is unknown what the log holds.
pub(super) fn log_failed(inner: &Arc<Inner>, error: &Error) -> WriteError {
    inner.poison(error);
    WriteError::LogFailed {
        cause: error.to_string().into(),
    }
}

fn check_batch(inner: &Inner, batch: &WriteBatch) -> Result<(), WriteError> {
    if batch.is_empty() {
        return Err(WriteError::Empty);
    }
    if batch.need().ranges > RANGES_MOST {
        return Err(WriteError::TooManyRanges {
            count: batch.need().ranges,
            limit: RANGES_MOST,
        });
    }
    check_size("key", batch.longest_key(), MAX_KEY_BYTES)?;
    check_size("note", batch.longest_note(), MAX_NOTE_BYTES)?;
    check_size("batch", batch.size_bytes(), inner.options.max_batch_bytes)?;
    // Entries that are small in the log take more than that in memory.
    check_size("batch in memory", batch.entry_bytes(), MAX_MEMTABLE_BYTES)
}

/// Refuses what is over its limit.
pub(super) fn check_size(what: &'static str, size: usize, limit: usize) -> Result<(), WriteError> {
    if size > limit {
        Err(WriteError::TooLarge { what, size, limit })
    } else {
        Ok(())
    }
}
