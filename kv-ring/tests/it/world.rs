//! Clusters for the assigner's tests, and what is true of a good table.

use std::collections::{BTreeMap, BTreeSet};

use kv_ring::PartitionId;
use kv_ring::assign::{Candidate, PlanInput, Table, plan, shares};
use kv_types::NodeId;

/// Members that come and go, and the table that follows them.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) partitions: u32,
    pub(crate) replicas: u8,
    pub(crate) members: Vec<Candidate>,
}

impl World {
    pub(crate) fn new(partitions: u32, replicas: u8) -> Self {
        Self {
            partitions,
            replicas,
            members: Vec::new(),
        }
    }

    /// `count` members `0..count`; zones in turn, weights in turn.
    pub(crate) fn with_members(mut self, count: u32, zones: u32, weights: &[u32]) -> Self {
        for number in 0..count {
            self.join(
                number,
                number % zones,
                weights[number as usize % weights.len()],
            );
        }
        self
    }

    pub(crate) fn join(&mut self, number: u32, zone: u32, weight: u32) {
        let node = NodeId(number.into());
        self.members.push(Candidate {
            node,
            zone: format!("z{zone}"),
            weight,
        });
    }

    pub(crate) fn leave(&mut self, number: u32) {
        self.members
            .retain(|member| member.node != NodeId(number.into()));
    }

    pub(crate) fn input<'a>(&'a self, previous: Option<&'a Table>) -> PlanInput<'a> {
        let Self {
            partitions,
            replicas,
            ref members,
        } = *self;
        PlanInput {
            members,
            partitions,
            replicas,
            previous,
        }
    }

    pub(crate) fn plan(&self, previous: Option<&Table>) -> Table {
        plan(&self.input(previous)).expect("a possible request")
    }

    pub(crate) fn zones(&self) -> BTreeMap<&str, usize> {
        let mut zones = BTreeMap::new();
        for member in &self.members {
            *zones.entry(member.zone.as_str()).or_insert(0) += 1;
        }
        zones
    }

    /// The cap of rule R2, with what zones that are too small force upon it.
    pub(crate) fn zone_cap(&self) -> usize {
        let replicas = usize::from(self.replicas);
        let zones = self.zones();
        let mut cap = replicas.div_ceil(zones.len().min(replicas));
        while zones.values().map(|&size| size.min(cap)).sum::<usize>() < replicas {
            cap += 1;
        }
        cap
    }

    /// R1: distinct nodes, all of them members. R2: the zone cap. R3: loads within one slot.
    pub(crate) fn assert_good(&self, table: &Table) {
        let zone_of: BTreeMap<NodeId, &str> = self
            .members
            .iter()
            .map(|member| (member.node, member.zone.as_str()))
            .collect();
        let cap = self.zone_cap();
        for owners in partitions(table) {
            assert_eq!(owners.len(), usize::from(self.replicas), "R1");
            let mut used = BTreeMap::new();
            for owner in &owners {
                *used.entry(zone_of[owner]).or_insert(0) += 1;
            }
            assert!(
                used.values().all(|&count: &usize| count <= cap),
                "R2: {used:?}, cap {cap}"
            );
        }
        let shares = shares(&self.input(None)).expect("a possible request");
        for (load, share) in table.loads(self.replicas).into_iter().zip(shares) {
            assert!(
                (share.floor()..=share.ceil()).contains(&load),
                "R3: {load} of {share:?}"
            );
        }
    }
}

/// The set of owners of every partition.
pub(crate) fn partitions(table: &Table) -> impl Iterator<Item = BTreeSet<NodeId>> {
    (0..table.partitions()).map(|p| table.owners(PartitionId(p as u16)).collect())
}

/// How many replicas have to be copied to go from one table to the other.
pub(crate) fn moved(from: &Table, to: &Table) -> usize {
    partitions(from)
        .zip(partitions(to))
        .map(|(old, new)| new.difference(&old).count())
        .sum()
}
