//! Somebody who has members come and go while everything goes wrong.

use std::time::Duration;

use fastrand::Rng;
use kv_net::Role;
use kv_net::message::{ChangeKind, ChangeV1, MemberChangesV1, Request, Response};
use kv_node::changes::member_changes;
use kv_ring::{MemberState, Topology};
use kv_types::{NodeId, Outcome};
use serde::{Deserialize, Serialize};

use super::fault::NodeNumber;
use super::nemesis::Nemesis;
use super::scenario::Scenario;
use crate::sim::{Handle, SimCluster};

/// The time of one change.
const BUDGET: Duration = Duration::from_secs(4);
/// How often it is looked whether there are new members without a machine.
const PERIOD: Duration = Duration::from_millis(250);

/// What an operator wants of the members, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// When, in milliseconds since the start.
    pub at_ms: u64,
    /// What.
    pub what: What,
}

/// What an operator wants of the members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A new node joins.
    Join(NodeNumber),
    /// A member gives away what it owns, and goes.
    Leave(NodeNumber),
    /// A member is gone for ever, with its disk; a new node takes its place.
    Replace {
        /// The one that is gone.
        lost: NodeNumber,
        /// The new one.
        by: NodeNumber,
    },
    /// A member weighs otherwise.
    Weigh {
        /// Which.
        node: NodeNumber,
        /// Its weight; all begin with one.
        weight: u32,
    },
    /// A member is in another zone, perhaps one that others are in.
    Rezone {
        /// Which.
        node: NodeNumber,
        /// The zone, by the number of the node whose it is at first.
        zone: NodeNumber,
    },
    /// All changes of owners that have not finished are called off.
    CallOff,
}

impl What {
    /// A word for counting.
    fn kind(&self) -> &'static str {
        match self {
            Self::Join(_) => "join",
            Self::Leave(_) => "leave",
            Self::Replace { .. } => "replacement",
            Self::Weigh { .. } => "other weight",
            Self::Rezone { .. } => "other zone",
            Self::CallOff => "change of owners called off",
        }
    }
}

/// Draws what happens to the members on one day. Of those that are there at first one may be lost, if any may.
pub(super) fn draw(
    rng: &mut Rng,
    nodes: NodeNumber,
    newcomers: NodeNumber,
    until_ms: u64,
    may_lose: bool,
) -> Vec<Order> {
    let mut orders = Vec::new();
    let mut order = |at_ms, what| orders.push(Order { at_ms, what });
    let early_ms = until_ms * 2 / 3;
    let mut loses = may_lose;
    for newcomer in nodes + 1..=nodes + newcomers {
        let by = newcomer;
        let what = match std::mem::take(&mut loses) {
            true => What::Replace {
                lost: rng.u8(1..=nodes),
                by,
            },
            false => What::Join(by),
        };
        let at_ms = rng.u64(500..early_ms.max(501));
        order(at_ms, what);
        if rng.bool() {
            // In the middle of it, and then once more.
            let called_off_ms = at_ms + rng.u64(1_000..8_000);
            order(called_off_ms, What::CallOff);
            let weight = rng.u32(2..4);
            let again = What::Weigh { node: by, weight };
            order(called_off_ms + rng.u64(500..8_000), again);
        }
    }
    for _ in 0..rng.u8(0..5) {
        let node = rng.u8(1..=nodes + newcomers);
        let what = match rng.u8(0..7) {
            0..3 => What::Leave(node),
            3 | 4 => What::Weigh {
                node,
                weight: rng.u32(1..4),
            },
            5 => What::Rezone {
                node,
                zone: rng.u8(1..=nodes),
            },
            _ => What::CallOff,
        };
        order(rng.u64(500..until_ms.max(501)), what);
    }
    orders.sort_by_key(|order| order.at_ms);
    orders
}

/// One operator at work.
#[derive(Debug)]
pub(super) struct Registrar {
    handle: Handle,
    cluster: SimCluster,
    nemesis: Nemesis,
    rng: Rng,
    orders: Vec<Order>,
}

impl Registrar {
    pub(super) fn new(
        scenario: &Scenario,
        handle: &Handle,
        cluster: &SimCluster,
        nemesis: &Nemesis,
    ) -> Self {
        Self {
            handle: handle.clone(),
            cluster: cluster.clone(),
            nemesis: nemesis.clone(),
            rng: Rng::with_seed(scenario.seed ^ 0x006d_656d_6265_7273),
            orders: scenario.orders.clone(),
        }
    }

