//! Plain blocking calls for embedded use.

use super::inner::Inner;
use super::scrub::{Scrub, ScrubCursor, ScrubReport};
use super::state::Durability;
use super::{Db, Found, read, segments, sync, write};
use crate::batch::WriteBatch;
use crate::error::{Error, WriteError};
use crate::key::Seq;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How often a write that meets `Busy` is tried again before the caller is told.
pub(super) const BUSY_TRIES: u32 = 1_000;

/// Blocking calls on a store; made by [`Db::blocking`].
#[derive(Debug, Clone, Copy)]
pub struct Blocking<'a> {
    db: &'a Db,
}

/// A blocking write failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BlockingError {
    /// It was refused; nothing was changed.
    #[error(transparent)]
    Refused(#[from] WriteError),
    /// It was accepted, but it is unknown whether it survives: see [`Commit::wait`](crate::Commit::wait).
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(#[from] Error),
}

impl<'a> Blocking<'a> {
    pub(super) fn new(db: &'a Db) -> Self {
        Self { db }
    }

    /// Reads a key.
    ///
    /// # Errors
    /// The file system failed, or the bytes read are damaged.
    pub fn get(&self, key: &[u8]) -> Result<Option<Found>, Error> {
        read::get_blocking(&self.db.inner, key)
    }

    /// Sets `key` to `value`. On return it survives power loss.
    ///
    /// # Errors
    /// See [`BlockingError`].
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<Seq, BlockingError> {
        let mut batch = WriteBatch::new();
        batch.put(key, value);
        self.write(batch, Durability::Sync)
    }

    /// Deletes `key`. On return this survives power loss.
    ///
    /// # Errors
    /// See [`BlockingError`].
    pub fn delete(&self, key: &[u8]) -> Result<Seq, BlockingError> {
        let mut batch = WriteBatch::new();
        batch.delete(key);
        self.write(batch, Durability::Sync)
    }

    /// Applies a batch and waits until it is as durable as asked. Where the store is behind, it waits for it.
    ///
    /// Threads that write at once share one sync: one of them does it for all.
    ///
    /// # Errors
    /// See [`BlockingError`].
    pub fn write(&self, batch: WriteBatch, durability: Durability) -> Result<Seq, BlockingError> {
        let inner = &self.db.inner;
        let mut tries = 0;
        let seq = loop {
            let steps = inner.steps.load(Ordering::Acquire);
            match write::append(inner, &batch) {
                Err(WriteError::Busy(delay)) if tries < BUSY_TRIES => {
                    tries += 1;
                    if !segments::help(inner) {
                        wait_for_progress(inner, steps, delay);
                    }
                }
                outcome => break outcome?,
            }
        };
        match durability {
            Durability::Sync => sync::wait(inner, seq)?,
            Durability::Interval(delay) => sync::ask_within(inner, delay),
            Durability::Process => {}
        }
        Ok(seq)
    }

    /// Reads everything that is stored, as fast as the disk allows. See [`Db::scrub`].
    pub fn scrub(&self) -> ScrubReport {
        let inner = &self.db.inner;
        let mut scrub = Scrub::new(inner, ScrubCursor::default());
        while scrub.step(inner) {}
        scrub.finish(inner)
    }

    /// Makes everything written so far survive power loss.
    ///
    /// # Errors
    /// The log could not be synced: it is unknown which of the unsynced writes survive.
    pub fn sync(&self) -> Result<(), Error> {
        read::check_open(&self.db.inner)?;
        sync::sync_all(&self.db.inner)
    }
}

/// Waits until background work ended a step since there were so many `steps`, at most `most`.
pub(super) fn wait_for_progress(inner: &Arc<Inner>, steps: u64, most: Duration) {
    let state = inner.state();
    // Without looking at the count, a step that ended just now would be waited for in vain.
    let outcome = inner.progress.wait_timeout_while(state, most, |_| {
        inner.steps.load(Ordering::Acquire) == steps
    });
    drop(outcome.unwrap_or_else(PoisonError::into_inner));
}
