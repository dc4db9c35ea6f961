//! Making a cluster that does not exist yet: authority, identities, certificates, genesis.

use super::Cluster;
use super::layout::Layout;
use super::plan::{Plan, PlannedNode};
use super::state::{Node, State};
use crate::binaries::Binaries;
use crate::command;
use crate::terminal::{self, shown};
use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How long the certificates are valid.
const CERTIFICATE_DAYS: u32 = 90;

/// A node's configuration file; members and addresses are in the genesis document.
#[derive(Debug, Serialize)]
struct NodeConfig {
    data: PathBuf,
    log: LogConfig,
    gossip: GossipConfig,
}

#[derive(Debug, Serialize)]
struct LogConfig {
    format: &'static str,
}

#[derive(Debug, Serialize)]
struct GossipConfig {
    profile: &'static str,
}

impl Cluster {
    /// Creates the cluster's folder completely, and only then its state file.
    ///
    /// # Errors
    /// When a step fails; what was made so far is discarded by the next attempt.
    pub(super) fn create(&self, plan: &Plan, binaries: Binaries) -> Result<State> {
        let layout = &self.layout;
        let nodes = plan.nodes();
        terminal::status(
            "Creating",
            &format!(
                "cluster {}: {}, N={}, in {}",
                layout.name(),
                spread(nodes.len(), plan.zones().into()),
                plan.replicas(),
                shown(&layout.folder())
            ),
        );
        discard_leftovers(layout)?;
        let maker = Maker::new(layout, &binaries.node);
        let cluster_id = maker.authority()?;
        terminal::status(
            "Issuing",
            &format!(
                "CA, {}, 1 client and 1 admin certificate ({CERTIFICATE_DAYS} days)",
                count(nodes.len(), "node certificate")
            ),
        );
        for node in &nodes {
            maker.node(&node.name)?;
        }
        maker.person("client")?;
        maker.person("admin")?;
        maker.genesis(plan, &nodes)?;
        let state = State::new(layout.name(), plan, cluster_id, binaries);
        state.save(layout)?;
        Ok(state)
    }
}

/// A folder without a state file is an attempt that was broken off; no process belongs to it.
fn discard_leftovers(layout: &Layout) -> Result<()> {
    let folder = layout.folder();
    let in_folder = || format!("cannot prepare {}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(in_folder)?;
    }
    fs::create_dir_all(&folder).with_context(in_folder)
}

/// Runs `kv-node` for one thing after the other.
pub(super) struct Maker<'a> {
    layout: &'a Layout,
    program: &'a Path,
}

impl<'a> Maker<'a> {
    /// For a cluster's folder, by this `kv-node`.
    pub(super) fn new(layout: &'a Layout, program: &'a Path) -> Self {
        Self { layout, program }
    }

    fn run(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(words);
        command
    }

    /// Returns the cluster's id.
    fn authority(&self) -> Result<String> {
        let mut create = self.run(&["ca", "create", "--json", "--name", self.layout.name()]);
        let made = command::json(create.arg("--dir").arg(self.layout.ca()))?;
        let cluster_id = made["cluster_id"].as_str();
        cluster_id
            .map(str::to_owned)
            .with_context(|| format!("kv-node named no cluster_id: {made}"))
    }

    fn node(&self, name: &str) -> Result<()> {
        self.config(name)?;
        let data = self.layout.data(name);
        command::output(self.run(&["init"]).arg("--data").arg(&data))?;
        let mut certificate = self.run(&["cert", "node", "--ca"]);
        certificate.arg(self.layout.ca()).arg("--data").arg(&data);
        command::output(&mut with_validity(certificate))?;
        Ok(())
    }

    /// Makes a node ready to join; gives what `kv-node` says of it.
    pub(super) fn join(&self, node: &Node, ticket: &str) -> Result<Value> {
        let mut join = self.run(&["join", ticket, "--set-up-only", "--json"]);
        join.args(["--name", &node.name, "--zone", &node.zone]);
        join.args(["--address", &node.address.to_string()]);
        join.arg("--config").arg(self.layout.config(&node.name));
        join.arg("--ca").arg(self.layout.ca());
        command::json(&mut with_validity(join))
    }

    /// Writes a node's configuration.
    pub(super) fn config(&self, name: &str) -> Result<()> {
        let data = self.layout.data(name);
        let config = NodeConfig {
            data: data.clone(),
            log: LogConfig { format: "human" },
            gossip: GossipConfig { profile: "local" },
        };
        let path = self.layout.config(name);
        let text = toml::to_string(&config)?;
        fs::create_dir_all(&data)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// A certificate for whoever uses the cluster; role and name are the same word.
    fn person(&self, role: &str) -> Result<()> {
        let mut certificate = self.run(&["cert", role, "--name", role, "--ca"]);
        certificate.arg(self.layout.ca());
        certificate.arg("--out").arg(self.layout.person(role));
        command::output(&mut with_validity(certificate))?;
        Ok(())
    }

    fn genesis(&self, plan: &Plan, nodes: &[PlannedNode]) -> Result<()> {
        let mut create = self.run(&["cluster", "create", "--mode", "ap"]);
        create.args(["--name", self.layout.name()]);
        create.args(["--replicas", &plan.replicas().to_string()]);
        for node in nodes {
            let data = self.layout.data(&node.name);
            create.arg("--member").arg(format!(
                "name={},zone={},address={},data={}",
                node.name,
                node.zone,
                node.address,
                data.display()
            ));
        }
        command::output(&mut create)?;
        Ok(())
    }
}

fn with_validity(mut command: Command) -> Command {
    command.args(["--valid", &format!("{CERTIFICATE_DAYS}days")]);
    command
}

fn spread(nodes: usize, zones: usize) -> String {
    format!("{} in {}", count(nodes, "node"), count(zones, "zone"))
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
