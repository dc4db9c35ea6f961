//! Writing: checks, log queue, memtable, and tickets.

use super::inner::Inner;
use super::state::{Durability, State, Waiter};
use super::sync;
use crate::batch::WriteBatch;
use crate::compaction::Debt;
use crate::error::{Error, WriteError};
use crate::key::Seq;
use crate::options::MAX_KEY_BYTES;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Suggested wait when the log or a flush must catch up first.
const SHORT_WAIT: Duration = Duration::from_millis(2);
/// Suggested wait when compaction must catch up first.
const LONG_WAIT: Duration = Duration::from_millis(20);

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
        notify(&self.inner, self.seq, self.need, Box::new(done));
    }

    /// Blocks until the write is as durable as was asked for. If no log job runs, this thread does its work,
    /// for all who wait.
    ///
    /// # Errors
    /// The store was poisoned or closed: the write's outcome is unknown until it is opened again.
    pub fn wait(self) -> Result<(), Error> {
        wait(&self.inner, self.seq, self.need)
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

/// A batch that was not taken, and why.
pub(super) struct Refused {
    pub error: WriteError,
    pub batch: WriteBatch,
}

/// Applies a batch and schedules what follows from it.
pub(super) fn write(
    inner: &Arc<Inner>,
    batch: WriteBatch,
    need: Durability,
) -> Result<Commit, WriteError> {
    let mut state = inner.state();
    let outcome = apply(inner, &mut state, batch, need);
    // Also after a refusal: what the writer must wait for has to be under way.
    let due = inner.take_due(&mut state);
    drop(state);
    inner.submit(due);
    outcome.map_err(|refused| refused.error)
}

/// Applies a batch and schedules nothing: for callers that wait, and then do the log's work themselves.
pub(super) fn append(
    inner: &Arc<Inner>,
    batch: WriteBatch,
    need: Durability,
) -> Result<Commit, Refused> {
    apply(inner, &mut inner.state(), batch, need)
}

/// Log queue, then memtable, then visible.
fn apply(
    inner: &Arc<Inner>,
    state: &mut State,
    batch: WriteBatch,
    need: Durability,
) -> Result<Commit, Refused> {
    let checked = check_size(inner, &batch).and_then(|()| admit(inner, state, batch.size_bytes()));
    if let Err(error) = checked {
        return Err(Refused { error, batch });
    }
    if state.active.size_bytes() >= inner.options.memtable_bytes {
        state.seal(&inner.env.hooks);
        // The old view is small to drop: its memtables live on in the new one.
        inner.publish_view(state);
    }
    let first = state.last.next();
    let last = Seq(state.last.0 + batch.len() as u64);
    state.log.push(first, &batch);
    state.active.insert(first, batch.into_operations());
    state.last = last;
    if need == Durability::Sync {
        state.sync_wanted = last;
    }
    // Only now do readers look at these numbers: all of the batch, or nothing.
    inner.visible.store(last.0, Ordering::Release);
    Ok(Commit {
        seq: last,
        need,
        inner: Arc::clone(inner),
    })
}

fn check_size(inner: &Inner, batch: &WriteBatch) -> Result<(), WriteError> {
    let too_large = |what, size, limit| {
        if size > limit {
            Err(WriteError::TooLarge { what, size, limit })
        } else {
            Ok(())
        }
    };
    if batch.is_empty() {
        return Err(WriteError::Empty);
    }
    too_large("key", batch.longest_key(), MAX_KEY_BYTES)?;
    too_large("batch", batch.size_bytes(), inner.options.max_batch_bytes)
}

/// Says whether the store can take a write now.
fn admit(inner: &Inner, state: &mut State, size_bytes: usize) -> Result<(), WriteError> {
    if let Some(cause) = &state.poison {
        return Err(WriteError::Poisoned {
            cause: Arc::clone(cause),
        });
    }
    if state.closed {
        return Err(WriteError::Closed);
    }
    if let Some(free) = state.space.short {
        // Each refused writer asks for another look, so writing resumes by itself.
        state.space.look = true;
        return Err(WriteError::Full {
            free,
            needed: inner.options.min_free_bytes,
        });
    }
    let delay = busy(inner, state, size_bytes);
    if let Some(delay) = delay {
        state.counts.busy += 1;
        return Err(WriteError::Busy(delay));
    }
    Ok(())
}

fn busy(inner: &Inner, state: &mut State, size_bytes: usize) -> Option<Duration> {
    let options = &inner.options;
    let flush_is_behind = state.active.size_bytes() >= options.memtable_bytes
        && state.sealed.len() >= options.sealed_memtables_max;
    if state.log.bytes() >= options.log_buffer_bytes || flush_is_behind {
        return Some(SHORT_WAIT);
    }
    if state.table_debt >= Debt::LIMIT {
        return Some(LONG_WAIT);
    }
    let debt = state.debt(options);
    let now = inner.env.clock.now();
    state.pacer.admit(now, size_bytes, debt).err()
}

/// Calls `call` when the log has reached `seq`.
pub(super) fn notify(
    inner: &Arc<Inner>,
    seq: Seq,
    need: Durability,
    call: Box<dyn FnOnce(Result<(), Error>) + Send>,
) {
    let mut state = inner.state();
    // A number that was not given out yet (from an earlier life of the store) would ask for syncs for ever.
    let seq = seq.min(state.last);
    let outcome = if seq <= state.reached(need) {
        Ok(())
    } else if let Some(halt) = state.halted() {
        Err(halt)
    } else {
        if need == Durability::Sync {
            state.sync_wanted = state.sync_wanted.max(seq);
        }
        state.waiters.push(Waiter { seq, need, call });
        drop(state);
        inner.schedule();
        return;
    };
    drop(state);
    call(outcome);
}

/// Blocks until the log has reached `seq`.
pub(super) fn wait(inner: &Arc<Inner>, seq: Seq, need: Durability) -> Result<(), Error> {
    let mut state = inner.state();
    loop {
        if seq <= state.reached(need) {
            return Ok(());
        }
        if let Some(halt) = state.halted() {
            return Err(halt);
        }
        if need == Durability::Sync {
            state.sync_wanted = state.sync_wanted.max(seq);
        }
        if state.log_file.is_some() {
            drop(state);
            sync::round(inner);
            state = inner.state();
        } else {
            state = inner.wait(state);
        }
    }
}
