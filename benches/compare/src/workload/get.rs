//! Gets of random keys.

use super::{Run, crowd};
use crate::dataset::{Dataset, Order, Random, absent_key, is_value_of, key};
use crate::engine::Engine;
use crate::measure::{
    Lap, Measurements, Memory, Metric, drop_from_page_cache, forbid_read_ahead,
    read_into_page_cache,
};
use crate::row::Place;
use anyhow::{Result, bail};
use std::path::Path;
use std::time::{Duration, Instant};

/// Gets by which an engine has opened the files it opens late.
const FIRST_GETS: u64 = 2_000;
/// How long the warm row reads at random before it is measured.
const STEADY: Duration = Duration::from_secs(2);

/// Brings the store into the state that the row is about, and measures gets.
///
/// # Errors
/// The engine failed, or a key was lost, had another's value, or was found although it was never stored.
pub(super) fn measure(
    run: &Run,
    place: Place,
    dataset: Dataset,
    threads: usize,
) -> Result<Measurements> {
    let folder = run.dataset(dataset);
    let all_keys = run.scale.keys(dataset);
    let keys = match place {
        Place::Hot => all_keys / 10,
        Place::Cached | Place::Absent | Place::Warm | Place::Cold => all_keys,
    };
    if place == Place::Cold {
        // Also before a map can be made: pages in a map stay whatever is advised.
        drop_from_page_cache(&folder)?;
    } else {
        read_into_page_cache(&folder)?;
    }
    let engine = run.open(&folder, &run.scale.budget)?;
    prepare(run, &*engine, place, keys, &folder)?;
    let measured = crowd::run(threads, run.scale.read_time, |thread, bell, latencies| {
        let mut random = Random::new(1000 + thread as u64);
        let mut lap = Lap::start();
        while !bell.has_rung() {
            let number = random.below(keys);
            if place == Place::Absent {
                expect_absent(&*engine, number)?;
            } else {
                expect_value(&*engine, number, dataset.value_bytes())?;
            }
            latencies.record(lap.end());
        }
        Ok(())
    })?;
    let memory = Memory::now()?;
    let mut measurements = Measurements::default();
    measured.note(&mut measurements);
    measurements.note(Metric::PeakResidentMib, memory.peak_mib);
    measurements.note(Metric::AnonymousMib, memory.anonymous_mib);
    Ok(measurements)
}

/// Warms what is to be warm and cools what is to be cold.
fn prepare(run: &Run, engine: &dyn Engine, place: Place, keys: u64, folder: &Path) -> Result<()> {
    match place {
        Place::Cached | Place::Hot => {
            let begin = Instant::now();
            for number in 0..keys {
                engine.get(&key(number, Order::Random), &mut |_| ())?;
                if begin.elapsed() > run.scale.warm_up_limit {
                    break;
                }
            }
        }
        Place::Absent => {
            for number in 0..FIRST_GETS {
                expect_absent(engine, number)?;
            }
        }
        Place::Warm => {
            // The caches of the engine fill with what random gets leave in them.
            engine.scan_all(&mut |_, _| ())?;
            let (mut random, begin) = (Random::new(7), Instant::now());
            while begin.elapsed() < STEADY.min(run.scale.warm_up_limit) {
                engine.get(&key(random.below(keys), Order::Random), &mut |_| ())?;
            }
        }
        Place::Cold => {
            let mut random = Random::new(7);
            for _ in 0..FIRST_GETS {
                engine.get(&key(random.below(keys), Order::Random), &mut |_| ())?;
            }
            forbid_read_ahead(folder)?;
            drop_from_page_cache(folder)?;
        }
    }
    Ok(())
}

/// Demands that a key has its own value.
///
/// # Errors
/// The engine failed, or it has not.
#[inline]
pub(super) fn expect_value(engine: &dyn Engine, number: u64, value_bytes: usize) -> Result<()> {
    let mut is_right = false;
    let is_there = engine.get(&key(number, Order::Random), &mut |value| {
        is_right = is_value_of(value, number, value_bytes);
    })?;
    if !is_there {
        bail!("key {number} is lost");
    }
    if !is_right {
        bail!("key {number} has a wrong value");
    }
    Ok(())
}

fn expect_absent(engine: &dyn Engine, number: u64) -> Result<()> {
    if engine.get(&absent_key(number), &mut |_| ())? {
        bail!("found a key that was never stored, next to {number}");
    }
    Ok(())
}
