//! What the engine takes from outside: files, jobs, a clock and a seed.

use crate::fs::{Fs, RealFs};
use crate::hooks::Hooks;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Work that may block, handed to [`Jobs`].
pub type Job = Box<dyn FnOnce() + Send>;

/// What a job does, so that an executor can give each kind its own threads or virtual delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobClass {
    /// Syncs the log. Writers wait for it: run it first, and never behind the others.
    LogSync,
    /// Makes log segments ready and looks at the free space. Writers wait for it when the log runs out of
    /// room: run it beside the flushes, not behind them.
    LogSegment,
    /// Reads blocks that are not in the cache.
    Read,
    /// Writes a sealed memtable to a table file.
    Flush,
    /// One compaction step of at most
    /// [`Options::compaction_step_bytes`](crate::Options::compaction_step_bytes).
    Compaction,
}

/// Runs the engine's blocking work: a few threads in production, chosen virtual times in simulation.
///
/// Jobs may run in any order, on any thread, at any time, and several at once. Dropping a job that has
/// not started loses no data, but the store counts on it: what is flushed, compacted or synced by that job alone may
/// then wait until the store is opened again, writers may meet `Busy` until then, and callbacks are never called.
pub trait Jobs: Send + Sync {
    /// Takes a job to be run later, or runs it at once. Called with no lock of the engine held.
    fn submit(&self, class: JobClass, job: Job);

    /// Takes a job to be run when `delay` has passed. Unless an implementation has timers, it is run like any
    /// other: earlier than needed, which is safe.
    fn submit_after(&self, delay: Duration, class: JobClass, job: Job) {
        let _ = delay;
        self.submit(class, job);
    }
}

/// A monotonic clock, used for pacing and statistics only. It never decides what is stored.
pub trait Clock: Send + Sync {
    /// Time since some fixed start.
    fn now(&self) -> Duration;
}

/// Everything the engine needs from its surroundings.
#[derive(Clone)]
pub struct Env {
    /// The file system.
    pub fs: Arc<dyn Fs>,
    /// Where blocking work goes.
    pub jobs: Arc<dyn Jobs>,
    /// Time for pacing.
    pub clock: Arc<dyn Clock>,
    /// Names a newly created store (its 64-bit store id is derived from this), so use a random
    /// number in production.
    pub seed: u64,
    /// What the caller wants to be asked and told.
    pub hooks: Hooks,
}

impl Env {
    /// Real files, every job on the calling thread, the system's monotonic clock: for embedded use.
    pub fn embedded(seed: u64) -> Self {
        Self {
            fs: Arc::new(RealFs),
            jobs: Arc::new(InlineJobs),
            clock: Arc::new(MonotonicClock::starting_now()),
            seed,
            hooks: Hooks::default(),
        }
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env")
            .field("fs", &self.fs)
            .field("seed", &self.seed)
            .field("hooks", &self.hooks)
            .finish_non_exhaustive()
    }
}

/// Runs each job on the thread that submits it, before [`submit`](Jobs::submit) returns.
///
/// A job submitted from inside a job runs right after it instead of inside it, so that a long chain of
/// jobs does not grow the stack.
#[derive(Debug, Clone, Copy, Default)]
pub struct InlineJobs;

thread_local! {
    /// Jobs submitted by the job that runs on this thread; `None` when none runs.
    static BACKLOG: RefCell<Option<VecDeque<Job>>> = const { RefCell::new(None) };
}

impl Jobs for InlineJobs {
    fn submit(&self, _class: JobClass, job: Job) {
        let deferred = BACKLOG.with_borrow_mut(|backlog| match backlog {
            Some(queue) => {
                queue.push_back(job);
                None
            }
            None => {
                *backlog = Some(VecDeque::new());
                Some(job)
            }
        });
        let mut next = deferred;
        // If a job panics, the guard still ends the backlog, so later submits run again.
        let _guard = next.is_some().then(|| EndBacklog);
        while let Some(job) = next {
            job();
            next =
                BACKLOG.with_borrow_mut(|backlog| backlog.as_mut().and_then(VecDeque::pop_front));
        }
    }
}

struct EndBacklog;

impl Drop for EndBacklog {
    fn drop(&mut self) {
        BACKLOG.with_borrow_mut(|backlog| *backlog = None);
    }
}

/// The real clock, the only place in this crate that reads time.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock {
    start: Instant,
}

impl MonotonicClock {
    /// A clock that shows zero now.
    #[expect(clippy::disallowed_methods, reason = "this is the named real adapter")]
    pub fn starting_now() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn inline_jobs_run_before_submit_returns_and_chains_do_not_nest() {
        static DEPTH: AtomicU32 = AtomicU32::new(0);
        static RUN: AtomicU32 = AtomicU32::new(0);
        fn chain(left: u32) {
            assert_eq!(
                DEPTH.fetch_add(1, Ordering::SeqCst),
                0,
                "a job ran inside a job"
            );
            RUN.fetch_add(1, Ordering::SeqCst);
            if left > 0 {
                InlineJobs.submit(JobClass::Read, Box::new(move || chain(left - 1)));
            }
            DEPTH.fetch_sub(1, Ordering::SeqCst);
        }
        InlineJobs.submit(JobClass::Read, Box::new(|| chain(100_000)));
        assert_eq!(RUN.load(Ordering::SeqCst), 100_001);
    }
}
