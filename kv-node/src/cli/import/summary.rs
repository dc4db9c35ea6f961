//! What an import did, counted.

use std::time::Duration;

use serde::Serialize;

use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::value::{count, size};

/// Failures that are named; all are counted.
const MOST_NAMED: usize = 10;

/// Counts of one run.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    schema: u8,
    /// Records read from the input, good or bad.
    pub(super) records: u64,
    /// Written, and acknowledged.
    pub(super) written: u64,
    /// Found to be stored already.
    pub(super) skipped: u64,
    /// Found equal by `--verify`.
    pub(super) equal: u64,
    /// Failed, missing or different.
    pub(super) errors: u64,
    /// Bytes of the values of all good records.
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    /// Whether the end of the input was not reached.
    pub(super) stopped: bool,
    failures: Vec<Named>,
    #[serde(skip)]
    exit: u8,
}

/// One failure.
#[derive(Debug, Serialize)]
struct Named {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    error: String,
}

impl Summary {
    pub(super) fn new() -> Self {
        Self {
            schema: 1,
            ..Self::default()
        }
    }

    /// Counts a failure; the first one gives the exit code.
    pub(super) fn fail(&mut self, line: u64, key: Option<String>, failure: &Failure) {
        self.errors += 1;
        if self.exit == 0 {
            self.exit = failure.exit();
        }
        if self.failures.len() < MOST_NAMED {
            self.failures.push(Named {
                line,
                key,
                error: failure.message().to_owned(),
            });
        }
    }

    /// Prints everything; fails when a record did.
    pub(super) fn finish(
        mut self,
        output: &Output,
        took: Duration,
        is_verify: bool,
    ) -> Result<(), Failure> {
        self.seconds = took.as_secs_f64();
        for Named { line, key, error } in &self.failures {
            let key = key
                .as_ref()
                .map(|key| format!(" ({key})"))
                .unwrap_or_default();
            output.note(format!("line {line}{key}: {error}"));
        }
        let named = self.failures.len() as u64;
        if self.errors > named {
            output.note(format!("… and {} more", count(self.errors - named)));
        }
        if self.stopped {
            output.note("stopped before the end of the input; see above");
        }
        let rate = self.records as f64 / self.seconds.max(0.001);
        output.line(format!(
            "{} records · {} · {:.1} s · {}/s",
            count(self.records),
            size(self.bytes),
            self.seconds,
            count(rate as u64),
        ))?;
        let done = match is_verify {
            true => format!("equal {}", count(self.equal)),
            false => format!(
                "written {} · skipped {}",
                count(self.written),
                count(self.skipped)
            ),
        };
        output.line(format!("{done} · errors {}", count(self.errors)))?;
        output.json_only(&self)?;
        match self.errors {
            0 => Ok(()),
            _ => Err(Failure::silent(self.exit.max(1))),
        }
    }
}
