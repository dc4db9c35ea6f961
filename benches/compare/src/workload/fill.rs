//! Filling an empty store by single puts; only what a killed process has left counts.

use super::{Run, remove, stock, victim};
use crate::dataset::{Dataset, KEY_BYTES, Order, Values, key};
use crate::engine::Engine;
use crate::measure::{Counters, Lap, Latencies, Measurements, Memory, Metric, disk_bytes};
use crate::row::{Row, Work};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::time::Instant;

/// How often the time limit is looked at, in puts.
const LOOK_EVERY: u64 = 1024;

/// Fills a store in a process that is then killed, opens what is left, and counts it.
///
/// Afterwards the rest of the keys is loaded, and the store flushed and compacted, so that its size and
/// the bytes written for it can be measured and later rows can read it.
///
/// # Errors
/// The engine failed.
pub(super) fn measure(
    run: &Run,
    row: &Row,
    order: Order,
    value_bytes: usize,
    keeps: Option<Dataset>,
) -> Result<Measurements> {
    let mut measurements = victim::kill_after_puts(run, row)?;
    let noted = |metric| {
        let value: Option<f64> = measurements.value(metric);
        value.context("a fill did not tell how much it did")
    };
    let acknowledged = noted(Metric::Operations)? as u64;
    let (put_seconds, put_amplification) = (
        noted(Metric::SettledSeconds)?,
        noted(Metric::WriteAmplification)?,
    );

    let folder = folder(run, row);
    let (before, begin) = (Counters::now()?, Instant::now());
    let engine = run.open(&folder, &run.scale.budget)?;
    let open_time = begin.elapsed();
    let found = stock::census(&*engine, order, value_bytes)?.good();
    let keys = run.scale.fill_keys(value_bytes);
    // An engine that lost something starts again, so that later rows have all keys.
    let first = if found == acknowledged {
        acknowledged
    } else {
        0
    };
    stock::load(&*engine, first..keys, order, value_bytes)?;
    let begin = Instant::now();
    engine.flush()?;
    engine.settle()?;
    let settle_time = open_time + begin.elapsed();
    drop(engine);
    rustix::fs::sync();

    let row_bytes = (value_bytes + KEY_BYTES) as f64;
    let written = Counters::now()?.since(&before).written_bytes as f64;
    let user_bytes = keys as f64 * row_bytes;
    measurements.note(
        Metric::FoundPercent,
        found as f64 * 100.0 / acknowledged as f64,
    );
    measurements.note(
        Metric::SettledSeconds,
        put_seconds + settle_time.as_secs_f64(),
    );
    measurements.note(
        Metric::WriteAmplification,
        (put_amplification * acknowledged as f64 * row_bytes + written) / user_bytes,
    );
    measurements.note(Metric::SpaceEnd, disk_bytes(&folder) as f64 / user_bytes);
    if keeps.is_none() {
        remove(&folder)?;
    }
    Ok(measurements)
}

/// The part of the process that will be killed: puts one key after another, until all are there or the time is
/// over.
///
/// # Errors
/// The engine failed.
pub(super) fn put_all(
    run: &Run,
    row: &Row,
    order: Order,
    value_bytes: usize,
) -> Result<(Box<dyn Engine>, Measurements)> {
    let folder = folder(run, row);
    remove(&folder)?;
    let engine = run.open(&folder, &run.scale.budget)?;
    let values = Values::new();
    let mut value = Vec::new();
    let mut latencies = Latencies::new()?;
    let (before, begin) = (Counters::now()?, Instant::now());
    let mut lap = Lap::start();
    for number in 0..run.scale.fill_keys(value_bytes) {
        values.fill(&mut value, number, 0, value_bytes);
        engine.put(&key(number, order), &value)?;
        latencies.record(lap.end());
        if number % LOOK_EVERY == 0 && begin.elapsed() > run.scale.fill_limit {
            break;
        }
    }
    let elapsed = begin.elapsed();
    let used = Counters::now()?.since(&before);
    let memory = Memory::now()?;

    let operations = latencies.operations();
    let mut measurements = Measurements::default();
    latencies.note(elapsed, &mut measurements);
    measurements.note(Metric::CpuMicros, used.cpu_micros(operations));
    measurements.note(Metric::PeakResidentMib, memory.peak_mib);
    measurements.note(Metric::AnonymousMib, memory.anonymous_mib);
    // So far; the process that opens the store adds its part.
    measurements.note(Metric::SettledSeconds, elapsed.as_secs_f64());
    measurements.note(
        Metric::WriteAmplification,
        used.written_bytes as f64 / (operations as f64 * (value_bytes + KEY_BYTES) as f64),
    );
    Ok((engine, measurements))
}

fn folder(run: &Run, row: &Row) -> PathBuf {
    match row.work {
        Work::Fill {
            keeps: Some(dataset),
            ..
        } => run.dataset(dataset),
        _ => run.scratch(),
    }
}
