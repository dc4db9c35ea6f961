//! What one simulated process gets from its machine.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use futures::future::BoxFuture;
use kv_node::env::Host;
use kv_storage::{Job, JobClass, Jobs};

use super::executor::{Group, Handle};

/// The wall clock at the start of every simulation, in milliseconds since the Unix epoch.
pub const WALL_START_MS: u64 = 1_800_000_000_000;

/// Clocks, randomness and tasks of one process.
#[derive(Debug)]
pub struct SimHost {
    handle: Handle,
    group: Group,
    rng: Mutex<Rng>,
}

impl SimHost {
    /// The host of a process.
    #[must_use]
    pub fn new(handle: Handle, group: Group) -> Self {
        let rng = Mutex::new(Rng::with_seed(handle.seed()));
        Self { handle, group, rng }
    }
}

impl Host for SimHost {
    fn now(&self) -> Duration {
        self.handle.now()
    }

    fn wall_ms(&self) -> u64 {
        WALL_START_MS + u64::try_from(self.handle.now().as_millis()).unwrap_or(u64::MAX)
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
    /// How slow this machine's disk is to sync.
    most_sync_micros: u64,
}

impl SimJobs {
    /// The jobs of a process, on a disk that is fast or slow as the seed draws.
    #[must_use]
    pub fn new(handle: Handle, group: Group) -> Self {
        let most_sync_micros = match handle.below(3) {
            0 => 400,
            1 => 4_000,
            _ => 40_000,
        };
        Self {
            handle,
            group,
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
        let delay = Duration::from_micros(20 + self.handle.below(most_micros));
        self.handle.after(self.group, delay, job);
    }
}
