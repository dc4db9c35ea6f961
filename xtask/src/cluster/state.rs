//! What is remembered about a cluster between two commands, in `cluster.toml`.

use super::layout::Layout;
use super::plan::Plan;
use crate::arguments::{BasePort, UpArguments};
use crate::binaries::Binaries;
use crate::failure::Failure;
use crate::process::{Life, ProcessId};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;

/// Version of the file; another one is refused.
const FORMAT: u32 = 1;

/// A cluster that was created: its shape, its identity and its processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    format: u32,
    /// The cluster's name.
    pub(crate) name: String,
    /// The id that the certificate authority gave it.
    pub(crate) cluster_id: String,
    /// Port of n1.
    pub(crate) base_port: u16,
    /// Number of zones.
    pub(crate) zones: u16,
    /// Number of copies of every record.
    pub(crate) replicas: u16,
    /// The programs it runs on.
    pub(crate) binaries: Binaries,
    /// The nodes in order.
    #[serde(rename = "node")]
    pub(crate) nodes: Vec<Node>,
}

/// One node of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    /// `n1`, `n2` ..
    pub(crate) name: String,
    /// `a`, `b` ..
    pub(crate) zone: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What was last done to it.
    pub(crate) standing: Standing,
    /// Milliseconds from its start to the first put and get through it.
    pub(crate) ready_ms: Option<u64>,
    /// The process that was last started for it.
    pub(crate) process: Option<ProcessId>,
}

/// What the user last asked of a node; with its process it tells a crash from an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Standing {
    /// It should run.
    Started,
    /// It was ended by `kill`.
    Killed,
    /// It was ended in order, or never started.
    Stopped,
}

/// What a node is doing, in the words shown to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Condition {
    /// Its process runs.
    Up,
    /// Its process was stopped by SIGSTOP.
    Paused,
    /// It should run and does not.
    Died,
    /// It was ended by `kill`.
    Killed,
    /// It was ended in order.
    Stopped,
}

impl State {
    /// A new cluster, none of whose nodes runs yet.
    pub(crate) fn new(name: &str, plan: &Plan, cluster_id: String, binaries: Binaries) -> Self {
        let nodes = plan.nodes().into_iter().map(|planned| Node {
            name: planned.name,
            zone: planned.zone,
            address: planned.address,
            standing: Standing::Stopped,
            ready_ms: None,
            process: None,
        });
        Self {
            format: FORMAT,
            name: name.to_owned(),
            cluster_id,
            base_port: plan.base_port(),
            zones: plan.zones(),
            replicas: plan.replicas(),
            binaries,
            nodes: nodes.collect(),
        }
    }

    /// Reads a cluster's state; `None` when it was never created completely.
    ///
    /// # Errors
    /// When the file is there but cannot be understood.
    pub(crate) fn load(layout: &Layout) -> Result<Option<Self>> {
        let path = layout.state_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let remedy = || {
            format!(
                "{} is damaged or of another version; end its nodes and delete {}",
                path.display(),
                layout.folder().display()
            )
        };
        Self::parse(&text).with_context(remedy).map(Some)
    }

    /// Reads a cluster's state, or says that there is none.
    ///
    /// # Errors
    /// As [`State::load`], and when there is no such cluster.
    pub(crate) fn existing(layout: &Layout) -> Result<Self> {
        let (name, option) = (layout.name(), layout.option());
        Self::load(layout)?.with_context(|| {
            format!("there is no cluster \"{name}\"; `cargo xtask cluster{option}` creates it")
        })
    }

    fn parse(text: &str) -> Result<Self> {
        let state: Self = toml::from_str(text)?;
        if state.format != FORMAT {
            bail!("format {} where {FORMAT} was expected", state.format);
        }
        Ok(state)
    }

    /// Writes the state so that a reader sees the old file or the new one, never a part.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub(crate) fn save(&self, layout: &Layout) -> Result<()> {
        let path = layout.state_file();
        let text = toml::to_string(self).context("cannot write down the cluster's state")?;
        let new = path.with_extension("toml.new");
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Refuses options of `up` that contradict the cluster as it is.
    ///
    /// # Errors
    /// With the way out: another name, or wiping this cluster.
    pub(crate) fn must_fit(&self, asked: &UpArguments) -> Result<()> {
        let fixed_port = asked.base_port.and_then(|port| match port {
            BasePort::Fixed(port) => Some(port),
            BasePort::Auto => None,
        });
        let options = [
            ("--nodes", asked.nodes, self.nodes.len() as u64),
            ("--zones", asked.zones, self.zones.into()),
            ("--replicas", asked.replicas, self.replicas.into()),
            ("--base-port", fixed_port, self.base_port.into()),
        ];
        for (option, asked, is) in options {
            if let Some(asked) = asked.filter(|&asked| u64::from(asked) != is) {
                let name = &self.name;
                return Err(Failure::usage(format!(
                    "cluster \"{name}\" exists with {option} {is}, not {asked}; use another --name, or first `cargo xtask cluster down --wipe --name {name}`"
                )));
            }
        }
        Ok(())
    }

