//! The driver of a read.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use kv_net::ErrorCode;
use kv_net::message::{
    DataHead, GetReplyV1, GetV1, ReplicaReadReplyV1, ReplicaReadV1, Request, Response, TopologyV1,
};
use kv_ring::Topology;
use kv_types::{Epoch, NodeId, Object};

use super::get_core::{GetAnswer, GetCore, GetReply, GetStep, Holding, Want};
use super::plan::{Plan, reachable};
use super::{Coordinator, LATE_AFTER, describe, join};
use crate::env::Deadline;
use crate::refusal::Refusal;

const DOING: &str = "answer the read";

/// Answers under way.
type Answers = FuturesUnordered<BoxFuture<'static, (NodeId, GetAnswer)>>;

impl Coordinator {
    /// Reads a key: the reply holds what each of r replicas knows.
    ///
    /// # Errors
    /// [`Refusal`]; a read changes nothing.
    pub async fn get(
        self: &Arc<Self>,
        request: GetV1,
        deadline: Deadline,
    ) -> Result<(GetReplyV1, Bytes), Refusal> {
        let topology = self.topologies.current();
        let plan = Plan::for_key(topology, &request.head, request.bucket, request.key.clone())?;
        let needed = plan.read_quorum(&request.options)?.r();
        reachable(
            &plan.replicas,
            needed,
            &self.liveness,
            self.env.now(),
            DOING,
        )?;

        let GetReply {
            object,
            answered,
            repair,
        } = self.collect(&plan, &request.head, needed, deadline).await?;
        if !repair.is_empty() {
            self.repair(&plan, &request.head, &object, repair, deadline);
        }
        let context = self.seal(request.bucket, &request.key, &object);
        let mut values = Vec::new();
        let siblings = describe(&object, request.options.headers_only, &mut values);
        Ok((
            GetReplyV1 {
                siblings,
                context,
                answered,
                needed,
            },
            join(values),
        ))
    }

    pub(super) async fn collect(
        self: &Arc<Self>,
        plan: &Plan,
        head: &DataHead,
        needed: u8,
        deadline: Deadline,
    ) -> Result<GetReply, Refusal> {
        let candidates = self.candidates(&plan.replicas);
        let mut core = GetCore::new(
            plan.replicas.clone(),
            needed,
            plan.partition_epoch,
            candidates,
        );
        let mut answers = Answers::new();
        let ask = |answers: &Answers, asks: Vec<(NodeId, Want)>| {
            for (node, want) in asks {
                let answer = Arc::clone(self).ask(plan.clone(), head.clone(), node, want, deadline);
                answers.push(Box::pin(async move { (node, answer.await) }));
            }
        };
        ask(&answers, core.start());

        let collecting = async {
            let mut late = Some(self.env.sleep(LATE_AFTER));
            loop {
                let next = match late.take() {
                    None => answers.next().await,
                    Some(timer) => match select(answers.next(), timer).await {
                        Either::Left((next, timer)) => {
                            late = Some(timer);
                            next
                        }
                        Either::Right(_) => {
                            ask(&answers, core.on_late());
                            continue;
                        }
                    },
                };
                let Some((from, answer)) = next else {
                    return Err(Refusal::not_enough(needed, core.count(), DOING));
                };
                match core.on_answer(from, answer) {
                    GetStep::Ask(asks) => ask(&answers, asks),
                    GetStep::Reply(reply) => return Ok(reply),
                    GetStep::Fail => return Err(Refusal::not_enough(needed, core.count(), DOING)),
                    GetStep::Restart(epoch) => return Err(Refusal::stale(epoch)),
                }
            }
        };
        match self.env.timeout(deadline.left(&self.env), collecting).await {
            Ok(collected) => collected,
            Err(_) => Err(Refusal::timeout(needed, core.count(), DOING)),
        }
    }

    async fn ask(
        self: Arc<Self>,
        plan: Plan,
        head: DataHead,
        node: NodeId,
        want: Want,
        deadline: Deadline,
    ) -> GetAnswer {
        if node == self.me {
            return self.ask_self(&plan).await;
        }
        let head = DataHead {
            epoch: plan.target.epoch,
            ..head
        };
        let digest_only = want == Want::Digest;
        let message = ReplicaReadV1 {
            head,
            bucket: plan.target.bucket,
            key: plan.target.key,
            digest_only,
        };
        match self
            .call(
                &plan.topology,
                node,
                Request::ReplicaRead(message),
                deadline,
            )
            .await
        {
            Ok(Response::ReplicaRead(reply, encoded)) => self.understand(&reply, encoded, want),
            Ok(_) => GetAnswer::Failed,
            Err(refusal) if refusal.code == ErrorCode::StaleEpoch => {
                let learnt = self.learn_topology(&plan.topology, node, deadline).await;
                learnt.map_or(GetAnswer::Failed, GetAnswer::Stale)
            }
            Err(refusal) => {
                tracing::debug!(peer = %node, %refusal, "a replica did not answer a read");
                GetAnswer::Failed
            }
        }
    }

    async fn ask_self(&self, plan: &Plan) -> GetAnswer {
        let holding = match self.replica.read(&plan.target).await {
            Ok(None) => Holding::Nothing,
            Ok(Some(held)) => match Object::decode(&held.encoded) {
                Ok(object) => Holding::Object {
                    digest: held.digest,
                    object: Box::new(object),
                },
                Err(damage) => {
                    tracing::error!(%damage, key = %plan.target.key, "a stored object is damaged");
                    return GetAnswer::Failed;
                }
            },
            Err(refusal) => {
                tracing::error!(%refusal, "this node's replica could not be read");
                return GetAnswer::Failed;
            }
        };
        GetAnswer::Held(plan.partition_epoch, holding)
    }

    fn understand(&self, reply: &ReplicaReadReplyV1, encoded: Bytes, want: Want) -> GetAnswer {
        let holding = match (reply.digest, want) {
            (None, _) => Holding::Nothing,
            (Some(digest), Want::Digest) => Holding::Digest(digest),
            (Some(digest), Want::Object) => match Object::decode(&encoded) {
                Ok(object) if self.replica.digest(&encoded) == Ok(digest) => Holding::Object {
                    digest,
                    object: Box::new(object),
                },
                _ => return GetAnswer::Failed,
            },
        };
        GetAnswer::Held(reply.partition_epoch, holding)
    }

    /// Fetches and adopts a newer topology from a peer. Returns this node's epoch afterwards if it
    /// is newer than the request's.
    pub(crate) async fn learn_topology(
        &self,
        topology: &Topology,
        from: NodeId,
        deadline: Deadline,
    ) -> Option<Epoch> {
        let known = self.topologies.current().epoch();
        let request = Request::Topology(TopologyV1 { known });
        if let Ok(Response::Topology(_, entry)) = self.call(topology, from, request, deadline).await
            && !entry.is_empty()
            && let Err(error) = self.topologies.adopt(entry)
        {
            tracing::warn!(%error, peer = %from, "a newer topology was not taken over");
        }
        Some(self.topologies.current().epoch()).filter(|epoch| *epoch > topology.epoch())
    }
}
