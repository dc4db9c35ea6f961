//! `up`: whatever the cluster's condition, it serves afterwards, or the error says why not.

use super::Cluster;
use super::launch::Launch;
use super::plan::Plan;
use super::ports;
use super::state::{Condition, State};
use crate::arguments::UpArguments;
use crate::binaries::Binaries;
use crate::interrupt::Interrupt;
use crate::terminal;
use anyhow::{Result, bail};
use std::time::Instant;

impl Cluster {
    /// Starts the cluster, creating it first if need be, and prints it; one that runs is only printed.
    ///
    /// # Errors
    /// As [`Cluster::bring_up`], and when the cluster runs only in part; nothing was changed then.
    pub(super) fn up(&self, asked: &UpArguments, interrupt: &Interrupt) -> Result<()> {
        let state = self.bring_up(asked, interrupt)?;
        self.report(&state);
        must_run_whole(&state)
    }

    /// Starts the cluster unless one of its nodes runs already.
    ///
    /// # Errors
    /// When a port is taken (nothing was started) or a node does not come up (all were stopped).
    pub(crate) fn bring_up(&self, asked: &UpArguments, interrupt: &Interrupt) -> Result<State> {
        match State::load(&self.layout)? {
            Some(state) => {
                state.must_fit(asked)?;
                if state.is_any_alive() {
                    return Ok(state);
                }
                self.start_again(state, asked, interrupt)
            }
            None => self.start_new(asked, interrupt),
        }
    }

    fn start_new(&self, asked: &UpArguments, interrupt: &Interrupt) -> Result<State> {
        self.contexts.must_be_ours(self.layout.name())?;
        let reserved = ports::of_other_clusters(&self.layout);
        let plan = Plan::new(asked, |count| ports::free_base(count, &reserved))?;
        ports::must_be_free_for_new(&plan, &reserved)?;
        let binaries = binaries(asked, interrupt)?;
        let begin = Instant::now();
        let state = self.create(&plan, binaries)?;
        self.start_all(state, begin, interrupt)
    }

    /// Starts a cluster that was stopped, with its data, identities and ports.
    fn start_again(
        &self,
        mut state: State,
        asked: &UpArguments,
        interrupt: &Interrupt,
    ) -> Result<State> {
        self.contexts.must_be_ours(self.layout.name())?;
        ports::must_be_free_again(&state)?;
        state.binaries = binaries(asked, interrupt)?;
        self.start_all(state, Instant::now(), interrupt)
    }

    fn start_all(&self, mut state: State, begin: Instant, interrupt: &Interrupt) -> Result<State> {
        self.contexts.write(&self.layout, &state)?;
        let all: Vec<usize> = (0..state.nodes.len()).collect();
        Launch::new(self, &mut state, interrupt).run(&all)?;
        terminal::timed(
            "Ready",
            "put and get through every node ok",
            begin.elapsed(),
        );
        Ok(state)
    }
}

fn binaries(asked: &UpArguments, interrupt: &Interrupt) -> Result<Binaries> {
    let binaries = Binaries::get(&asked.programs);
    // Ctrl-C also ends cargo, and "interrupted" is the better message then.
    interrupt.check()?;
    binaries
}

/// A cluster that runs only in part is neither up nor down; what to do is the user's choice.
fn must_run_whole(state: &State) -> Result<()> {
    let missing: Vec<&str> = state
        .nodes
        .iter()
        .filter(|node| node.condition() != Condition::Up)
        .map(|node| node.name.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "cluster \"{}\" runs without {}",
        state.name,
        missing.join(", ")
    );
}
