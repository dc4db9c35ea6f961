//! The driver of a write.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use kv_net::ErrorCode;
use kv_net::message::{DataHead, PutReplyV1, PutV1, ReplicaWriteV1, Request, Response, WriteKind};
use kv_types::{BlindPut, Clock, NodeId, Object, Payload, Write, planted};

use super::plan::{Plan, reachable};
use super::put_core::{PutAnswer, PutCore, PutStep};
use super::{Coordinator, unexpected};
use crate::env::Deadline;
use crate::refusal::Refusal;
use crate::replica::{Appended, NewWrite};

const DOING: &str = "hold the write";
/// The longest that one replica is waited for, also after the client has its reply.
const MOST_SENDING: Duration = Duration::from_secs(5);

impl Coordinator {
    /// Writes a key: on return it is durable on as many replicas as the request asks for.
    ///
    /// # Errors
    /// [`Refusal`]; its outcome says whether the write may have been applied.
    pub async fn put(
        self: &Arc<Self>,
        request: PutV1,
        value: Bytes,
        deadline: Deadline,
    ) -> Result<PutReplyV1, Refusal> {
        let payload = payload(request.kind, value)?;
        let topology = self.topologies.current();
        let plan = Plan::for_key(topology, &request.head, request.bucket, request.key.clone())?;
        let needed = plan.write_quorum(&request.options)?.w();
        if !plan.has_replica(self.me) {
            return self.forward(&plan, request, payload, deadline).await;
        }
        let read = self.what_was_read(&plan, &request)?;
        reachable(
            &plan.replicas,
            needed,
            &self.liveness,
            self.env.now(),
            DOING,
        )?;
        if read.is_none() {
            self.catch_up_with_readers(&plan, &request.head, needed, deadline)
                .await?;
        }
        let write = Write {
            write_id: request.head.write_id,
            payload,
        };
        let appended = self
            .replica
            .coordinate(&plan.target, NewWrite { write, read }, deadline)
            .await?;
        let context = self
            .contexts
            .seal(request.bucket, &request.key, &appended.known);
        let acked = self
            .replicate(plan, request.head, appended, needed, deadline)
            .await?;
        Ok(PutReplyV1 {
            context,
            acked,
            needed,
        })
    }

    /// Passes a write on to a replica of its key, once.
    async fn forward(
        &self,
        plan: &Plan,
        request: PutV1,
        payload: Payload,
        deadline: Deadline,
    ) -> Result<PutReplyV1, Refusal> {
        if request.forwarded {
            let message = format!(
                "this node holds no replica of {} at epoch {}",
                request.key, plan.target.epoch
            );
            return Err(Refusal::new(ErrorCode::NotReplica, message));
        }
        let now = self.env.now();
        let mut replicas = plan.replicas.nodes();
        let first_up = replicas.find(|node| self.liveness.is_up(*node, now));
        let mut replicas = plan.replicas.nodes();
        let to = first_up
            .or_else(|| replicas.find(|node| self.liveness.may_answer(*node, now)))
            .ok_or_else(|| Refusal::not_enough(1, 0, DOING))?;
        let value = payload.value().cloned().unwrap_or_default();
        let request = Request::Put(
            PutV1 {
                forwarded: true,
                ..request
            },
            value,
        );
        match self.call(&plan.topology, to, request, deadline).await {
            Ok(Response::Put(reply)) => Ok(reply),
            Ok(other) => Err(unexpected(&other)),
            Err(refusal) => {
                if refusal.code == ErrorCode::StaleEpoch {
                    // So that the refusal names the epoch that the client must learn.
                    self.learn_topology(&plan.topology, to, deadline).await;
                }
                Err(refusal)
            }
        }
    }

    /// What the writer had read; `None`: what this replica holds counts as read.
    fn what_was_read(&self, plan: &Plan, request: &PutV1) -> Result<Option<Clock>, Refusal> {
        match (&request.context, plan.properties.blind_put) {
            (Some(context), _) => {
                let latest = self.replica.minter().latest_plausible();
                let clock = self
                    .contexts
                    .open(request.bucket, &request.key, context, latest);
                Ok(Some(clock?))
            }
            (None, BlindPut::Overwrite) => Ok(None),
            (None, BlindPut::Sibling) => Ok(Some(Clock::new())),
        }
    }

    /// Before a write replaces what this replica holds, brings here what a quorum read would show, so
    /// that it replaces every quorum write that was answered before it began. A replica that was away
    /// would otherwise leave a sibling of what it missed.
    ///
    /// The objects are merged, not only their clocks: an earlier attempt of the same write may be
    /// among them, and must be recognised rather than superseded by its own repetition.
    async fn catch_up_with_readers(
        self: &Arc<Self>,
        plan: &Plan,
        head: &DataHead,
        needed: u8,
        deadline: Deadline,
    ) -> Result<(), Refusal> {
        let quorum = plan.properties.quorum;
        let meets_readers = u16::from(needed) + u16::from(quorum.r()) > u16::from(quorum.n());
        if !meets_readers || planted!("let a blind write miss what readers see") {
            return Ok(());
        }
        let read = self.collect(plan, head, quorum.r(), deadline).await?;
        if read.repair.contains(&self.me) || !read.answered.contains(&self.me) {
            self.replica.merge(&plan.target, &read.object).await?;
        }
        Ok(())
    }

