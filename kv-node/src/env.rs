//! What a node takes from its surroundings: time, randomness, tasks, files, blocking jobs, network.
//!
//! Node code uses nothing else, so a whole node runs unchanged on real parts ([`crate::adapters`]) or
//! inside a simulator, in one thread and in virtual time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, Either, select};
use kv_storage::fs::Fs;
use kv_storage::{Clock, Job, JobClass, Jobs};
use kv_types::Hlc;

use crate::transport::Transport;

/// Time, randomness and tasks.
pub trait Host: Send + Sync + 'static {
    /// Time since some fixed start; never goes back.
    fn now(&self) -> Duration;

    /// Milliseconds since the Unix epoch, by a clock that may be wrong and may jump.
    fn wall_ms(&self) -> u64;

    /// 64 random bits.
    fn random(&self) -> u64;

    /// Runs a task until it ends or the node is torn down.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Ends after a duration.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Everything that a node needs from outside. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// Time, randomness and tasks.
    pub host: Arc<dyn Host>,
    /// Files.
    pub fs: Arc<dyn Fs>,
    /// Where the engine's blocking work runs.
    pub jobs: Arc<dyn Jobs>,
    /// Other nodes.
    pub transport: Arc<dyn Transport>,
}

/// A deadline passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl Env {
    /// Time since some fixed start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.host.now()
    }

    /// The wall clock as a point of hybrid logical time.
    #[must_use]
    pub fn wall(&self) -> Hlc {
        Hlc::from_millis(self.host.wall_ms())
    }

    /// Starts a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.host.spawn(Box::pin(task));
    }

    /// Ends after a duration.
    pub fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.host.sleep(duration)
    }

    /// Waits for `work` until `limit` has passed.
    ///
    /// # Errors
    /// [`Elapsed`] when the limit passed first; `work` is then dropped.
    pub async fn timeout<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        // `select` polls its first argument first: work that is done at the deadline counts.
        match select(std::pin::pin!(work), self.sleep(limit)).await {
            Either::Left((done, _)) => Ok(done),
            Either::Right(((), _)) => Err(Elapsed),
        }
    }

    /// The surroundings of the storage engine.
    #[must_use]
    pub fn storage(&self) -> kv_storage::Env {
        kv_storage::Env {
            fs: Arc::clone(&self.fs),
            jobs: Arc::new(TimedJobs(self.clone())),
            clock: Arc::new(HostClock(Arc::clone(&self.host))),
            seed: self.host.random(),
            hooks: kv_storage::Hooks::default(),
        }
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").finish_non_exhaustive()
    }
}

/// Jobs that wait do so as a task.
struct TimedJobs(Env);

impl Jobs for TimedJobs {
    fn submit(&self, class: JobClass, job: Job) {
        self.0.jobs.submit(class, job);
    }

    fn submit_after(&self, delay: Duration, class: JobClass, job: Job) {
        if delay.is_zero() {
            return self.submit(class, job);
        }
        let (wait, jobs) = (self.0.sleep(delay), Arc::clone(&self.0.jobs));
        self.0.spawn(async move {
            wait.await;
            jobs.submit(class, job);
        });
    }
}

struct HostClock(Arc<dyn Host>);

impl Clock for HostClock {
    fn now(&self) -> Duration {
        self.0.now()
    }
}

/// A point after which work for a request is wasted.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Duration);

impl Deadline {
    /// The deadline `budget` from now.
    #[must_use]
    pub fn after(env: &Env, budget: Duration) -> Self {
        Self(env.now() + budget)
    }

    /// This deadline, or `most` from now if that is earlier.
    #[must_use]
    pub fn at_most(self, env: &Env, most: Duration) -> Self {
        Self(self.0.min(env.now() + most))
    }

    /// What is left of it.
    #[must_use]
    pub fn left(self, env: &Env) -> Duration {
        self.0.saturating_sub(env.now())
    }
}
