//! Scrubs find what is damaged on disk while the store is open, at the pace they are given.

use crate::support::{ManualJobs, dir, env, env_with, with_events};
use kv_storage::sim::SimFs;
use kv_storage::{Db, Env, Job, JobClass, Jobs, Options, ScrubCursor, ScrubReport};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn options() -> Options {
    let mut options = Options::tiny();
    options.table_bytes = 2 << 10;
    options
}

fn fill(db: &Db, from: u32, to: u32) {
    let mut random = fastrand::Rng::with_seed(u64::from(from));
    for number in from..to {
        let value: Vec<u8> = (0..100).map(|_| random.u8(..)).collect();
        db.blocking().put(&number.to_be_bytes(), &value).unwrap();
    }
    db.flush().unwrap();
}

fn files(fs: &SimFs, ending: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let all = fs.dump().into_iter();
    all.filter(|(path, _)| path.to_string_lossy().contains(ending))
        .collect()
}

#[test]
fn a_scrub_of_a_sound_store_reads_every_block_and_finds_nothing() {
    let fs = SimFs::new();
    let db = Db::open(dir(), options(), env(&fs)).unwrap();
    fill(&db, 0, 300);
    let report = db.blocking().scrub();
    assert!(report.found.is_empty() && report.rest.is_none());
    let tables = files(&fs, ".sst");
    assert_eq!(report.tables as usize, tables.len());
    let sizes: usize = tables.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(report.bytes as usize > sizes / 2 && (report.bytes as usize) < sizes);
    let stats = db.stats();
    assert_eq!((stats.scrubs, stats.scrubbed_bytes), (1, report.bytes));
    assert_eq!(stats.scrub_at, None);
}

#[test]
fn damage_on_disk_is_found_past_the_caches_and_told_once() {
    let fs = SimFs::new();
    let (env, told) = with_events(env(&fs));
    let db = Db::open(dir(), options(), env).unwrap();
    fill(&db, 0, 300);
    // Everything is in the cache now.
    for number in 0..300u32 {
        assert!(db.blocking().get(&number.to_be_bytes()).unwrap().is_some());
    }
    let mut kinds = 0;
    for ending in [".sst", "MANIFEST", "CURRENT", "FORMAT"] {
        for (path, bytes) in files(&fs, ending) {
            let places = match ending {
                ".sst" => vec![3, bytes.len() / 2, bytes.len() - 40],
                _ => vec![bytes.len() / 2],
            };
            for at in places {
                let mut bad = bytes.clone();
                bad[at] ^= 16;
                fs.overwrite(&path, bad).unwrap();
                told.damaged.lock().unwrap().clear();
                let report = db.blocking().scrub();
                let what = format!("{} byte {at}", path.display());
                // A manifest's last frame may be torn; nothing promises yet that it was synced.
                if ending == "MANIFEST" && report.found.is_empty() {
                    fs.overwrite(&path, bytes.clone()).unwrap();
                    continue;
                }
                assert_eq!(report.found.len(), 1, "{what}");
                assert!(
                    report.found[0]
                        .to_string()
                        .contains(&*path.to_string_lossy()),
                    "{what}"
                );
                let heard = told.damaged.lock().unwrap().len();
                assert!(heard <= 1, "{what}");
                kinds += heard;
                // The second scrub finds it again, but nobody is told again.
                assert_eq!(db.blocking().scrub().found.len(), 1);
                assert_eq!(told.damaged.lock().unwrap().len(), heard, "{what}");
                fs.overwrite(&path, bytes.clone()).unwrap();
            }
        }
    }
    assert!(kinds > 10, "{kinds}");
    assert!(db.blocking().scrub().found.is_empty());
}

/// Keeps jobs with their delays.
#[derive(Default)]
struct TimedJobs(Mutex<VecDeque<(Duration, Job)>>);

impl Jobs for TimedJobs {
    fn submit(&self, class: JobClass, job: Job) {
        self.submit_after(Duration::ZERO, class, job);
    }

    fn submit_after(&self, delay: Duration, _class: JobClass, job: Job) {
        self.0.lock().unwrap().push_back((delay, job));
    }
}

impl TimedJobs {
    fn run_one(&self) -> Option<Duration> {
        let (delay, job) = self.0.lock().unwrap().pop_front()?;
        job();
        Some(delay)
    }
}

