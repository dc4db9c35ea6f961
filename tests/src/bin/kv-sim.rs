//! Runs simulated days: one of them, many, a saved one, or a failing one ever smaller.

#![expect(
    clippy::print_stdout,
    reason = "a program for the terminal reports by printing"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use kv_tests::swarm::planted::{FOUND_BY_TESTS, PLANTED};
use kv_tests::swarm::{Report, Scenario, Summary, run, shrink};

/// Whole clusters in one thread and virtual time, on days full of faults.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// The day of one seed; says what it is first, and what was found at the end.
    Seed {
        seed: u64,
        /// Says what goes wrong as it does.
        #[arg(long)]
        log: bool,
        /// Seconds of work.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Tells all that happened to this key.
        #[arg(long)]
        key: Option<u32>,
        /// Writes the day to a file, to be changed and run.
        #[arg(long)]
        save: Option<PathBuf>,
    },
    /// The days of many seeds; prints a summary as JSON.
    Range {
        first: u64,
        count: u64,
        /// Seconds of work each.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Ends after this many failures.
        #[arg(long, default_value_t = 10)]
        failures: usize,
    },
    /// A saved day.
    File {
        file: PathBuf,
        /// Tells all that happened to this key.
        #[arg(long)]
        key: Option<u32>,
        /// Says what goes wrong as it does.
        #[arg(long)]
        log: bool,
    },
    /// Names the bugs that are planted in builds with `--cfg kv_planted`, and that days find.
    Planted {
        /// Those instead that other tests find.
        #[arg(long)]
        by_tests: bool,
    },
    /// Makes the failing day of a seed smaller and saves it.
    Shrink {
        seed: u64,
        /// Seconds of work.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Tries at most this often.
        #[arg(long, default_value_t = 400)]
        runs: usize,
        /// Where to.
        #[arg(long)]
        save: PathBuf,
    },
}

fn main() -> Result<ExitCode> {
    let failed = match Arguments::parse().task {
        Task::Seed {
            seed,
            log,
            seconds,
            key,
            save,
        } => {
            let scenario = Scenario::draw(seed, Duration::from_secs(seconds));
            if let Some(file) = save {
                std::fs::write(&file, serde_json::to_string_pretty(&scenario)?)
                    .with_context(|| format!("cannot write {}", file.display()))?;
            }
            one(&scenario, log, key)
        }
        Task::Range {
            first,
            count,
            seconds,
            failures,
        } => range(first, count, Duration::from_secs(seconds), failures)?,
        Task::File { file, key, log } => {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let scenario = serde_json::from_str(&text)
                .with_context(|| format!("{} holds no scenario", file.display()))?;
            one(&scenario, log, key)
        }
        Task::Planted { by_tests } => {
            for name in if by_tests { FOUND_BY_TESTS } else { PLANTED } {
                println!("{name}");
            }
            false
        }
        Task::Shrink {
            seed,
            seconds,
            runs,
            save,
        } => {
            let scenario = Scenario::draw(seed, Duration::from_secs(seconds));
            let small = shrink::shrink(&scenario, runs, |smaller| println!("fails: {smaller}"));
            std::fs::write(&save, serde_json::to_string_pretty(&small)?)
                .with_context(|| format!("cannot write {}", save.display()))?;
            one(&small, false, None)
        }
    };
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Runs a day and prints everything about it; true if it failed.
fn one(scenario: &Scenario, log: bool, key: Option<u32>) -> bool {
    println!("{scenario}");
    for event in &scenario.events {
        println!("  {event}");
    }
    let begin = Instant::now();
    let report = run(scenario, log);
    for line in key.iter().flat_map(|key| report.history.tell(*key)) {
        println!("{line}");
    }
    print_report(&report, begin.elapsed());
    !report.violations.is_empty()
}

fn print_report(report: &Report, took: Duration) {
    for (what, times) in &report.counts {
        println!("  {what:<24}{times:>12}");
    }
    println!(
        "{:.1?} simulated in {took:.2?} ({:.0} times real time), trace {:016x}",
        report.simulated,
        report.simulated.as_secs_f64() / took.as_secs_f64().max(1e-9),
        report.trace
    );
    for found in &report.violations {
        println!("VIOLATION {found}");
    }
}

/// Runs many days; true if one failed.
fn range(first: u64, count: u64, work: Duration, most_failures: usize) -> Result<bool> {
    let mut summary = Summary::default();
    for seed in first..first.saturating_add(count) {
        let report = run(&Scenario::draw(seed, work), false);
        summary.add(seed, &report);
        if summary.failures.len() >= most_failures {
            break;
        }
    }
    println!("{}", serde_json::to_string(&summary)?);
    Ok(!summary.failures.is_empty())
}
