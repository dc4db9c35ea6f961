//! Opening a store again whose process was killed while all its puts were only in the log.

use super::{Run, remove, victim};
use crate::dataset::{Order, Values, is_value_of, key};
use crate::engine::Engine;
use crate::measure::{Counters, Measurements, Memory, Metric, disk_bytes};
use crate::row::Row;
use anyhow::Result;
use std::time::Instant;

const VALUE_BYTES: usize = 1024;

/// Measures the time until the first key is read, and counts how many are there.
///
/// # Errors
/// The engine failed.
pub(super) fn measure(run: &Run, row: &Row) -> Result<Measurements> {
    let mut measurements = victim::kill_after_puts(run, row)?;
    let bytes = disk_bytes(&run.scratch());
    let keys = run.scale.recover_keys;

    let (before, begin) = (Counters::now()?, Instant::now());
    let engine = run.open(&run.scratch(), &run.scale.recover_budget())?;
    engine.get(&key(0, Order::Random), &mut |_| ())?;
    let (elapsed, used) = (begin.elapsed(), Counters::now()?.since(&before));
    let memory = Memory::now()?;
    let mut found = 0_u64;
    for number in 0..keys {
        engine.get(&key(number, Order::Random), &mut |value| {
            found += u64::from(is_value_of(value, number, VALUE_BYTES));
        })?;
    }
    drop(engine);
    remove(&run.scratch())?;

    let mut note = |metric, value| measurements.note(metric, value);
    note(Metric::OpenMillis, elapsed.as_secs_f64() * 1e3);
    note(Metric::CpuMicros, used.cpu_micros(1));
    note(Metric::OpenedMb, bytes as f64 / 1e6);
    note(Metric::FoundPercent, found as f64 * 100.0 / keys as f64);
    note(Metric::PeakResidentMib, memory.peak_mib);
    Ok(measurements)
}

/// The part of the process that will be killed.
///
/// # Errors
/// The engine failed.
pub(super) fn put_all(run: &Run) -> Result<(Box<dyn Engine>, Measurements)> {
    let engine = run.create_scratch(&run.scale.recover_budget())?;
    let values = Values::new();
    let mut value = Vec::new();
    for number in 0..run.scale.recover_keys {
        values.fill(&mut value, number, 0, VALUE_BYTES);
        engine.put(&key(number, Order::Random), &value)?;
    }
    Ok((engine, Measurements::default()))
}
