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
use std::time::Instant;

/// What can be done to a running node with one signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It ends at once and can neither sync nor say goodbye.
    Kill,
    /// It stays in memory and keeps its sockets, but does nothing.
    Pause,
    /// It goes on after a pause.
    Resume,
}

impl Cluster {
    /// Does the same to several nodes, and says how to mend those that do not run now.
    ///
    /// # Errors
    /// As [`Cluster::inflict`].
    pub(super) fn inflict_and_advise(&self, fault: Fault, names: &[String]) -> Result<()> {
        self.inflict(fault, names)?;
        self.advise(&State::existing(&self.layout)?);
        Ok(())
    }

    /// Does the same to several nodes; each name is checked before the first is touched.
    ///
    /// # Errors
    /// When a node is unknown or does not run.
    pub(crate) fn inflict(&self, fault: Fault, names: &[String]) -> Result<()> {
        let mut state = State::existing(&self.layout)?;
        for index in indices(&state, names)? {
            inflict_one(fault, &mut state.nodes[index], &self.layout.option())?;
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
        let stopped = stop::nodes(&mut state, &indices);
        state.save(&self.layout)?;
        let stopped = stopped?;
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

fn inflict_one(fault: Fault, node: &mut Node, option: &str) -> Result<()> {
    let (signal, verb) = match fault {
        Fault::Kill => (Signal::KILL, "Killed"),
        Fault::Pause => (Signal::STOP, "Paused"),
        Fault::Resume => (Signal::CONT, "Resumed"),
    };
    let name = node.name.clone();
    let process = match &node.process {
        Some(process) if process.signal(signal)? => process,
        _ => bail!(
            "{name} does not run ({}); `cargo xtask cluster restart {name}{option}` starts it",
            node.condition().word()
        ),
    };
    let pid = process.pid();
    if fault == Fault::Kill {
        process.wait_gone(stop::KILL_GRACE);
        node.standing = Standing::Killed;
    }
    terminal::status(verb, &format!("{name} (pid {pid})"));
    Ok(())
}
