//! What is on its way to other nodes, and what it waits for: computed from a topology and the states of nodes alone.

use std::collections::{BTreeMap, BTreeSet};

use kv_client::NodeId;
use kv_client::ring::assign::SlotMove;
use kv_client::ring::{MemberState, Topology};

use super::predicted::{Predicted, Sizes};
use crate::cli::session::natural;
use crate::cli::status::gather::{Node, Seen, State};

/// What is on its way.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) epoch: u64,
    /// Slots whose change of owners has not begun.
    pub(super) waiting: usize,
    /// Slots whose new owner pulls what was written before.
    pub(super) pulling: usize,
    /// Partitions that an owner from before drains, once for each.
    pub(super) draining: usize,
    /// What is still to be pulled, or is being pulled.
    pub(super) bytes_left: Predicted,
    /// Who gains, gives or drains something, or is to go.
    pub(super) nodes: Vec<NodeProgress>,
    /// What it waits for, and what to do about that.
    pub(super) waits_for: Vec<String>,
    /// Nodes that were given up and own nothing any more.
    pub(super) to_forget: Vec<String>,
}

/// What one node has to do.
#[derive(Debug)]
pub(super) struct NodeProgress {
    pub(super) name: String,
    pub(super) seen: State,
    pub(super) stays: MemberState,
    /// Slots that it owns.
    pub(super) owns: u32,
    /// Slots that it is to gain, and has not begun to.
    pub(super) to_gain: usize,
    /// Slots that it is to lose, and has not begun to.
    pub(super) to_give: usize,
    /// Slots that it pulls, by the names of those whose place it takes.
    pub(super) pulls: BTreeMap<String, usize>,
    /// Slots that others pull, whose place they take.
    pub(super) is_pulled: usize,
    /// Partitions that it drains.
    pub(super) drains: usize,
    /// Partitions that others drain to their owners, of which it is one.
    pub(super) is_drained_to: usize,
}

impl Progress {
    pub(super) fn of(seen: &Seen) -> Self {
        let topology = &*seen.topology;
        let joint: Vec<SlotMove> = topology
            .unsettled()
            .filter_map(|partition| topology.moving(partition))
            .collect();
        let all = topology.arrived().moves_from(topology.table());
        let begun: BTreeSet<_> = joint
            .iter()
            .map(|slot| (slot.partition, slot.slot))
            .collect();
        let waits = |slot: &&SlotMove| !begun.contains(&(slot.partition, slot.slot));
        let waiting: Vec<SlotMove> = all.iter().filter(waits).copied().collect();
        let drains: Vec<NodeId> = topology
            .unsettled()
            .flat_map(|partition| topology.draining(partition))
            .collect();
        let loads = topology.table().loads(topology.replication_factor());
        let mut nodes: Vec<NodeProgress> = seen
            .nodes
            .iter()
            .zip(loads)
            .map(|(node, owns)| NodeProgress::of(topology, node, owns, (&waiting, &joint, &drains)))
            .filter(NodeProgress::is_busy)
            .collect();
        nodes.sort_by_key(|node| natural(&node.name));
        let to_forget = nodes.iter().filter(|node| node.is_to_be_forgotten());
        Self {
            epoch: topology.epoch().0,
            waiting: waiting.len(),
            pulling: joint.len(),
            draining: drains.len(),
            bytes_left: Sizes::of(seen).predict(&all),
            waits_for: waits_for(seen, &nodes),
            to_forget: to_forget.map(|node| node.name.clone()).collect(),
            nodes,
        }
    }

    /// Whether nothing moves and nobody is about to go.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting + self.pulling + self.draining == 0 && !self.has_leaving()
    }

    /// Whether something has not finished that can be called off.
    pub(super) fn can_abort(&self) -> bool {
        self.waiting + self.pulling > 0 || self.has_leaving()
    }

    fn has_leaving(&self) -> bool {
        let mut nodes = self.nodes.iter();
        nodes.any(|node| node.stays == MemberState::Leaving)
    }
}

