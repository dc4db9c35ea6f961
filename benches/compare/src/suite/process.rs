//! Processes of runs: started one at a time, ended when they hang.

use super::plan::Step;
use crate::dataset::Dataset;
use crate::engine::EngineName;
use crate::measure::Measurements;
use crate::row::Work;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A run that takes longer hangs. The slowest on record takes a tenth of it.
const DEADLINE: Duration = Duration::from_secs(400);
/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Starts this program again for each run.
#[derive(Debug)]
pub(super) struct Launcher {
    stores: PathBuf,
    is_quick: bool,
    build: String,
}

impl Launcher {
    /// Runs keep their stores in this folder.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub(super) fn new(stores: PathBuf, is_quick: bool, build: &str) -> Result<Self> {
        fs::create_dir_all(&stores)?;
        Ok(Self {
            stores,
            is_quick,
            build: build.to_owned(),
        })
    }

    /// Runs a step, after making the store that it reads if no step of this pass has.
    ///
    /// # Errors
    /// The run failed or hangs.
    pub(super) fn run(&self, step: &Step) -> Result<Measurements> {
        if let Some(dataset) = step.row.reads()
            && !self.is_made(step, dataset)
        {
            self.call(step.engine, &["prepare", step.row.name])?;
            self.mark(step, dataset)?;
        }
        if let Work::Fill {
            keeps: Some(dataset),
            ..
        } = step.row.work
        {
            self.unmark(step.engine, dataset)?;
        }
        let line = self.call(step.engine, &["work", step.row.name])?;
        let measurements =
            serde_json::from_str(&line).with_context(|| format!("a run told {line:?}"))?;
        if let Work::Fill {
            keeps: Some(dataset),
            ..
        } = step.row.work
        {
            self.mark(step, dataset)?;
        }
        Ok(measurements)
    }

    /// Calls this program with these words, and returns what it prints.
    fn call(&self, engine: EngineName, words: &[&str]) -> Result<String> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(words)
            .args(["--engine", engine.id()])
            .arg("--folder")
            .arg(&self.stores);
        if self.is_quick {
            command.arg("--quick");
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // Both outputs are far smaller than a pipe's buffer, so they can be read at the end.
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if begin.elapsed() > DEADLINE {
                child.kill()?;
                child.wait()?;
                bail!("it hangs: ended after {} s", DEADLINE.as_secs());
            }
            thread::sleep(LOOK);
        };
        if !status.success() {
            let complaint = read(errors)?;
            bail!("{}", complaint.lines().last().unwrap_or("it said nothing"));
        }
        read(output)
    }

    /// The pass that made a store is noted beside it: every pass starts with fresh ones.
    fn note(&self, engine: EngineName, dataset: Dataset) -> PathBuf {
        self.stores
            .join(engine.id())
            .join(format!("{dataset}.made"))
    }

    fn is_made(&self, step: &Step, dataset: Dataset) -> bool {
        fs::read_to_string(self.note(step.engine, dataset))
            .is_ok_and(|text| text == self.made_by(step))
    }

    fn mark(&self, step: &Step, dataset: Dataset) -> Result<()> {
        Ok(fs::write(
            self.note(step.engine, dataset),
            self.made_by(step),
        )?)
    }

    fn unmark(&self, engine: EngineName, dataset: Dataset) -> Result<()> {
        let note = self.note(engine, dataset);
        if note.exists() {
            fs::remove_file(note)?;
        }
        Ok(())
    }

    fn made_by(&self, step: &Step) -> String {
        format!("build {} pass {}\n", self.build, step.pass)
    }
}

fn read(stream: Option<impl Read>) -> Result<String> {
    let mut text = String::new();
    stream
        .context("a process has no output")?
        .read_to_string(&mut text)?;
    Ok(text)
}
