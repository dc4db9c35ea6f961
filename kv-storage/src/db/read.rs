//! Point reads that do not block, and the jobs for those that must.

use super::inner::Inner;
use super::view::{Answer, View};
use crate::env::JobClass;
use crate::error::Error;
use crate::key::Seq;
use crate::table::Fetch;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The value. It may share memory with the engine; copy it if you keep small values for long.
    pub value: Bytes,
    /// The number of the write that stored it. It is not always durable yet: see
    /// [`Db::on_durable`](crate::Db::on_durable).
    pub seq: Seq,
}

/// The outcome of [`Db::get`](crate::Db::get).
#[derive(Debug)]
#[must_use]
pub enum Read {
    /// Memory held the answer.
    Ready(Result<Option<Found>, Error>),
    /// The disk must be read: run this where blocking is allowed.
    NeedsIo(ReadJob),
}

/// A read that must block. It answers for the moment at which it was made.
pub struct ReadJob {
    inner: Arc<Inner>,
    view: Arc<View>,
    key: Vec<u8>,
    at: Seq,
}

impl ReadJob {
    /// Reads from disk.
    ///
    /// # Errors
    /// The file system failed, or the bytes read are damaged.
    pub fn run(self) -> Result<Option<Found>, Error> {
        check_open(&self.inner)?;
        match self.view.get(&self.key, self.at, Fetch::Blocking)? {
            Answer::Value(found) => Ok(found),
            Answer::NeedsIo => unreachable!("a blocking lookup reads what it needs"),
        }
    }
}

impl fmt::Debug for ReadJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadJob")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

pub(super) fn get(inner: &Arc<Inner>, key: &[u8]) -> Read {
    if let Err(closed) = check_open(inner) {
        return Read::Ready(Err(closed));
    }
    // The view first, then the number: a version that a later flush or compaction drops is still in this view,
    // and everything in the view's tables is numbered below.
    let view = inner.view();
    let at = inner.visible();
    match view.get(key, at, Fetch::CacheOnly) {
        Ok(Answer::Value(found)) => Read::Ready(Ok(found)),
        Ok(Answer::NeedsIo) => Read::NeedsIo(ReadJob {
            inner: Arc::clone(inner),
            view: arc_swap::Guard::into_inner(view),
            key: key.to_vec(),
            at,
        }),
        Err(error) => Read::Ready(Err(error)),
    }
}

pub(super) fn get_with(
    inner: &Arc<Inner>,
    key: &[u8],
    done: impl FnOnce(Result<Option<Found>, Error>) + Send + 'static,
) {
    match get(inner, key) {
        Read::Ready(outcome) => done(outcome),
        Read::NeedsIo(job) => inner
            .env
            .jobs
            .submit(JobClass::Read, Box::new(move || done(job.run()))),
    }
}

pub(super) fn check_open(inner: &Inner) -> Result<(), Error> {
    if inner.closed.load(Ordering::Acquire) {
        Err(Error::Closed)
    } else {
        Ok(())
    }
}
