//! What the user sees of a cluster: its table, and how to reach, break and mend it.

use super::Cluster;
use super::state::{Condition, Node, State};
use crate::table::{self, Align};
use crate::terminal::{self, seconds, shown};
use anyhow::Result;
use std::fmt::Write as _;
use std::time::Duration;

const COLUMNS: [(&str, Align); 5] = [
    ("NODE", Align::Left),
    ("ZONE", Align::Left),
    ("ADDRESS", Align::Left),
    ("PID", Align::Left),
    ("READY", Align::Left),
];
/// Shown where there is nothing to show.
const NONE: &str = "–";

impl Cluster {
    /// Prints the cluster as it is now.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub(super) fn info(&self) -> Result<()> {
        self.report(&State::existing(&self.layout)?);
        Ok(())
    }

    /// Prints the table and the connect lines, and what to do about nodes that do not run.
    pub(super) fn report(&self, state: &State) {
        let rows: Vec<Vec<String>> = state.nodes.iter().map(row).collect();
        let selected = self.contexts.selected();
        let hints = Hints {
            name: self.layout.name(),
            is_selected: selected.as_deref() == Some(self.layout.name()),
            program: shown(&state.binaries.cli),
            last_node: state.nodes.last().map_or("n1", |node| &node.name),
        };
        terminal::result(&format!(
            "\n{}\n{}\n",
            table::render(&COLUMNS, &rows),
            hints.render()
        ));
        for node in &state.nodes {
            if let Some(advice) = advice(&node.name, node.condition(), self.layout.name()) {
                terminal::warning(&advice);
            }
        }
    }
}

fn row(node: &Node) -> Vec<String> {
    let pid = node
        .live_pid()
        .map_or(NONE.to_owned(), |pid| pid.to_string());
    let ready = match node.condition() {
        Condition::Up => node.ready_ms.map_or(NONE.to_owned(), |ready| {
            seconds(Duration::from_millis(ready))
        }),
        other => other.word().to_owned(),
    };
    vec![
        node.name.clone(),
        node.zone.clone(),
        node.address.to_string(),
        pid,
        ready,
    ]
}

fn advice(node: &str, condition: Condition, cluster: &str) -> Option<String> {
    let command = |action: &str| format!("`cargo xtask cluster {action} {node}{}`", of(cluster));
    match condition {
        Condition::Up => None,
        Condition::Died => Some(format!(
            "{node} has died: {} says why, {} starts it again",
            command("logs"),
            command("restart")
        )),
        Condition::Paused => Some(format!(
            "{node} is paused: {} lets it go on",
            command("resume")
        )),
        Condition::Killed | Condition::Stopped => Some(format!(
            "{node} is {}: {} starts it again",
            condition.word(),
            command("restart")
        )),
    }
}

/// The option that names a cluster, where it is needed.
fn of(cluster: &str) -> String {
    if cluster == "dev" {
        String::new()
    } else {
        format!(" --name {cluster}")
    }
}

/// The lines below the table; each can be pasted as it stands.
struct Hints<'a> {
    name: &'a str,
    is_selected: bool,
    program: String,
    last_node: &'a str,
}

impl Hints<'_> {
    fn render(&self) -> String {
        let Self {
            name,
            is_selected,
            program,
            last_node: node,
        } = self;
        let kv = if *is_selected {
            program.clone()
        } else {
            format!("{program} --context {name}")
        };
        let note = if *is_selected {
            format!("(context \"{name}\" selected)")
        } else {
            "(another context is selected)".to_owned()
        };
        let of = of(name);
        let lines = [
            (
                "try",
                format!("{kv} put hello world && {kv} get hello    {note}"),
            ),
            (
                "rust",
                format!("Client::connect(Target::context(\"{name}\"))"),
            ),
            (
                "break it",
                format!("cargo xtask cluster kill {node}{of}    also: pause, resume, restart"),
            ),
            (
                "more",
                format!(
                    "cargo xtask cluster info{of}    also: logs {node} -f, env --json, down [--wipe]"
                ),
            ),
        ];
        lines.iter().fold(String::new(), |mut text, (label, line)| {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "  {label:<9} {line}");
            text
        })
    }
}
