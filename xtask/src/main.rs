//! Developer tasks of kv: a local cluster, the test suite, a proof on real data, and comparisons.
//!
//! `cargo xtask sim` lives simulated days full of faults, and `cargo xtask mutants` shows that they find bugs;
//! `cargo xtask fuzz` looks for bytes that harm what decodes them.
//! `cargo xtask cluster` brings up a cluster of real processes, `cargo xtask test` runs every test,
//! `cargo xtask demo-data` keeps 63,000 real records through the death of a node, and `cargo xtask
//! bench engine` measures the storage engine beside others. The tasks know no crate of kv: they build
//! the binaries `kv-node`, `kv` and `kv-compare` and run them as a user would.

mod arguments;
mod bench;
mod binaries;
mod cluster;
mod command;
mod demo;
mod failure;
mod fuzz;
mod interrupt;
mod port;
mod process;
mod sanitize;
mod sim;
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
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Sanitize(arguments) => sanitize::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Sim(arguments) => sim::run(&arguments),
        Task::Mutants(arguments) => sim::mutants(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
