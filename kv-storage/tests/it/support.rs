//! What the tests share: an environment over the simulated disk, and a job queue that a test drains by hand.

use kv_storage::sim::SimFs;
use kv_storage::{
    Clock, Db, Entry, Env, InlineJobs, Job, JobClass, Jobs, OpenError, Options, WriteBatch,
};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The store's directory on simulated disks.
pub(crate) fn dir() -> &'static Path {
    Path::new("/store")
}

/// A clock that moves on a millisecond at each look, so that rests after failures end.
#[derive(Debug, Default)]
pub(crate) struct TickingClock(AtomicU64);

impl Clock for TickingClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

pub(crate) fn env(fs: &SimFs) -> Env {
    env_with(fs, Arc::new(InlineJobs))
}

pub(crate) fn env_with(fs: &SimFs, jobs: Arc<dyn Jobs>) -> Env {
    Env {
        fs: Arc::new(fs.clone()),
        jobs,
        clock: Arc::new(TickingClock::default()),
        seed: 7,
    }
}

pub(crate) fn open(fs: &SimFs) -> Result<Db, OpenError> {
    Db::open(dir(), Options::tiny(), env(fs))
}

/// Keeps jobs until the test runs them.
#[derive(Default)]
pub(crate) struct ManualJobs(Mutex<VecDeque<(JobClass, Job)>>);

impl Jobs for ManualJobs {
    fn submit(&self, class: JobClass, job: Job) {
        self.0.lock().unwrap().push_back((class, job));
    }
}

impl ManualJobs {
    /// Runs the oldest job; says of what class it was.
    pub(crate) fn run_one(&self) -> Option<JobClass> {
        let (class, job) = self.0.lock().unwrap().pop_front()?;
        job();
        Some(class)
    }

    pub(crate) fn run_all(&self) {
        while self.run_one().is_some() {}
    }

    pub(crate) fn classes(&self) -> Vec<JobClass> {
        self.0
            .lock()
            .unwrap()
            .iter()
            .map(|(class, _)| *class)
            .collect()
    }
}

pub(crate) fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(key.as_ref(), value.as_ref());
    batch
}

/// Everything in the store, by a forward scan; a backward scan must agree.
pub(crate) fn contents(db: &Db) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, kv_storage::Error> {
    let snapshot = db.snapshot();
    let forward: Vec<Entry> = snapshot.iter::<&[u8]>(..).collect::<Result<_, _>>()?;
    let mut backward: Vec<Entry> = snapshot.iter::<&[u8]>(..).rev().collect::<Result<_, _>>()?;
    backward.reverse();
    assert_eq!(forward, backward, "the two directions disagree");
    Ok(forward
        .into_iter()
        .map(|entry| (entry.key.to_vec(), entry.value.to_vec()))
        .collect())
}
