//! Running rows: which process comes after which, and what becomes of their figures.

mod ledger;
mod plan;
mod process;

pub(crate) use ledger::{Ledger, Outcome, Record};

use crate::engine::EngineName;
use crate::machine::{self, Machine};
use crate::measure::Measurements;
use crate::report::number;
use crate::row::Row;
use crate::scale::Scale;
use crate::terminal;
use anyhow::{Result, bail};
use plan::{Step, plan};
use process::Launcher;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Order {
    /// Where results and stores are kept.
    pub(crate) folder: PathBuf,
    /// Sizes and times of a quick run.
    pub(crate) is_quick: bool,
    /// Which rows, in the order of the tables.
    pub(crate) rows: Vec<&'static Row>,
    /// Which engines.
    pub(crate) engines: Vec<EngineName>,
    /// How many passes.
    pub(crate) passes: u32,
    /// What the measured source is called.
    pub(crate) revision: String,
}

/// Runs everything that has no figures yet and enters the figures one by one.
///
/// What an earlier run of the same program has measured is kept; what another build has measured in these
/// rows is thrown away first, because figures are compared only within one build.
///
/// # Errors
/// A file cannot be written, or at least one run failed; the others are entered nevertheless.
pub(crate) fn run(order: &Order) -> Result<()> {
    fs::create_dir_all(&order.folder)?;
    let build = machine::build_fingerprint()?;
    Machine::of(&order.folder)?.save(&order.folder)?;
    let mut ledger = Ledger::open(&order.folder)?;
    ledger.retire(&order.rows, &order.engines, &build)?;
    let launcher = Launcher::new(stores(&order.folder), order.is_quick, &build)?;
    let steps = plan(&order.rows, &order.engines, order.passes);
    let count = steps.len();
    let mut failures = 0;
    for (index, step) in steps.into_iter().enumerate() {
        if ledger.has(&step) {
            continue;
        }
        let (begin, load_average) = (Instant::now(), machine::load_average()?);
        let outcome = Outcome::of(launcher.run(&step));
        failures += usize::from(matches!(outcome, Outcome::Failed(_)));
        show(index + 1, count, &step, &outcome, begin.elapsed());
        ledger.enter(Record {
            row: step.row.name.to_owned(),
            engine: step.engine,
            pass: step.pass,
            slot: step.slot,
            build: build.clone(),
            revision: order.revision.clone(),
            load_average,
            outcome,
        })?;
    }
    remove_stores(&order.folder)?;
    if failures > 0 {
        bail!("{failures} of {count} runs failed; run again to repeat only those");
    }
    Ok(())
}

/// The scale's own number of passes, unless another is asked for.
pub(crate) fn passes(asked: Option<u32>, is_quick: bool) -> u32 {
    asked.unwrap_or(Scale::new(is_quick).passes)
}

/// Where the stores of a run are.
pub(crate) fn stores(folder: &Path) -> PathBuf {
    folder.join("stores")
}

/// Removes them: some gigabytes.
fn remove_stores(folder: &Path) -> Result<()> {
    let stores = stores(folder);
    if stores.exists() {
        fs::remove_dir_all(stores)?;
    }
    Ok(())
}

fn show(number: usize, count: usize, step: &Step, outcome: &Outcome, took: Duration) {
    let place = format!("{number}/{count}");
    let figure = match outcome {
        Outcome::Measured(measurements) => headline(step.row, measurements),
        Outcome::Failed(error) => format!("failed: {error}"),
    };
    terminal::status(
        &place,
        &format!(
            "pass {} {:<20} {:<10} {figure:<14} ({:.1} s)",
            step.pass,
            step.row.name,
            step.engine,
            took.as_secs_f64()
        ),
    );
}

fn headline(row: &Row, measurements: &Measurements) -> String {
    let metric = row.headline();
    measurements
        .value(metric)
        .map_or_else(String::new, |value| number::with_unit(metric, value))
}
