//! Where the time of a row goes: one run of it under perf.

use super::Comparison;
use crate::command;
use crate::failure::Failure;
use crate::terminal::{self, shown};
use anyhow::Result;
use std::fs;
use std::process::Command;

/// Samples a second; no round number, so that nothing periodic stays hidden.
const FREQUENCY: &str = "997";
/// Functions with less than so many percent of the samples are left out.
const LEAST_PERCENT: &str = "0.5";

/// Makes the store that the row reads, runs the row with one engine under perf, and prints the functions
/// that take the most processor time.
///
/// # Errors
/// perf is missing (exit code 2), or the row or its preparation fails.
pub(super) fn run(comparison: &Comparison, row: &str, engine: Option<&str>) -> Result<()> {
    if Command::new("perf").arg("--version").output().is_err() {
        return Err(Failure::usage(
            "perf is not installed; on Debian: apt-get install linux-perf",
        ));
    }
    let folder = comparison.results.join("profile");
    fs::create_dir_all(&folder)?;
    let engine = engine.unwrap_or("kv");
    let single = |subcommand: &str| {
        let mut command = comparison.work(subcommand, &folder);
        command.args([row, "--engine", engine]);
        if comparison.is_quick {
            command.arg("--quick");
        }
        command
    };
    terminal::status("Preparing", &format!("{row} with {engine}"));
    comparison.call(&mut single("prepare"))?;

    let samples = comparison.results.join("perf.data");
    let work = single("work");
    let mut record = Command::new("perf");
    // The clock of the processor, because virtual machines often lack its counters.
    record.args([
        "record",
        "--quiet",
        "--event=cpu-clock",
        "--freq",
        FREQUENCY,
    ]);
    record.arg("--output").arg(&samples).arg("--");
    record.arg(work.get_program()).args(work.get_args());
    comparison.call(&mut record)?;
    fs::remove_dir_all(&folder)?;

    let mut report = Command::new("perf");
    report.args(["report", "--stdio", "--percent-limit", LEAST_PERCENT]);
    report.arg("--input").arg(&samples);
    terminal::result(&command::output(&mut report)?);
    terminal::status("Samples", &shown(&samples));
    Ok(())
}
