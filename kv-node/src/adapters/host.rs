//! Time, randomness and tasks from tokio and the operating system.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use tokio::runtime::Handle;

use crate::env::Host;

/// The host of a production node; lives in a tokio runtime. The engine's threads use it, too.
#[derive(Debug)]
pub struct TokioHost {
    start: Instant,
    runtime: Handle,
}

impl TokioHost {
    /// A host whose time begins now, and whose tasks run in the present runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the real adapter")]
    pub fn starting_now() -> Self {
        Self {
            start: Instant::now(),
            runtime: Handle::current(),
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

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(task);
    }

    #[expect(clippy::disallowed_methods, reason = "this is the real adapter")]
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        // A thread of the engine is not in the runtime.
        let _inside = self.runtime.enter();
        Box::pin(tokio::time::sleep(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    #[expect(
        clippy::disallowed_methods,
        reason = "what the engine's threads do is tested"
    )]
    async fn threads_of_the_engine_may_sleep_and_spawn() {
        let host = Arc::new(TokioHost::starting_now());
        let (done, waited) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let sleep = host.sleep(Duration::from_millis(1));
            host.spawn(Box::pin(async move {
                sleep.await;
                let _ = done.send(());
            }));
        });
        thread.join().expect("it does not panic");
        waited.await.expect("the task has run");
    }
}
