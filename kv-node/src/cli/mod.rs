//! The `kv` command line: reads, writes, moves data and looks at clusters, through kv-client only.
//!
//! Rules for all commands: values and tables go to stdout, hints and progress to stderr; `--json`
//! prints one object per line, each with `"schema":1`; colours only on a terminal and without
//! `NO_COLOR`; every error ends with what to do next; run times are bounded.
//!
//! | exit | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | another error |
//! | 2 | the command or its input makes no sense |
//! | 3 | the key is absent |
//! | 4 | several siblings where one value was wanted |
//! | 5 | a precondition failed |
//! | 6 | not enough replicas |
//! | 7 | time is over, outcome unknown |
//! | 8 | cannot connect: network, TLS, permission |
//! | 9 | `status --check`: the cluster is degraded |
//!
//! | module | holds |
//! |---|---|
//! | `args` | every command and option |
//! | `session` | from options to a connected client |
//! | `decide` | changes of the topology |
//! | `output`, `failure` | stdout, stderr, exit codes |
//! | `value`, `base64`, `time` | bytes and moments as text |
//! | the others | one command each |

mod args;
mod base64;
mod bucket;
mod cluster;
mod context;
mod decide;
mod explain;
mod export;
mod failure;
mod fate;
mod get;
mod hints;
mod import;
mod metrics;
mod output;
mod probe;
mod put;
mod real;
mod repair;
mod resolve;
mod session;
mod status;
mod time;
mod value;

#[cfg(fuzzing)]
pub use import::read_import;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use failure::Failure;
use output::Output;
use session::Session;

/// Runs the command that the arguments of this process name.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::of_process(cli.json);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(cli, &output)),
        Err(error) => Err(Failure::other(format!("cannot start the runtime: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&output),
    }
}

async fn run(cli: Cli, output: &Output) -> Result<(), Failure> {
    let session = Session::new(cli.context, cli.connect, cli.via);
    match cli.command {
        Command::Put(args) => put::put(&session, output, args).await,
        Command::Get(args) => get::run(&session, output, args).await,
        Command::Delete(args) => put::delete(&session, output, args).await,
        Command::Resolve(args) => resolve::run(&session, output, args).await,
        Command::Fate(args) => fate::run(&session, output, args).await,
        Command::Import(args) => import::run(&session, output, args).await,
        Command::Export(args) => export::run(&session, output, args).await,
        Command::Status(args) => status::run(&session, output, args).await,
        Command::Metrics(args) => metrics::run(&session, output, args).await,
        Command::Bucket(command) => bucket::run(&session, output, command).await,
        Command::Cluster(command) => cluster::run(&session, output, command).await,
        Command::Hints => hints::run(&session, output).await,
        Command::Repair(args) => repair::run(&session, output, args).await,
        Command::Probe(args) => probe::run(&session, output, args).await,
        Command::Context(command) => context::run(output, command),
    }
}
