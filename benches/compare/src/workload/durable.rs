//! Puts that survive power loss each.

use super::{Run, crowd, remove, stock};
use crate::dataset::{KEY_BYTES, Order, Values, key};
use crate::measure::{Lap, Measurements, Metric};
use anyhow::Result;
use std::sync::atomic::{AtomicU64, Ordering};

const VALUE_BYTES: usize = 1024;

/// Measures them, and checks afterwards that all are there.
///
/// # Errors
/// The engine failed or lost a put.
pub(super) fn measure(run: &Run, threads: usize) -> Result<Measurements> {
    let engine = run.create_scratch(&run.scale.durable_budget())?;
    let values = Values::new();
    let next = AtomicU64::new(0);
    let measured = crowd::run(threads, run.scale.durable_time, |_, bell, latencies| {
        let mut value = Vec::new();
        let mut lap = Lap::start();
        while !bell.has_rung() {
            let number = next.fetch_add(1, Ordering::Relaxed);
            values.fill(&mut value, number, 0, VALUE_BYTES);
            engine.put_durable(&key(number, Order::Random), &value)?;
            latencies.record(lap.end());
        }
        Ok(())
    })?;
    let operations = measured.latencies.operations();
    stock::census(&*engine, Order::Random, VALUE_BYTES)?.expect(operations)?;
    drop(engine);
    remove(&run.scratch())?;

    let mut measurements = Measurements::default();
    measured.note(&mut measurements);
    measurements.note(
        Metric::WriteAmplification,
        measured.used.written_bytes as f64 / (operations as f64 * (VALUE_BYTES + KEY_BYTES) as f64),
    );
    Ok(measurements)
}
