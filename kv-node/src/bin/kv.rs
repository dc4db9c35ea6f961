//! `kv`: the command line of users and operators. Everything is in [`kv_node::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    kv_node::cli::main()
}
