//! `down`: all nodes stop in order; `--wipe` also deletes what they leave behind.

use super::Cluster;
use super::state::State;
use super::stop;
use crate::terminal::{self, shown};
use anyhow::{Context, Result};
use std::fs;
use std::time::Instant;

impl Cluster {
    /// Stops the cluster. Doing it twice is no error.
    ///
    /// # Errors
    /// When a process cannot be stopped; then nothing is deleted.
    pub(crate) fn down(&self, wipe: bool) -> Result<()> {
        match State::load(&self.layout)? {
            Some(state) => self.stop_all(state)?,
            None => terminal::status(
                "Stopped",
                &format!("nothing: there is no cluster \"{}\"", self.layout.name()),
            ),
        }
        if wipe {
            self.wipe()?;
        }
        Ok(())
    }

    /// Stops and deletes the cluster if there is anything of it.
    ///
    /// # Errors
    /// As [`Cluster::down`].
    pub(crate) fn discard(&self) -> Result<()> {
        if self.layout.folder().exists() {
            self.down(true)?;
        }
        Ok(())
    }

    fn stop_all(&self, mut state: State) -> Result<()> {
        let begin = Instant::now();
        let all: Vec<usize> = (0..state.nodes.len()).collect();
        let outcome = stop::nodes(&mut state, &all);
        state.save(&self.layout)?;
        let stopped = outcome?;
        if stopped.is_empty() {
            terminal::status("Stopped", "nothing: no node was running");
        } else {
            terminal::timed("Stopped", &stopped.join(" "), begin.elapsed());
        }
        Ok(())
    }

    fn wipe(&self) -> Result<()> {
        self.contexts.remove(self.layout.name())?;
        let folder = self.layout.folder();
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot delete {}", folder.display()))?;
            terminal::status("Deleted", &shown(&folder));
        }
        Ok(())
    }
}
