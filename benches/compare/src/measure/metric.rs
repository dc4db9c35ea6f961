//! The figures a run can have, each with its name and unit in one place.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One kind of figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Operations (or rows of a full scan) a second of wall time.
    OperationsPerSecond,
    /// Operations that were measured.
    Operations,
    /// Median latency in microseconds.
    P50Micros,
    /// 99 % of operations took at most so many microseconds.
    P99Micros,
    /// 99.9 % of operations took at most so many microseconds.
    P999Micros,
    /// 99.99 % of operations took at most so many microseconds.
    P9999Micros,
    /// The longest operation in microseconds.
    MaxMicros,
    /// Sum of all operations that took longer than 10 ms, in milliseconds.
    StallMillis,
    /// Processor time of the whole process for each operation, in microseconds.
    CpuMicros,
    /// Seconds from the first put until everything was flushed and compaction had nothing left to do.
    SettledSeconds,
    /// Bytes written to files for each byte that the user wrote.
    WriteAmplification,
    /// Bytes on disk at the end for each live byte of the user.
    SpaceEnd,
    /// The most bytes on disk in between for each live byte of the user.
    SpacePeak,
    /// Operations a second in the slowest half second.
    SlowestHalfSecond,
    /// KiB read from the device for each operation.
    ReadKib,
    /// Largest resident memory of the process in MiB.
    PeakResidentMib,
    /// Resident memory at the end that no file backs, in MiB.
    AnonymousMib,
    /// Share of the acknowledged puts that was found after the process was killed, in percent.
    FoundPercent,
    /// Time to open the store again and read one key, in milliseconds.
    OpenMillis,
    /// Bytes on disk when it was opened, in MB.
    OpenedMb,
}

/// The figures of one run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Measurements(BTreeMap<Metric, f64>);

impl Measurements {
    /// Notes a figure. One that is no number (of no operations at all) is left out.
    pub(crate) fn note(&mut self, metric: Metric, value: f64) {
        if value.is_finite() {
            self.0.insert(metric, value);
        }
    }

    /// A figure, if the run has it.
    pub(crate) fn value(&self, metric: Metric) -> Option<f64> {
        self.0.get(&metric).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_are_json_objects_by_name() {
        let mut measurements = Measurements::default();
        measurements.note(Metric::P9999Micros, 1.5);
        measurements.note(Metric::CpuMicros, f64::NAN);
        let text = serde_json::to_string(&measurements).unwrap();
        assert_eq!(text, r#"{"p9999_micros":1.5}"#);
        assert_eq!(
            serde_json::from_str::<Measurements>(&text).unwrap(),
            measurements
        );
    }
}
