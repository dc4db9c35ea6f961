//! kv-storage beside RocksDB, fjall, redb and LMDB, at equal budgets.
//!
//! `run` starts one process for each run of a row with an engine, so that memory, page cache and counters
//! belong to it alone, and enters its figures in a file; `report` renders the tables. Ours alternates with
//! the engines it is judged against, so that a noisy minute hits both. The rows are in `row.rs`, what they
//! do in `workload/`, how the engines are called in `engines/`, and what ours is to reach in `goal.rs`.
//!
//! `cargo xtask bench engine` builds and calls this program and writes the tables to docs/performance.md.

mod arguments;
mod dataset;
mod engine;
mod engines;
mod goal;
mod limits;
mod machine;
mod measure;
mod report;
mod row;
mod scale;
mod suite;
mod terminal;
mod workload;

use anyhow::Result;
use arguments::{Arguments, Command, Place, RunArguments, Single};
use clap::Parser;
use engine::EngineName;
use machine::Machine;
use row::{ROWS, Row};
use scale::Scale;
use std::fs;
use std::process::ExitCode;
use workload::Run;

#[cfg(not(target_os = "linux"))]
compile_error!("the comparison reads /proc and advises the page cache; it runs on Linux only");

fn main() -> ExitCode {
    match act(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::status("error:", &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn act(command: Command) -> Result<()> {
    match command {
        Command::Run(arguments) => suite::run(&order(arguments)?),
        Command::Report(place) => {
            terminal::result(&report::render(&place.folder, place.quick)?);
            Ok(())
        }
        Command::Limits(place) => limits(&place),
        Command::Rows => {
            for row in ROWS {
                terminal::result(&format!("{:<20} {}\n", row.name, row.title));
            }
            Ok(())
        }
        Command::Work { row, single } => {
            let measurements = run(single).measure(Row::named(&row)?)?;
            terminal::result(&format!("{}\n", serde_json::to_string(&measurements)?));
            Ok(())
        }
        Command::Prepare { row, single } => run(single).prepare(Row::named(&row)?),
        Command::Victim { row, single } => workload::run_victim(&run(single), Row::named(&row)?),
    }
}

fn order(arguments: RunArguments) -> Result<suite::Order> {
    let is_quick = arguments.place.quick;
    let engines = if arguments.engines.is_empty() {
        EngineName::ALL.to_vec()
    } else {
        arguments.engines
    };
    let rows = match &arguments.rows {
        Some(words) => Row::matching(words)?,
        None => ROWS.iter().collect(),
    };
    Ok(suite::Order {
        folder: arguments.place.folder,
        is_quick,
        rows,
        engines,
        passes: suite::passes(arguments.passes, is_quick),
        revision: arguments.revision,
    })
}

fn limits(place: &Place) -> Result<()> {
    fs::create_dir_all(&place.folder)?;
    Machine::of(&place.folder)?.save(&place.folder)?;
    limits::measure(&place.folder, place.quick)
}

fn run(single: Single) -> Run {
    Run {
        engine: single.engine,
        folder: single.folder.join(single.engine.id()),
        scale: Scale::new(single.quick),
        is_quick: single.quick,
    }
}
