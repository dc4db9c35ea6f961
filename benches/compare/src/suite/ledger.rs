//! Figures on disk: one JSON line for each run, so that what was measured survives an interruption.

use super::plan::Step;
use crate::engine::EngineName;
use crate::measure::Measurements;
use crate::row::Row;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The row's name.
    pub(crate) row: String,
    /// The engine.
    pub(crate) engine: EngineName,
    /// The pass it belongs to.
    pub(crate) pass: u32,
    /// Its place within the row's runs of the pass.
    pub(crate) slot: u32,
    /// Fingerprint of the program that ran.
    pub(crate) build: String,
    /// What its source is called.
    pub(crate) revision: String,
    /// Load average of the machine over the minute before.
    pub(crate) load_average: f64,
    /// What came out.
    pub(crate) outcome: Outcome,
}

/// What came out of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Its figures.
    Measured(Measurements),
    /// Why there are none.
    Failed(String),
}

impl Outcome {
    /// The figures, or the error with its causes as text.
    pub(crate) fn of(result: Result<Measurements>) -> Self {
        match result {
            Ok(measurements) => Self::Measured(measurements),
            Err(error) => Self::Failed(format!("{error:#}")),
        }
    }
}

/// All runs that are known, in memory and in their file.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    records: Vec<Record>,
}

impl Ledger {
    /// Reads what an earlier run has left. A line that was broken off while it was written is dropped.
    ///
    /// # Errors
    /// The file cannot be read, or a line before the last is no record.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("results.jsonl");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            other => other.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let whole = text.rfind('\n').map_or("", |end| text.split_at(end).0);
        let records = whole
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()
            .with_context(|| format!("{} holds something else than results", path.display()))?;
        let ledger = Self { path, records };
        if !text.is_empty() && !text.ends_with('\n') {
            ledger.rewrite()?;
        }
        Ok(ledger)
    }

    /// Everything that is known.
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    /// True if a step has been run.
    pub(super) fn has(&self, step: &Step) -> bool {
        self.records.iter().any(|record| {
            record.row == step.row.name
                && (record.engine, record.pass, record.slot) == (step.engine, step.pass, step.slot)
        })
    }

    /// Forgets what these rows and engines have from another build, and what failed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn retire(
        &mut self,
        rows: &[&Row],
        engines: &[EngineName],
        build: &str,
    ) -> Result<()> {
        let before = self.records.len();
        self.records.retain(|record| {
            let is_asked =
                rows.iter().any(|row| row.name == record.row) && engines.contains(&record.engine);
            let is_good = record.build == build && matches!(record.outcome, Outcome::Measured(_));
            is_good || !is_asked
        });
        if self.records.len() < before {
            self.rewrite()?;
        }
        Ok(())
    }

    /// Adds a run.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn enter(&mut self, record: Record) -> Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        file.write_all(line(&record)?.as_bytes())?;
        self.records.push(record);
        Ok(())
    }

    fn rewrite(&self) -> Result<()> {
        let lines = self.records.iter().map(line).collect::<Result<String>>()?;
        let temporary = self.path.with_extension("tmp");
        fs::write(&temporary, lines)?;
        Ok(fs::rename(&temporary, &self.path)?)
    }
}

fn line(record: &Record) -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string(record)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Metric;

    const ENGINE: EngineName = EngineName::RocksDb;

    fn record(row: &str, build: &str) -> Record {
        let mut measurements = Measurements::default();
        measurements.note(Metric::OperationsPerSecond, 5.0);
        Record {
            row: row.to_owned(),
            engine: ENGINE,
            pass: 1,
            slot: 1,
            build: build.to_owned(),
            revision: "abc".to_owned(),
            load_average: 0.5,
            outcome: Outcome::Measured(measurements),
        }
    }

    fn step(row: &str) -> Step {
        Step {
            row: Row::named(row).unwrap(),
            engine: ENGINE,
            pass: 1,
            slot: 1,
        }
    }

    #[test]
    fn records_are_found_again_after_a_line_was_broken_off() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path()).unwrap();
        ledger.enter(record("fill-seq-100", "one")).unwrap();
        let path = folder.path().join("results.jsonl");
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"row\":\"fi");
        fs::write(&path, text).unwrap();
        let mut ledger = Ledger::open(folder.path()).unwrap();
        assert!(ledger.has(&step("fill-seq-100")));
        ledger.enter(record("recover-1024", "one")).unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!(
            ledger.records(),
            [record("fill-seq-100", "one"), record("recover-1024", "one")]
        );
    }

    #[test]
    fn only_asked_rows_of_other_builds_and_failures_are_retired() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path()).unwrap();
        ledger.enter(record("fill-seq-100", "old")).unwrap();
        ledger.enter(record("recover-1024", "old")).unwrap();
        ledger.enter(record("get-hot-100", "new")).unwrap();
        let failed = Record {
            outcome: Outcome::Failed("broken".to_owned()),
            ..record("get-miss-100", "new")
        };
        ledger.enter(failed).unwrap();
        let asked: Vec<&Row> = ["recover-1024", "get-hot-100", "get-miss-100"]
            .map(|name| Row::named(name).unwrap())
            .to_vec();
        ledger.retire(&asked, &[ENGINE], "new").unwrap();
        let left = Ledger::open(folder.path()).unwrap();
        let names: Vec<&str> = left.records().iter().map(|record| &*record.row).collect();
        assert_eq!(names, ["fill-seq-100", "get-hot-100"]);
    }
}
