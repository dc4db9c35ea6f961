//! A plan for programs.

use serde::Serialize;

use super::plan::{NodePlan, Plan, Reserves};
use super::predicted::Predicted;
use super::tolerance::Tolerance;

#[derive(Debug, Serialize)]
pub(super) struct PlanJson<'a> {
    schema: u8,
    cluster: &'a str,
    plan: String,
    epoch: u64,
    epoch_after: u64,
    staged: &'a [String],
    replicas_moved: usize,
    replicas: usize,
    replicas_under_way: usize,
    bytes: BytesJson,
    rate_mib: u32,
    estimated_s: Option<u64>,
    nodes: Vec<NodeJson<'a>>,
    balance_now: f64,
    balance_after: f64,
    tolerance: ReservesJson,
    tolerance_of_default: ReservesJson,
    partitions_that_may_lose: usize,
    needs_accept_data_loss: bool,
    warnings: &'a [String],
}

/// Bytes, as far as they are known.
#[derive(Debug, Serialize)]
pub(super) struct BytesJson {
    bytes: u64,
    unknown_replicas: usize,
}

#[derive(Debug, Serialize)]
struct NodeJson<'a> {
    name: &'a str,
    now_percent: Option<f64>,
    after_percent: Option<f64>,
    replicas_in: usize,
    bytes_in: BytesJson,
    replicas_out: usize,
    bytes_out: BytesJson,
}

#[derive(Debug, Serialize)]
struct ReservesJson {
    now: Option<ToleranceJson>,
    on_the_way: Option<ToleranceJson>,
    after: Option<ToleranceJson>,
}

#[derive(Debug, Serialize)]
struct ToleranceJson {
    nodes: usize,
    zones: usize,
}

/// Everything that the lines and the table show, and more digits.
pub(super) fn plan(plan: &Plan) -> PlanJson<'_> {
    PlanJson {
        schema: 1,
        cluster: &plan.cluster,
        plan: plan.commit_id(),
        epoch: plan.epoch.0,
        epoch_after: plan.epoch.next().0,
        staged: &plan.staged,
        replicas_moved: plan.moves,
        replicas: plan.slots,
        replicas_under_way: plan.under_way,
        bytes: plan.bytes.into(),
        rate_mib: plan.rate_mib,
        estimated_s: plan.time.map(|time| time.as_secs()),
        nodes: plan.nodes.iter().map(NodeJson::from).collect(),
        balance_now: plan.balance.0,
        balance_after: plan.balance.1,
        tolerance: plan.tolerance.into(),
        tolerance_of_default: plan.default_tolerance.into(),
        partitions_that_may_lose: plan.may_lose,
        needs_accept_data_loss: plan.may_lose > 0,
        warnings: &plan.warnings,
    }
}

impl<'a> From<&'a NodePlan> for NodeJson<'a> {
    fn from(node: &'a NodePlan) -> Self {
        Self {
            name: &node.name,
            now_percent: node.now,
            after_percent: node.after,
            replicas_in: node.gains.slots,
            bytes_in: node.gains.into(),
            replicas_out: node.gives.slots,
            bytes_out: node.gives.into(),
        }
    }
}

impl From<Predicted> for BytesJson {
    fn from(predicted: Predicted) -> Self {
        Self {
            bytes: predicted.bytes,
            unknown_replicas: predicted.unknown_slots,
        }
    }
}

impl From<Reserves> for ReservesJson {
    fn from(reserves: Reserves) -> Self {
        let json = |tolerance: Tolerance| ToleranceJson {
            nodes: tolerance.nodes,
            zones: tolerance.zones,
        };
        Self {
            now: reserves.now.map(json),
            on_the_way: reserves.on_the_way.map(json),
            after: reserves.after.map(json),
        }
    }
}
