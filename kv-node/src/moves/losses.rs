//! What this node has lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kv_net::message::ChangeKind;
use kv_ring::{MemberState, PartitionId, Topology};
use kv_types::NodeId;

use super::gains::owns;
use crate::anti_entropy::exchange::Exchange;
use crate::anti_entropy::trees::{Place, Trees};
use crate::changes::Changes;
use crate::completeness::Completeness;
use crate::env::{Deadline, Env};
use crate::hints::Kept;
use crate::replica::Replica;
use crate::topologies::Topologies;

/// How often it is looked whether something was lost.
const PERIOD: Duration = Duration::from_millis(500);
/// How many partitions are given away at once.
const AT_ONCE: usize = 32;
/// How long the voters may take for a step.
const PATIENCE: Duration = Duration::from_secs(10);

/// The task that gives away what this node owns no more, and then itself if it leaves.
#[derive(Debug)]
pub struct Losses {
    pub(crate) env: Env,
    pub(crate) me: NodeId,
    pub(crate) topologies: Arc<Topologies>,
    pub(crate) trees: Arc<Trees>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) completeness: Arc<Completeness>,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) changes: Changes,
}

impl Losses {
    /// Looks as long as the node runs.
    pub async fn run(self) {
        loop {
            self.env.sleep(PERIOD).await;
            if self.completeness.is_closed() {
                continue;
            }
            self.delete_what_is_nobodys().await;
            let topology = self.topologies.current();
            let step = match self.drain(&topology).await {
                Some(step) => Some(step),
                None => self.farewell(&topology),
            };
            let Some(step) = step else { continue };
            let deadline = Deadline::after(&self.env, PATIENCE);
            if let Err(refusal) = self.changes.make(step, deadline).await {
                tracing::debug!(%refusal, "a step of a change of owners is not decided");
            }
        }
    }

    /// Brings what only this node holds of partitions that it lost to all of their owners.
    async fn drain(&self, topology: &Topology) -> Option<ChangeKind> {
        let draining =
            |partition: &PartitionId| topology.draining(*partition).any(|node| node == self.me);
        let lost: Vec<PartitionId> = topology
            .unsettled()
            .filter(draining)
            .take(AT_ONCE)
            .collect();
        // Until all trees are made nobody knows what there is to give.
        if lost.is_empty() || !self.trees.are_made() {
            return None;
        }
        // What was cut out of its copies, or came back with an old disk, is not brought by them.
        let whole = lost
            .iter()
            .filter(|partition| !self.completeness.is_incomplete(**partition));
        let mut drained: BTreeSet<PartitionId> = whole.copied().collect();
        for bucket in topology.buckets() {
            let n = bucket.properties.quorum.n();
            for partition in drained.clone() {
                let place = (bucket.id, partition);
                if self.trees.items(place) == 0 {
                    continue;
                }
                let owners = topology.replicas(partition, n);
                // Nobody waits for one that is lost: its slot moves on after that.
                let is_there = |owner: &NodeId| {
                    let member = topology.member(*owner);
                    member.is_some_and(|member| member.state != MemberState::Lost)
                };
                for owner in owners.nodes().filter(is_there) {
                    if !self.exchange.give(topology, owner, place).await {
                        drained.remove(&partition);
                    }
                }
            }
        }
        let partitions: Vec<u16> = drained.iter().map(|partition| partition.0).collect();
        (!partitions.is_empty()).then_some(ChangeKind::Drained {
            by: self.me,
            partitions,
        })
    }

    /// The last step of a node that leaves: it owns nothing, drains nothing, and keeps nothing for others.
    fn farewell(&self, topology: &Topology) -> Option<ChangeKind> {
        let leaves = topology.member(self.me)?.state == MemberState::Leaving;
        let slots = topology.partition_count().iter();
        let mut slots = slots.filter(|partition| owns(topology, self.me, *partition));
        let is_bound = slots.next().is_some()
            || topology.unsettled().any(|partition| {
                topology.draining(partition).any(|node| node == self.me)
                    || topology
                        .destination(partition)
                        .is_some_and(|owners| owners.contains(&self.me))
            });
        (leaves && !is_bound && self.kept.oldest().is_none())
            .then_some(ChangeKind::RemoveMember { node: self.me })
    }

    /// Deletes copies of partitions that this node neither owns nor drains.
    async fn delete_what_is_nobodys(&self) {
        let topology = self.topologies.current();
        let is_left_over = |(_, partition): &Place| {
            !owns(&topology, self.me, *partition)
                && topology.draining(*partition).all(|node| node != self.me)
        };
        let places: Vec<Place> = self
            .trees
            .places()
            .into_iter()
            .filter(is_left_over)
            .collect();
        if places.is_empty() {
            return;
        }
        match self.replica.delete_places(&topology, &places).await {
            Ok(()) => {
                let _ = self.trees.drop_some(&places);
                tracing::info!(
                    partitions = places.len(),
                    "copies that this node owns no more are deleted"
                );
            }
            Err(refusal) => {
                tracing::warn!(%refusal, "copies that this node owns no more are not deleted yet");
            }
        }
    }
}
