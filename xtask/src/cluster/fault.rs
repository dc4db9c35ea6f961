//! Breaking nodes on purpose, and mending them.

use super::Cluster;
use super::launch::Launch;
use super::ports;
use super::state::{Node, Standing, State};
use super::stop;
use crate::interrupt::Interrupt;
use crate::terminal;
use anyhow::{Result, bail};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// How long the kernel may take to end a killed process.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// What can be done to a running node with one signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It ends at once and can neither sync nor say goodbye.
    Kill,
    /// It stays in memory and keeps its sockets, but does nothing.
    Pause,
    /// It goes on after a pause.
    Resume,
}

impl Cluster {
    /// Does the same to several nodes; each name is checked before the first is touched.
    ///
    /// # Errors
    /// When a node is unknown or does not run.
    pub(super) fn inflict(&self, fault: Fault, names: &[String]) -> Result<()> {
        let _lock = self.lock()?;
        let mut state = State::existing(&self.layout)?;
        for index in indices(&state, names)? {
            inflict_one(fault, &mut state.nodes[index])?;
            state.save(&self.layout)?;
        }
        Ok(())
    }

    /// Stops nodes if they run and starts them again; returns when each serves.
    ///
    /// # Errors
    /// When a node does not come up; it is stopped then, the rest of the cluster goes on.
    pub(crate) fn restart(&self, names: &[String], interrupt: &Interrupt) -> Result<()> {
        let mut state = State::existing(&self.layout)?;
        let indices = indices(&state, names)?;
        let begin = Instant::now();
        let stopped = stop::nodes(&mut state, &indices)?;
        if !stopped.is_empty() {
            terminal::timed("Stopped", &stopped.join(" "), begin.elapsed());
        }
        for &index in &indices {
            let node = &state.nodes[index];
            ports::must_be_free_for_node(&node.name, node.address)?;
        }
        let begin = Instant::now();
        Launch::new(self, &mut state, interrupt).run(&indices)?;
        terminal::timed(
            "Ready",
            &format!("put and get through {} ok", names.join(" ")),
            begin.elapsed(),
        );
        Ok(())
    }
}

fn indices(state: &State, names: &[String]) -> Result<Vec<usize>> {
    let mut indices: Vec<usize> = names
        .iter()
        .map(|name| state.index_of(name))
        .collect::<Result<_>>()?;
    indices.sort_unstable();
    indices.dedup();
    Ok(indices)
}

fn inflict_one(fault: Fault, node: &mut Node) -> Result<()> {
    let (signal, verb, what_next) = match fault {
        Fault::Kill => (Signal::KILL, "Killed", "restart"),
        Fault::Pause => (Signal::STOP, "Paused", "resume"),
        Fault::Resume => (Signal::CONT, "Resumed", "pause"),
    };
    let name = node.name.clone();
    let process = match &node.process {
        Some(process) if process.signal(signal)? => process,
        _ => bail!(
            "{name} does not run ({}); `cargo xtask cluster restart {name}` starts it",
            node.condition().word()
        ),
    };
    let pid = process.pid();
    if fault == Fault::Kill {
        process.wait_gone(KILL_GRACE);
        node.standing = Standing::Killed;
    }
    terminal::status(
        verb,
        &format!("{name} (pid {pid}); undo: cargo xtask cluster {what_next} {name}"),
    );
    Ok(())
}
