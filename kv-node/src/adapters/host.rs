//! Time, randomness and tasks from tokio and the operating system.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;

use crate::env::Host;

/// The host of a production node; lives in a tokio runtime.
#[derive(Debug)]
pub struct TokioHost {
    start: Instant,
}

impl TokioHost {
    /// A host whose time begins now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the real adapter")]
    pub fn starting_now() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Host for TokioHost {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the real adapter")]
    fn wall_ms(&self) -> u64 {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> u64 {
        getrandom::u64().expect("the operating system gives random bytes")
    }

    #[expect(clippy::disallowed_methods, reason = "this is the real adapter")]
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    #[expect(clippy::disallowed_methods, reason = "this is the real adapter")]
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}
