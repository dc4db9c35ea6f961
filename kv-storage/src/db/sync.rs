//! The [group commit](super::group_commit) at work on a store.

use super::group_commit::{Log, Synced, Waiter};
use super::inner::Inner;
use crate::env::JobClass;
use crate::error::Error;
use crate::key::Seq;
use std::sync::Arc;
use std::time::Duration;

impl Log for Arc<Inner> {
    fn sync(&self) -> Option<Synced> {
        let front = self.front();
        let (last, position, segments) = (front.last, front.wal.position(), front.wal.to_sync());
        drop(front);
        self.sync_segments(&segments).ok()?;
        self.front().wal.note_synced(&segments);
        Some(Synced {
            last: last.0,
            position,
            calls: segments.len() as u64,
        })
    }

    fn submit(&self) {
        let inner = Self::clone(self);
        let job = move || inner.commits.run_job(&inner);
        self.env.jobs.submit(JobClass::LogSync, Box::new(job));
    }
}

/// Asks for a sync up to `seq` by a job, without waiting.
pub(super) fn ask(inner: &Arc<Inner>, seq: Seq) {
    inner.commits.ask(inner, seq.0);
}

/// Asks for a sync of everything that is in the log now, within `delay`.
pub(super) fn ask_within(inner: &Arc<Inner>, delay: Duration) {
    if !inner.commits.begin_delay(inner.env.clock.now() + delay) {
        return;
    }
    let weak = Arc::downgrade(inner);
    let job = move || {
        if let Some(inner) = weak.upgrade() {
            inner.commits.end_delay();
            let last = inner.front().last;
            ask(&inner, last);
        }
    };
    inner
        .env
        .jobs
        .submit_after(delay, JobClass::LogSync, Box::new(job));
}

/// Calls `call` when the log is synced up to `seq`.
pub(super) fn notify(inner: &Arc<Inner>, seq: Seq, call: Waiter<Error>) {
    // A number that was not given out yet (from an earlier life of the store) would ask for syncs for ever.
    let seq = seq.min(inner.front().last);
    inner.commits.notify(inner, seq.0, call);
}

/// Blocks until the log is synced up to `seq`, which was given to a write. Leads a sync if nobody does.
pub(super) fn wait(inner: &Arc<Inner>, seq: Seq) -> Result<(), Error> {
    inner.commits.wait(inner, seq.0)
}

/// Syncs everything that is in the log now, or waits for whoever does. Blocks.
pub(super) fn sync_all(inner: &Arc<Inner>) -> Result<(), Error> {
    let last = inner.front().last;
    wait(inner, last)
}

/// Syncs what lies in the log although it is in tables. Call when the store takes no more writes. Blocks.
pub(super) fn sync_rest(inner: &Arc<Inner>) -> Result<(), Error> {
    let end = inner.front().wal.position();
    inner.commits.wait_for_position(inner, end)
}

/// Ends all syncing, and says which write is the newest durable one: only a flush makes newer ones durable from now on.
/// Follow it with [`halt`].
pub(super) fn stop(inner: &Inner, error: &Error) -> Seq {
    Seq(inner.commits.stop(told_later(error)))
}

/// Ends all waiting for syncs. Later waits fail at once, unless what they wait for is durable.
pub(super) fn halt(inner: &Inner, error: &Error) {
    inner.commits.halt(error, told_later(error));
}

fn told_later(error: &Error) -> Error {
    match error {
        Error::Closed => Error::Closed,
        Error::Poisoned { cause } => Error::Poisoned {
            cause: Arc::clone(cause),
        },
        other => Error::Poisoned {
            cause: other.to_string().into(),
        },
    }
}
