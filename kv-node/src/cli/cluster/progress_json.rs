//! What is on its way, for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::plan_json::BytesJson;
use super::progress::{NodeProgress, Progress};
use super::progress_text::stays;

#[derive(Debug, Serialize)]
pub(super) struct ProgressJson<'a> {
    schema: u8,
    epoch: u64,
    settled: bool,
    replicas_waiting: usize,
    replicas_pulled: usize,
    partitions_draining: usize,
    left: BytesJson,
    nodes: Vec<NodeJson<'a>>,
    waits_for: &'a [String],
    to_forget: &'a [String],
}

#[derive(Debug, Serialize)]
struct NodeJson<'a> {
    name: &'a str,
    state: &'static str,
    member: &'static str,
    owns: u32,
    to_gain: usize,
    to_give: usize,
    drains: usize,
    pulls_in_place_of: &'a BTreeMap<String, usize>,
}

/// Everything that the lines and the table show.
pub(super) fn progress(progress: &Progress) -> ProgressJson<'_> {
    ProgressJson {
        schema: 1,
        epoch: progress.epoch,
        settled: progress.is_settled(),
        replicas_waiting: progress.waiting,
        replicas_pulled: progress.pulling,
        partitions_draining: progress.draining,
        left: progress.bytes_left.into(),
        nodes: progress.nodes.iter().map(NodeJson::from).collect(),
        waits_for: &progress.waits_for,
        to_forget: &progress.to_forget,
    }
}

impl<'a> From<&'a NodeProgress> for NodeJson<'a> {
    fn from(node: &'a NodeProgress) -> Self {
        Self {
            name: &node.name,
            state: node.seen.name(),
            member: stays(node.stays),
            owns: node.owns,
            to_gain: node.to_gain,
            to_give: node.to_give,
            drains: node.drains,
            pulls_in_place_of: &node.pulls,
        }
    }
}
