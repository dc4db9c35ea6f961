//! Where an endpoint takes its time and its tasks from: tokio, or a simulator.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::future::{AbortHandle, abortable};
use quinn::AsyncTimer;

/// Time and tasks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Runtime(Arc<dyn quinn::Runtime>);

/// Longer than anybody waits.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// A deadline passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elapsed;

impl Runtime {
    pub(crate) fn new(runtime: Arc<dyn quinn::Runtime>) -> Self {
        Self(runtime)
    }

    /// For quinn.
    pub(crate) fn inner(&self) -> Arc<dyn quinn::Runtime> {
        Arc::clone(&self.0)
    }

    pub(crate) fn now(&self) -> Instant {
        self.0.now()
    }

    /// Runs a task until it ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(Box::pin(task));
    }

    /// Runs a task until it ends or is aborted.
    pub(crate) fn spawn_abortable(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        let (task, handle) = abortable(task);
        self.spawn(async move {
            // Whoever aborted it knows.
            let _ = task.await;
        });
        handle
    }

    /// Waits for `work` for at most `limit`.
    pub(crate) async fn timeout<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        let now = self.now();
        let deadline = now.checked_add(limit).unwrap_or(now + FAR);
        self.timeout_at(deadline, work).await
    }

    /// Waits for `work` until `deadline`. Work that is done at the deadline counts.
    pub(crate) async fn timeout_at<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        let mut work = pin!(work);
        // Most work is done at once, and needs no timer.
        let mut timer: Option<Pin<Box<dyn AsyncTimer>>> = None;
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Ok(done));
            }
            let timer = timer.get_or_insert_with(|| self.0.new_timer(deadline));
            timer.as_mut().poll(context).map(|()| Err(Elapsed))
        })
        .await
    }
}
