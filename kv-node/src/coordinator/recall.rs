//! What the replicas of a key know of it, all of them if they are there.

use std::sync::Arc;

use futures::future::join_all;
use kv_net::message::{DataHead, FateV1};
use kv_types::Object;

use super::Coordinator;
use super::get::{Place, holders_that_last};
use super::get_core::{GetAnswer, Holding, Want};
use super::places::Places;
use super::plan::{Plan, reachable};
use crate::env::Deadline;
use crate::refusal::Refusal;

const DOING: &str = "say what became of the write";

/// What replicas know of a key.
#[derive(Debug)]
pub(crate) struct Recalled {
    /// Where the key is.
    pub(crate) plan: Plan,
    /// What they know together.
    pub(crate) object: Object,
    /// No owner is missing.
    pub(crate) heard_all: bool,
    /// Somebody keeps something of the key for an owner, holds it as one that was an owner, or did not say, before the owners
    /// were asked; if it was looked for.
    pub(crate) may_be_kept: bool,
}

impl Coordinator {
    /// Asks all owners of a key, or, where some are away, as many as a quorum read does. If the write that is asked about is
    /// among what they know, so many have it on their disks on return that every later quorum read meets one of them.
    ///
    /// # Errors
    /// [`Refusal`] when too few answer, or the write cannot be brought to enough of them.
    pub(crate) async fn recall(
        self: &Arc<Self>,
        request: &FateV1,
        looks_for_kept: bool,
        deadline: Deadline,
    ) -> Result<Recalled, Refusal> {
        let head = &request.head;
        let topology = self.topologies.current();
        let plan = Plan::for_client(topology, head, request.bucket, request.key.clone())?;
        let quorum = plan.properties.quorum;
        let needed = holders_that_last(quorum);
        let (all, now) = (quorum.n(), self.env.now());
        let can_be_met = |count| {
            reachable(
                &plan.replicas,
                &Places::strict(),
                count,
                &self.liveness,
                now,
                DOING,
            )
        };
        can_be_met(needed)?;
        if needed > 1 {
            self.replica.may_count().await?;
        }
        // Who lost a slot may hold what no owner has, until it has drained it.
        let is_settled = plan.topology.is_settled(plan.target.partition);
        let may_be_kept =
            looks_for_kept && (!is_settled || self.may_be_kept(&plan, head, deadline).await);
        let mut heard = None;
        if can_be_met(all).is_ok() {
            // One that is silent must leave time for asking fewer.
            let half = deadline.at_most(&self.env, deadline.left(&self.env) / 2);
            let asked = self.collect(&plan, Places::strict(), head, all, half);
            heard = asked.await.ok();
        }
        let heard_all = heard.is_some();
        let (reply, _) = match heard {
            Some(heard) => heard,
            None => {
                self.collect(&plan, Places::strict(), head, needed, deadline)
                    .await?
            }
        };
        if !reply.repair.is_empty() && reply.object.knows(request.write_id) {
            self.make_it_last(&plan, head, &reply.object, &reply, needed, deadline)
                .await?;
        }
        Ok(Recalled {
            plan,
            object: reply.object,
            heard_all,
            may_be_kept,
        })
    }

    /// Whether any node keeps something of a key for one of its owners, as far as is known.
    async fn may_be_kept(
        self: &Arc<Self>,
        plan: &Plan,
        head: &DataHead,
        deadline: Deadline,
    ) -> bool {
        let members = plan.topology.members().iter().map(|member| member.node);
        let others = members.filter(|node| !plan.has_replica(*node));
        let mut asks = Vec::new();
        for node in others {
            for owner in plan.replicas.nodes() {
                let place = Place { owner, node };
                let (this, plan, head) = (Arc::clone(self), plan.clone(), head.clone());
                let third = deadline.at_most(&self.env, deadline.left(&self.env) / 3);
                asks.push(this.ask(plan, head, place, Want::Digest, third));
            }
        }
        let keeps_nothing = |answer: GetAnswer| {
            matches!(
                answer,
                GetAnswer::Held {
                    holding: Holding::Nothing,
                    ..
                }
            )
        };
        !join_all(asks).await.into_iter().all(keeps_nothing)
    }
}