/// A store of some megabytes, so that a scrub has several steps.
fn large_store(fs: &SimFs) {
    let mut options = options();
    options.memtable_bytes = 1 << 20;
    options.table_bytes = 256 << 10;
    options.log_segment_bytes = 1 << 20;
    let db = Db::open(dir(), options, env(fs)).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    for number in 0..1_500u32 {
        let value: Vec<u8> = (0..1_000).map(|_| random.u8(..)).collect();
        let batch = crate::support::put(number.to_be_bytes(), value);
        db.blocking()
            .write(batch, kv_storage::Durability::Process)
            .unwrap();
    }
    db.flush().unwrap();
    db.close().unwrap();
}

#[test]
fn a_paced_scrub_takes_the_time_that_its_rate_allows() {
    let fs = SimFs::new();
    large_store(&fs);
    let jobs = Arc::new(TimedJobs::default());
    let env = Env {
        // It stands still, so that only the delays count.
        clock: Arc::new(StandingClock),
        ..env_with(&fs, jobs.clone())
    };
    let db = Db::open(dir(), options(), env).unwrap();
    while jobs.run_one().is_some() {}
    let report = Arc::new(Mutex::new(None));
    let into = report.clone();
    db.scrub(1 << 20, ScrubCursor::default(), move |report| {
        *into.lock().unwrap() = Some(report);
    });
    let mut last = Duration::ZERO;
    let mut steps = 0;
    while let Some(delay) = jobs.run_one() {
        if report.lock().unwrap().is_none() {
            assert!(db.stats().scrub_at.is_some());
        }
        assert!(delay >= last, "each step is due later than the one before");
        last = delay;
        steps += 1;
    }
    let report: ScrubReport = report.lock().unwrap().take().unwrap();
    assert!(steps > 4 && report.found.is_empty(), "{steps}");
    let due = report.bytes as f64 / f64::from(1 << 20);
    // Nothing waits for the last step.
    let waited = last.as_secs_f64();
    assert!(waited <= due && waited > due - 0.26, "{waited}, {due}");
}

struct StandingClock;

impl kv_storage::Clock for StandingClock {
    fn now(&self) -> Duration {
        Duration::from_secs(1)
    }
}

#[test]
fn a_scrub_that_closing_ended_goes_on_where_it_stood() {
    let fs = SimFs::new();
    large_store(&fs);
    let open = || {
        let jobs = Arc::new(ManualJobs::default());
        let mut options = options();
        // Nothing is rewritten meanwhile.
        options.level0_trigger = 11;
        let db = Db::open(dir(), options, env_with(&fs, jobs.clone())).unwrap();
        jobs.run_all();
        (db, jobs)
    };
    let (db, jobs) = open();
    let all = db.blocking().scrub().blocks;
    let (mut blocks, mut parts, mut from) = (0, 0, ScrubCursor::default());
    let (mut db, mut jobs) = (db, jobs);
    loop {
        let report = Arc::new(Mutex::new(None));
        let into = report.clone();
        db.scrub(0, from, move |report| *into.lock().unwrap() = Some(report));
        jobs.run_one();
        jobs.run_one();
        db.close().unwrap();
        jobs.run_all();
        let report: ScrubReport = report.lock().unwrap().take().unwrap();
        blocks += report.blocks;
        parts += 1;
        (db, jobs) = open();
        match report.rest {
            Some(rest) => from = rest,
            None => break,
        }
    }
    assert!(parts > 2, "{parts}");
    assert_eq!(blocks, all);
}

#[test]
fn compactions_and_writes_go_on_during_a_scrub() {
    let fs = SimFs::new();
    let jobs = Arc::new(ManualJobs::default());
    let db = Db::open(dir(), options(), env_with(&fs, jobs.clone())).unwrap();
    let write = |from: u32| {
        for number in from..from + 60 {
            let batch = crate::support::put((number % 200).to_be_bytes(), [number as u8; 90]);
            while db
                .write(batch.clone(), kv_storage::Durability::Process)
                .is_err()
            {
                jobs.run_one();
            }
        }
    };
    write(0);
    jobs.run_all();
    let report = Arc::new(Mutex::new(None));
    let into = report.clone();
    db.scrub(0, ScrubCursor::default(), move |report| {
        *into.lock().unwrap() = Some(report);
    });
    for round in 1..40 {
        write(round * 60);
        jobs.run_one();
    }
    jobs.run_all();
    let report: ScrubReport = report.lock().unwrap().take().unwrap();
    assert!(report.found.is_empty(), "{:?}", report.found);
    // Tables that compaction replaced are not kept by anybody.
    db.flush().unwrap();
    jobs.run_all();
    let tables: usize = db.stats().levels.iter().map(|level| level.tables).sum();
    assert_eq!(files(&fs, ".sst").len(), tables);
}
