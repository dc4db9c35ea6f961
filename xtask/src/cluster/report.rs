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
        let seeds: Vec<String> = state
            .nodes
            .iter()
            .take(2)
            .map(|node| node.address.to_string())
            .collect();
        let hints = Hints {
            name: self.layout.name(),
            option: self.layout.option(),
            is_selected: selected.as_deref() == Some(self.layout.name()),
            program: shown(&state.binaries.cli),
            seeds: seeds.join(","),
            last_node: state.nodes.last().map_or("n1", |node| &node.name),
        };
        terminal::result(&format!(
            "\n{}\n{}\n",
            table::render(&COLUMNS, &rows),
            hints.render()
        ));
        self.advise(state);
    }

    /// Says what to do about nodes that do not run.
    pub(super) fn advise(&self, state: &State) {
        for warning in warnings(state, &self.layout.option()) {
            terminal::warning(&warning);
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

/// What to do about nodes that do not run.
fn warnings(state: &State, option: &str) -> Vec<String> {
    if !state.is_any_alive() {
        let name = &state.name;
        return vec![format!(
            "cluster \"{name}\" is down: `cargo xtask cluster{option}` starts it with its data"
        )];
    }
    let nodes = state.nodes.iter();
    nodes
        .filter_map(|node| advice(&node.name, node.condition(), option))
        .collect()
}

fn advice(node: &str, condition: Condition, option: &str) -> Option<String> {
    let command = |action: &str| format!("`cargo xtask cluster {action} {node}{option}`");
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

/// The lines below the table; each can be pasted as it stands.
struct Hints<'a> {
    name: &'a str,
    option: String,
    is_selected: bool,
    program: String,
    /// Two addresses, so that the client survives the loss of one while it connects.
    seeds: String,
    last_node: &'a str,
}

impl Hints<'_> {
    fn render(&self) -> String {
        let Self {
            name,
            option,
            is_selected,
            program,
            seeds,
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
        let lines = [
            (
                "try",
                format!("{kv} put hello world && {kv} get hello    {note}"),
            ),
            (
                "rust",
                format!("Client::connect(\"kv://{seeds}?context={name}\")"),
            ),
            (
                "break it",
                format!(
                    "cargo xtask cluster kill {node}{option}    also: pause, resume, restart, add, remove"
                ),
            ),
            (
                "more",
                format!(
                    "cargo xtask cluster info{option}    also: logs {node} -f, env --json, down [--wipe]"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_command_that_helps() {
        let cases = [
            (Condition::Died, "cluster logs n2 --name two"),
            (Condition::Paused, "cluster resume n2 --name two"),
            (Condition::Killed, "cluster restart n2 --name two"),
            (Condition::Stopped, "cluster restart n2 --name two"),
        ];
        for (condition, expected) in cases {
            let advice = advice("n2", condition, " --name two").unwrap();
            assert!(advice.contains(expected), "{advice}");
        }
        assert_eq!(advice("n2", Condition::Up, ""), None);
    }

    #[test]
    fn connect_lines_name_the_context_only_when_they_must() {
        let hints = |is_selected, option: &str| Hints {
            name: "two",
            option: option.to_owned(),
            is_selected,
            program: "target/debug/kv".to_owned(),
            seeds: "127.0.0.1:7401".to_owned(),
            last_node: "n3",
        };
        let selected = hints(true, "").render();
        assert!(selected.starts_with(
            "  try       target/debug/kv put hello world && target/debug/kv get hello"
        ));
        let other = hints(false, " --name two").render();
        assert!(other.contains("kv --context two put"), "{other}");
        assert!(
            other.contains("(\"kv://127.0.0.1:7401?context=two\")"),
            "{other}"
        );
        assert!(other.contains("cluster kill n3 --name two"), "{other}");
    }
}
