//! Starting nodes and waiting until they serve; when one fails, all that were started are stopped.

use super::Cluster;
use super::log;
use super::probe::{Event, Finding, Probe};
use super::state::{Node, Standing, State};
use super::stop;
use crate::interrupt::Interrupt;
use crate::process::ProcessId;
use crate::terminal::{self, shown};
use anyhow::{Context, Result, anyhow};
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a node may take until a put and a get through it work.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the nodes are looked at while the probe says nothing.
const POLL: Duration = Duration::from_millis(20);
/// How much of a failed node's log is shown.
const LOG_LINES: usize = 20;

/// Nodes on their way up.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    cluster: &'a Cluster,
    state: &'a mut State,
    interrupt: &'a Interrupt,
    started: Vec<Started>,
}

/// A node that was started and has not been proved ready.
#[derive(Debug)]
struct Started {
    index: usize,
    child: Child,
    at: Instant,
    /// Length of the log before the start: what is older does not explain a failure.
    log_begin: u64,
    is_ready: bool,
}

impl<'a> Launch<'a> {
    /// A launch of nodes of this cluster.
    pub(super) fn new(
        cluster: &'a Cluster,
        state: &'a mut State,
        interrupt: &'a Interrupt,
    ) -> Self {
        Self {
            cluster,
            state,
            interrupt,
            started: Vec::new(),
        }
    }

    /// Starts the nodes with these indices and waits until each serves.
    ///
    /// # Errors
    /// When a node ends or does not become ready, or at Ctrl-C; all nodes started here are stopped.
    pub(super) fn run(mut self, indices: &[usize]) -> Result<()> {
        let outcome = self.start(indices).and_then(|()| self.wait_ready());
        if outcome.is_err() {
            self.stop();
        }
        self.state.save(&self.cluster.layout)?;
        outcome
    }

    fn start(&mut self, indices: &[usize]) -> Result<()> {
        let names: Vec<&str> = indices
            .iter()
            .map(|&index| self.state.nodes[index].name.as_str())
            .collect();
        terminal::status("Starting", &names.join(" "));
        for &index in indices {
            self.start_one(index)?;
            // At once, so that even a killed xtask leaves no process that nobody remembers.
            self.state.save(&self.cluster.layout)?;
        }
        Ok(())
    }

    fn start_one(&mut self, index: usize) -> Result<()> {
        let node = &mut self.state.nodes[index];
        let layout = &self.cluster.layout;
        let log_path = layout.log(&node.name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        let log_begin = log.metadata()?.len();
        let mut command = Command::new(&self.state.binaries.node);
        for variable in foreign_settings() {
            command.env_remove(variable);
        }
        let child = command
            .arg("serve")
            .arg("--config")
            .arg(layout.config(&node.name))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A group of its own: Ctrl-C in this terminal is for xtask, which stops nodes in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", self.state.binaries.node.display()))?;
        node.process = Some(ProcessId::of(child.id())?);
        node.standing = Standing::Started;
        node.ready_ms = None;
        self.started.push(Started {
            index,
            child,
            at: Instant::now(),
            log_begin,
            is_ready: false,
        });
        Ok(())
    }

    fn wait_ready(&mut self) -> Result<()> {
        let probe_begin = Instant::now();
        let mut probe = Probe::start(self.cluster, self.state, PATIENCE)?;
        while self.started.iter().any(|started| !started.is_ready) {
            self.interrupt.check()?;
            self.must_all_live()?;
            match probe.next(POLL)? {
                Event::Found(finding) => self.note(&finding, probe_begin)?,
                Event::Silence => {}
                Event::End => return Err(anyhow!("{}", probe.complaint())),
            }
        }
        Ok(())
    }

    /// Fails when a started node has ended, with its last words.
    fn must_all_live(&mut self) -> Result<()> {
        for started in &mut self.started {
            if let Some(status) = started.child.try_wait()? {
                let node = &self.state.nodes[started.index];
                let what = format!("{} ended while starting: {status}", node.name);
                return Err(anyhow!(
                    "{}",
                    self.cluster.autopsy(&what, node, started.log_begin)
                ));
            }
        }
        Ok(())
    }

    fn note(&mut self, finding: &Finding, probe_begin: Instant) -> Result<()> {
        let is_meant =
            |started: &&mut Started| self.state.nodes[started.index].name == finding.node;
        let Some(started) = self.started.iter_mut().find(is_meant) else {
            return Ok(());
        };
        let node = &mut self.state.nodes[started.index];
        if !finding.ok {
            let reason = finding.error.as_deref().unwrap_or("no reason given");
            let what = format!("{} does not serve: {reason}", node.name);
            return Err(anyhow!(
                "{}",
                self.cluster.autopsy(&what, node, started.log_begin)
            ));
        }
        // The probe counts from its own start; the node was started before it.
        let head_start = probe_begin.duration_since(started.at).as_millis();
        let head_start = u64::try_from(head_start).unwrap_or(u64::MAX);
        node.ready_ms = finding
            .ready_ms
            .map(|ready| ready.saturating_add(head_start));
        started.is_ready = true;
        Ok(())
    }

    /// Stops what was started; errors are shown, because the first one is the one to return.
    fn stop(&mut self) {
        let indices: Vec<usize> = self.started.iter().map(|started| started.index).collect();
        match stop::nodes(self.state, &indices) {
            Ok(stopped) if stopped.is_empty() => {}
            Ok(stopped) => terminal::status("Stopped", &stopped.join(" ")),
            Err(error) => terminal::warning(&format!("{error:#}")),
        }
        for started in &mut self.started {
            // Collects the exit status; a child that could not be stopped was reported above.
            let _ = started.child.try_wait();
        }
    }
}

impl Cluster {
    /// What is known about a node that failed: its exit, its configuration and its last log lines.
    fn autopsy(&self, what: &str, node: &Node, log_begin: u64) -> String {
        let log = self.layout.log(&node.name);
        let lines = log::last_lines(&log, LOG_LINES, log_begin);
        let config = self.layout.config(&node.name);
        let mut text = format!(
            "{what}\n  config  {}\n  log     {}, last lines:\n",
            shown(&config),
            shown(&log)
        );
        match lines {
            Ok(lines) if lines.is_empty() => text.push_str("    (nothing)"),
            Ok(lines) => text.push_str(&indent(&lines)),
            Err(error) => text.push_str(&format!("    ({error:#})")),
        }
        text
    }
}

/// Settings of a node in the user's environment, which go before the configuration file: with one data
/// directory or address for all nodes, none but the first could start. What is logged may be set.
fn foreign_settings() -> impl Iterator<Item = OsString> {
    let names = env::vars_os().map(|(name, _)| name);
    names.filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with("KV_NODE_") && !name.starts_with("KV_NODE_LOG")
    })
}

fn indent(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("    {line}")).collect();
    lines.join("\n")
}
