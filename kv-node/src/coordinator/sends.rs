//! The copies of one write, on their way to owners and to those that stand in for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use kv_net::ErrorCode;
use kv_net::message::{
    AnswerWhen, DataHead, ReplicaWriteV1, Request, Response, StandInWriteV1, StepKind,
};
use kv_types::{Durability, NodeId, planted};

use super::places::Places;
use super::plan::Plan;
use super::put_core::{Need, PutAnswer};
use super::{Coordinator, unexpected};
use crate::env::Deadline;
use crate::replica::Appended;

/// What is sent.
#[derive(Debug, Clone)]
pub(super) struct Copies {
    pub(super) plan: Plan,
    pub(super) head: DataHead,
    pub(super) object: Bytes,
    pub(super) durability: Durability,
    pub(super) deadline: Deadline,
}

/// What a copy is sent as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SentAs {
    /// To an owner, for a write that waits for it.
    Write,
    /// To an owner, when nobody waits.
    Repair,
    /// To a node that stands in for this owner; it may count towards w.
    StandIn(NodeId),
    /// The same, for good measure: the write has its quorum without it.
    Spare(NodeId),
}

impl Copies {
    /// Sends one, and waits for the answer.
    pub(super) async fn send(
        self,
        coordinator: Arc<Coordinator>,
        to: NodeId,
        sent_as: SentAs,
    ) -> PutAnswer {
        let Self {
            plan,
            head,
            object,
            durability,
            deadline,
        } = self;
        let answer = match durability {
            Durability::Memory | Durability::One => AnswerWhen::Taken,
            Durability::Quorum | Durability::All => AnswerWhen::Synced,
        };
        let head = plan.head(head);
        let (bucket, key) = (plan.target.bucket, plan.target.key.clone());
        let stands_in_for = match sent_as {
            SentAs::Write | SentAs::Repair => None,
            SentAs::StandIn(owner) | SentAs::Spare(owner) => Some(owner),
        };
        let note = |what: StepKind| plan.note(coordinator.env.now(), to, stands_in_for, || what);
        note(match sent_as {
            SentAs::Repair => StepKind::Repaired,
            _ => StepKind::Sent,
        });
        let request = match sent_as {
            SentAs::Write | SentAs::Repair => {
                let message = ReplicaWriteV1 {
                    head,
                    bucket,
                    key,
                    answer,
                };
                match sent_as {
                    SentAs::Repair => Request::Repair(message, object),
                    _ => Request::ReplicaWrite(message, object),
                }
            }
            SentAs::StandIn(owner) | SentAs::Spare(owner) => {
                let message = StandInWriteV1 {
                    head,
                    bucket,
                    key,
                    owner,
                    obligation: matches!(sent_as, SentAs::StandIn(_)),
                    answer,
                };
                Request::StandInWrite(message, object)
            }
        };
        match coordinator
            .call(&plan.topology, to, request, deadline)
            .await
        {
            Ok(
                Response::ReplicaWrite(reply)
                | Response::Repair(reply)
                | Response::StandInWrite(reply),
            ) => {
                note(match answer {
                    AnswerWhen::Taken => StepKind::Taken,
                    AnswerWhen::Synced | AnswerWhen::Delivered => StepKind::Acknowledged,
                });
                PutAnswer::Acked(reply.partition_epoch)
            }
            Ok(other) => {
                note(StepKind::Failed {
                    why: unexpected(&other).message,
                });
                PutAnswer::Failed
            }
            Err(refusal) if refusal.code == ErrorCode::StaleEpoch => {
                note(StepKind::Failed {
                    why: refusal.message,
                });
                // It knows a newer topology: learn it before the client is told to try again.
                let learnt = coordinator.learn_topology(&plan.topology, to, deadline);
                learnt.await.map_or(PutAnswer::Failed, PutAnswer::Stale)
            }
            Err(refusal) => {
                tracing::debug!(peer = %to, %refusal, "a replica did not take a write");
                note(StepKind::Failed {
                    why: refusal.message,
                });
                PutAnswer::Failed
            }
        }
    }
}

/// The owner for which an answer counts, who gave it, and the answer.
type Answer = (NodeId, NodeId, PutAnswer);

/// The copies of one write that are on their way.
pub(super) struct Sends {
    coordinator: Arc<Coordinator>,
    copies: Copies,
    places: Places,
    answers: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// How many are on their way for each owner.
    under_way: BTreeMap<NodeId, u8>,
}

impl Sends {
    pub(super) fn new(coordinator: Arc<Coordinator>, copies: Copies, places: Places) -> Self {
        Self {
            coordinator,
            copies,
            places,
            answers: FuturesUnordered::new(),
            under_way: BTreeMap::new(),
        }
    }

