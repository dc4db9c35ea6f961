//! `cargo xtask bench engine`: the storage engine beside others, and the tables of docs/performance.md.
//!
//! The measuring is done by the program in benches/compare, a workspace of its own, so that nothing else ever
//! compiles the other engines. This task builds it, runs it and puts its tables into the document.

mod document;
mod profile;
mod requirements;

use crate::arguments::{BenchArguments, BenchSubject, EngineBenchArguments};
use crate::binaries::executables;
use crate::command;
use crate::terminal::{self, shown};
use crate::workspace::{self, cargo};
use anyhow::{Context, Result, bail};
use document::{Document, Kind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Runs the comparison.
///
/// # Errors
/// When something needed for building is missing (exit code 2), the build fails, or a run fails.
pub(crate) fn run(arguments: &BenchArguments) -> Result<()> {
    let BenchSubject::Engine(asked) = &arguments.subject;
    requirements::check()?;
    let comparison = Comparison::build(asked)?;
    if let Some(row) = &asked.profile {
        return profile::run(&comparison, row, asked.engines.as_deref());
    }
    let outcome = if asked.report {
        Ok(())
    } else {
        comparison.measure(asked)
    };
    // Also after a failure: what was measured is shown, and the tables name what failed.
    comparison.publish(asked)?;
    outcome
}

/// The program, and where it keeps its figures.
struct Comparison {
    program: PathBuf,
    root: PathBuf,
    results: PathBuf,
    is_quick: bool,
}

impl Comparison {
    /// Builds the program with optimisations for this machine's processor.
    fn build(asked: &EngineBenchArguments) -> Result<Self> {
        let root = workspace::root()?;
        let target = workspace::target_directory()?.join("compare");
        let begin = Instant::now();
        if !target.join("release").exists() {
            terminal::status("Building", "RocksDB for the first time: about ten minutes");
        }
        let mut build = cargo();
        // The folder's own cargo configuration applies only from within.
        build
            .current_dir(root.join("benches/compare"))
            .env("CARGO_TARGET_DIR", &target)
            .args(["build", "--release"])
            .arg("--message-format=json-render-diagnostics");
        let program = executables(&mut build)?
            .into_iter()
            .find(|executable| executable.target == "kv-compare")
            .context("cargo built no program kv-compare")?
            .path;
        terminal::timed("Built", &shown(&program), begin.elapsed());
        let results = match (&asked.engines, asked.quick) {
            // Figures without the peers are no part of any table.
            (Some(_), true) => "quick-of-chosen-engines",
            (Some(_), false) => "full-of-chosen-engines",
            (None, true) => "quick",
            (None, false) => "full",
        };
        Ok(Self {
            program,
            root,
            results: target.join("results").join(results),
            is_quick: asked.quick,
        })
    }

    /// Runs what was asked for, and once, before everything else, what the machine allows.
    fn measure(&self, asked: &EngineBenchArguments) -> Result<()> {
        let has_limits = self.results.join("limits.json").exists();
        let is_whole = asked.rows.is_none() && asked.engines.is_none();
        if asked.limits || (is_whole && !has_limits) {
            self.call(&mut self.command("limits"))?;
        }
        if asked.limits {
            return Ok(());
        }
        let mut run = self.command("run");
        run.args(["--revision", &self.revision()?]);
        if let Some(rows) = &asked.rows {
            run.args(["--rows", rows]);
        }
        if let Some(engines) = &asked.engines {
            run.args(["--engines", engines]);
        }
        if let Some(passes) = asked.passes {
            run.args(["--passes", &passes.to_string()]);
        }
        self.call(&mut run)
    }

    /// Prints the tables, and puts them into the document unless they are only a part.
    fn publish(&self, asked: &EngineBenchArguments) -> Result<()> {
        let tables = command::output(&mut self.command("report"))?;
        terminal::result(&tables);
        if asked.engines.is_some() {
            return Ok(());
        }
        let kind = if self.is_quick {
            Kind::Quick
        } else {
            Kind::Full
        };
        let path = self.root.join("docs/performance.md");
        let mut document = Document::open(&path)?;
        if kind == Kind::Quick && document.kind() == Some(Kind::Full) {
            terminal::warning(&format!(
                "{} keeps the tables of a full run; those of a quick one are not written over them",
                shown(&path)
            ));
            return Ok(());
        }
        document.put(kind, &tables)?;
        document.save()?;
        terminal::status("Wrote", &shown(&path));
        Ok(())
    }

    /// The program with a subcommand and where its figures are.
    fn command(&self, subcommand: &str) -> Command {
        let mut command = self.work(subcommand, &self.results);
        if self.is_quick {
            command.arg("--quick");
        }
        command
    }

    /// The program with a subcommand and a folder.
    fn work(&self, subcommand: &str, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(subcommand).arg("--folder").arg(folder);
        command
    }

    /// Runs the program with its progress on the terminal.
    fn call(&self, command: &mut Command) -> Result<()> {
        let status = command
            .status()
            .with_context(|| format!("cannot run {}", command::line(command)))?;
        if !status.success() {
            bail!("{} ended with {status}", command::line(command));
        }
        Ok(())
    }

    /// The commit that is measured, and whether the engine or the comparison differ from it.
    fn revision(&self) -> Result<String> {
        let git = |words: &[&str]| {
            command::output(Command::new("git").current_dir(&self.root).args(words))
        };
        let commit = git(&["rev-parse", "--short", "HEAD"])?;
        let changes = git(&["status", "--porcelain", "--", "kv-storage", "benches"])?;
        let suffix = if changes.trim().is_empty() {
            ""
        } else {
            " with changes"
        };
        Ok(format!("{}{suffix}", commit.trim()))
    }
}