    /// The node of this name.
    ///
    /// # Errors
    /// When there is none; the message lists those that are.
    pub(crate) fn index_of(&self, node: &str) -> Result<usize> {
        self.nodes
            .iter()
            .position(|candidate| candidate.name == node)
            .ok_or_else(|| {
                let names: Vec<&str> = self.node_names().collect();
                Failure::usage(format!(
                    "cluster \"{}\" has no node \"{node}\"; it has {}",
                    self.name,
                    names.join(", ")
                ))
            })
    }

    /// The names of all nodes, in order.
    pub(crate) fn node_names(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|node| node.name.as_str())
    }

    /// Whether any process of the cluster is there, even a paused one.
    pub(crate) fn is_any_alive(&self) -> bool {
        self.nodes.iter().any(Node::is_alive)
    }
}

impl Node {
    /// What the node is doing at this moment.
    pub(crate) fn condition(&self) -> Condition {
        let life = self.process.as_ref().map_or(Life::Gone, ProcessId::life);
        condition(self.standing, life)
    }

    /// Whether its process is there, running or paused.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.condition(), Condition::Up | Condition::Paused)
    }

    /// The pid of its process, while that is there.
    pub(crate) fn live_pid(&self) -> Option<u32> {
        let process = self.process.as_ref()?;
        (process.life() != Life::Gone).then(|| process.pid())
    }
}

impl Condition {
    /// The word for it, as in the table and in JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Paused => "paused",
            Self::Died => "died",
            Self::Killed => "killed",
            Self::Stopped => "stopped",
        }
    }
}

fn condition(standing: Standing, life: Life) -> Condition {
    match (life, standing) {
        (Life::Running, _) => Condition::Up,
        (Life::Paused, _) => Condition::Paused,
        (Life::Gone, Standing::Started) => Condition::Died,
        (Life::Gone, Standing::Killed) => Condition::Killed,
        (Life::Gone, Standing::Stopped) => Condition::Stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> State {
        let plan = Plan::new(&UpArguments::default(), |_| None).unwrap();
        let binaries = Binaries {
            node: "/kv/target/debug/kv-node".into(),
            cli: "/kv/target/debug/kv".into(),
        };
        let mut state = State::new("dev", &plan, "7c1e".into(), binaries);
        state.nodes[0].standing = Standing::Started;
        state.nodes[0].ready_ms = Some(290);
        state.nodes[0].process = Some(ProcessId::of(std::process::id()).unwrap());
        state
    }

    #[test]
    fn state_survives_the_file() {
        let text = toml::to_string(&sample()).unwrap();
        assert_eq!(State::parse(&text).unwrap(), sample(), "{text}");
    }

    #[test]
    fn file_of_another_format_is_refused() {
        let text = toml::to_string(&sample()).unwrap();
        let newer = text.replace("format = 1", "format = 2");
        let error = State::parse(&newer).unwrap_err();
        assert_eq!(error.to_string(), "format 2 where 1 was expected");
        assert!(State::parse(&text[..text.len() - 3]).is_err(), "cut short");
    }

    #[test]
    fn crash_and_order_are_told_apart() {
        let cases = [
            (Standing::Started, Life::Running, Condition::Up),
            (Standing::Started, Life::Paused, Condition::Paused),
            (Standing::Started, Life::Gone, Condition::Died),
            (Standing::Killed, Life::Gone, Condition::Killed),
            (Standing::Stopped, Life::Gone, Condition::Stopped),
        ];
        for (standing, life, expected) in cases {
            assert_eq!(condition(standing, life), expected);
        }
    }

    #[test]
    fn options_must_fit_the_cluster_that_exists() {
        let state = sample();
        let asked = |nodes, base_port| UpArguments {
            nodes,
            base_port,
            ..UpArguments::default()
        };
        assert!(state.must_fit(&asked(None, None)).is_ok());
        assert!(
            state
                .must_fit(&asked(Some(3), Some(BasePort::Auto)))
                .is_ok()
        );
        let error = state.must_fit(&asked(Some(5), None)).unwrap_err();
        assert!(
            error.to_string().contains("exists with --nodes 3, not 5"),
            "{error}"
        );
        assert!(
            state
                .must_fit(&asked(None, Some(BasePort::Fixed(8000))))
                .is_err()
        );
    }

    #[test]
    fn unknown_node_is_answered_with_the_known_ones() {
        let state = sample();
        assert_eq!(state.index_of("n2").unwrap(), 1);
        let error = state.index_of("n9").unwrap_err();
        assert!(error.to_string().ends_with("it has n1, n2, n3"), "{error}");
    }
}