    /// Sends to all owners, or to those that stand in for them, and waits for this node's own log.
    pub(super) fn begin(&mut self, appended: Appended, need: &Need) {
        let this = Arc::clone(&self.coordinator);
        let me = this.me;
        let mine = self.places.owner_behind(me).unwrap_or(me);
        let (now, places) = (this.env.now(), self.places.clone());
        let is_up = |owner| this.liveness.is_up(places.node_for(owner), now);
        // Those who are suspected are left out, unless the quorum needs them.
        let replicas = &self.copies.plan.replicas;
        let are_in_enough_zones = || {
            let nodes_up = replicas.nodes().filter(|owner| is_up(*owner));
            let nodes_up: Vec<_> = nodes_up
                .map(|owner| (owner, places.node_for(owner)))
                .collect();
            need.zones_held(replicas, nodes_up.into_iter()) >= usize::from(need.zones)
        };
        let enough_up =
            replicas.is_met(is_up, need.count) && (need.zones == 0 || are_in_enough_zones());
        let is_worth = |owner: &NodeId| {
            let node = places.node_for(*owner);
            is_up(*owner) || (!enough_up && this.liveness.may_answer(node, now))
        };
        let owners = replicas.nodes();
        let owners = owners.filter(|owner| *owner != mine);
        let (asked, left_out): (Vec<NodeId>, Vec<NodeId>) = owners.partition(is_worth);
        for owner in asked {
            self.send_to(owner, places.node_for(owner));
        }
        if !places.are_sloppy() {
            self.keep_for(&left_out);
        }
        *self.under_way.entry(mine).or_default() += 1;
        let plan = self.copies.plan.clone();
        let epoch = plan.partition_epoch;
        let durability = self.copies.durability;
        self.answers.push(Box::pin(async move {
            if planted!("acknowledge before the log is synced") {
                return (mine, me, PutAnswer::Acked(epoch));
            }
            let durable = match durability {
                Durability::Memory => Ok(()),
                _ => this.replica.durable(appended).await,
            };
            let stands_in_for = (mine != me).then_some(mine);
            plan.note(this.env.now(), me, stands_in_for, || match &durable {
                Ok(()) if durability == Durability::Memory => StepKind::Taken,
                Ok(()) => StepKind::Acknowledged,
                Err(refusal) => StepKind::Failed {
                    why: refusal.message.clone(),
                },
            });
            let answer = durable.map_or(PutAnswer::Failed, |()| PutAnswer::Acked(epoch));
            (mine, me, answer)
        }));
    }

    /// The next answer, the owner for which it counts, and whose it is; `None` when no more can come.
    pub(super) async fn next(&mut self) -> Option<(NodeId, NodeId, PutAnswer)> {
        loop {
            let (owner, from, answer) = self.answers.next().await?;
            let under_way = self.under_way.entry(owner).or_default();
            *under_way -= 1;
            let is_last = *under_way == 0;
            match answer {
                PutAnswer::Acked(_) | PutAnswer::Stale(_) => return Some((owner, from, answer)),
                PutAnswer::Failed if self.replace(owner) || !is_last => {}
                PutAnswer::Failed => return Some((owner, from, answer)),
            }
        }
    }

    /// Has others stand in for all owners that have not answered.
    pub(super) fn replace_late(&mut self, has_answered: impl Fn(NodeId) -> bool) {
        let owners: Vec<NodeId> = self.copies.plan.replicas.nodes().collect();
        for owner in owners.into_iter().filter(|owner| !has_answered(*owner)) {
            self.replace(owner);
        }
    }

    /// Lets the rest arrive without anyone waiting for it.
    pub(super) fn go_on(self) {
        if !self.answers.is_empty() {
            let rest = self.answers.for_each(|_| std::future::ready(()));
            self.coordinator.env.spawn(rest);
        }
    }

    /// Whether another node could be found to stand in for an owner. Nobody does for the one in whose place this node has the
    /// write: it would be free then to be counted for another one.
    fn replace(&mut self, owner: NodeId) -> bool {
        let (coordinator, plan) = (&self.coordinator, &self.copies.plan);
        let me = coordinator.me;
        if owner == self.places.owner_behind(me).unwrap_or(me) {
            return false;
        }
        let next = self.places.replace(owner, || {
            let mut others = coordinator.fallbacks(plan);
            others.retain(|node| *node != me);
            others
        });
        if let Some(node) = next {
            self.send_to(owner, node);
        }
        next.is_some()
    }

    fn send_to(&mut self, owner: NodeId, node: NodeId) {
        let sent_as = if owner == node {
            SentAs::Write
        } else {
            SentAs::StandIn(owner)
        };
        let send = self
            .copies
            .clone()
            .send(Arc::clone(&self.coordinator), node, sent_as);
        *self.under_way.entry(owner).or_default() += 1;
        self.answers
            .push(Box::pin(async move { (owner, node, send.await) }));
    }

    /// Has other nodes keep copies for owners that a strict write leaves out, so that they have it soon after their
    /// return. They do not count, and nobody waits for them.
    fn keep_for(&self, owners: &[NodeId]) {
        if owners.is_empty() {
            return;
        }
        let fallbacks = self.coordinator.fallbacks(&self.copies.plan);
        for (owner, node) in owners.iter().zip(fallbacks) {
            let coordinator = Arc::clone(&self.coordinator);
            let send = self
                .copies
                .clone()
                .send(coordinator, node, SentAs::Spare(*owner));
            self.coordinator.env.spawn(async move {
                send.await;
            });
        }
    }
}
