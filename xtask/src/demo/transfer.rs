//! One run of `kv import`: how far it is, and what it reports in the end.

use super::source::Source;
use crate::command;
use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A running `kv import`.
#[derive(Debug)]
pub(super) struct Transfer {
    child: Child,
    command: String,
    source: PathBuf,
    begin: Instant,
    /// Read by threads, so that the program never waits for a full pipe.
    output: Option<JoinHandle<String>>,
    errors: Option<JoinHandle<String>>,
    ended: Option<(ExitStatus, Duration)>,
}

/// What `kv import` counted, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    /// Its own numbers.
    pub(super) counts: Counts,
    /// Wall time.
    pub(super) took: Duration,
}

/// The last line that `kv import --json` prints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Counts {
    /// Records in the file.
    pub(super) records: u64,
    /// Requests that failed, and records that are missing or differ.
    pub(super) errors: u64,
}

impl Report {
    /// Records for which all went well.
    pub(super) fn good(&self) -> u64 {
        self.counts.records.saturating_sub(self.counts.errors)
    }
}

impl Transfer {
    /// Starts the command, which reads the source from its file.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub(super) fn start(mut command: Command, source: &Source) -> Result<Self> {
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = command::line(&command);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {line}"))?;
        let output = child.stdout.take().map(collect);
        let errors = child.stderr.take().map(collect);
        Ok(Self {
            child,
            command: line,
            source: source.path.clone(),
            begin: Instant::now(),
            output,
            errors,
            ended: None,
        })
    }

    /// How many bytes of the source it has read; 0 while it has not opened the file.
    pub(super) fn position(&self) -> u64 {
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        let files = files.into_iter().flatten().flatten();
        files
            .filter(|file| fs::read_link(file.path()).is_ok_and(|to| to == self.source))
            .filter_map(|file| {
                let info = format!(
                    "/proc/{}/fdinfo/{}",
                    self.child.id(),
                    file.file_name().display()
                );
                parse_position(&fs::read_to_string(info).ok()?)
            })
            .max()
            .unwrap_or(0)
    }

    /// Whether the command has ended.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub(super) fn is_over(&mut self) -> Result<bool> {
        if self.ended.is_none() {
            let status = self.child.try_wait()?;
            self.ended = status.map(|status| (status, self.begin.elapsed()));
        }
        Ok(self.ended.is_some())
    }

    /// The report of a command that has ended, also when it found errors.
    ///
    /// # Errors
    /// When it printed no report; the message holds what it did say.
    pub(super) fn report(mut self) -> Result<Report> {
        let (status, took) = match self.ended {
            Some(ended) => ended,
            None => (self.child.wait()?, self.begin.elapsed()),
        };
        let output = joined(self.output.take());
        let errors = joined(self.errors.take());
        let counts = output
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok());
        let counts = counts.ok_or_else(|| {
            anyhow!(
                "{} ended with {status} and no report\n{errors}",
                self.command
            )
        })?;
        Ok(Report { counts, took })
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // Both fail only when the command has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn joined(thread: Option<JoinHandle<String>>) -> String {
    thread
        .and_then(|thread| thread.join().ok())
        .unwrap_or_default()
}

/// Reads the line `pos: 4096` of `/proc/PID/fdinfo/N`.
fn parse_position(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("pos:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_is_read_from_fdinfo() {
        let info = "pos:\t65536\nflags:\t0100000\nmnt_id:\t29\n";
        assert_eq!(parse_position(info), Some(65_536));
        assert_eq!(parse_position("flags:\t0100000\n"), None);
    }
}
