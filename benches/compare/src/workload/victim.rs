//! Processes that put and are then killed, and those who kill them.

use super::{Run, fill, recover};
use crate::measure::Measurements;
use crate::row::{Row, Work};
use crate::terminal;
use anyhow::{Context, Result, bail};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// The murderer needs a moment to strike.
const LONG: Duration = Duration::from_secs(3600);

/// The victim's life: puts, tells its figures, and waits to be killed. It never closes its store.
///
/// # Errors
/// The engine failed.
pub(crate) fn run(run: &Run, row: &Row) -> Result<()> {
    // It must not outlive a murderer that is ended itself.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let (engine, measurements) = match row.work {
        Work::Fill {
            order, value_bytes, ..
        } => fill::put_all(run, row, order, value_bytes)?,
        Work::Recover => recover::put_all(run)?,
        Work::Durable { .. }
        | Work::Get { .. }
        | Work::ShortScan { .. }
        | Work::FullScan { .. }
        | Work::Ycsb(_)
        | Work::Overwrite => bail!("row {} kills nobody", row.name),
    };
    terminal::result(&format!("{}\n", serde_json::to_string(&measurements)?));
    thread::sleep(LONG);
    drop(engine);
    bail!("nobody killed this process")
}

/// Starts a process for the row's puts and kills it as soon as all are acknowledged.
///
/// # Errors
/// The process ended by itself.
pub(super) fn kill_after_puts(run: &Run, row: &Row) -> Result<Measurements> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["victim", row.name, "--engine", run.engine.id()])
        .arg("--folder")
        .arg(parent_of(&run.folder)?);
    if run.is_quick {
        command.arg("--quick");
    }
    let mut victim = command.stdout(Stdio::piped()).spawn()?;
    let output = victim.stdout.take().context("a victim has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    // SIGKILL: no destructor runs, nothing in the process's own memory is written out.
    victim.kill()?;
    let status = victim.wait()?;
    if status.signal() != Some(Signal::KILL.as_raw()) {
        bail!("the process that was to be killed ended with {status}");
    }
    serde_json::from_str(&line).context("the killed process told no figures")
}

/// The folder given on the command line, in which each engine has its own.
fn parent_of(folder: &Path) -> Result<&Path> {
    folder.parent().context("a run's folder has no parent")
}
