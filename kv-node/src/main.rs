//! `kv-node`: runs a node, and sets clusters up.

mod command;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match command::run(command::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            command::complain(&error);
            ExitCode::FAILURE
        }
    }
}
