//! The driver of a write.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use kv_net::ErrorCode;
use kv_net::message::{
    AnswerWhen, DataHead, ExplainedPutV1, PutReplyV1, PutV1, Request, Response, StepKind, WriteKind,
};
use kv_ring::ReplicaSet;
use kv_types::{
    BlindPut, BucketMode, Clock, Durability, Hlc, Level, NodeId, Object, Payload, Write, planted,
};

use super::journal::Notes;
use super::places::Places;
use super::plan::{Plan, reachable};
use super::put_core::{Need, PutCore, PutStep};
use super::sends::{Copies, Sends, SentAs};
use super::{Coordinator, unexpected};
use crate::env::Deadline;
use crate::refusal::Refusal;
use crate::replica::{Appended, Arrival, NewWrite};

const DOING: &str = "hold the write";
/// The longest that one replica is waited for, also after the client has its reply.
const MOST_SENDING: Duration = Duration::from_secs(5);
/// How long owners may take before others stand in for them.
pub(super) const STAND_IN_AFTER: Duration = Duration::from_millis(100);

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
        self.write(request, value, deadline, None).await
    }

    /// As [`Self::put`], and notes why it is answered so.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn explain_put(
        self: &Arc<Self>,
        request: PutV1,
        value: Bytes,
        deadline: Deadline,
        notes: &Notes,
    ) -> Result<PutReplyV1, Refusal> {
        self.write(request, value, deadline, Some(notes)).await
    }

    async fn write(
        self: &Arc<Self>,
        request: PutV1,
        value: Bytes,
        deadline: Deadline,
        notes: Option<&Notes>,
    ) -> Result<PutReplyV1, Refusal> {
        let payload = payload(request.kind, value)?;
        let first_sent = first_sent(&request, self.env.host.wall_ms());
        let topology = self.topologies.current();
        let mut plan =
            Plan::for_client(topology, &request.head, request.bucket, request.key.clone())?;
        let level = plan.level(request.options.level, request.options.w)?;
        let durability = plan.durability(&request.options);
        let mut need = plan.need(&request.options)?;
        let needed = need.count;
        plan.distinct_zones = need.zones;
        if let Some(notes) = notes {
            self.keep_journal(notes, &mut plan, level, needed);
        }
        let may_coordinate = self.replica.may_coordinate(plan.target.partition);
        let may_hold = plan.has_replica(self.me) && is_kept_by(&plan.replicas, durability, self.me);
        let places = if may_hold && may_coordinate.is_ok() {
            self.places(&plan, level)
        } else if level == Level::Eventual
            && may_coordinate.is_ok()
            && self.must_stand_in(&plan, request.forwarded)
        {
            self.places_around_me(&plan)
        } else {
            let forwarded = self.forward(&plan, (level, durability), request, payload, deadline);
            return forwarded.await;
        };
        let read = self.what_was_read(&plan, &request)?;
        reachable(
            &plan.replicas,
            &places,
            needed,
            &self.liveness,
            self.env.now(),
            DOING,
        )?;
        self.zones_reachable(&plan, &places, &need)?;
        if needed > 1 {
            // It may have seen this very write before.
            self.replica.may_count().await?;
        }
        if durability == Durability::One {
            need.from = Some(self.me);
        }
        if read.is_none() && level != Level::Eventual {
            self.catch_up_with_readers(&plan, &request.head, needed, deadline)
                .await?;
        }
        let write = Write {
            write_id: request.head.write_id,
            expires_ms: expiry(&request, &plan)?,
            payload,
        };
        let answer = match durability {
            Durability::Memory => AnswerWhen::Taken,
            _ => AnswerWhen::Synced,
        };
        let mine = plan.target.standing_in_for(places.owner_behind(self.me));
        let appended = self
            .replica
            .coordinate(
                &mine,
                NewWrite {
                    write,
                    read,
                    first_sent,
                    answer,
                    is_explained: plan.journal.is_some(),
                },
                deadline,
            )
            .await?;
        let context = self
            .contexts
            .seal(request.bucket, &request.key, &appended.known);
        plan.note(self.env.now(), self.me, mine.stands_in_for, || {
            let dots = appended.object.dots_of(request.head.write_id);
            StepKind::Coordinated {
                dot: dots.max_by_key(|dot| dot.hlc),
            }
        });
        if !appended.replaced.is_empty() {
            plan.note(self.env.now(), self.me, mine.stands_in_for, || {
                let dots = appended.replaced.clone();
                StepKind::Replaced { dots }
            });
        }
        let epoch = plan.target.epoch;
        let acked = self
            .replicate(
                plan,
                places,
                request.head,
                appended,
                (need, durability),
                deadline,
            )
            .await?;
        Ok(PutReplyV1 {
            context,
            acked,
            needed,
            epoch,
        })
    }

    /// Refuses at once where those that may answer are in too few zones.
    fn zones_reachable(&self, plan: &Plan, places: &Places, need: &Need) -> Result<(), Refusal> {
        if need.zones < 2 {
            return Ok(());
        }
        let now = self.env.now();
        let fallbacks = match places.are_sloppy() {
            true => self.fallbacks(plan),
            false => Vec::new(),
        };
        let mut holders = Vec::new();
        for owner in plan.replicas.nodes() {
            let nodes = fallbacks.iter().copied().chain([places.node_for(owner)]);
            holders.extend(nodes.map(|node| (owner, node)));
        }
        holders.retain(|(_, node)| *node == self.me || self.liveness.may_answer(*node, now));
        let got = need.zones_held(&plan.replicas, holders.into_iter());
        if got >= usize::from(need.zones) {
            return Ok(());
        }
        Err(too_few_zones(need, got))
    }

    /// Whether this node, no owner of the key, has to coordinate a sloppy write: it may stand in, and no owner can be
    /// reached, as far as it or whoever sent the write here knows.
    fn must_stand_in(&self, plan: &Plan, was_forwarded: bool) -> bool {
        let now = self.env.now();
        let owner_is_up = || {
            plan.replicas
                .nodes()
                .any(|node| self.liveness.is_up(node, now))
        };
        (was_forwarded || !owner_is_up()) && plan.fallbacks().contains(&self.me)
    }

    /// Passes a write on to a replica of its key, once.
    async fn forward(
        &self,
        plan: &Plan,
        (level, durability): (Level, Durability),
        request: PutV1,
        payload: Payload,
        deadline: Deadline,
    ) -> Result<PutReplyV1, Refusal> {
        if request.forwarded {
            self.replica.may_coordinate(plan.target.partition)?;
            let message = format!(
                "this node holds no replica of {} at epoch {}",
                request.key, plan.target.epoch
            );
            return Err(Refusal::new(ErrorCode::NotReplica, message));
        }
        let now = self.env.now();
        let may_hold = |node: &NodeId| is_kept_by(&plan.replicas, durability, *node);
        let others = || plan.replicas.nodes().filter(|node| *node != self.me);
        let owners = || others().filter(may_hold);
        let mut choices: Vec<NodeId> = owners()
            .filter(|node| self.liveness.is_up(*node, now))
            .collect();
        choices.sort_by_key(|node| self.liveness.is_damped(*node, now));
        if choices.is_empty() && level == Level::Eventual {
            let others = self.fallbacks(plan).into_iter();
            choices.extend(others.filter(|node| *node != self.me).take(1));
        }
        if choices.is_empty() {
            choices.extend(owners().find(|node| self.liveness.may_answer(*node, now)));
        }
        let value = payload.value().cloned().unwrap_or_default();
        // It is this node's topology now that says who owns the key: whoever knows of an older change of that learns it first.
        let request = PutV1 {
            head: plan.head(request.head),
            forwarded: true,
            ..request
        };
        let request = match &plan.journal {
            None => Request::Put(request, value),
            Some(_) => Request::ExplainPut(request, value),
        };
        let mut refused = Refusal::not_enough(1, 0, DOING);
        for to in choices {
            let sent = self.env.now();
            let called = self.call(&plan.topology, to, request.clone(), deadline);
            refused = match called.await {
                Ok(Response::Put(reply)) => return Ok(reply),
                Ok(Response::ExplainPut(ExplainedPutV1 {
                    answer,
                    explanation,
                })) => {
                    if let Some(journal) = &plan.journal {
                        journal.passed_on(sent, self.me, explanation);
                    }
                    match answer {
                        Ok(reply) => return Ok(reply),
                        Err(error) => error.into(),
                    }
                }
                Ok(other) => return Err(unexpected(&other)),
                Err(refusal) => {
                    plan.note(self.env.now(), to, None, || StepKind::Failed {
                        why: refusal.message.clone(),
                    });
                    refusal
                }
            };
            match refused.code {
                // It has done nothing; another owner can.
                ErrorCode::Incomplete | ErrorCode::ClockSkew => {}
                ErrorCode::NotReplica => {
                    // It knows a newer topology, in which others may be owners still.
                    self.learn_topology(&plan.topology, to, deadline).await;
                }
                ErrorCode::StaleEpoch => {
                    // So that the refusal names the epoch that the client must learn.
                    self.learn_topology(&plan.topology, to, deadline).await;
                    break;
                }
                _ => break,
            }
        }
        Err(refused)
    }

    /// What the writer had read; `None`: what this replica holds counts as read.
    fn what_was_read(&self, plan: &Plan, request: &PutV1) -> Result<Option<Clock>, Refusal> {
        if plan.properties.mode == BucketMode::Lww {
            return Ok(None);
        }
        match (&request.context, plan.properties.blind_put) {
            (Some(context), _) => {
                let latest = self.replica.minter().latest_plausible();
                let clock = self
                    .contexts
                    .open(request.bucket, &request.key, context, latest);
                Ok(Some(clock?))
            }
            (None, BlindPut::Overwrite) => Ok(None),
            (None, BlindPut::Sibling) if planted!("let a blind write replace what it must not") => {
                Ok(None)
            }
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
        let (read, _) = self
            .collect(plan, Places::strict(), head, quorum.r(), deadline)
            .await?;
        if read.repair.contains(&self.me) || !read.answered.contains(&self.me) {
            let merged = self
                .replica
                .merge(&plan.target, &read.object, Arrival::Repair);
            merged.await?;
        }
        Ok(())
    }

    /// Brings an appended write to as many replicas as it needs, or to those that stand in for them, this node among them.
    /// The others are still told when those have it.
    async fn replicate(
        self: &Arc<Self>,
        plan: Plan,
        places: Places,
        head: DataHead,
        appended: Appended,
        (need, durability): (Need, Durability),
        deadline: Deadline,
    ) -> Result<Vec<NodeId>, Refusal> {
        if planted!("acknowledge a repeated write without its quorum") && appended.was_there() {
            return Ok(vec![self.me]);
        }
        let needed = need.count;
        let mut core = PutCore::new(plan.replicas.clone(), need, plan.partition_epoch);
        // What goes on after the reply must end some time, however long the client would wait.
        let copies = Copies {
            plan,
            head,
            object: appended.encoded.clone(),
            durability,
            deadline: deadline.at_most(&self.env, MOST_SENDING),
        };
        let mut sends = Sends::new(Arc::clone(self), copies, places);
        sends.begin(appended, core.need());
        let counting = async {
            let mut late = Some(self.env.sleep(STAND_IN_AFTER));
            loop {
                let next = match late.take() {
                    None => sends.next().await,
                    Some(timer) => {
                        let first = select(Box::pin(sends.next()), timer).await;
                        if let Either::Left((next, timer)) = first {
                            late = Some(timer);
                            next
                        } else {
                            drop(first);
                            sends.replace_late(|owner| core.has_answered(owner));
                            continue;
                        }
                    }
                };
                let Some((owner, from, answer)) = next else {
                    break;
                };
                match core.on_answer(owner, from, answer) {
                    PutStep::Wait => {}
                    PutStep::Reply => return Ok(()),
                    PutStep::Fail => break,
                    PutStep::Restart(epoch) => return Err(Refusal::stale(epoch).unknown()),
                }
            }
            Err(too_few(&core).unknown())
        };
        let counted = self.env.timeout(deadline.left(&self.env), counting).await;
        sends.go_on();
        if planted!("say \"not applied\" after sending") && !matches!(counted, Ok(Ok(()))) {
            return Err(Refusal::not_enough(needed, core.count(), DOING));
        }
        match counted {
            Ok(Ok(())) => Ok(core.holders()),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) if core.count() < needed => {
                Err(Refusal::timeout(needed, core.count(), DOING).unknown())
            }
            Err(_) => Err(Refusal {
                code: ErrorCode::Timeout,
                ..too_few(&core).unknown()
            }),
        }
    }

    /// Brings an object that a read has merged to replicas that hold less, if it is its turn. Failures, and what has
    /// no turn, are left to the next read.
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
            let Some(turn) = self.repairs.begin(node, plan.target.stored()) else {
                continue;
            };
            self.metrics.read_repair();
            let (this, plan, head, object) =
                (Arc::clone(self), plan.clone(), head.clone(), object.clone());
            self.env.spawn(async move {
                let _turn = turn;
                if node == this.me {
                    let merged = this.replica.merge(&plan.target, &object, Arrival::Repair);
                    drop(merged.await);
                } else {
                    let copies = Copies {
                        plan,
                        head,
                        object: object.encode(),
                        durability: Durability::Quorum,
                        deadline,
                    };
                    copies.send(this, node, SentAs::Repair).await;
                }
            });
        }
    }
}

