//! The command line.

use crate::engine::EngineName;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// kv-storage beside RocksDB, fjall, redb and LMDB, at equal budgets.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run all rows that have no figures yet, and keep the figures
    Run(RunArguments),
    /// Print the tables of the figures that are kept
    Report(Place),
    /// Measure what the machine allows
    Limits(Place),
    /// List the rows
    Rows,
    /// One run of one row, in this process; prints its figures as JSON
    Work {
        /// Name of the row
        row: String,
        /// Engine and stores.
        #[command(flatten)]
        single: Single,
    },
    /// Make the store that a row reads, if it reads one that another row fills
    Prepare {
        /// Name of the row
        row: String,
        /// Engine and stores.
        #[command(flatten)]
        single: Single,
    },
    /// The part of a run that is killed
    #[command(hide = true)]
    Victim {
        /// Name of the row
        row: String,
        /// Engine and stores.
        #[command(flatten)]
        single: Single,
    },
}

/// Where figures are, and of which kind.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Folder of figures and stores
    #[arg(long)]
    pub(crate) folder: PathBuf,
    /// A quarter of the data and of the memory, one pass
    #[arg(long)]
    pub(crate) quick: bool,
}

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Where, and how much.
    #[command(flatten)]
    pub(crate) place: Place,
    /// Only rows whose name contains one of these words, separated by commas
    #[arg(long)]
    pub(crate) rows: Option<String>,
    /// Only these engines, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub(crate) engines: Vec<EngineName>,
    /// Passes over all rows [default: 3, quick: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub(crate) passes: Option<u32>,
    /// What to call the measured source
    #[arg(long, default_value = "unknown")]
    pub(crate) revision: String,
}

/// One engine, one run.
#[derive(Debug, Args)]
pub(crate) struct Single {
    /// Which engine
    #[arg(long)]
    pub(crate) engine: EngineName,
    /// Where the stores of all engines are
    #[arg(long)]
    pub(crate) folder: PathBuf,
    /// Sizes of a quick run
    #[arg(long)]
    pub(crate) quick: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn engines_are_separated_by_commas() {
        let line = "x run --folder f --engines kv,rocksdb --rows fill";
        let Command::Run(run) = Arguments::parse_from(line.split(' ')).command else {
            panic!("not run");
        };
        assert_eq!(run.engines, [EngineName::Kv, EngineName::RocksDb]);
        let wrong = "x work fill-seq-100 --folder f --engine leveldb";
        assert!(Arguments::try_parse_from(wrong.split(' ')).is_err());
    }
}
