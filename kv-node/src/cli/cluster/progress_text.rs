//! What is on its way, for people.

use comfy_table::{Cell, CellAlignment};
use kv_client::ring::MemberState;

use super::progress::{NodeProgress, Progress};
use crate::cli::output::Output;
use crate::cli::status::gather::State;
use crate::cli::value::count;

/// All of it, as lines.
pub(super) fn progress(output: &Output, progress: &Progress) -> String {
    let mut lines = vec![format!("epoch      {}", progress.epoch)];
    lines.push(format!("moves      {}", moves(progress)));
    if !progress.nodes.is_empty() {
        lines.push(String::new());
        lines.push(nodes(output, progress));
        lines.push(String::new());
    }
    let waits = progress.waits_for.iter();
    lines.extend(waits.map(|line| format!("{}   {line}", output.alarmed("waits for"))));
    let forget = progress.to_forget.iter();
    lines.extend(forget.map(|name| {
        format!("run        kv cluster forget {name}    (it owns nothing any more, and is on the list of members still)")
    }));
    lines.join("\n").trim_end().to_owned()
}

/// The least of it, on one line.
pub(super) fn line(progress: &Progress) -> String {
    format!("epoch {}: {}", progress.epoch, moves(progress))
}

fn moves(progress: &Progress) -> String {
    if progress.is_settled() {
        return "nothing moves".to_owned();
    }
    let number = |number: usize| count(number as u64);
    let mut parts = Vec::new();
    if progress.waiting > 0 {
        parts.push(format!(
            "{} replicas wait to begin",
            number(progress.waiting)
        ));
    }
    if progress.pulling > 0 {
        parts.push(format!("{} are pulled", number(progress.pulling)));
    }
    if progress.draining > 0 {
        parts.push(format!("{} drain", number(progress.draining)));
    }
    if progress.bytes_left.slots > 0 {
        parts.push(format!("{} left", progress.bytes_left.text()));
    }
    if parts.is_empty() {
        parts.push("all have arrived; who leaves is still a member".to_owned());
    }
    parts.join(" · ")
}

fn nodes(output: &Output, progress: &Progress) -> String {
    let header = [
        "NODE",
        "STATE",
        "MEMBER",
        "OWNS",
        "TO GAIN",
        "TO GIVE",
        "DRAINS",
        "PULLS IN PLACE OF",
    ];
    let rows = progress.nodes.iter().map(|node| row(output, node));
    output.table(&header, rows.collect())
}

fn row(output: &Output, node: &NodeProgress) -> Vec<Cell> {
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let some = |number: usize| match number {
        0 => right("–".to_owned()),
        number => right(count(number as u64)),
    };
    let pulls: Vec<String> = node
        .pulls
        .iter()
        .map(|(from, slots)| format!("{from} {slots}"))
        .collect();
    let state = if node.seen == State::Up {
        Cell::new(node.seen.name())
    } else {
        output.alarmed_cell(node.seen.name().to_uppercase())
    };
    vec![
        Cell::new(&node.name),
        state,
        Cell::new(stays(node.stays)),
        right(count(u64::from(node.owns))),
        some(node.to_gain),
        some(node.to_give),
        some(node.drains),
        Cell::new(if pulls.is_empty() {
            "–".to_owned()
        } else {
            pulls.join(", ")
        }),
    ]
}

/// Whether a member stays, as a word.
pub(super) fn stays(state: MemberState) -> &'static str {
    match state {
        MemberState::Active => "stays",
        MemberState::Leaving => "leaves",
        MemberState::Lost => "lost",
    }
}
