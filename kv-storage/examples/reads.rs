//! Measures reads on real files: point hits and misses, zipfian reads by two threads, short and full scans.
//!
//! `cargo run --release -p kv-storage --example reads DIRECTORY [VALUE_BYTES [ROWS [ROW_OF_TABLE...]]]`; the
//! directory is filled at the first run, and read by later ones. Rates are by the wall clock; the CPU time
//! of all threads stands beside them, which a busy machine distorts less. `CACHE_MIB` in the
//! environment sets the cache.

use kv_storage::{Db, Durability, Env, Options, WriteBatch};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long each row is measured.
const MEASURE: Duration = Duration::from_secs(3);

/// Scatters numbers over 64 bits, without collisions.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// 20 bytes, in random order of the numbers.
fn key(number: u64) -> [u8; 20] {
    let mut key = *b"usr:                ";
    key[4..12].copy_from_slice(&mix(number).to_be_bytes());
    key[12..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Sorts among the others and is never stored.
fn missing_key(number: u64) -> [u8; 20] {
    let mut key = key(number);
    key[12] = 0x7f;
    key
}

/// Starts with its number, and compresses to about a half.
fn value(number: u64, length: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(length + 50);
    let mut random = fastrand::Rng::with_seed(number);
    while value.len() < length {
        let half: [u8; 25] = std::array::from_fn(|_| random.u8(..));
        value.extend_from_slice(&half);
        value.extend_from_slice(&half);
    }
    value.truncate(length);
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

/// Zipfian numbers below a bound with the skew of YCSB, 0.99 (Gray et al., "Quickly Generating
/// Billion-Record Synthetic Databases", 1994), scattered so that hot rows are not neighbours.
struct Zipf {
    rows: u64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    const THETA: f64 = 0.99;

    fn new(rows: u64) -> Self {
        let zeta = |count: u64| {
            (1..=count)
                .map(|rank| (rank as f64).powf(-Self::THETA))
                .sum::<f64>()
        };
        let (zeta, two) = (zeta(rows), zeta(2));
        Self {
            rows,
            alpha: 1.0 / (1.0 - Self::THETA),
            zeta,
            eta: (1.0 - (2.0 / rows as f64).powf(1.0 - Self::THETA)) / (1.0 - two / zeta),
        }
    }

    fn next(&self, random: &mut fastrand::Rng) -> u64 {
        let unit = random.f64();
        let scaled = unit * self.zeta;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5f64.powf(Self::THETA) {
            1
        } else {
            (self.rows as f64 * (self.eta * unit - self.eta + 1.0).powf(self.alpha)) as u64
        };
        mix(rank) % self.rows
    }
}

/// User and system time of this process in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, counted behind the command name, in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let times = fields.split_whitespace().skip(11).take(2);
    times
        .filter_map(|field| field.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// One store and what is asked of it.
struct Bench {
    db: Db,
    rows: u64,
    value_bytes: usize,
    wanted: Vec<String>,
}

impl Bench {
    fn is_wanted(&self, what: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| what.starts_with(wanted))
    }

    /// Calls `run` until the time is over, on each of some threads, and prints operations a second.
    /// `run` gives the number of operations it did.
    #[expect(
        clippy::disallowed_methods,
        clippy::print_stdout,
        reason = "an example measures and prints"
    )]
    fn timed(&self, what: &str, threads: u64, run: impl Fn(&mut fastrand::Rng) -> u64 + Sync) {
        if !self.is_wanted(what) {
            return;
        }
        let before = self.db.stats();
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let worker = |thread| {
            let mut random = fastrand::Rng::with_seed(thread);
            let mut done = 0;
            while start.elapsed() < MEASURE {
                for _ in 0..16 {
                    done += run(&mut random);
                }
            }
            done
        };
        let done: u64 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|thread| scope.spawn(move || worker(thread + 99)))
                .collect();
            let joined = workers.into_iter().map(|worker| worker.join());
            joined.map(|done| done.unwrap_or(0)).sum()
        });
        let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let rate = done as f64 / seconds;
        let cpu = cpu * 1e6 / done as f64;
        let now = self.db.stats();
        let percent = |count: u64| count as f64 * 100.0 / done as f64;
        println!(
            "{what:<28} {rate:>11.0} /s {cpu:>9.3} us CPU; {:>5.1} % from rows, {:>5.1} % from blocks, {:>5.1} % read; \
             {} + {} MiB",
            percent(now.row_cache_hits - before.row_cache_hits),
            percent(now.cache_hits - before.cache_hits),
            percent(now.cache_misses - before.cache_misses),
            now.row_cache_bytes >> 20,
            now.cache_bytes >> 20,
        );
    }

    fn hit(&self, number: u64) {
        let found = self.db.blocking().get(&key(number));
        let found = found.ok().flatten().map(|found| found.value);
        assert!(
            found.is_some_and(
                |value| value.len() == self.value_bytes && value[..8] == number.to_le_bytes()
            ),
            "row {number} is lost or wrong"
        );
    }

    fn miss(&self, number: u64) {
        let found = self.db.blocking().get(&missing_key(number));
        assert!(
            found.is_ok_and(|found| found.is_none()),
            "found what is not stored"
        );
    }

    /// Visits some rows from a key on; gives their number.
    fn scan(&self, from: &[u8], rows: usize) -> usize {
        let (mut seen, mut bytes) = (0, 0);
        let outcome = self.db.snapshot().for_each(from.., |key, value| {
            seen += 1;
            bytes += key.len() + value.len();
            if seen < rows {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        assert!(outcome.is_ok() && bytes > 0, "a scan failed");
        seen
    }

    fn measure(&self) {
        let all = |random: &mut fastrand::Rng| random.u64(..self.rows);
        if self.is_wanted("get hot") {
            (0..self.rows / 10).for_each(|number| self.hit(number));
        }
        self.timed("get hot, a tenth of the rows", 1, |random| {
            self.hit(all(random) / 10);
            1
        });
        self.timed("get miss", 1, |random| {
            self.miss(all(random));
            1
        });
        let zipf = Zipf::new(self.rows);
        if self.is_wanted("get zipf") {
            let mut random = fastrand::Rng::with_seed(3);
            (0..self.rows / 2).for_each(|_| self.hit(zipf.next(&mut random)));
        }
        for threads in [1, 2] {
            self.timed(
                &format!("get zipfian, {threads} threads"),
                threads,
                |random| {
                    self.hit(zipf.next(random));
                    1
                },
            );
        }
        if self.is_wanted("get all") {
            (0..self.rows).for_each(|number| self.hit(number));
        }
        for threads in [1, 2] {
            self.timed(&format!("get all, {threads} threads"), threads, |random| {
                self.hit(all(random));
                1
            });
        }
        self.timed("scan 100", 1, |random| {
            self.scan(&key(all(random)), 100);
            1
        });
        self.timed("iterator 100", 1, |random| {
            let snapshot = self.db.snapshot();
            let entries = snapshot.iter(key(all(random))..).take(100);
            assert!(entries.filter(Result::is_ok).count() > 0, "a scan failed");
            1
        });
        self.timed("scan all, rows", 1, |_| {
            let seen = self.scan(&[], usize::MAX) as u64;
            assert_eq!(seen, self.rows, "rows are missing");
            seen
        });
    }
}

fn fill(db: &Db, rows: u64, value_bytes: usize) -> Result<(), Box<dyn std::error::Error>> {
    for first in (0..rows).step_by(100) {
        let mut batch = WriteBatch::new();
        for number in first..(first + 100).min(rows) {
            batch.put(&key(number), &value(number, value_bytes));
        }
        db.blocking().write(batch, Durability::Process)?;
    }
    db.flush()?;
    Ok(())
}

/// A size from the environment.
fn mebibytes(name: &str, default: u64) -> Result<u64, std::num::ParseIntError> {
    std::env::var(name).map_or(Ok(default), |value| value.parse())
}

#[expect(clippy::print_stdout, reason = "an example prints")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("a directory is needed")?;
    let value_bytes = arguments.next().map_or(Ok(100), |number| number.parse())?;
    let rows = arguments
        .next()
        .map_or(Ok(2_000_000), |number| number.parse())?;
    let dir = Path::new(&dir);
    let is_new = !dir.exists();
    let mut options = Options::default();
    options.cache_bytes = mebibytes("CACHE_MIB", 256)? << 20;
    let db = Db::open(dir, options, Env::embedded(1))?;
    if is_new {
        fill(&db, rows, value_bytes)?;
    }
    for (number, level) in db.stats().levels.iter().enumerate() {
        if level.tables > 0 {
            println!(
                "level {number}: {} runs, {} tables, {} MB",
                level.runs,
                level.tables,
                level.size_bytes >> 20
            );
        }
    }
    let wanted = arguments.collect();
    let bench = Bench {
        db,
        rows,
        value_bytes,
        wanted,
    };
    bench.measure();
    bench.db.close()?;
    Ok(())
}
