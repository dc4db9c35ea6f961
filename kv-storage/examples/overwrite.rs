//! Measures the steady state of overwriting on real files: 400 MiB in values of 1 KiB, overwritten five times
//! at random; write and space amplification, and how long puts take.
//!
//! `cargo run --release -p kv-storage --example overwrite [directory] [direct|buffered] [writes] [value bytes]
//! [bytes from which values are separated] [MiB of values]`

use kv_storage::fs::RealFs;
use kv_storage::{
    Db, Durability, Env, Hooks, Job, JobClass, Jobs, MonotonicClock, Options, WriteBatch,
    WriteError,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

const KEY_BYTES: usize = 20;

/// One thread each for the log and for flushes, two for compactions.
struct Threads {
    log: Sender<Job>,
    flush: Sender<Job>,
    compaction: Sender<Job>,
}

impl Threads {
    #[expect(
        clippy::disallowed_methods,
        reason = "an example's executor has threads"
    )]
    fn start() -> Self {
        let queue = |threads: usize| {
            let (sender, jobs) = channel::<Job>();
            let jobs = Arc::new(std::sync::Mutex::new(jobs));
            for _ in 0..threads {
                let jobs = Arc::clone(&jobs);
                std::thread::spawn(move || {
                    loop {
                        let next = jobs.lock().map(|jobs| jobs.recv());
                        let Ok(Ok(job)) = next else { return };
                        job();
                    }
                });
            }
            sender
        };
        Self {
            log: queue(1),
            flush: queue(1),
            compaction: queue(2),
        }
    }
}

impl Jobs for Threads {
    fn submit(&self, class: JobClass, job: Job) {
        let queue = match class {
            JobClass::LogSync | JobClass::LogSegment => &self.log,
            JobClass::Flush | JobClass::Read => &self.flush,
            JobClass::Compaction => &self.compaction,
        };
        // At the end of the program the worker may be gone, which a job must survive anyway.
        let _ = queue.send(job);
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Half noise, half zeros in short stretches, so that it compresses to about half.
fn value(random: &mut Random, into: &mut [u8]) {
    for piece in into.chunks_mut(32) {
        let half = piece.len() / 2;
        for bytes in piece[..half].chunks_mut(8) {
            bytes.copy_from_slice(&random.next().to_le_bytes()[..bytes.len()]);
        }
        piece[half..].fill(b'x');
    }
}

fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [b'k'; KEY_BYTES];
    key[12..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

/// Bytes that this process has caused to be written to disks.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn disk_size(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files
        .filter_map(|file| file.metadata().ok())
        .map(|file| file.blocks() * 512)
        .sum()
}

#[expect(clippy::disallowed_methods, reason = "an example waits")]
fn put(db: &Db, key: &[u8], value: &[u8]) {
    loop {
        let mut batch = WriteBatch::new();
        batch.put(key, value);
        match db.write(batch, Durability::Process) {
            Ok(_) => return,
            Err(WriteError::Busy(delay)) => std::thread::sleep(delay),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Flushes and waits until no compaction is left.
#[expect(clippy::disallowed_methods, reason = "an example waits")]
fn settle(db: &Db) {
    db.flush().expect("the disk works");
    let mut quiet = 0;
    while quiet < 5 {
        db.tick();
        std::thread::sleep(Duration::from_millis(100));
        quiet = if db.stats().compactions_in_flight == 0 {
            quiet + 1
        } else {
            0
        };
    }
}

/// CPU time of all threads of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks = fields
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "an example measures and prints"
)]
fn main() {
    let mut arguments = std::env::args().skip(1);
    let base = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let form = arguments.next().unwrap_or_else(|| "direct".to_owned());
    let mut number = |default: u64| {
        let given = arguments.next();
        given.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (writes, value_bytes) = (number(0), number(1024));
    let mut options = Options::default();
    options.direct_io = form == "direct";
    options.blob_value_bytes = number(options.blob_value_bytes as u64) as usize;
    let keys = (number(400) << 20) / value_bytes;
    let writes = if writes == 0 { 5 * keys } else { writes };
    let dir = base.join(format!("kv-overwrite-{}", std::process::id()));
    let env = Env {
        fs: Arc::new(RealFs),
        jobs: Arc::new(Threads::start()),
        clock: Arc::new(MonotonicClock::starting_now()),
        seed: 1,
        hooks: Hooks::default(),
    };
    let db = Db::open(&dir, options, env).expect("the store opens");
    let (mut random, mut bytes) = (
        Random(88_172_645_463_325_252),
        vec![0; value_bytes as usize],
    );
    for number in 0..keys {
        value(&mut random, &mut bytes);
        put(&db, &key(number), &bytes);
    }
    settle(&db);
    let cpu = cpu_seconds();
    let (before, start, stats) = (written(), Instant::now(), db.stats());
    let (mut peak, mut blob_peak, mut taken) = (0, 0, Vec::with_capacity(writes as usize));
    for number in 0..writes {
        value(&mut random, &mut bytes);
        let began = Instant::now();
        put(&db, &key(random.next() % keys), &bytes);
        taken.push(began.elapsed());
        if number % (keys / 8) == 0 {
            peak = peak.max(disk_size(&dir));
            blob_peak = blob_peak.max(db.stats().blob_bytes);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    settle(&db);
    let settled = start.elapsed().as_secs_f64() - 0.5;
    let cpu = (cpu_seconds() - cpu) * 1e6 / writes as f64;
    let after = db.stats();
    let user = (writes * (KEY_BYTES as u64 + value_bytes)) as f64;
    let live = (keys * (KEY_BYTES as u64 + value_bytes)) as f64;
    taken.sort_unstable();
    let at = |share: f64| taken[((taken.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{form}: {:.0} k/s, settled in {settled:.1} s, {cpu:.1} us of CPU a put; written per user byte {:.2} (log {:.2}, flushes {:.2}, compactions {:.2}, blob files {:.2} of which relocated {:.2}); space peak {:.2}, end {:.2}",
        writes as f64 / seconds / 1e3,
        (written() - before) as f64 / user,
        (after.log_bytes - stats.log_bytes) as f64 / user,
        (after.flush_written_bytes - stats.flush_written_bytes) as f64 / user,
        (after.compaction_written_bytes - stats.compaction_written_bytes) as f64 / user,
        (after.blob_written_bytes - stats.blob_written_bytes) as f64 / user,
        (after.blob_relocated_bytes - stats.blob_relocated_bytes) as f64 / user,
        peak as f64 / live,
        disk_size(&dir) as f64 / live
    );
    println!(
        "blob files: {}, {} MiB, {} MiB garbage, {} MiB at most",
        after.blob_files,
        after.blob_bytes >> 20,
        after.blob_garbage_bytes >> 20,
        blob_peak >> 20
    );
    println!(
        "puts, ms: p99 {:.3} p99.9 {:.3} p99.99 {:.3} max {:.1}; over 10 ms {:.0} ms in sum; {} compactions, {} releases; levels {:?}",
        at(0.99),
        at(0.999),
        at(0.9999),
        at(1.0),
        taken
            .iter()
            .filter(|taken| taken.as_millis() >= 10)
            .sum::<Duration>()
            .as_secs_f64()
            * 1e3,
        after.compactions - stats.compactions,
        after.compaction_releases,
        after
            .levels
            .iter()
            .map(|level| (level.runs, level.tables, level.size_bytes >> 20))
            .collect::<Vec<_>>()
    );
    drop(db);
    std::fs::remove_dir_all(&dir).expect("the directory can be removed");
}
