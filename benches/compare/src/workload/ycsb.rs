//! The mixes of YCSB.

use super::get::expect_value;
use super::scan::expect_rows;
use super::{Run, crowd};
use crate::dataset::{Dataset, Order, Random, Values, Zipf, key};
use crate::engine::Engine;
use crate::measure::{Lap, Measurements, Memory, Metric, read_into_page_cache};
use crate::row::{Mix, YCSB_THREADS};
use anyhow::Result;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const DATASET: Dataset = Dataset::Large;
/// How long gets run before a mix is measured.
const STEADY: Duration = Duration::from_secs(1);
/// Values have so many versions.
const VERSIONS: u64 = 256;
/// Longest scan of mix E in rows.
const LONGEST_SCAN: u64 = 100;

/// One operation of a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Get,
    Put,
    GetAndPut,
    Scan,
    Insert,
}

impl Mix {
    /// The operation for a number below 100.
    fn operation(self, percent: u64) -> Operation {
        match self {
            Self::A if percent < 50 => Operation::Put,
            Self::B if percent < 5 => Operation::Put,
            Self::F if percent < 50 => Operation::GetAndPut,
            Self::E if percent < 5 => Operation::Insert,
            Self::E => Operation::Scan,
            Self::A | Self::B | Self::C | Self::F => Operation::Get,
        }
    }
}

/// Measures a mix; everything read is checked.
///
/// # Errors
/// The engine failed, or something read is wrong.
pub(super) fn measure(run: &Run, mix: Mix) -> Result<Measurements> {
    let folder = run.dataset(DATASET);
    let keys = run.scale.keys(DATASET);
    read_into_page_cache(&folder)?;
    let engine = run.open(&folder, &run.scale.budget)?;
    let client = Client {
        engine: &*engine,
        mix,
        zipf: Zipf::new(keys),
        values: Values::new(),
        next_key: AtomicU64::new(keys),
    };
    let (mut random, begin) = (Random::new(3), Instant::now());
    while begin.elapsed() < STEADY {
        let number = client.zipf.draw(&mut random);
        expect_value(&*engine, number, DATASET.value_bytes())?;
    }
    let measured = crowd::run(
        YCSB_THREADS,
        run.scale.read_time,
        |thread, bell, latencies| {
            let mut random = Random::new(2000 + thread as u64);
            let mut value = Vec::new();
            let mut lap = Lap::start();
            while !bell.has_rung() {
                client.act(&mut random, &mut value)?;
                latencies.record(lap.end());
            }
            Ok(())
        },
    )?;
    let memory = Memory::now()?;
    // The next row is not to pay for what this one has left to do.
    engine.flush()?;
    engine.settle()?;
    let mut measurements = Measurements::default();
    measured.note(&mut measurements);
    measurements.note(Metric::PeakResidentMib, memory.peak_mib);
    measurements.note(Metric::AnonymousMib, memory.anonymous_mib);
    Ok(measurements)
}

/// What the threads share.
struct Client<'a> {
    engine: &'a dyn Engine,
    mix: Mix,
    zipf: Zipf,
    values: Values,
    /// The number of the next key that mix E inserts.
    next_key: AtomicU64,
}

impl Client<'_> {
    /// Does one operation of the mix.
    fn act(&self, random: &mut Random, value: &mut Vec<u8>) -> Result<()> {
        let operation = self.mix.operation(random.below(100));
        let number = self.zipf.draw(random);
        match operation {
            Operation::Get => expect_value(self.engine, number, DATASET.value_bytes()),
            Operation::Put => self.put(number, random.below(VERSIONS), value),
            Operation::GetAndPut => {
                expect_value(self.engine, number, DATASET.value_bytes())?;
                self.put(number, random.below(VERSIONS), value)
            }
            Operation::Scan => {
                let rows = 1 + random.below(LONGEST_SCAN) as usize;
                expect_rows(self.engine, number, rows, DATASET.value_bytes())
            }
            Operation::Insert => {
                let number = self.next_key.fetch_add(1, Ordering::Relaxed);
                self.put(number, 0, value)
            }
        }
    }

    fn put(&self, number: u64, version: u64, value: &mut Vec<u8>) -> Result<()> {
        self.values
            .fill(value, number, version, DATASET.value_bytes());
        self.engine.put(&key(number, Order::Random), value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_have_the_shares_of_ycsb() {
        let share = |mix: Mix, operation| {
            (0..100)
                .filter(|&percent| mix.operation(percent) == operation)
                .count()
        };
        assert_eq!(share(Mix::A, Operation::Put), 50);
        assert_eq!(share(Mix::B, Operation::Put), 5);
        assert_eq!(share(Mix::B, Operation::Get), 95);
        assert_eq!(share(Mix::C, Operation::Get), 100);
        assert_eq!(share(Mix::E, Operation::Insert), 5);
        assert_eq!(share(Mix::E, Operation::Scan), 95);
        assert_eq!(share(Mix::F, Operation::GetAndPut), 50);
        assert_eq!(share(Mix::F, Operation::Get), 50);
    }
}
