//! What may stop before some partition misses the quorum of a bucket, now and on the way of a plan.

use std::collections::{BTreeMap, BTreeSet};

use kv_client::ring::{PartitionId, Topology};
use kv_client::{NodeId, Quorum};

/// Any so many nodes, or any so many whole zones, may stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tolerance {
    pub(super) nodes: usize,
    pub(super) zones: usize,
}

/// Where the owners of all partitions are on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The owners at present.
    Now,
    /// All owners from now to the end.
    OnTheWay,
    /// The owners in the end.
    After,
}

/// The owners of all partitions from now to the end, and which of them are up.
pub(super) struct Outlook<'a> {
    /// Whose owners they are.
    topology: &'a Topology,
    /// The nodes that answer, or are only to join.
    live: BTreeSet<NodeId>,
    /// The owners in each step of each partition, from the present ones to those in the end.
    steps: Vec<Vec<Vec<NodeId>>>,
}

impl<'a> Outlook<'a> {
    pub(super) fn new(topology: &'a Topology, live: BTreeSet<NodeId>) -> Self {
        let partitions = topology.partition_count().iter();
        let arrived = topology.arrived();
        let steps = partitions.map(|partition| {
            let end: Vec<NodeId> = arrived.owners(partition).collect();
            steps(topology, partition, &end)
        });
        Self {
            topology,
            live,
            steps: steps.collect(),
        }
    }

    /// What may stop before some partition misses the quorum of one of the buckets; `None` where some does already.
    ///
    /// While two sets of owners are joint, a quorum is needed in both.
    pub(super) fn tolerance(&self, stage: Stage, quorums: &[Quorum]) -> Option<Tolerance> {
        let mut least: Option<Tolerance> = None;
        for steps in &self.steps {
            let owners = match stage {
                Stage::Now => &steps[..1],
                Stage::OnTheWay => &steps[..],
                Stage::After => &steps[steps.len() - 1..],
            };
            for (owners, quorum) in owners
                .iter()
                .flat_map(|o| quorums.iter().map(move |q| (o, q)))
            {
                let found = self.of(&owners[..usize::from(quorum.n())], *quorum)?;
                least = Some(least.map_or(found, |least| Tolerance {
                    nodes: least.nodes.min(found.nodes),
                    zones: least.zones.min(found.zones),
                }));
            }
        }
        least
    }

    fn of(&self, owners: &[NodeId], quorum: Quorum) -> Option<Tolerance> {
        let needed = usize::from(quorum.r().max(quorum.w()));
        let mut live = 0;
        let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
        for owner in owners.iter().filter(|owner| self.live.contains(owner)) {
            live += 1;
            let zone = self
                .topology
                .member(*owner)
                .map_or("", |member| &member.zone);
            *zones.entry(zone).or_default() += 1;
        }
        let nodes = usize::checked_sub(live, needed)?;
        // The zones with the most replicas hurt most.
        let mut replicas: Vec<usize> = zones.into_values().collect();
        replicas.sort_unstable_by(|a, b| b.cmp(a));
        let mut left = nodes;
        let survives = |replicas: &&usize| {
            let fits = **replicas <= left;
            left = left.saturating_sub(**replicas);
            fits
        };
        let zones = replicas.iter().take_while(survives).count();
        Some(Tolerance { nodes, zones })
    }
}

/// The owners of a partition now, in the change in progress, and after each further one: one slot at a time.
fn steps(topology: &Topology, partition: PartitionId, end: &[NodeId]) -> Vec<Vec<NodeId>> {
    let mut owners: Vec<NodeId> = topology.table().owners(partition).collect();
    let mut steps = vec![owners.clone()];
    let mut arrive = |owners: &mut Vec<NodeId>, slot: usize| {
        if owners[slot] != end[slot] {
            owners[slot] = end[slot];
            steps.push(owners.clone());
        }
    };
    if let Some(moving) = topology.moving(partition) {
        arrive(&mut owners, usize::from(moving.slot));
    }
    for slot in 0..end.len() {
        arrive(&mut owners, slot);
    }
    steps
}
