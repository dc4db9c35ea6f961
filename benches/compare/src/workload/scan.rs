//! Scans, short and full.

use super::{Run, crowd, stock};
use crate::dataset::{Census, Dataset, Order, Random, key};
use crate::engine::Engine;
use crate::measure::{
    Counters, Lap, Measurements, Metric, drop_from_page_cache, read_into_page_cache,
};
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Rows of a short scan.
const ROWS: usize = 100;
/// How long short scans run before they are measured.
const STEADY: Duration = Duration::from_secs(2);

/// Measures scans of 100 rows from random keys on; every row is checked.
///
/// # Errors
/// The engine failed, or a row is wrong.
pub(super) fn measure_short(run: &Run, dataset: Dataset) -> Result<Measurements> {
    let folder = run.dataset(dataset);
    let keys = run.scale.keys(dataset);
    read_into_page_cache(&folder)?;
    let engine = run.open(&folder, &run.scale.budget)?;
    let (mut random, begin) = (Random::new(5), Instant::now());
    while begin.elapsed() < STEADY.min(run.scale.read_time) {
        expect_rows(&*engine, random.below(keys), ROWS, dataset.value_bytes())?;
    }
    let measured = crowd::run(1, run.scale.read_time, |_, bell, latencies| {
        let mut random = Random::new(99);
        let mut lap = Lap::start();
        while !bell.has_rung() {
            expect_rows(&*engine, random.below(keys), ROWS, dataset.value_bytes())?;
            latencies.record(lap.end());
        }
        Ok(())
    })?;
    let mut measurements = Measurements::default();
    measured.note(&mut measurements);
    Ok(measurements)
}

/// Measures one scan of all rows; count, order and values are checked.
///
/// # Errors
/// The engine failed, or a row is wrong or missing.
pub(super) fn measure_full(run: &Run, is_cold: bool) -> Result<Measurements> {
    let folder = run.dataset(Dataset::Small);
    let keys = run.scale.keys(Dataset::Small);
    if is_cold {
        drop_from_page_cache(&folder)?;
    } else {
        read_into_page_cache(&folder)?;
    }
    let engine = run.open(&folder, &run.scale.budget)?;
    if !is_cold {
        // The caches of the engine hold what an earlier scan leaves in them.
        engine.scan_all(&mut |_, _| ())?;
    }
    let (before, begin) = (Counters::now()?, Instant::now());
    let census = stock::census(&*engine, Order::Random, Dataset::Small.value_bytes())?;
    let (elapsed, used) = (begin.elapsed(), Counters::now()?.since(&before));
    census.expect(keys)?;

    let mut measurements = Measurements::default();
    measurements.note(Metric::Operations, keys as f64);
    measurements.note(
        Metric::OperationsPerSecond,
        keys as f64 / elapsed.as_secs_f64(),
    );
    measurements.note(Metric::CpuMicros, used.cpu_micros(keys));
    measurements.note(
        Metric::ReadKib,
        used.read_bytes as f64 / 1024.0 / keys as f64,
    );
    Ok(measurements)
}

/// Demands that a scan from a stored key on shows right rows in order, that key among them.
///
/// # Errors
/// The engine failed, or a row is wrong.
#[inline]
pub(super) fn expect_rows(
    engine: &dyn Engine,
    number: u64,
    limit: usize,
    value_bytes: usize,
) -> Result<()> {
    let mut census = Census::new(Order::Random, value_bytes);
    let start = key(number, Order::Random);
    let mut begins_right = false;
    let mut is_first = true;
    let seen = engine.scan(&start, limit, &mut |key, value| {
        if is_first {
            begins_right = key == start;
            is_first = false;
        }
        census.see(key, value);
    })?;
    if !begins_right {
        bail!("a scan from key {number} on does not begin with it");
    }
    census.expect(seen as u64)
}
