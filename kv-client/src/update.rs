//! Read, decide, write: the way to change a key without losing what others wrote.

use std::future::IntoFuture;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use kv_net::message::WriteKind;
use kv_types::{Context, Level, Outcome};

use crate::bucket::{Bucket, MaybeKey};
use crate::error::Error;
use crate::put::{WriteRequest, Written};
use crate::read::Read;

/// How often an update decides at most.
const MOST_ROUNDS: u32 = 5;

/// What an update does with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<T> {
    /// Writes this in place of all siblings.
    Put(T),
    /// Deletes the key.
    Delete,
    /// Leaves the key as it is.
    Keep,
}

/// An update of one key; await it to send it. Its result is `None` when the key was kept.
///
/// The function gets every sibling, so a conflict is resolved by the same code that changes the value.
/// It is called again, with a new read, when the nodes refuse the context of the first (too many
/// siblings, a history that moved on), at most five times within the deadline; only its last decision
/// is written.
///
/// A write that another client makes between the read and the write is not overwritten: it becomes a
/// sibling of this one, and the next update sees both. This is no compare-and-swap.
#[must_use = "a request is sent when it is awaited"]
pub struct Update<F> {
    plan: Plan,
    change: F,
}

impl<F> core::fmt::Debug for Update<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Update")
            .field("key", &self.plan.key)
            .finish_non_exhaustive()
    }
}

impl<F> Update<F> {
    pub(crate) fn new(bucket: Bucket, key: MaybeKey, change: F) -> Self {
        Self {
            plan: Plan::new(bucket, key),
            change,
        }
    }

    /// The level of the read and of the write. Default: the client's.
    pub fn level(mut self, level: Level) -> Self {
        self.plan.level = level;
        self
    }

    /// How many replicas must answer the read, in place of the level's number.
    pub fn r(mut self, r: u8) -> Self {
        self.plan.r = Some(r);
        self
    }

    /// How many replicas must hold the write durably, in place of the level's number.
    pub fn w(mut self, w: u8) -> Self {
        self.plan.w = Some(w);
        self
    }

    /// The whole time of reads and writes together. Default: the client's, 1 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.plan.timeout = deadline;
        self
    }
}

impl<F> IntoFuture for Update<F>
where
    F: FnMut(Read<Bytes>) -> Change<Bytes> + Send + 'static,
{
    type Output = Result<Option<Written>, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { plan, mut change } = self;
        Box::pin(async move {
            let (written, ()) = plan.run(|read| Ok((change(read), ()))).await?;
            Ok(written)
        })
    }
}

/// What every kind of update needs to know.
#[derive(Debug)]
pub(crate) struct Plan {
    bucket: Bucket,
    key: MaybeKey,
    level: Level,
    r: Option<u8>,
    w: Option<u8>,
    timeout: Duration,
}

impl Plan {
    pub(crate) fn new(bucket: Bucket, key: MaybeKey) -> Self {
        let options = bucket.session.options();
        let (level, timeout) = (options.level, options.deadline);
        Self {
            bucket,
            key,
            level,
            r: None,
            w: None,
            timeout,
        }
    }

    /// Reads, decides and writes, until a decision stands. Gives what was written, and what the last
    /// decision came with.
    pub(crate) async fn run<D>(
        &self,
        mut decide: impl FnMut(Read<Bytes>) -> Result<(Change<Bytes>, D), Error>,
    ) -> Result<(Option<Written>, D), Error> {
        let until = self.bucket.session.now() + self.timeout;
        let mut rounds = 0;
        loop {
            rounds += 1;
            let read = self.read(until).await?;
            let context = read.context().clone();
            let (change, decided) = decide(read)?;
            let (kind, value) = match change {
                Change::Keep => return Ok((None, decided)),
                Change::Put(value) => (WriteKind::Put, value),
                Change::Delete => (WriteKind::Delete, Bytes::new()),
            };
            match self.write(kind, value, context, until).await {
                Ok(written) => return Ok((Some(written), decided)),
                Err(error) if is_overtaken(&error) && rounds < MOST_ROUNDS => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn read(&self, until: Duration) -> Result<Read<Bytes>, Error> {
        let mut get = self.bucket.get(self.key.clone());
        (get.level, get.r, get.timeout) = (self.level, self.r, self.left(until));
        get.await
    }

    async fn write(
        &self,
        kind: WriteKind,
        value: Bytes,
        context: Context,
        until: Duration,
    ) -> Result<Written, Error> {
        let mut write = WriteRequest::new(self.bucket.clone(), self.key.clone(), kind, value);
        write.context = Some(context);
        (write.level, write.w, write.timeout) = (self.level, self.w, self.left(until));
        write.send().await
    }

    fn left(&self, until: Duration) -> Duration {
        until.saturating_sub(self.bucket.session.now())
    }
}

/// Whether the key moved on such that a new read helps. A write that may have been applied is not
/// decided anew: the function could count its own effect twice.
fn is_overtaken(error: &Error) -> bool {
    matches!(
        error,
        Error::WrongContext { .. } | Error::TooManySiblings { .. }
    ) && error.outcome() == Outcome::NotApplied
}
