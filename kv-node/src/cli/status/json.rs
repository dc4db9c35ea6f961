//! The state of a cluster for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::gather::{Node, Seen, View};
use super::health::Health;
use crate::cli::time;

#[derive(Debug, Serialize)]
pub(super) struct StatusJson<'a> {
    schema: u8,
    cluster: &'a str,
    cluster_id: String,
    epoch: u64,
    time: String,
    healthy: bool,
    members: usize,
    reachable: usize,
    views_agree: usize,
    views: Vec<ViewJson<'a>>,
    can_lose_for_quorum: u8,
    can_lose_for_data: u8,
    ranges: u32,
    ranges_short: u32,
    ranges_below_quorum: u32,
    nodes: Vec<NodeJson<'a>>,
}

/// What some nodes see alike, and how they see whom others see otherwise.
#[derive(Debug, Serialize)]
struct ViewJson<'a> {
    nodes: Vec<&'a str>,
    epoch: u64,
    disputed: BTreeMap<&'a str, &'static str>,
}

#[derive(Debug, Serialize)]
struct NodeJson<'a> {
    name: &'a str,
    id: String,
    zone: &'a str,
    address: &'a str,
    state: &'static str,
    since_ms: Option<u128>,
    heartbeat: u64,
    owns_percent: f64,
    error: Option<&'a str>,
    #[serde(flatten)]
    figures: Option<FiguresJson<'a>>,
}

#[derive(Debug, Serialize)]
struct FiguresJson<'a> {
    version: &'a str,
    epoch: u64,
    uptime_ms: u64,
    objects: u64,
    disk_bytes: u64,
    disk_free_bytes: u64,
    gets: u64,
    puts: u64,
    errors: u64,
    get_p50_us: u32,
    get_p99_us: u32,
    put_p50_us: u32,
    put_p99_us: u32,
}

/// Everything that the lines and the table show, and more digits.
pub(super) fn status<'a>(seen: &'a Seen, health: &Health) -> StatusJson<'a> {
    StatusJson {
        schema: 1,
        cluster: seen.topology.cluster_name(),
        cluster_id: seen.topology.cluster_id().to_string(),
        epoch: seen.topology.epoch().0,
        time: time::present(),
        healthy: !health.is_degraded(),
        members: seen.nodes.len(),
        reachable: seen.answers().count(),
        views_agree: seen.agreeing(),
        views: seen.views().into_iter().map(view).collect(),
        can_lose_for_quorum: health.can_lose_for_quorum,
        can_lose_for_data: health.can_lose_for_data,
        ranges: health.ranges,
        ranges_short: health.ranges_short,
        ranges_below_quorum: health.ranges_below,
        nodes: seen.nodes.iter().map(node).collect(),
    }
}

fn view(view: View<'_>) -> ViewJson<'_> {
    ViewJson {
        nodes: view.nodes,
        epoch: view.epoch,
        disputed: view.disputed.into_iter().collect(),
    }
}

fn node(node: &Node) -> NodeJson<'_> {
    NodeJson {
        name: &node.member.name,
        id: node.member.node.to_string(),
        zone: &node.member.zone,
        address: &node.member.address,
        state: node.state.name(),
        since_ms: node.since.map(|since| since.as_millis()),
        heartbeat: node.heartbeat,
        owns_percent: node.owns_percent,
        error: node.status.as_ref().err().map(String::as_str),
        figures: node.status.as_ref().ok().map(|status| FiguresJson {
            version: &status.version,
            epoch: status.epoch.0,
            uptime_ms: status.uptime_ms,
            objects: status.objects,
            disk_bytes: status.disk_bytes,
            disk_free_bytes: status.disk_free_bytes,
            gets: status.gets,
            puts: status.puts,
            errors: status.errors,
            get_p50_us: status.get_us.0,
            get_p99_us: status.get_us.1,
            put_p50_us: status.put_us.0,
            put_p99_us: status.put_us.1,
        }),
    }
}
