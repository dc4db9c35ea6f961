//! What the tests share: an environment over the simulated disk, and a job queue that a test drains by hand.

use kv_storage::sim::SimFs;
use kv_storage::{
    Clock, CompactionFilter, Damage, Db, Durability, Entry, Env, Events, Filtered, Hooks,
    InlineJobs, Job, JobClass, Jobs, OpenError, Options, Seq, Verdict, WriteBatch,
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

/// A clock that moves on a tenth of a second at each look, so that rests after failures end.
#[derive(Debug, Default)]
pub(crate) struct TickingClock(AtomicU64);

impl Clock for TickingClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(100, Ordering::Relaxed))
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
        hooks: Hooks::default(),
    }
}

pub(crate) fn with_hooks(env: Env, hooks: Hooks) -> Env {
    Env { hooks, ..env }
}

/// The environment, telling of everything that it finds.
pub(crate) fn with_events(env: Env) -> (Env, Arc<Told>) {
    let told = Arc::new(Told::default());
    let hooks = Hooks {
        events: Some(told.clone()),
        ..Hooks::default()
    };
    (with_hooks(env, hooks), told)
}

/// Collects what it is told.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) filtered: Mutex<Vec<Filtered>>,
    pub(crate) damaged: Mutex<Vec<Damage>>,
}

impl Events for Told {
    fn filtered(&self, entries: &[Filtered]) {
        self.filtered.lock().unwrap().extend_from_slice(entries);
    }

    fn damaged(&self, damage: &Damage) {
        self.damaged.lock().unwrap().push(damage.clone());
    }
}

/// Values begin with the second at which they expire; this is the second that it is now.
#[derive(Default)]
pub(crate) struct Expiring(pub(crate) AtomicU64);

impl CompactionFilter for Expiring {
    fn decide(&self, key: &[u8], _seq: Seq, value: &[u8]) -> Verdict {
        if self.expires(key, value) <= self.now() {
            Verdict::Drop(0)
        } else {
            Verdict::Keep
        }
    }

    fn expires(&self, _key: &[u8], value: &[u8]) -> Option<u64> {
        Some(u64::from(value[0]))
    }

    fn now(&self) -> Option<u64> {
        Some(self.0.load(Ordering::SeqCst))
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

    /// Runs the oldest job of a class; false if there is none.
    pub(crate) fn run_one_of(&self, wanted: JobClass) -> bool {
        let mut jobs = self.0.lock().unwrap();
        let at = jobs.iter().position(|(class, _)| *class == wanted);
        let job = at.and_then(|at| jobs.remove(at));
        drop(jobs);
        match job {
            Some((_, job)) => {
                job();
                true
            }
            None => false,
        }
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

/// Batches that overwrite and delete a few keys, with large values, so that flushes and compactions happen.
pub(crate) struct Workload {
    pub(crate) batches: Vec<WriteBatch>,
    pub(crate) durability: Durability,
    /// The contents after each number of batches.
    pub(crate) states: Vec<BTreeMap<Vec<u8>, Vec<u8>>>,
}

/// How far a run of a workload came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// Batches whose success was reported.
    pub(crate) acked: usize,
    /// Batches that were tried: the last one may have failed with an unknown outcome.
    pub(crate) tried: usize,
}

impl Workload {
    pub(crate) fn new(count: u32, durability: Durability) -> Self {
        let mut random = fastrand::Rng::with_seed(u64::from(count));
        let mut states = vec![BTreeMap::new()];
        let mut batches = Vec::new();
        for number in 0..count {
            let mut batch = WriteBatch::new();
            let mut state = states[states.len() - 1].clone();
            for _ in 0..random.usize(1..5) {
                let first = random.u32(..30);
                let key = format!("key{first:03}").into_bytes();
                if random.u32(..16) == 0 {
                    let end = format!("key{:03}", first + random.u32(..6)).into_bytes();
                    batch.delete_range(key.clone()..end.clone());
                    state.retain(|other, _| *other < key || *other >= end);
                    batch.put(&key, b"first");
                    state.insert(key, b"first".to_vec());
                } else if random.u32(..4) == 0 {
                    batch.delete(&key);
                    state.remove(&key);
                } else {
                    let value = format!("{number} ")
                        .repeat(random.usize(1..120))
                        .into_bytes();
                    batch.put(&key, &value);
                    state.insert(key, value);
                }
            }
            batches.push(batch);
            states.push(state);
        }
        Self {
            batches,
            durability,
            states,
        }
    }

    /// Opens the store and writes all batches, one after the other, until one fails; then closes or drops it.
    pub(crate) fn run(&self, fs: &SimFs) -> Outcome {
        let mut outcome = Outcome { acked: 0, tried: 0 };
        let Ok(db) = open(fs) else { return outcome };
        for batch in &self.batches {
            outcome.tried += 1;
            if db.blocking().write(batch.clone(), self.durability).is_err() {
                return outcome;
            }
            outcome.acked += 1;
            if outcome.acked.is_multiple_of(29) && db.flush().is_err() {
                return outcome;
            }
        }
        let _ = db.close();
        outcome
    }

    /// After how many batches the store had these contents, if that is possible after such a run.
    pub(crate) fn prefix(
        &self,
        found: &BTreeMap<Vec<u8>, Vec<u8>>,
        outcome: &Outcome,
    ) -> Option<usize> {
        (outcome.acked..=outcome.tried)
            .rev()
            .find(|count| self.states[*count] == *found)
    }
}
