//! Syncs of one thing come one after another, and none after one that failed.
//!
//! A failure may be told to one caller only. If another syncs the same file or directory at the same time, or before
//! the first has said so, that sync succeeds and proves nothing (rule 4 of [`crate::fs`]).

use crate::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

/// What syncs of one thing go through.
#[derive(Debug, Default)]
pub(super) struct SyncGate {
    /// Why no further sync is tried.
    failed: Mutex<Option<Arc<str>>>,
}

impl SyncGate {
    /// Runs something that syncs, when nobody else does. Blocks. Only a full disk leaves the gate open after an error,
    /// since no sync fails for that.
    pub(super) fn run<T>(&self, sync: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cause) = &*failed {
            return Err(Error::Poisoned {
                cause: Arc::clone(cause),
            });
        }
        sync().inspect_err(|error| {
            if !error.is_no_space() {
                *failed = Some(error.to_string().into());
            }
        })
    }
}
