//! All runs of all passes, asked by row and engine.

use crate::engine::EngineName;
use crate::goal::{Figures, median};
use crate::measure::{Measurements, Metric};
use crate::row::{ROWS, Row};
use crate::suite::{Outcome, Record};

/// Below this, some acknowledged puts were not found.
const ALL_PERCENT: f64 = 100.0;

/// What is known.
#[derive(Debug)]
pub(super) struct Results<'a> {
    records: &'a [Record],
}

impl<'a> Results<'a> {
    /// Looks at these records.
    pub(super) fn of(records: &'a [Record]) -> Self {
        Self { records }
    }

    /// True if nothing was run yet.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The rows that were run, in the order of the tables.
    pub(super) fn rows(&self) -> impl Iterator<Item = &'static Row> {
        ROWS.iter()
            .filter(|row| self.records.iter().any(|record| record.row == row.name))
    }

    /// How many runs of a row with an engine have figures.
    pub(super) fn runs(&self, row: &str, engine: EngineName) -> usize {
        self.measurements(row, engine).count()
    }

    /// The median of a figure over all passes.
    pub(super) fn median(&self, row: &str, engine: EngineName, metric: Metric) -> Option<f64> {
        median(self.values(row, engine, metric))
    }

    /// The smallest and the largest of a figure.
    pub(super) fn range(
        &self,
        row: &str,
        engine: EngineName,
        metric: Metric,
    ) -> Option<(f64, f64)> {
        self.values(row, engine, metric).fold(None, |range, value| {
            let (low, high) = range.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        })
    }

    /// The medians that a goal is judged by. An engine that lost acknowledged puts has none.
    pub(super) fn figures(&self, row: &str, metric: Metric) -> Figures {
        let figure = |engine| {
            self.has_kept_all(row, engine)
                .then(|| self.median(row, engine, metric))
                .flatten()
        };
        Figures {
            ours: figure(EngineName::Kv),
            rocksdb: figure(EngineName::RocksDb),
            fjall: figure(EngineName::Fjall),
        }
    }

    /// True if every killed process of this row left everything it had acknowledged.
    pub(super) fn has_kept_all(&self, row: &str, engine: EngineName) -> bool {
        self.values(row, engine, Metric::FoundPercent)
            .all(|found| found >= ALL_PERCENT)
    }

    /// Runs that failed, with their errors.
    pub(super) fn failures(&self) -> impl Iterator<Item = String> {
        self.records
            .iter()
            .filter_map(|record| match &record.outcome {
                Outcome::Failed(error) => Some(format!(
                    "{} in pass {} of {}: {error}",
                    record.engine, record.pass, record.row
                )),
                Outcome::Measured(_) => None,
            })
    }

    /// Which sources were measured: one, or which rows each.
    pub(super) fn revisions(&self) -> String {
        let mut revisions: Vec<&str> = Vec::new();
        for record in self.records {
            if !revisions.contains(&record.revision.as_str()) {
                revisions.push(&record.revision);
            }
        }
        if let [only] = revisions[..] {
            return only.to_owned();
        }
        let parts: Vec<String> = revisions
            .into_iter()
            .map(|revision| format!("{revision} ({})", self.rows_of(revision).join(", ")))
            .collect();
        parts.join("; ")
    }

    /// How many passes there were, and how busy the machine was.
    pub(super) fn quietness(&self) -> String {
        let passes = self.records.iter().map(|record| record.pass).max();
        let loads = || self.records.iter().map(|record| record.load_average);
        format!(
            "Passes: {}; load average before the runs: median {:.1}, at most {:.1}.",
            passes.unwrap_or(0),
            median(loads()).unwrap_or(0.0),
            loads().fold(0.0, f64::max)
        )
    }

    fn rows_of(&self, revision: &str) -> Vec<&'static str> {
        ROWS.iter()
            .map(|row| row.name)
            .filter(|&name| {
                self.records
                    .iter()
                    .any(|record| record.row == name && record.revision == revision)
            })
            .collect()
    }

    fn values(&self, row: &str, engine: EngineName, metric: Metric) -> impl Iterator<Item = f64> {
        self.measurements(row, engine)
            .filter_map(move |measurements| measurements.value(metric))
    }

    fn measurements(&self, row: &str, engine: EngineName) -> impl Iterator<Item = &Measurements> {
        self.records
            .iter()
            .filter(move |record| record.row == row && record.engine == engine)
            .filter_map(|record| match &record.outcome {
                Outcome::Measured(measurements) => Some(measurements),
                Outcome::Failed(_) => None,
            })
    }
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;

    /// A run of a row with these figures.
    pub(in crate::report) fn record(
        row: &str,
        engine: EngineName,
        slot: u32,
        figures: &[(Metric, f64)],
    ) -> Record {
        let mut measurements = Measurements::default();
        for &(metric, value) in figures {
            measurements.note(metric, value);
        }
        Record {
            row: row.to_owned(),
            engine,
            pass: 1,
            slot,
            build: "build".to_owned(),
            revision: "abc".to_owned(),
            load_average: 1.0,
            outcome: Outcome::Measured(measurements),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::record;
    use super::*;

    const ROW: &str = "fill-seq-100";
    const RATE: Metric = Metric::OperationsPerSecond;

    #[test]
    fn figures_are_medians_over_the_runs() {
        let records = [
            record(ROW, EngineName::Kv, 0, &[(RATE, 10.0)]),
            record(ROW, EngineName::Kv, 2, &[(RATE, 30.0)]),
            record(ROW, EngineName::RocksDb, 1, &[(RATE, 7.0)]),
        ];
        let results = Results::of(&records);
        assert_eq!(results.figures(ROW, RATE).ours, Some(20.0));
        assert_eq!(results.figures(ROW, RATE).rocksdb, Some(7.0));
        assert_eq!(results.figures(ROW, RATE).fjall, None);
        assert_eq!(results.runs(ROW, EngineName::Kv), 2);
        assert_eq!(results.range(ROW, EngineName::Kv, RATE), Some((10.0, 30.0)));
        assert_eq!(results.rows().count(), 1);
    }

    #[test]
    fn one_pass_that_lost_something_voids_the_row() {
        let found = |percent| [(RATE, 10.0), (Metric::FoundPercent, percent)];
        let records = [
            record(ROW, EngineName::Kv, 0, &found(100.0)),
            record(ROW, EngineName::Kv, 2, &found(99.9)),
            record(ROW, EngineName::Fjall, 3, &found(100.0)),
        ];
        let results = Results::of(&records);
        assert_eq!(results.figures(ROW, RATE).ours, None);
        assert_eq!(results.figures(ROW, RATE).fjall, Some(10.0));
    }

    #[test]
    fn revisions_are_told_by_row_when_they_differ() {
        let mut records = vec![
            record(ROW, EngineName::Kv, 0, &[]),
            record("recover-1024", EngineName::Kv, 0, &[]),
        ];
        assert_eq!(Results::of(&records).revisions(), "abc");
        records[1].revision = "def".to_owned();
        assert_eq!(
            Results::of(&records).revisions(),
            "abc (fill-seq-100); def (recover-1024)"
        );
    }
}
