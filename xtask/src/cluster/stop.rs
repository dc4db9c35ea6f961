//! Stopping nodes in order: SIGTERM, time to finish, and only then SIGKILL.

use super::state::{Standing, State};
use crate::process::Life;
use crate::terminal;
use anyhow::Result;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// How long a node may take to finish requests and sync its log.
const GRACE: Duration = Duration::from_secs(10);
/// How long the kernel may take to end a killed process.
pub(super) const KILL_GRACE: Duration = Duration::from_secs(5);

/// Stops the nodes with these indices; those that do not run are left as they are.
///
/// Returns the names of those that had to be stopped. The caller saves the state.
///
/// # Errors
/// When a process may not be signalled; the others are stopped all the same.
pub(super) fn nodes(state: &mut State, indices: &[usize]) -> Result<Vec<String>> {
    let mut first_error = None;
    let mut asked = Vec::new();
    for &index in indices {
        match ask(state, index) {
            Ok(true) => asked.push(index),
            Ok(false) => {}
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    let begin = Instant::now();
    for &index in &asked {
        // All nodes share one span of grace: they were asked at the same time.
        let left = GRACE.saturating_sub(begin.elapsed());
        if let Err(error) = await_end(state, index, left) {
            first_error = first_error.or(Some(error));
        }
    }
    match first_error {
        Some(error) => Err(error),
        None => Ok(asked
            .iter()
            .map(|&index| state.nodes[index].name.clone())
            .collect()),
    }
}

/// Sends SIGTERM; `false` when there is nobody to send it to.
fn ask(state: &State, index: usize) -> Result<bool> {
    let Some(process) = &state.nodes[index].process else {
        return Ok(false);
    };
    let is_paused = process.life() == Life::Paused;
    let was_there = process.signal(Signal::TERM)?;
    if was_there && is_paused {
        // A stopped process handles the first signal when it goes on.
        process.signal(Signal::CONT)?;
    }
    Ok(was_there)
}

fn await_end(state: &mut State, index: usize, limit: Duration) -> Result<()> {
    let node = &mut state.nodes[index];
    let Some(process) = &node.process else {
        return Ok(());
    };
    if !process.wait_gone(limit) {
        terminal::warning(&format!(
            "{} has not stopped within {} s of SIGTERM and is killed; its log may say why",
            node.name,
            GRACE.as_secs()
        ));
        process.signal(Signal::KILL)?;
        process.wait_gone(KILL_GRACE);
    }
    node.standing = Standing::Stopped;
    Ok(())
}