/// Whether a write stays that may be on the disk of this owner only, though a change of owners be called off: who was to
/// become one deletes its copies then.
fn is_kept_by(replicas: &ReplicaSet, durability: Durability, owner: NodeId) -> bool {
    let is_held_by_one = matches!(durability, Durability::One | Durability::Memory);
    !is_held_by_one || replicas.old().contains(&owner)
}

/// What is missing.
fn too_few(core: &PutCore) -> Refusal {
    let need = core.need();
    let not_enough = Refusal::not_enough(need.count, core.count(), DOING);
    if core.count() < need.count {
        return not_enough;
    }
    if core.zones() < need.zones {
        return too_few_zones(need, usize::from(core.zones()));
    }
    let message = "the node that coordinates the write could not sync it; its log says why";
    Refusal {
        message: message.to_owned(),
        ..not_enough
    }
}

fn too_few_zones(need: &Need, got: usize) -> Refusal {
    let message = format!(
        "needed replicas in {} zones to {DOING}, got them in {got}; see which nodes are down with `kv status`, or ask for fewer",
        need.zones
    );
    Refusal::new(ErrorCode::NotEnoughReplicas, message)
}

/// When the value of a write expires: counted from when its client made it, so that all repetitions say the same.
fn expiry(request: &PutV1, plan: &Plan) -> Result<Option<u64>, Refusal> {
    let of_bucket = 1_000 * u64::from(plan.properties.ttl_s);
    let ttl_ms = match (request.kind, request.options.ttl_ms) {
        (WriteKind::Delete, None) => 0,
        (WriteKind::Delete, Some(_)) => {
            let message = "a delete does not expire; send it without a time to live";
            return Err(Refusal::new(ErrorCode::BadRequest, message));
        }
        (WriteKind::Put, asked) => asked.unwrap_or(of_bucket),
    };
    let created_ms = request.head.write_id.created_ms();
    Ok((ttl_ms > 0).then(|| created_ms.saturating_add(ttl_ms)))
}