    /// Brings an appended write to `needed` replicas, this one among them. The others are still
    /// told when that many have it.
    async fn replicate(
        self: &Arc<Self>,
        plan: Plan,
        head: DataHead,
        appended: Appended,
        needed: u8,
        deadline: Deadline,
    ) -> Result<Vec<NodeId>, Refusal> {
        // What goes on after the reply must end some time, however long the client would wait.
        let sending = deadline.at_most(&self.env, MOST_SENDING);
        let mut core = PutCore::new(plan.replicas.clone(), needed, plan.partition_epoch);
        let mut answers: FuturesUnordered<BoxFuture<'static, (NodeId, PutAnswer)>> =
            FuturesUnordered::new();
        // Suspected replicas are left out, unless the quorum needs them.
        let now = self.env.now();
        let enough_up = plan
            .replicas
            .is_met(|node| self.liveness.is_up(node, now), needed);
        let worth_sending = |node: &NodeId| {
            self.liveness.is_up(*node, now) || (!enough_up && self.liveness.may_answer(*node, now))
        };
        for node in plan
            .replicas
            .nodes()
            .filter(|node| *node != self.me && worth_sending(node))
        {
            let send = Arc::clone(self).send(
                plan.clone(),
                head.clone(),
                node,
                appended.encoded.clone(),
                sending,
            );
            answers.push(Box::pin(async move { (node, send.await) }));
        }
        let this = Arc::clone(self);
        let epoch = plan.partition_epoch;
        answers.push(Box::pin(async move {
            if planted!("acknowledge before the log is synced") {
                return (this.me, PutAnswer::Acked(epoch));
            }
            let durable = this.replica.durable(appended).await;
            (
                this.me,
                durable.map_or(PutAnswer::Failed, |()| PutAnswer::Acked(epoch)),
            )
        }));

        let counting = async {
            while let Some((from, answer)) = answers.next().await {
                match core.on_answer(from, answer) {
                    PutStep::Wait => {}
                    PutStep::Reply => return Ok(()),
                    PutStep::Fail => break,
                    PutStep::Restart(epoch) => return Err(Refusal::stale(epoch).unknown()),
                }
            }
            Err(Refusal::not_enough(needed, core.count(), DOING).unknown())
        };
        let counted = self.env.timeout(deadline.left(&self.env), counting).await;
        if !answers.is_empty() {
            self.env.spawn(answers.for_each(|_| std::future::ready(())));
        }
        if planted!("say \"not applied\" after sending") && !matches!(counted, Ok(Ok(()))) {
            return Err(Refusal::not_enough(needed, core.count(), DOING));
        }
        match counted {
            Ok(Ok(())) => Ok(core.acked()),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Err(Refusal::timeout(needed, core.count(), DOING).unknown()),
        }
    }

    async fn send(
        self: Arc<Self>,
        plan: Plan,
        head: DataHead,
        to: NodeId,
        object: Bytes,
        deadline: Deadline,
    ) -> PutAnswer {
        let head = DataHead {
            epoch: plan.target.epoch,
            ..head
        };
        let message = ReplicaWriteV1 {
            head,
            bucket: plan.target.bucket,
            key: plan.target.key,
        };
        match self
            .call(
                &plan.topology,
                to,
                Request::ReplicaWrite(message, object),
                deadline,
            )
            .await
        {
            Ok(Response::ReplicaWrite(reply)) => PutAnswer::Acked(reply.partition_epoch),
            Ok(_) => PutAnswer::Failed,
            Err(refusal) if refusal.code == ErrorCode::StaleEpoch => {
                self.stale(&plan.topology, to, deadline).await
            }
            Err(refusal) => {
                tracing::debug!(peer = %to, %refusal, "a replica did not take a write");
                PutAnswer::Failed
            }
        }
    }

    /// A replica knows a newer topology: learn it before the client is told to try again.
    async fn stale(
        &self,
        topology: &kv_ring::Topology,
        from: NodeId,
        deadline: Deadline,
    ) -> PutAnswer {
        match self.learn_topology(topology, from, deadline).await {
            Some(epoch) => PutAnswer::Stale(epoch),
            None => PutAnswer::Failed,
        }
    }

    /// Brings an object that a read has merged to replicas that hold less. Failures are left to the
    /// next read.
    pub(super) fn repair(
        self: &Arc<Self>,
        plan: &Plan,
        head: &DataHead,
        object: &Object,
        behind: Vec<NodeId>,
        deadline: Deadline,
    ) {
        let deadline = deadline.at_most(&self.env, MOST_SENDING);
        for node in behind {
            if planted!("repair nothing that a read finds") {
                continue;
            }
            self.metrics.read_repair();
            let (this, plan, head, object) =
                (Arc::clone(self), plan.clone(), head.clone(), object.clone());
            self.env.spawn(async move {
                if node == this.me {
                    drop(this.replica.merge(&plan.target, &object).await);
                } else {
                    this.send(plan, head, node, object.encode(), deadline).await;
                }
            });
        }
    }
}

fn payload(kind: WriteKind, value: Bytes) -> Result<Payload, Refusal> {
    match kind {
        WriteKind::Delete if value.is_empty() => Ok(Payload::Tombstone),
        WriteKind::Delete => Err(Refusal::new(
            ErrorCode::BadRequest,
            "a delete carries no value",
        )),
        WriteKind::Put if value.len() > Object::MAX_VALUE_BYTES => {
            let message = format!(
                "the value has {} bytes; the limit is {}; split it over several keys",
                value.len(),
                Object::MAX_VALUE_BYTES
            );
            Err(Refusal::new(ErrorCode::TooLarge, message))
        }
        WriteKind::Put => Ok(Payload::Value(value)),
    }
}
