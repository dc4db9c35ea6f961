//! Brings home what was kept for owners that were away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use kv_net::message::{AnswerWhen, DataHead, ReplicaWriteV1, Request, Response};
use kv_ring::{ReplicaSet, Topology};
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
/// Of so many pages in a row nothing may go before others have their turn.
const MOST_IN_VAIN: u32 = 8;
/// How long one owner's turn lasts, if there are others.
const TURN: Duration = Duration::from_secs(10);
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

/// What became of an object that was to be delivered, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Went {
    /// All that it must go to have it.
    Home,
    /// One of them does not take it.
    Refused,
    /// One of them does not answer.
    Away,
}

/// Whether more is sent in this round after a page of objects; `in_vain` counts the pages of which nothing went. An empty one says
/// nothing: there was only what is delivered already and not dropped yet.
fn goes_on(page: &[Went], in_vain: &mut u32) -> bool {
    if page.is_empty() {
        return true;
    }
    if page.contains(&Went::Home) {
        *in_vain = 0;
        return true;
    }
    *in_vain += 1;
    page.contains(&Went::Refused) && *in_vain < MOST_IN_VAIN
}

/// The owners to whom an object goes that is kept for one of them, or for one that was: where the owners change, to old and
/// new ones; where they have changed, to those of today. One that is away for long is not waited for where `least` others
/// are there, as many as had to acknowledge it.
fn recipients(
    owners: &ReplicaSet,
    kept_for: NodeId,
    least: usize,
    is_away_for_long: impl Fn(NodeId) -> bool,
) -> Vec<NodeId> {
    let all: Vec<NodeId> = owners.nodes().collect();
    if owners.is_joint() {
        return all;
    }
    let meant = if owners.contains(kept_for) {
        vec![kept_for]
    } else {
        all.clone()
    };
    if !meant.iter().any(|node| is_away_for_long(*node)) {
        return meant;
    }
    let there: Vec<NodeId> = all
        .into_iter()
        .filter(|node| !is_away_for_long(*node))
        .collect();
    if there.len() >= least { there } else { meant }
}

impl Delivery {
    /// Delivers as long as the node runs.
    pub async fn run(self) {
        let mut rests: BTreeMap<NodeId, Bytes> = BTreeMap::new();
        loop {
            self.env.sleep(ROUND).await;
            for owner in self.kept.owners() {
                let rest = self.deliver_to(owner, rests.remove(&owner)).await;
                rests.extend(rest.map(|rest| (owner, rest)));
            }
        }
    }

    /// Brings an owner what is kept for it, from a place on; returns where to go on in the next round. It ends early when nobody
    /// answers, or takes nothing of many pages. Objects that their owner cannot take do not hold up the others.
    async fn deliver_to(&self, owner: NodeId, mut from: Option<Bytes>) -> Option<Bytes> {
        let mut in_vain = 0;
        let until = self.env.now() + TURN;
        loop {
            let page = self
                .replica
                .stand_ins(owner, from.take(), AT_ONCE, BYTES_AT_ONCE);
            let page = match page.await {
                Ok(page) => page,
                Err(refusal) => {
                    tracing::error!(%refusal, "what is kept for another node cannot be read");
                    return None;
                }
            };
            let deliveries = page.entries.iter().map(|kept| self.deliver(owner, kept));
            let went = join_all(deliveries).await;
            if !goes_on(&went, &mut in_vain) {
                return page.next;
            }
            let next = page.next?;
            if self.env.now() >= until {
                return Some(next);
            }
            from = Some(next);
        }
    }

    /// Brings one object to where it belongs.
    async fn deliver(&self, owner: NodeId, kept: &StandIn) -> Went {
        let topology = self.topologies.current();
        if let Recipients::All(nodes) = self.recipients(&topology, owner, kept) {
            let sends = nodes.iter().map(|node| self.send(&topology, *node, kept));
            let worst = join_all(sends).await.into_iter().max();
            if let Some(worst @ (Went::Refused | Went::Away)) = worst {
                return worst;
            }
        }
        if planted!("keep what was delivered") {
            return Went::Home;
        }
        match self.replica.discharge(owner, kept).await {
            Ok(_) => Went::Home,
            Err(refusal) => {
                tracing::debug!(%refusal, "what was delivered could not be forgotten yet");
                Went::Refused
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
        let is_away_for_long = |node: NodeId| {
            let patience = self.kept.options().owner_patience;
            self.liveness.away_for(node, self.env.now()) > patience
        };
        let least = usize::from(bucket.properties.quorum.w());
        Recipients::All(recipients(&owners, owner, least, is_away_for_long))
    }

    async fn send(&self, topology: &Topology, node: NodeId, kept: &StandIn) -> Went {
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
                return Went::Refused;
            };
            let merged = async {
                self.replica.may_be_counted_on(target.partition).await?;
                let merged = self.replica.merge(&target, &object, Arrival::Repair);
                merged.await
            };
            return match merged.await {
                Ok(()) => Went::Home,
                Err(_) => Went::Refused,
            };
        }
        let member = topology.member(node);
        let Some(member) = member.filter(|_| self.liveness.is_up(node, self.env.now())) else {
            return Went::Away;
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
            answer: AnswerWhen::Delivered,
        };
        let request = Request::Repair(message, kept.encoded.clone());
        match self.env.transport.call(peer, request, PATIENCE).await {
            Ok(Response::Repair(_)) => Went::Home,
            // One that has seen a later change of the owners than this node refuses, and this node learns of it by gossip.
            Ok(_) => Went::Refused,
            Err(_) => Went::Away,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_owners_refuse_does_not_hold_up_the_rest() {
        let mut in_vain = 0;
        let refused = [Went::Refused; AT_ONCE];
        for _ in 1..MOST_IN_VAIN {
            assert!(goes_on(&refused, &mut in_vain));
        }
        assert!(!goes_on(&refused, &mut in_vain), "others have their turn");
        in_vain = 1;
        assert!(goes_on(&[Went::Refused, Went::Home], &mut in_vain));
        assert_eq!(in_vain, 0);
        assert!(!goes_on(&[Went::Away; AT_ONCE], &mut in_vain), "it is away");
    }

    #[test]
    fn a_page_of_nothing_is_not_the_end_and_not_in_vain() {
        let mut in_vain = MOST_IN_VAIN - 1;
        assert!(goes_on(&[], &mut in_vain));
        assert_eq!(in_vain, MOST_IN_VAIN - 1);
    }

    #[test]
    fn who_is_away_for_long_is_not_waited_for_where_enough_others_are_there() {
        let [a, b, c, old] = [1, 2, 3, 4].map(NodeId);
        let owners = ReplicaSet::stable([a, b, c]);
        let to = |kept_for, least, away: &[NodeId]| {
            recipients(&owners, kept_for, least, |node| away.contains(&node))
        };
        assert_eq!(to(a, 2, &[]), [a]);
        assert_eq!(to(a, 2, &[b]), [a]);
        assert_eq!(to(a, 2, &[a]), [b, c]);
        assert_eq!(to(a, 2, &[a, b]), [a], "too few others");
        // An owner of before.
        assert_eq!(to(old, 2, &[old]), [a, b, c]);
        assert_eq!(to(old, 2, &[b]), [a, c]);
        assert_eq!(to(old, 3, &[b]), [a, b, c]);
    }
}
