//! Nodes that join a cluster which runs, and nodes that leave it: what an operator would do by hand, step by step.

use super::Cluster;
use super::create::Maker;
use super::launch::Launch;
use super::ports;
use super::state::{Condition, Node, Standing, State};
use crate::arguments::AddArguments;
use crate::command;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::terminal;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How often it is looked how far a change is.
const POLL: Duration = Duration::from_millis(500);
/// A change that does not come one step further for so long waits for something that it will not get by itself.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a node may take to end that has left.
const END_LIMIT: Duration = Duration::from_secs(10);

impl Cluster {
    /// Makes a new node, has it join, and waits until it has all that it is to own.
    ///
    /// # Errors
    /// When a step fails: what was decided by then goes on, and `kv cluster progress` shows it.
    pub(super) fn add(&self, asked: &AddArguments, interrupt: &Interrupt) -> Result<()> {
        let mut state = self.running()?;
        let node = next_node(&state, asked)?;
        ports::must_be_free_for_node(&node.name, node.address)?;
        let begin = Instant::now();
        let member = self.make_ready(&state, &node)?;
        self.tell(&state, &["join", &member])?;
        self.commit(&state)?;
        let name = node.name.clone();
        state.nodes.push(node);
        state.save(&self.layout)?;
        self.contexts.write(&self.layout, &state)?;
        let index = state.nodes.len() - 1;
        Launch::new(self, &mut state, interrupt).run(&[index])?;
        self.settle(&state, interrupt, |_| true)?;
        let what = format!("{name} owns its share");
        terminal::timed("Added", &what, begin.elapsed());
        self.report(&state);
        Ok(())
    }

    /// Has a node give away what it owns, and go; of one that does not run, has the others make up for it.
    ///
    /// # Errors
    /// When a step fails: what was decided by then goes on, and `kv cluster progress` shows it.
    pub(super) fn remove(&self, name: &str, interrupt: &Interrupt) -> Result<()> {
        let mut state = self.running()?;
        let index = state.index_of(name)?;
        let begin = Instant::now();
        let runs = state.nodes[index].condition() == Condition::Up;
        let is_gone = |progress: &Value| node_of(progress, name).is_none();
        if runs {
            self.tell(&state, &["leave", name])?;
            self.commit(&state)?;
            self.settle(&state, interrupt, is_gone)?;
        } else {
            self.tell(&state, &["remove", name])?;
            self.commit(&state)?;
            self.settle(&state, interrupt, |_| true)?;
            self.tell(&state, &["forget", name])?;
        }
        let node = state.nodes.remove(index);
        if let Some(process) = node.process.filter(|_| runs) {
            // It ends by itself, when it learns that it is no member any more.
            process.wait_gone(END_LIMIT);
        }
        state.save(&self.layout)?;
        self.contexts.write(&self.layout, &state)?;
        let folder = self.layout.folder().join(name);
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot delete {}", folder.display()))?;
        let what = format!("{name}; its data are with the others");
        terminal::timed("Removed", &what, begin.elapsed());
        self.report(&state);
        Ok(())
    }

    fn running(&self) -> Result<State> {
        let state = State::existing(&self.layout)?;
        if !state.is_any_alive() {
            let (name, option) = (&state.name, self.layout.option());
            bail!("cluster \"{name}\" does not run; `cargo xtask cluster{option}` starts it");
        }
        Ok(state)
    }

    /// Gives what an operator stages for the node to join.
    fn make_ready(&self, state: &State, node: &Node) -> Result<String> {
        terminal::status(
            "Issuing",
            &format!("ticket and certificate of {}", node.name),
        );
        let ticket = command::output(self.cli(state).args(["cluster", "ticket"]))?;
        let maker = Maker::new(&self.layout, &state.binaries.node);
        maker.config(&node.name)?;
        let made = maker.join(node, ticket.trim())?;
        let member = made["member"].as_str();
        member
            .map(str::to_owned)
            .with_context(|| format!("kv-node named no member: {made}"))
    }

    fn tell(&self, state: &State, words: &[&str]) -> Result<String> {
        command::output(self.cli(state).arg("cluster").args(words))
    }

    /// Shows the plan of what is staged, and commits it.
    fn commit(&self, state: &State) -> Result<()> {
        let shown = self.tell(state, &["plan"])?;
        terminal::to_stderr(&shown);
        let plan = command::json(self.cli(state).args(["cluster", "plan", "--json"]))?;
        let id = plan["plan"].as_str();
        let id = id.with_context(|| format!("kv named no plan: {plan}"))?;
        self.tell(state, &["commit", id])?;
        terminal::status("Committed", id);
        Ok(())
    }

