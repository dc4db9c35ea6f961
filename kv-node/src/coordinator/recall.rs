//! What the replicas of a key know of it, all of them if they are there.

use std::sync::Arc;

use kv_net::message::FateV1;
use kv_types::Object;

use super::Coordinator;
use super::get::holders_that_last;
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
        deadline: Deadline,
    ) -> Result<Recalled, Refusal> {
        let head = &request.head;
        let topology = self.topologies.current();
        let plan = Plan::for_key(topology, head, request.bucket, request.key.clone())?;
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
        })
    }
}