    /// Carries orders out until `until`, and gives new members their machines.
    pub(super) async fn work(mut self, until: Duration) {
        let mut orders = std::mem::take(&mut self.orders).into_iter().peekable();
        while self.handle.now() < until {
            let now = self.handle.now();
            let is_due = |order: &Order| Duration::from_millis(order.at_ms) <= now;
            if let Some(order) = orders.next_if(is_due) {
                self.carry_out(&order.what).await;
            }
            give_machines(&self.cluster, &self.nemesis);
            self.handle.sleep(PERIOD).await;
        }
    }

    async fn carry_out(&mut self, what: &What) {
        let lost = match what {
            What::Replace { lost, .. } => Some(id(*lost)),
            _ => None,
        };
        let topology = self.cluster.newest();
        let members = topology.members().iter().map(|member| member.node);
        let vias: Vec<NodeId> = members
            .filter(|node| Some(*node) != lost && self.cluster.node(*node).is_some())
            .collect();
        let Some(via) = self.rng.choice(&vias).copied() else {
            return;
        };
        let Some(seen) = self.cluster.node(via).map(|node| node.topology()) else {
            return;
        };
        let Some(change) = self.change(&seen, what) else {
            self.nemesis.count("impossible change of members", 1);
            return;
        };
        if let Some(lost) = lost {
            self.nemesis.look_at(lost);
            self.cluster.retire(lost);
        }
        match make(&self.cluster, via, change).await {
            Made::NotApplied => {
                if let Some(lost) = lost {
                    self.cluster.recall(lost);
                    self.nemesis.start(lost);
                }
            }
            Made::Unknown => self.nemesis.count("change of members of unknown fate", 1),
            Made::Applied => self.nemesis.count(what.kind(), 1),
        }
    }

    /// The change that is asked for where that topology is seen; nothing if it is not possible there.
    fn change(&self, seen: &Topology, what: &What) -> Option<ChangeKind> {
        let mut wanted = MemberChangesV1::default();
        match what {
            What::CallOff => return Some(ChangeKind::AbortMoves),
            What::Join(node) => wanted.joins = vec![self.cluster.newcomer(id(*node))],
            What::Leave(node) => wanted.leaves = vec![id(*node)],
            What::Replace { lost, by } => {
                // What others lack is still to be had from it.
                seen.member(id(*lost))
                    .filter(|member| member.state == MemberState::Active)?;
                wanted.lost = vec![id(*lost)];
                wanted.joins = vec![self.cluster.newcomer(id(*by))];
            }
            What::Weigh { node, weight } => wanted.weights = vec![(id(*node), *weight)],
            What::Rezone { node, zone } => wanted.zones = vec![(id(*node), format!("z{zone}"))],
        }
        plan(seen, wanted)
    }
}

/// The change by which members are to be as is wanted; nothing if that is not possible.
pub(super) fn plan(seen: &Topology, wanted: MemberChangesV1) -> Option<ChangeKind> {
    let changes = member_changes(wanted.clone());
    let plan = seen.plan_members(&changes).ok()?;
    Some(ChangeKind::Members {
        changes: wanted,
        plan: plan.id.0,
        accepts_loss: true,
    })
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Applied,
    NotApplied,
    /// It may still come.
    Unknown,
}

/// Asks a node for a change.
pub(super) async fn make(cluster: &SimCluster, via: NodeId, change: ChangeKind) -> Made {
    let request = Request::Change(ChangeV1 { change });
    let role = Role::Admin("operator".to_owned());
    match cluster.network.call(role, via, &request, BUDGET).await {
        Ok(Response::Change(_)) => Made::Applied,
        Ok(Response::Error(error)) if error.outcome == Outcome::NotApplied => Made::NotApplied,
        Ok(_) | Err(_) => Made::Unknown,
    }
}

/// Starts the members that have no machine yet, with the history that a node has which knows of them.
pub(super) fn give_machines(cluster: &SimCluster, nemesis: &Nemesis) {
    let topology = cluster.newest();
    for member in topology.members() {
        if cluster.nodes().any(|node| node == member.node) {
            continue;
        }
        let running = cluster.nodes().filter(|node| cluster.node(*node).is_some());
        let knows = |node: &NodeId| {
            let running = cluster.node(*node);
            running.is_some_and(|running| running.topology().member(member.node).is_some())
        };
        if let Some(like) = running.into_iter().find(knows) {
            cluster.add_machine(member.node, like);
            nemesis.start(member.node);
        }
    }
}

fn id(number: NodeNumber) -> NodeId {
    NodeId(u128::from(number))
}
