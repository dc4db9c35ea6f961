//! A plan for people.

use comfy_table::{Cell, CellAlignment};

use super::plan::{NodePlan, Plan, Reserves};
use super::predicted::Predicted;
use super::tolerance::Tolerance;
use crate::cli::output::Output;
use crate::cli::time;
use crate::cli::value::{count, size};

/// All of it, as lines.
pub(super) fn plan(output: &Output, plan: &Plan) -> String {
    let mut lines = staged(&plan.staged);
    lines.push(format!("epoch      {} → {}", plan.epoch, plan.epoch.next()));
    lines.push(format!("moves      {}", moves(plan)));
    lines.push(String::new());
    lines.push(nodes(output, plan));
    lines.push(String::new());
    let (now, after) = plan.balance;
    lines.push(format!(
        "balance    max/mean {now:.2} now, {after:.2} after (load for its weight)"
    ));
    lines.push(tolerance(&plan.tolerance, "the quorums of all buckets"));
    if plan.default_tolerance != plan.tolerance {
        lines.push(tolerance(
            &plan.default_tolerance,
            "the quorum of bucket default",
        ));
    }
    let warnings = plan.warnings.iter();
    lines.extend(warnings.map(|warning| format!("{}    {warning}", output.alarmed("warning"))));
    // An option that accepts a loss is not there to be copied with the rest.
    let id = plan.commit_id();
    lines.push(format!(
        "run        kv cluster commit {id}    (or kv cluster clear)"
    ));
    lines.join("\n")
}

/// What is staged, one thing a line.
pub(super) fn staged(staged: &[String]) -> Vec<String> {
    if staged.is_empty() {
        return vec!["staged     nothing".to_owned()];
    }
    let labels = ["staged"].into_iter().chain(std::iter::repeat(""));
    let lines = labels.zip(staged);
    lines
        .map(|(label, line)| format!("{label:<11}{line}"))
        .collect()
}

fn moves(plan: &Plan) -> String {
    if plan.moves == 0 {
        return "none".to_owned();
    }
    let share = plan.moves as f64 * 100.0 / plan.slots as f64;
    let (moves, slots) = (count(plan.moves as u64), count(plan.slots as u64));
    let rate = size(u64::from(plan.rate_mib) << 20);
    let time = plan.time.map_or_else(
        || "no estimate of the time".to_owned(),
        |time| format!("at least {} at {rate}/s into each node", time::length(time)),
    );
    format!(
        "{moves} of {slots} replicas of partitions ({share:.1} %) · {} · {time} · reads and writes go on",
        plan.bytes.text()
    )
}

fn nodes(output: &Output, plan: &Plan) -> String {
    let header = ["NODE", "NOW", "AFTER", "IN", "BYTES IN", "OUT", "BYTES OUT"];
    let rows = plan.nodes.iter().map(row).collect();
    output.table(&header, rows)
}

fn row(node: &NodePlan) -> Vec<Cell> {
    let share = |share: Option<f64>| share.map(|share| format!("{share:.1} %"));
    let slots = |moved: &Predicted| (moved.slots > 0).then(|| count(moved.slots as u64));
    let bytes = |moved: &Predicted| (moved.slots > 0).then(|| moved.text());
    let figures = [
        share(node.now),
        share(node.after),
        slots(&node.gains),
        bytes(&node.gains),
        slots(&node.gives),
        bytes(&node.gives),
    ];
    let right = |text: Option<String>| {
        let text = text.unwrap_or_else(|| "–".to_owned());
        Cell::new(text).set_alignment(CellAlignment::Right)
    };
    let mut cells = vec![Cell::new(&node.name)];
    cells.extend(figures.map(right));
    cells
}

fn tolerance(reserves: &Reserves, of_what: &str) -> String {
    let text = |tolerance: Option<Tolerance>| match tolerance {
        None => "none, some partitions miss it".to_owned(),
        Some(Tolerance { nodes, zones }) => {
            let plural = |count: usize| if count == 1 { "" } else { "s" };
            format!(
                "{nodes} node{}, {zones} zone{}",
                plural(nodes),
                plural(zones)
            )
        }
    };
    format!(
        "tolerance  may lose now {} · on the way {} · after {}, and meet {of_what}",
        text(reserves.now),
        text(reserves.on_the_way),
        text(reserves.after),
    )
}
