//! What this node has lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kv_net::message::ChangeKind;
use kv_ring::{MemberState, PartitionId, Topology};
use kv_types::{NodeId, planted};

use super::gains::AT_ONCE;
use crate::anti_entropy::exchange::Exchange;
use crate::anti_entropy::trees::{Place, Trees};
use crate::changes::Changes;
use crate::completeness::Completeness;
use crate::env::{Deadline, Env};
use crate::hints::Kept;
use crate::liveness::Liveness;
use crate::replica::Replica;
use crate::topologies::Topologies;

/// How often it is looked whether something was lost.
const PERIOD: Duration = Duration::from_millis(500);
/// How long what may be given away waits for more, to go with it: each step is an epoch.
const TOGETHER: Duration = Duration::from_secs(2);
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
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) changes: Changes,
}

impl Losses {
    /// Looks as long as the node runs.
    pub async fn run(self) {
        let mut since = None;
        loop {
            self.env.sleep(PERIOD).await;
            if self.completeness.is_closed() {
                continue;
            }
            self.delete_what_is_nobodys().await;
            let topology = self.topologies.current();
            let deadline = || Deadline::after(&self.env, PATIENCE);
            let made = if let Some(drained) = self.drain(&topology, &mut since).await {
                self.changes.make(drained, deadline()).await
            } else if self.may_go(&topology) {
                // If it was to stay meanwhile, and then to leave once more, it may keep something again.
                let removal = ChangeKind::RemoveMember { node: self.me };
                let seen = topology.epoch();
                self.changes.make_next(removal, seen, deadline()).await
            } else {
                continue;
            };
            if let Err(refusal) = made {
                tracing::debug!(%refusal, "a step of a change of owners is not decided");
            }
        }
    }

    /// Brings what only this node holds of partitions that it lost to all of their owners.
    ///
    /// `since` is when there was first something to give.
    async fn drain(&self, topology: &Topology, since: &mut Option<Duration>) -> Option<ChangeKind> {
        let draining =
            |partition: &PartitionId| topology.draining(*partition).any(|node| node == self.me);
        // Nobody waits for one that is lost: its slot moves on after that.
        let is_there = |owner: &NodeId| topology.is_counted_on(*owner);
        let now = self.env.now();
        let slots = topology.replication_factor();
        let may_be_given = |partition: &PartitionId| {
            let owners = topology.replicas(*partition, slots);
            let mut owners = owners.nodes().filter(is_there);
            owners.all(|owner| self.liveness.may_answer(owner, now))
        };
        let lost = topology.unsettled().filter(draining);
        let lost: Vec<PartitionId> = lost.filter(may_be_given).take(AT_ONCE).collect();
        // Until all trees are made nobody knows what there is to give.
        if lost.is_empty() || !self.trees.are_made() {
            *since = None;
            return None;
        }
        if lost.len() < AT_ONCE && now - *since.get_or_insert(now) < TOGETHER {
            return None;
        }
        *since = None;
        // What its copies lack, of a disk that was damaged or put back, it cannot make up for any more: it is no owner. All that
        // had its quorum is with the owners.
        let mut drained: BTreeSet<PartitionId> = lost.into_iter().collect();
        for bucket in topology.buckets() {
            let n = bucket.properties.quorum.n();
            for partition in drained.clone() {
                let place = (bucket.id, partition);
                if self.trees.is_empty(place) {
                    continue;
                }
                let owners = topology.replicas(partition, n);
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

    /// Whether this node may take the last step of one that leaves: it owns nothing, drains nothing, and keeps nothing for
    /// others, nor ever will.
    fn may_go(&self, topology: &Topology) -> bool {
        let member = topology.member(self.me);
        let leaves = member.is_some_and(|member| member.state == MemberState::Leaving);
        let keeps_nothing = self.kept.is_done(leaves);
        let slots = topology.partition_count().iter();
        let mut slots = slots.filter(|partition| topology.owns(self.me, *partition));
        let is_bound = slots.next().is_some()
            || topology.unsettled().any(|partition| {
                topology.draining(partition).any(|node| node == self.me)
                    || topology
                        .destination(partition)
                        .is_some_and(|owners| owners.contains(&self.me))
            });
        keeps_nothing && !is_bound
    }

    /// Deletes copies of partitions that this node neither owns nor drains.
    async fn delete_what_is_nobodys(&self) {
        // Meanwhile it is to gain none of them.
        let _still = self.topologies.hold().await;
        let topology = self.topologies.current();
        if !topology.is_counted_on(self.me) {
            // Nobody waited for what only it has: it is left for whoever looks for it.
            return;
        }
        let is_left_over = |(_, partition): &Place| !topology.has_or_drains(self.me, *partition);
        let places: Vec<Place> = self
            .trees
            .places()
            .into_iter()
            .filter(is_left_over)
            .collect();
        if places.is_empty() || planted!("keep what a former owner held") {
            return;
        }
        let deleted = self
            .replica
            .delete_places(&topology, &places, |_| true)
            .await;
        match deleted {
            Ok(()) => {
                let _ = self.trees.drop_some(&places);
                tracing::info!(
                    partitions = places.len(),
                    "copies that this node owns no more are deleted"
                );
            }
            Err(error) => {
                tracing::warn!(%error, "copies that this node owns no more are not deleted yet");
            }
        }
    }
}