    /// Waits until all partitions are where they are going, and `is_done` says so, too.
    fn settle(
        &self,
        state: &State,
        interrupt: &Interrupt,
        is_done: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        let mut shown = terminal::Progress::new("Moving");
        let mut most = 0;
        let mut last = None;
        let mut since = Instant::now();
        loop {
            interrupt.check()?;
            let progress = self.cli(state);
            let progress = command::json({ progress }.args(["cluster", "progress", "--json"]))?;
            if progress["settled"] == true && is_done(&progress) {
                shown.clear();
                return Ok(());
            }
            let left = ["replicas_waiting", "replicas_pulled", "partitions_draining"];
            let [waiting, pulled, draining] = left.map(|what| progress[what].as_u64().unwrap_or(0));
            let left = waiting + pulled;
            most = left.max(most);
            if last != Some((waiting, pulled, draining)) {
                shown.show((most - left) * 100 / most.max(1));
                last = Some((waiting, pulled, draining));
                since = Instant::now();
            } else if since.elapsed() > PATIENCE {
                bail!(
                    "nothing moves any more; `kv cluster progress` says what it waits for, and `kv cluster abort` calls it off"
                );
            }
            std::thread::sleep(POLL);
        }
    }
}

fn node_of<'a>(progress: &'a Value, name: &str) -> Option<&'a Value> {
    let nodes = progress["nodes"].as_array()?;
    nodes.iter().find(|node| node["name"] == name)
}

/// The node after the last one, in the zone with the fewest nodes, on the port after the highest.
fn next_node(state: &State, asked: &AddArguments) -> Result<Node> {
    let number = |name: &str| name.strip_prefix('n')?.parse::<u32>().ok();
    let last = state.node_names().filter_map(number).max().unwrap_or(0);
    let name = match &asked.node {
        None => format!("n{}", last + 1),
        Some(name) if number(name).is_none_or(|number| format!("n{number}") != *name) => {
            let message = format!(
                "\"{name}\" is no name of a node here: an n and a number, such as n{}",
                last + 1
            );
            return Err(Failure::usage(message));
        }
        Some(name) if state.node_names().any(|there| there == name) => {
            let message = format!(
                "there is a node {name} already; the next name is n{}",
                last + 1
            );
            return Err(Failure::usage(message));
        }
        Some(name) => name.clone(),
    };
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &state.nodes {
        *zones.entry(&node.zone).or_default() += 1;
    }
    let emptiest = zones.into_iter().min_by_key(|(_, nodes)| *nodes);
    let emptiest = emptiest.map_or("a", |(zone, _)| zone);
    let addresses = state.nodes.iter().map(|node| node.address);
    let highest = addresses.max().context("a cluster has nodes")?;
    let port = highest.port().checked_add(1);
    let port = port.context("there is no port after 65535; make a cluster on lower ones")?;
    Ok(Node {
        name,
        zone: asked.zone.clone().unwrap_or_else(|| emptiest.to_owned()),
        address: SocketAddr::new(highest.ip(), port),
        standing: Standing::Stopped,
        ready_ms: None,
        process: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::UpArguments;
    use crate::binaries::Binaries;
    use crate::cluster::plan::Plan;

    #[test]
    fn a_further_node_has_the_next_name_and_port_and_the_emptiest_zone() {
        let plan = Plan::new(
            &UpArguments {
                nodes: Some(4),
                zones: Some(3),
                ..UpArguments::default()
            },
            |_| None,
        );
        let binaries = Binaries {
            node: "kv-node".into(),
            cli: "kv".into(),
        };
        let mut state = State::new("dev", &plan.unwrap(), "7c1e".into(), binaries);
        let next = next_node(&state, &AddArguments::default()).unwrap();
        let shown = format!("{} {} {}", next.name, next.zone, next.address);
        assert_eq!(shown, "n5 b 127.0.0.1:7405");
        state.nodes.remove(1);
        let asked = |node: &str| AddArguments {
            node: Some(node.to_owned()),
            zone: Some("x".to_owned()),
        };
        let next = next_node(&state, &asked("n2")).unwrap();
        assert_eq!((next.name.as_str(), next.zone.as_str()), ("n2", "x"));
        for bad in ["n1", "x", "n", "n07", ""] {
            assert!(next_node(&state, &asked(bad)).is_err(), "{bad}");
        }
    }
}
