//! Writes that are to survive power loss within a delay share one sync, which comes by a timer.

use crate::support::{contents, dir, env_with, open, put};
use kv_storage::sim::SimFs;
use kv_storage::{Clock, Db, Durability, Env, Job, JobClass, Jobs, Options};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LONG: Duration = Duration::from_millis(50);
const SHORT: Duration = Duration::from_millis(10);

/// Runs jobs at once, but keeps those for later until the test runs them.
#[derive(Default)]
struct Timers(Mutex<Vec<(Duration, Job)>>);

impl Jobs for Timers {
    fn submit(&self, _class: JobClass, job: Job) {
        job();
    }

    fn submit_after(&self, delay: Duration, class: JobClass, job: Job) {
        assert_eq!(class, JobClass::LogSync);
        self.0.lock().unwrap().push((delay, job));
    }
}

impl Timers {
    fn delays(&self) -> Vec<Duration> {
        self.0.lock().unwrap().iter().map(|timer| timer.0).collect()
    }

    fn run_all(&self) {
        let timers = std::mem::take(&mut *self.0.lock().unwrap());
        timers.into_iter().for_each(|(_, job)| job());
    }
}

/// Time stands still.
struct NoTime;

impl Clock for NoTime {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

#[test]
fn writes_within_a_delay_share_one_sync_and_survive_power_loss_after_it() {
    let fs = SimFs::new();
    let timers = Arc::new(Timers::default());
    let env = Env {
        clock: Arc::new(NoTime),
        ..env_with(&fs, timers.clone())
    };
    let db = Db::open(dir(), Options::tiny(), env).unwrap();
    let syncs = db.stats().log_syncs;
    let write = |key: &str, delay| {
        let ticket = db
            .write(put(key, "v"), Durability::Interval(delay))
            .unwrap();
        ticket.wait().unwrap();
    };
    write("a", LONG);
    write("b", LONG);
    db.blocking()
        .write(put("c", "v"), Durability::Interval(LONG))
        .unwrap();
    assert_eq!(timers.delays(), [LONG], "one timer serves all");
    write("d", SHORT);
    write("e", LONG);
    assert_eq!(
        timers.delays(),
        [LONG, SHORT],
        "a shorter delay needs its own"
    );
    let stats = db.stats();
    assert_eq!(stats.log_syncs, syncs, "nothing was synced yet");
    assert!(stats.durable < stats.last);

    timers.run_all();
    let stats = db.stats();
    assert_eq!(stats.durable, stats.last);
    assert_eq!(
        stats.log_syncs,
        syncs + 1,
        "the later timer finds nothing to do"
    );
    write("f", LONG);
    assert_eq!(timers.delays(), [LONG], "a later write asks anew");
    timers.run_all();
    drop(db);
    for seed in 0..10 {
        let db = open(&fs.fork().power_loss(seed)).unwrap();
        assert_eq!(contents(&db).unwrap().len(), 6, "loss {seed}");
    }
}
