//! Stores filled by batches, unmeasured, and checks of whole stores.

use super::{Run, remove};
use crate::dataset::{Census, Dataset, Order, Values, key};
use crate::engine::Engine;
use anyhow::Result;
use std::ops::Range;

/// Keys of one batch.
const BATCH: u64 = 1000;
/// Bytes of values in one batch: less than any engine's limit.
const BATCH_BYTES: u64 = 4 << 20;

/// Makes a dataset's store anew.
///
/// # Errors
/// The engine failed.
pub(super) fn make(run: &Run, dataset: Dataset) -> Result<()> {
    let folder = run.dataset(dataset);
    remove(&folder)?;
    let engine = run.open(&folder, &run.scale.budget)?;
    let keys = 0..run.scale.keys(dataset);
    load(&*engine, keys, Order::Random, dataset.value_bytes())?;
    engine.flush()?;
    engine.settle()
}

/// Puts the keys of these numbers in batches.
///
/// # Errors
/// The engine failed.
pub(super) fn load(
    engine: &dyn Engine,
    numbers: Range<u64>,
    order: Order,
    value_bytes: usize,
) -> Result<()> {
    if numbers.is_empty() {
        return Ok(());
    }
    let values = Values::new();
    let batch = BATCH.min(BATCH_BYTES / value_bytes as u64).max(1);
    for first in numbers.clone().step_by(batch as usize) {
        let rows: Vec<_> = (first..numbers.end.min(first + batch))
            .map(|number| {
                let mut value = Vec::with_capacity(value_bytes);
                values.fill(&mut value, number, 0, value_bytes);
                (key(number, order), value)
            })
            .collect();
        engine.load(&rows)?;
    }
    Ok(())
}

/// Looks at every row of a store.
///
/// # Errors
/// The engine failed; rows that are wrong or missing are in the census.
pub(super) fn census(engine: &dyn Engine, order: Order, value_bytes: usize) -> Result<Census> {
    let mut census = Census::new(order, value_bytes);
    engine.scan_all(&mut |key, value| census.see(key, value))?;
    Ok(census)
}