impl NodeProgress {
    fn of(
        topology: &Topology,
        node: &Node,
        owns: u32,
        (waiting, joint, drains): (&[SlotMove], &[SlotMove], &[NodeId]),
    ) -> Self {
        let id = node.member.node;
        let mut pulls = BTreeMap::new();
        for from in joint
            .iter()
            .filter(|slot| slot.to == id)
            .filter_map(|slot| slot.from)
        {
            let name = topology
                .member(from)
                .map_or_else(|| from.short(), |member| member.name.clone());
            *pulls.entry(name).or_insert(0) += 1;
        }
        Self {
            name: node.member.name.clone(),
            seen: node.state,
            stays: node.member.state,
            owns,
            to_gain: waiting.iter().filter(|slot| slot.to == id).count(),
            to_give: waiting.iter().filter(|slot| slot.from == Some(id)).count(),
            pulls,
            is_pulled: joint.iter().filter(|slot| slot.from == Some(id)).count(),
            drains: drains.iter().filter(|other| **other == id).count(),
            is_drained_to: topology
                .unsettled()
                .filter(|partition| topology.draining(*partition).next().is_some())
                .filter(|partition| topology.owns(id, *partition))
                .count(),
        }
    }

    fn is_busy(&self) -> bool {
        let pulling = self.pulls.len() + self.is_pulled;
        let draining = self.drains
            + match self.seen {
                State::Up => 0,
                _ => self.is_drained_to,
            };
        let moves = self.to_gain + self.to_give + pulling + draining;
        moves > 0 || self.stays != MemberState::Active
    }

    fn is_to_be_forgotten(&self) -> bool {
        self.stays == MemberState::Lost && self.owns == 0
    }
}

/// Who is missing, what waits for it, and what to do.
fn waits_for(seen: &Seen, nodes: &[NodeProgress]) -> Vec<String> {
    let mut lines = Vec::new();
    let missing = nodes
        .iter()
        .filter(|node| node.seen != State::Up && node.stays != MemberState::Lost);
    for node in missing {
        let (name, state) = (&node.name, node.seen.name());
        let gains = node.to_gain + node.pulls.values().sum::<usize>();
        if gains > 0 {
            lines.push(format!(
                "{name} is {state} and gains {gains} replicas: start it, or call all moves off with `kv cluster abort`"
            ));
        }
        let gives = node.to_give + node.is_pulled;
        if gives > 0 {
            lines.push(format!(
                "{name} is {state} and gives {gives} replicas: start it, or call all moves off with `kv cluster abort`; if it will never be back, `kv cluster remove {name}`"
            ));
        }
        if node.is_drained_to > 0 {
            lines.push(format!(
                "{name} is {state}, and others have {} partitions to drain to it: start it; if it will never be back, `kv cluster remove {name}`",
                node.is_drained_to
            ));
        }
        if node.drains > 0 {
            lines.push(format!(
                "{name} is {state} and drains {} partitions: start it; if it will never be back, `kv cluster remove {name}`",
                node.drains
            ));
        } else if node.stays == MemberState::Leaving {
            lines.push(format!(
                "{name} is {state} and leaves: start it; if it will never be back, `kv cluster remove {name}`"
            ));
        }
    }
    lines.extend(sources(seen));
    let keeps = |node: &&NodeProgress| {
        node.stays == MemberState::Leaving
            && node.seen == State::Up
            && node.owns == 0
            && node.drains == 0
    };
    lines.extend(nodes.iter().filter(keeps).map(|node| {
        let name = &node.name;
        format!("{name} owns nothing any more, and goes as soon as it keeps nothing for others (`kv hints`)")
    }));
    lines
}

/// Where too few of the owners are up from whom is pulled.
fn sources(seen: &Seen) -> Option<String> {
    let topology = &*seen.topology;
    let is_up = |id: &NodeId| {
        let mut nodes = seen.nodes.iter();
        nodes.any(|node| node.member.node == *id && node.is_live())
    };
    let mut short = 0;
    let mut missing: BTreeSet<String> = BTreeSet::new();
    for partition in topology.unsettled() {
        let mut is_short = false;
        let buckets = topology.buckets().iter();
        for sources in buckets.filter_map(|bucket| topology.sources(bucket.id, partition)) {
            let up = sources.among.iter().filter(|node| is_up(node)).count();
            if up < usize::from(sources.needed) {
                is_short = true;
                let down = sources.among.iter().filter(|node| !is_up(node));
                missing.extend(
                    down.filter_map(|node| topology.member(*node))
                        .map(|member| member.name.clone()),
                );
            }
        }
        short += usize::from(is_short);
    }
    let names: Vec<String> = missing.into_iter().collect();
    (short > 0).then(|| {
        format!(
            "{short} partitions cannot be pulled from enough owners while these are away: {}; start them",
            names.join(", ")
        )
    })
}