/// When a write was first sent, if it was sent before it came now. What was minted before that, its writer has not gone on from.
fn first_sent(request: &PutV1, now_ms: u64) -> Option<Hlc> {
    let since_ms = u64::from(request.since_first_ms);
    let is_repeated = since_ms > 0 && !planted!("let a repeated write replace what came since");
    // Nodes' clocks get no margin: a client that writes a key again and again would find its own last value beside this one.
    is_repeated.then(|| Hlc::from_millis(now_ms.saturating_sub(since_ms)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_disk_holds_is_not_held_by_who_may_be_called_off() {
        let nodes = |numbers: [u128; 3]| numbers.map(NodeId);
        let joint = ReplicaSet::joint(nodes([1, 2, 3]), nodes([1, 2, 4]));
        let (leaves, joins) = (NodeId(3), NodeId(4));
        for durability in [Durability::One, Durability::Memory] {
            assert!(is_kept_by(&joint, durability, leaves));
            assert!(!is_kept_by(&joint, durability, joins));
        }
        for durability in [Durability::Quorum, Durability::All] {
            assert!(is_kept_by(&joint, durability, joins));
        }
        let stable = ReplicaSet::stable(nodes([1, 2, 4]));
        assert!(is_kept_by(&stable, Durability::One, joins));
    }
}
