//! Brings home what was kept for owners that were away.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use kv_net::message::{AnswerWhen, DataHead, ReplicaWriteV1, Request, Response};
use kv_ring::Topology;
use kv_types::{NodeId, Object, WriteId, planted};

use super::Kept;
use crate::env::Env;
use crate::liveness::Liveness;
use crate::replica::{Arrival, Replica, StandIn, Target};
use crate::topologies::Topologies;
use crate::transport::Peer;

/// How often it is looked whether someone is back.
const ROUND: Duration = Duration::from_secs(1);
/// How many objects are under way to an owner at once, and of how many bytes together: what users wait for goes first.
const AT_ONCE: usize = 16;
const BYTES_AT_ONCE: usize = 256 << 10;
/// How long an owner may take for one of them.
const PATIENCE: Duration = Duration::from_secs(5);

/// The task that delivers.
#[derive(Debug)]
pub struct Delivery {
    pub(crate) env: Env,
    pub(crate) me: NodeId,
    pub(crate) topologies: Arc<Topologies>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) kept: Arc<Kept>,
}

/// To whom an object must go before it may be forgotten here.
#[derive(Debug, PartialEq, Eq)]
enum Recipients {
    /// To these, all of them.
    All(Vec<NodeId>),
    /// To nobody: its bucket is gone.
    Nobody,
}

impl Delivery {
    /// Delivers as long as the node runs.
    pub async fn run(self) {
        loop {
            self.env.sleep(ROUND).await;
            for owner in self.kept.owners() {
                self.deliver_to(owner).await;
            }
        }
    }

    /// Brings an owner all that is kept for it; ends early when nothing of a page could go. One object that its owner cannot
    /// take does not hold up the others.
    async fn deliver_to(&self, owner: NodeId) {
        let mut from: Option<Bytes> = None;
        loop {
            let page = self
                .replica
                .stand_ins(owner, from.take(), AT_ONCE, BYTES_AT_ONCE);
            let page = match page.await {
                Ok(page) => page,
                Err(refusal) => {
                    tracing::error!(%refusal, "what is kept for another node cannot be read");
                    return;
                }
            };
            let deliveries = page.entries.iter().map(|kept| self.deliver(owner, kept));
            let some_went = join_all(deliveries).await.into_iter().any(|went| went);
            match page.next {
                Some(next) if some_went => from = Some(next),
                _ => return,
            }
        }
    }

    /// Brings one object to where it belongs. False when it could not go.
    async fn deliver(&self, owner: NodeId, kept: &StandIn) -> bool {
        let topology = self.topologies.current();
        if let Recipients::All(nodes) = self.recipients(&topology, owner, kept) {
            let sends = nodes.iter().map(|node| self.send(&topology, *node, kept));
            if !join_all(sends).await.into_iter().all(|taken| taken) {
                return false;
            }
        }
        if planted!("keep what was delivered") {
            return true;
        }
        match self.replica.discharge(owner, kept).await {
            Ok(_) => true,
            Err(refusal) => {
                tracing::debug!(%refusal, "what was delivered could not be forgotten yet");
                false
            }
        }
    }

    fn recipients(&self, topology: &Topology, owner: NodeId, kept: &StandIn) -> Recipients {
        if planted!("forget what is kept for others") {
            return Recipients::Nobody;
        }
        let Some(bucket) = topology.bucket(kept.bucket) else {
            return Recipients::Nobody;
        };
        let partition = topology.partition_count().partition_of(kept.hash);
        let owners = topology.replicas(partition, bucket.properties.quorum.n());
        let is_away_for_long = || {
            let patience = self.kept.options().owner_patience;
            self.liveness.away_for(owner, self.env.now()) > patience
        };
        // Where the owners change it goes to old and new ones; where they have changed, to those of today.
        if owners.is_joint() || !owners.contains(owner) {
            return Recipients::All(owners.nodes().collect());
        }
        // As many as had to acknowledge it.
        let others: Vec<NodeId> = owners.nodes().filter(|node| *node != owner).collect();
        let are_enough = others.len() >= usize::from(bucket.properties.quorum.w());
        Recipients::All(if are_enough && is_away_for_long() {
            others
        } else {
            vec![owner]
        })
    }

    async fn send(&self, topology: &Topology, node: NodeId, kept: &StandIn) -> bool {
        if node == self.me {
            let target = Target {
                bucket: kept.bucket,
                key: kept.key.clone(),
                hash: kept.hash,
                partition: topology.partition_count().partition_of(kept.hash),
                epoch: topology.epoch(),
                mode: topology.mode_of(kept.bucket),
                stands_in_for: None,
            };
            let Ok(object) = Object::decode(&kept.encoded) else {
                return false;
            };
            let merged = self.replica.merge(&target, &object, Arrival::Repair);
            return merged.await.is_ok();
        }
        let member = topology.member(node);
        let Some(member) = member.filter(|_| self.liveness.is_up(node, self.env.now())) else {
            return false;
        };
        let peer = Peer {
            node,
            address: member.address.clone(),
        };
        let head = DataHead {
            epoch: topology.epoch(),
            trace: 0,
            write_id: WriteId::from_bytes([0; 16]),
        };
        let message = ReplicaWriteV1 {
            head,
            bucket: kept.bucket,
            key: kept.key.clone(),
            answer: AnswerWhen::Synced,
        };
        let request = Request::Repair(message, kept.encoded.clone());
        let answer = self.env.transport.call(peer, request, PATIENCE).await;
        // One that has seen a later change of the owners than this node refuses, and this node learns of it by gossip.
        matches!(answer, Ok(Response::Repair(_)))
    }
}
