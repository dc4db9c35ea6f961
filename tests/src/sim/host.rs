//! What one simulated process gets from its machine.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use futures::future::BoxFuture;
use kv_node::env::Host;
use kv_storage::{Job, JobClass, Jobs};

use super::executor::{Group, Handle};

/// The wall clock at the start of every simulation, in milliseconds since the Unix epoch.
pub const WALL_START_MS: u64 = 1_800_000_000_000;

/// What is wrong with a machine, whichever process runs on it.
#[derive(Debug)]
pub struct Conditions {
    skew_ms: AtomicI64,
    slowness: AtomicU64,
    hung_until_micros: AtomicU64,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            skew_ms: AtomicI64::new(0),
            slowness: AtomicU64::new(1),
            hung_until_micros: AtomicU64::new(0),
        }
    }
}

impl Conditions {
    /// Sets the wall clock ahead of true time, or behind it.
    pub fn set_skew(&self, milliseconds: i64) {
        self.skew_ms.store(milliseconds, Ordering::Relaxed);
    }

    /// Makes the disk so many times slower than it is.
    pub fn set_slowness(&self, factor: u64) {
        self.slowness.store(factor.max(1), Ordering::Relaxed);
    }

    /// Lets no disk work end before then.
    pub fn hang_until(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.hung_until_micros.fetch_max(micros, Ordering::Relaxed);
    }

    /// Milliseconds since the Unix epoch by this machine's clock.
    pub(super) fn wall_ms(&self, handle: &Handle) -> u64 {
        let true_ms = WALL_START_MS + u64::try_from(handle.now().as_millis()).unwrap_or(0);
        true_ms.saturating_add_signed(self.skew_ms.load(Ordering::Relaxed))
    }

    /// Ends everything but the clock's skew.
    pub fn mend_disk(&self) {
        self.set_slowness(1);
        self.hung_until_micros.store(0, Ordering::Relaxed);
    }
}

/// Clocks, randomness and tasks of one process.
#[derive(Debug)]
pub struct SimHost {
    handle: Handle,
    group: Group,
    conditions: Arc<Conditions>,
    rng: Mutex<Rng>,
}

impl SimHost {
    /// The host of a process.
    #[must_use]
    pub fn new(handle: Handle, group: Group, conditions: Arc<Conditions>) -> Self {
        let rng = Mutex::new(Rng::with_seed(handle.seed()));
        Self {
            handle,
            group,
            conditions,
            rng,
        }
    }
}

impl Host for SimHost {
    fn now(&self) -> Duration {
        self.handle.now()
    }

    fn wall_ms(&self) -> u64 {
        self.conditions.wall_ms(&self.handle)
    }

    fn random(&self) -> u64 {
        self.rng
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .u64(..)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.handle.spawn_boxed(self.group, task);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(self.handle.sleep(duration))
    }
}

/// Blocking work of one process: done in no time, at a point of virtual time that the seed draws.
#[derive(Debug)]
pub struct SimJobs {
    handle: Handle,
    group: Group,
    conditions: Arc<Conditions>,
    /// How slow this machine's disk is to sync.
    most_sync_micros: u64,
}

impl SimJobs {
    /// The jobs of a process, on a disk that is fast or slow as the seed draws.
    #[must_use]
    pub fn new(handle: Handle, group: Group, conditions: Arc<Conditions>) -> Self {
        let most_sync_micros = match handle.below(3) {
            0 => 400,
            1 => 4_000,
            _ => 40_000,
        };
        Self {
            handle,
            group,
            conditions,
            most_sync_micros,
        }
    }
}

impl Jobs for SimJobs {
    fn submit(&self, class: JobClass, job: Job) {
        let most_micros = match class {
            JobClass::LogSync => self.most_sync_micros,
            JobClass::LogSegment => 5_000,
            JobClass::Read => 200,
            JobClass::Flush => 20_000,
            JobClass::Compaction => 50_000,
        };
        let slowness = self.conditions.slowness.load(Ordering::Relaxed);
        let delay = Duration::from_micros((20 + self.handle.below(most_micros)) * slowness);
        let hung = Duration::from_micros(self.conditions.hung_until_micros.load(Ordering::Relaxed));
        let hangs = hung.saturating_sub(self.handle.now());
        self.handle.after(self.group, delay + hangs, job);
    }
}
