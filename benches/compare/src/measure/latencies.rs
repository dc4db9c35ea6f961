//! How long operations took.

use super::metric::{Measurements, Metric};
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// From here on a put counts as a stall.
const STALL: Duration = Duration::from_millis(10);
/// Longer operations count as this long.
const LONGEST: Duration = Duration::from_secs(600);
/// Three digits: a thousandth.
const DIGITS: u8 = 3;

/// A histogram of latencies, exact to a thousandth, and the sum of all stalls.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
    stalled: Duration,
}

impl Latencies {
    /// No operation yet.
    ///
    /// # Errors
    /// Never with these bounds.
    pub(crate) fn new() -> Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, DIGITS)
            .context("cannot make a histogram")?;
        Ok(Self {
            histogram,
            stalled: Duration::ZERO,
        })
    }

    /// Adds an operation.
    #[inline]
    pub(crate) fn record(&mut self, took: Duration) {
        if took > STALL {
            self.stalled += took;
        }
        self.histogram.saturating_record(took.as_nanos() as u64);
    }

    /// Adds all operations of another thread.
    ///
    /// # Errors
    /// Never: all histograms have the same bounds.
    pub(crate) fn add(&mut self, other: &Self) -> Result<()> {
        self.stalled += other.stalled;
        self.histogram.add(&other.histogram)?;
        Ok(())
    }

    /// How many operations there were.
    pub(crate) fn operations(&self) -> u64 {
        self.histogram.len()
    }

    /// Notes rate, quantiles and stalls of operations that took `elapsed` by the wall clock together.
    pub(crate) fn note(&self, elapsed: Duration, into: &mut Measurements) {
        let operations = self.operations() as f64;
        into.note(Metric::Operations, operations);
        into.note(
            Metric::OperationsPerSecond,
            operations / elapsed.as_secs_f64(),
        );
        for (metric, quantile) in [
            (Metric::P50Micros, 0.5),
            (Metric::P99Micros, 0.99),
            (Metric::P999Micros, 0.999),
            (Metric::P9999Micros, 0.9999),
            (Metric::MaxMicros, 1.0),
        ] {
            let nanos = self.histogram.value_at_quantile(quantile);
            into.note(metric, nanos as f64 / 1e3);
        }
        into.note(Metric::StallMillis, self.stalled.as_secs_f64() * 1e3);
    }
}

/// Measures operations that follow one another with one look at the clock each.
#[derive(Debug)]
pub(crate) struct Lap {
    last: Instant,
}

impl Lap {
    /// The first operation begins now.
    pub(crate) fn start() -> Self {
        Self {
            last: Instant::now(),
        }
    }

    /// When the last operation ended.
    pub(crate) fn last(&self) -> Instant {
        self.last
    }

    /// An operation ends and the next one begins; returns how long it took.
    #[inline]
    pub(crate) fn end(&mut self) -> Duration {
        let now = Instant::now();
        let took = now - self.last;
        self.last = now;
        took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(measurements: &Measurements, metric: Metric) -> f64 {
        measurements.value(metric).unwrap()
    }

    #[test]
    fn quantiles_rate_and_stalls_are_noted() {
        let mut latencies = Latencies::new().unwrap();
        for _ in 0..99 {
            latencies.record(Duration::from_micros(10));
        }
        let mut other = Latencies::new().unwrap();
        other.record(Duration::from_millis(25));
        latencies.add(&other).unwrap();
        let mut noted = Measurements::default();
        latencies.note(Duration::from_secs(2), &mut noted);
        assert_eq!(value(&noted, Metric::OperationsPerSecond), 50.0);
        assert_eq!(value(&noted, Metric::StallMillis), 25.0);
        assert!((value(&noted, Metric::P50Micros) - 10.0).abs() < 0.1);
        assert!((value(&noted, Metric::P99Micros) - 10.0).abs() < 0.1);
        assert!((value(&noted, Metric::MaxMicros) - 25_000.0).abs() < 50.0);
    }

    #[test]
    fn ten_milliseconds_are_no_stall_yet() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(Duration::from_millis(10));
        let mut noted = Measurements::default();
        latencies.note(Duration::from_secs(1), &mut noted);
        assert_eq!(value(&noted, Metric::StallMillis), 0.0);
    }
}
