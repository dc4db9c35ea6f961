//! Measures the engine on real files: fills, durable puts by 1 and 16 threads, cached gets and misses.
//!
//! `cargo run --release -p kv-storage --example throughput [directory]`; the directory must be on the disk to be measured.

use kv_storage::fs::RealFs;
use kv_storage::{
    Db, Durability, Env, Hooks, InlineJobs, Job, JobClass, Jobs, MonotonicClock, Options,
    WriteBatch, WriteError,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

const FILL: u64 = 1_000_000;

/// One thread for the log, one for the rest.
struct TwoThreads {
    log: Sender<Job>,
    rest: Sender<Job>,
}

impl TwoThreads {
    #[expect(
        clippy::disallowed_methods,
        reason = "an example's executor has threads"
    )]
    fn start() -> Self {
        let worker = || {
            let (sender, jobs) = channel::<Job>();
            std::thread::spawn(move || jobs.into_iter().for_each(|job| job()));
            sender
        };
        Self {
            log: worker(),
            rest: worker(),
        }
    }
}

impl Jobs for TwoThreads {
    fn submit(&self, class: JobClass, job: Job) {
        let queue = match class {
            JobClass::LogSync | JobClass::LogSegment => &self.log,
            JobClass::Read | JobClass::Flush | JobClass::Compaction => &self.rest,
        };
        // At the end of the program the worker may be gone, which a job must survive anyway.
        let _ = queue.send(job);
    }
}

fn env(jobs: Arc<dyn Jobs>) -> Env {
    Env {
        fs: Arc::new(RealFs),
        jobs,
        clock: Arc::new(MonotonicClock::starting_now()),
        seed: 1,
        hooks: Hooks::default(),
    }
}

fn key(number: u64) -> [u8; 20] {
    let mut key = [b'k'; 20];
    key[12..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

/// Prints the rate by the wall clock, and microseconds an operation by the wall clock and by CPU time of all threads.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "an example measures and prints"
)]
fn timed(what: &str, operations: u64, run: impl FnOnce()) {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    run();
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let each = 1e6 / operations as f64;
    let rate = operations as f64 / seconds;
    println!(
        "{what:<44} {rate:>10.0} /s {:>8.2} us {:>8.2} us CPU",
        seconds * each,
        cpu * each
    );
}

/// User and system time of this process, which a busy machine distorts less than the wall clock.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, counted behind the command name, in hundredths of a second.
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// Writes without waiting for more than the engine's own backpressure.
#[expect(
    clippy::disallowed_methods,
    reason = "an example's client sleeps when it is told to wait"
)]
fn write(db: &Db, batch: &WriteBatch) -> Result<(), WriteError> {
    loop {
        match db.write(batch.clone(), Durability::Process) {
            Ok(commit) => {
                drop(commit);
                return Ok(());
            }
            Err(WriteError::Busy(delay)) => std::thread::sleep(delay.min(Duration::from_millis(5))),
            Err(other) => return Err(other),
        }
    }
}

fn fill(dir: &Path, jobs: Arc<dyn Jobs>, what: &str) -> Result<(), Box<dyn std::error::Error>> {
    let db = Db::open(dir, Options::default(), env(jobs))?;
    let mut outcome = Ok(());
    timed(what, FILL, || {
        for number in 0..FILL {
            let mut batch = WriteBatch::new();
            batch.put(&key(number), &[number as u8; 100]);
            outcome = outcome.clone().and_then(|()| write(&db, &batch));
        }
    });
    outcome?;
    db.flush()?;
    db.close()?;
    Ok(())
}

fn reads(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut options = Options::default();
    options.cache_bytes = 512 << 20;
    let db = Db::open(dir, options, env(Arc::new(InlineJobs)))?;
    let mut random = fastrand::Rng::with_seed(3);
    let mut get = |what: &str, count: u64, key_of: &dyn Fn(u64) -> u64, expect: bool| {
        timed(what, count, || {
            for _ in 0..count {
                let found = db.blocking().get(&key(key_of(random.u64(..FILL))));
                assert_eq!(
                    found.is_ok_and(|found| found.is_some()),
                    expect,
                    "wrong answer"
                );
            }
        });
    };
    get(
        "get hit, first pass (reads blocks)",
        FILL,
        &|number| number,
        true,
    );
    get("get hit, cached", FILL, &|number| number, true);
    get("get miss (filters)", FILL, &|number| number + FILL, false);
    let snapshot = db.snapshot();
    timed("full scan", FILL, || {
        assert_eq!(snapshot.iter::<&[u8]>(..).count() as u64, FILL);
    });
    drop(snapshot);
    db.close()?;
    Ok(())
}

fn durable(dir: &Path, threads: u64) -> Result<(), Box<dyn std::error::Error>> {
    let db = Db::open(dir, Options::default(), env(Arc::new(InlineJobs)))?;
    let each = 20_000 / threads.min(4);
    timed(
        &format!("durable put 1 KiB, {threads} threads"),
        each * threads,
        || {
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    let db = &db;
                    scope.spawn(move || {
                        for number in 0..each {
                            let outcome =
                                db.blocking().put(&key(thread << 32 | number), &[7; 1024]);
                            assert!(outcome.is_ok(), "put failed");
                        }
                    });
                }
            });
        },
    );
    db.close()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let base = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("kv-throughput"), PathBuf::from);
    let sub = |name: &str| base.join(name);
    fill(
        &sub("fill"),
        Arc::new(TwoThreads::start()),
        "fill 100 B random, Process, 2 job threads",
    )?;
    reads(&sub("fill"))?;
    fill(
        &sub("inline"),
        Arc::new(InlineJobs),
        "fill 100 B random, Process, inline jobs",
    )?;
    durable(&sub("durable1"), 1)?;
    durable(&sub("durable16"), 16)?;
    std::fs::remove_dir_all(&base)?;
    Ok(())
}
