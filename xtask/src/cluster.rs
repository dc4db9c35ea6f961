//! A local cluster: real `kv-node` processes on loopback, with real certificates and real disks.
//!
//! Everything lives in `target/kv/NAME`. Between two commands the cluster is remembered in its
//! [`State`]; the processes go on without any supervisor. A command that changes something holds the
//! cluster's lock, so two commands at once cannot start it twice.

mod context;
mod create;
mod down;
mod environment;
mod fault;
mod launch;
mod layout;
mod log;
mod members;
mod plan;
mod ports;
mod probe;
mod report;
mod state;
mod stop;
mod up;

use crate::arguments::{Action, ClusterArguments};
use crate::interrupt::Interrupt;
use crate::terminal;
use crate::workspace;
use anyhow::{Context as _, Result};
use context::Contexts;
use layout::Layout;
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::process::Command;

pub(crate) use fault::Fault;
pub(crate) use layout::DEFAULT_NAME;
pub(crate) use state::State;

/// One cluster of this machine: where its files are, and where its context is written.
#[derive(Debug)]
pub(crate) struct Cluster {
    layout: Layout,
    contexts: Contexts,
}

/// Runs one `cargo xtask cluster` command.
///
/// # Errors
/// When the command cannot do what it says; every error names what to do next.
pub(crate) fn run(arguments: ClusterArguments) -> Result<()> {
    let parent = workspace::target_directory()?.join("kv");
    let cluster = Cluster {
        layout: Layout::new(parent, &arguments.name),
        contexts: Contexts::of_user()?,
    };
    let action = arguments.action.unwrap_or(Action::Up(arguments.up));
    let _lock = match action {
        Action::Info | Action::Logs(_) | Action::Env(_) => None,
        Action::Up(_)
        | Action::Kill(_)
        | Action::Pause(_)
        | Action::Resume(_)
        | Action::Restart(_)
        | Action::Add(_)
        | Action::Remove(_)
        | Action::Down(_) => Some(cluster.lock()?),
    };
    match action {
        Action::Up(up) => cluster.up(&up, &Interrupt::watch()?),
        Action::Info => cluster.info(),
        Action::Logs(logs) => cluster.print_log(&logs),
        Action::Kill(of) => cluster.inflict_and_advise(Fault::Kill, &of.nodes),
        Action::Pause(of) => cluster.inflict_and_advise(Fault::Pause, &of.nodes),
        Action::Resume(of) => cluster.inflict_and_advise(Fault::Resume, &of.nodes),
        Action::Restart(of) => cluster.restart(&of.nodes, &Interrupt::watch()?),
        Action::Add(add) => cluster.add(&add, &Interrupt::watch()?),
        Action::Remove(remove) => cluster.remove(&remove.node, &Interrupt::watch()?),
        Action::Down(down) => cluster.down(down.wipe),
        Action::Env(environment) => cluster.print_environment(environment.json),
    }
}

impl Cluster {
    /// A cluster with a folder and a context of its own, apart from those of `cargo xtask cluster`.
    pub(crate) fn private(folder: &Path, name: &str) -> Self {
        Self {
            layout: Layout::new(folder.to_owned(), name),
            contexts: Contexts::at(folder.join("config")),
        }
    }

    /// `kv`, speaking to this cluster.
    pub(crate) fn cli(&self, state: &State) -> Command {
        let mut command = Command::new(&state.binaries.cli);
        command.args(["--context", self.layout.name()]);
        command.env("KV_CONFIG_DIR", self.contexts.root());
        // The user's shell may be set up for another cluster.
        for variable in ["KV_CONTEXT", "KV_SEEDS", "KV_CA", "KV_CERT", "KV_KEY"] {
            command.env_remove(variable);
        }
        command
    }

    /// Waits until no other command changes this cluster, and keeps others out until it is dropped.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.layout.lock_file();
        let in_file = || format!("cannot lock {}", path.display());
        fs::create_dir_all(self.layout.parent()).with_context(in_file)?;
        let file = File::create(&path).with_context(in_file)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let name = self.layout.name();
                terminal::status("Waiting", &format!("for another command on cluster {name}"));
                file.lock().with_context(in_file)?;
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(in_file),
        }
        Ok(file)
    }
}
