//! Random puts over keys that exist, until compaction has to keep up: amplification and stalls.

use super::{Run, remove, stock};
use crate::dataset::{KEY_BYTES, Order, Random, Values, key};
use crate::measure::{Counters, Lap, Latencies, Measurements, Memory, Metric, disk_bytes};
use anyhow::Result;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const VALUE_BYTES: usize = 1024;
/// The rate and the space are looked at this often.
const INTERVAL: Duration = Duration::from_millis(500);

/// Loads a store, measures overwriting it, and counts all rows at the end.
///
/// # Errors
/// The engine failed, or a row is wrong or missing.
pub(super) fn measure(run: &Run) -> Result<Measurements> {
    let keys = run.scale.overwrite_keys;
    let engine = run.create_scratch(&run.scale.budget)?;
    stock::load(&*engine, 0..keys, Order::Random, VALUE_BYTES)?;
    engine.flush()?;
    engine.settle()?;
    rustix::fs::sync();

    let values = Values::new();
    let mut value = Vec::new();
    let mut random = Random::new(17);
    let mut latencies = Latencies::new()?;
    let (before, begin) = (Counters::now()?, Instant::now());
    let mut lap = Lap::start();
    let mut intervals = Intervals::start(run.scratch(), lap.last());
    for operation in 1..=run.scale.overwrite_operations {
        let number = random.below(keys);
        values.fill(&mut value, number, operation, VALUE_BYTES);
        engine.put(&key(number, Order::Random), &value)?;
        latencies.record(lap.end());
        if intervals.look(operation, lap.last()) && begin.elapsed() > run.scale.overwrite_limit {
            break;
        }
    }
    let elapsed = begin.elapsed();
    let memory = Memory::now()?;
    engine.flush()?;
    engine.settle()?;
    let settled = begin.elapsed();
    let used = Counters::now()?.since(&before);
    stock::census(&*engine, Order::Random, VALUE_BYTES)?.expect(keys)?;
    drop(engine);
    rustix::fs::sync();

    let row_bytes = (VALUE_BYTES + KEY_BYTES) as f64;
    let (operations, live_bytes) = (latencies.operations(), keys as f64 * row_bytes);
    let mut measurements = Measurements::default();
    latencies.note(elapsed, &mut measurements);
    let mut note = |metric, value| measurements.note(metric, value);
    note(Metric::CpuMicros, used.cpu_micros(operations));
    note(Metric::SettledSeconds, settled.as_secs_f64());
    note(
        Metric::WriteAmplification,
        used.written_bytes as f64 / (operations as f64 * row_bytes),
    );
    note(
        Metric::SpaceEnd,
        disk_bytes(&run.scratch()) as f64 / live_bytes,
    );
    note(Metric::SpacePeak, intervals.most_bytes as f64 / live_bytes);
    if let Some(slowest) = intervals.slowest {
        note(Metric::SlowestHalfSecond, slowest);
    }
    note(Metric::PeakResidentMib, memory.peak_mib);
    note(Metric::AnonymousMib, memory.anonymous_mib);
    remove(&run.scratch())?;
    Ok(measurements)
}

/// What happens in each half second.
struct Intervals {
    folder: PathBuf,
    began: Instant,
    first_operation: u64,
    /// Operations a second in the slowest one that is over.
    slowest: Option<f64>,
    /// The most bytes on disk at the end of one.
    most_bytes: u64,
}

impl Intervals {
    fn start(folder: PathBuf, now: Instant) -> Self {
        Self {
            folder,
            began: now,
            first_operation: 0,
            slowest: None,
            most_bytes: 0,
        }
    }

    /// Ends the interval if its time is over, and says whether it was.
    fn look(&mut self, operations: u64, now: Instant) -> bool {
        let elapsed = now - self.began;
        if elapsed < INTERVAL {
            return false;
        }
        let rate = (operations - self.first_operation) as f64 / elapsed.as_secs_f64();
        self.slowest = Some(self.slowest.map_or(rate, |slowest| slowest.min(rate)));
        self.most_bytes = self.most_bytes.max(disk_bytes(&self.folder));
        self.first_operation = operations;
        self.began = now;
        true
    }
}
