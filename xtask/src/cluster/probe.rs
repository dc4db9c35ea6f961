//! `kv probe`: a put and a get through every node, the proof that a cluster serves.

use super::Cluster;
use super::state::State;
use crate::command;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// A running probe, read line by line.
#[derive(Debug)]
pub(super) struct Probe {
    child: Child,
    lines: Receiver<String>,
    command: String,
}

/// What the probe found out about one node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Finding {
    /// The node's name.
    pub(super) node: String,
    /// Whether a put and a get through it have worked.
    pub(super) ok: bool,
    /// Milliseconds from the probe's start until they had.
    pub(super) ready_ms: Option<u64>,
    /// Why they have not.
    pub(super) error: Option<String>,
}

/// The next thing to know about a probe.
#[derive(Debug)]
pub(super) enum Event {
    /// One node is settled.
    Found(Finding),
    /// Nothing new in the time that was given.
    Silence,
    /// All nodes that can be settled are.
    End,
}

impl Probe {
    /// Starts `kv probe`, which tries every node for `patience` long.
    ///
    /// # Errors
    /// When `kv` cannot be started.
    pub(super) fn start(cluster: &Cluster, state: &State, patience: Duration) -> Result<Self> {
        let mut command = cluster.cli(state);
        command.args(["probe", "--json", "--wait"]);
        command.arg(format!("{}s", patience.as_secs()));
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = command::line(&command);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {line}"))?;
        let output = child.stdout.take().context("the probe has no output")?;
        let (sender, lines) = mpsc::channel();
        // A thread, because reading a pipe blocks and the nodes must be watched meanwhile. It ends
        // with the pipe.
        thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines
                .take_while(|line| sender.send(line.clone()).is_ok())
                .count()
        });
        Ok(Self {
            child,
            lines,
            command: line,
        })
    }

    /// Waits at most `limit` for the next finding.
    ///
    /// # Errors
    /// When the probe prints something that is no finding.
    pub(super) fn next(&mut self, limit: Duration) -> Result<Event> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => Ok(Event::Found(parse(&line)?)),
            Err(RecvTimeoutError::Timeout) => Ok(Event::Silence),
            Err(RecvTimeoutError::Disconnected) => Ok(Event::End),
        }
    }

    /// What the probe said when it ended without settling every node.
    pub(super) fn complaint(&mut self) -> String {
        let mut said = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            // Whatever can be read is better than nothing; the failure itself is known already.
            let _ = stderr.read_to_string(&mut said);
        }
        let status = self
            .child
            .wait()
            .map_or_else(|error| error.to_string(), |status| status.to_string());
        format!("{} ended with {status}\n  {}", self.command, said.trim())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Both fail only when the probe has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(line: &str) -> Result<Finding> {
    match serde_json::from_str(line) {
        Ok(finding) => Ok(finding),
        Err(error) => bail!("the probe printed no finding ({error}): {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_read_and_further_fields_ignored() {
        let ready =
            parse(r#"{"schema":1,"node":"n1","ok":true,"ready_ms":290,"error":null,"new":1}"#);
        assert_eq!(
            ready.unwrap(),
            Finding {
                node: "n1".into(),
                ok: true,
                ready_ms: Some(290),
                error: None
            }
        );
        let failed =
            parse(r#"{"schema":1,"node":"n2","ok":false,"ready_ms":null,"error":"timed out"}"#);
        assert_eq!(failed.unwrap().error.as_deref(), Some("timed out"));
        assert!(parse("connecting ..").is_err());
    }
}
