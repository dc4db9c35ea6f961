//! Developer tasks of kv: a local cluster, the test suite, and a proof on real data.
//!
//! `cargo xtask cluster` brings up a cluster of real processes, `cargo xtask test` runs every test,
//! and `cargo xtask demo-data` keeps 63,000 real records through the death of a node. The tasks know
//! no crate of kv: they build the binaries `kv-node` and `kv` and run them as a user would.

mod arguments;
mod binaries;
mod cluster;
mod command;
mod demo;
mod failure;
mod interrupt;
mod port;
mod process;
mod suite;
mod table;
mod terminal;
mod workspace;

use arguments::{Arguments, Task};
use clap::Parser;
use std::process::ExitCode;

#[cfg(not(target_os = "linux"))]
compile_error!("xtask reads /proc and uses pidfds; it runs on Linux only");

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Cluster(arguments) => cluster::run(arguments),
        Task::Test(arguments) => suite::run(&arguments),
        Task::DemoData(arguments) => demo::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
