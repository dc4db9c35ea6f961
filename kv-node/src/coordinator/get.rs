//! The driver of a read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use kv_net::ErrorCode;
use kv_net::message::{
    DataHead, GetReplyV1, GetV1, ReadSource, ReplicaReadReplyV1, ReplicaReadV1, Request, Response,
    StandInReadV1, StepKind, TopologyV1,
};
use kv_ring::Topology;
use kv_types::{Clock, Durability, Epoch, Hlc, Level, NodeId, Object, Quorum, planted};

use super::get_core::{GetAnswer, GetCore, GetReply, GetStep, Holding, Want};
use super::hedge::Waited;
use super::journal::{self, Notes};
use super::places::Places;
use super::plan::{Plan, reachable};
use super::put::STAND_IN_AFTER;
use super::put_core::{Need, PutAnswer, PutCore, PutStep};
use super::sends::{Copies, SentAs};
use super::{Coordinator, describe, join, unexpected};
use crate::env::Deadline;
use crate::refusal::Refusal;
use crate::replica::Arrival;

const DOING: &str = "answer the read";

const LASTING: &str = "hold what the read found, so that no later read misses it";

/// How long a request leaves it to another one to fetch a newer topology.
const LEARNT_BY_ANOTHER: Duration = Duration::from_millis(100);

/// Later than every dot: a reader may have seen one of a node whose clock is ahead.
const LATEST: Hlc = Hlc(u64::MAX);

/// An owner, and who answers for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) owner: NodeId,
    pub(super) node: NodeId,
}

/// Answers under way.
type Answers = FuturesUnordered<BoxFuture<'static, (Place, Want, GetAnswer)>>;

/// How many owners must hold what a read shows, so that every later read meets one of them, and it is as new as every
/// write that was acknowledged: r, and more than n - r.
pub(super) fn holders_that_last(quorum: Quorum) -> u8 {
    quorum.r().max(quorum.n() - quorum.r() + 1)
}

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
        self.read(request, deadline, None).await
    }

    /// As [`Self::get`], and notes why it is answered so.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn explain_get(
        self: &Arc<Self>,
        request: GetV1,
        deadline: Deadline,
        notes: &Notes,
    ) -> Result<(GetReplyV1, Bytes), Refusal> {
        self.read(request, deadline, Some(notes)).await
    }

    async fn read(
        self: &Arc<Self>,
        request: GetV1,
        deadline: Deadline,
        notes: Option<&Notes>,
    ) -> Result<(GetReplyV1, Bytes), Refusal> {
        let topology = self.topologies.current();
        let mut plan =
            Plan::for_client(topology, &request.head, request.bucket, request.key.clone())?;
        let level = plan.level(request.options.level, request.options.r)?;
        let quorum = plan.read_quorum(&request.options)?;
        let must_last = matches!(level, Level::Quorum | Level::All) && request.options.r.is_none();
        let needed = if must_last {
            holders_that_last(quorum)
        } else {
            quorum.r()
        };
        if let Some(notes) = notes {
            self.keep_journal(notes, &mut plan, level, needed);
        }
        let places = self.places(&plan, level);
        reachable(
            &plan.replicas,
            &places,
            needed,
            &self.liveness,
            self.env.now(),
            DOING,
        )?;
        if needed > 1 {
            self.replica.may_count().await?;
        }

        let mut asked = needed;
        let mut collected = self
            .collect(&plan, places.clone(), &request.head, asked, deadline)
            .await?;
        if let Some(seen) = &request.seen {
            let seen = self
                .contexts
                .open(request.bucket, &request.key, seen, LATEST)?;
            // Those who are behind are not enough: the more are asked, the newer is what they know together.
            while !covers(&collected.0, &seen) {
                asked += 1;
                if asked > quorum.n() {
                    return Err(behind(&plan, quorum.n()));
                }
                let more = self.collect(&plan, places.clone(), &request.head, asked, deadline);
                collected = more.await.map_err(|_| behind(&plan, asked - 1))?;
            }
        }
        let (GetReply { object, repair, .. }, answered) = &collected;
        if let Some(journal) = &plan.journal {
            let now = self.env.now();
            journal.note_superseded(now, object);
            let (mode, now_ms) = (plan.properties.mode, self.replica.minter().right_ms());
            journal.note_not_shown(now, self.me, object, mode, now_ms);
        }
        if !repair.is_empty() {
            let (head, behind) = (&request.head, repair.clone());
            if must_last && !planted!("swallow a failed write-back") {
                self.make_it_last(&plan, head, object, &collected.0, needed, deadline)
                    .await?;
            } else {
                self.repair(&plan, head, object, behind, deadline);
            }
        }
        let context = self.seal(request.bucket, &request.key, object);
        let mut values = Vec::new();
        let siblings = describe(
            object,
            plan.properties.mode,
            self.replica.minter().right_ms(),
            request.options.headers_only,
            &mut values,
        );
        Ok((
            GetReplyV1 {
                siblings,
                context,
                answered: answered.clone(),
                needed,
                epoch: plan.target.epoch,
            },
            join(values),
        ))
    }

    /// Brings what a read found to those that hold less, until so many hold it that no later read misses it.
    pub(super) async fn make_it_last(
        self: &Arc<Self>,
        plan: &Plan,
        head: &DataHead,
        object: &Object,
        found: &GetReply,
        needed: u8,
        deadline: Deadline,
    ) -> Result<(), Refusal> {
        let mut core = PutCore::new(
            plan.replicas.clone(),
            Need::of(needed),
            plan.partition_epoch,
        );
        let holds =
            |owner: &NodeId| found.answered.contains(owner) && !found.repair.contains(owner);
        let mut is_enough = false;
        let mut others = Vec::new();
        for owner in plan.replicas.nodes() {
            if holds(&owner) {
                let answer = PutAnswer::Acked(plan.partition_epoch);
                is_enough |= core.on_answer(owner, owner, answer) == PutStep::Reply;
            } else {
                others.push(owner);
            }
        }
        if is_enough {
            self.repair(plan, head, object, found.repair.clone(), deadline);
            return Ok(());
        }
        let mut answers: FuturesUnordered<BoxFuture<'static, (NodeId, PutAnswer)>> =
            FuturesUnordered::new();
        for owner in others {
            self.metrics.read_repair();
            let copies = Copies {
                plan: plan.clone(),
                head: head.clone(),
                object: object.encode(),
                durability: Durability::Quorum,
                deadline,
            };
            let (this, object) = (Arc::clone(self), object.clone());
            answers.push(Box::pin(async move {
                if owner != this.me {
                    return (owner, copies.send(this, owner, SentAs::Write).await);
                }
                let epoch = copies.plan.partition_epoch;
                let target = &copies.plan.target;
                let merged = this.replica.merge(target, &object, Arrival::Repair).await;
                (
                    owner,
                    merged.map_or(PutAnswer::Failed, |()| PutAnswer::Acked(epoch)),
                )
            }));
        }
        let counting = async {
            while let Some((owner, answer)) = answers.next().await {
                match core.on_answer(owner, owner, answer) {
                    PutStep::Wait => {}
                    PutStep::Reply => return Ok(()),
                    PutStep::Fail => break,
                    PutStep::Restart(epoch) => return Err(Refusal::stale(epoch)),
                }
            }
            Err(Refusal::not_enough(needed, core.count(), LASTING))
        };
        let counted = self.env.timeout(deadline.left(&self.env), counting).await;
        if !answers.is_empty() {
            self.env.spawn(answers.for_each(|_| std::future::ready(())));
        }
        match counted {
            Ok(done) => done,
            Err(_) => Err(Refusal::timeout(needed, core.count(), LASTING)),
        }
    }

    /// Asks until enough owners, or those that stand in for them, have answered. Says who did.
    pub(super) async fn collect(
        self: &Arc<Self>,
        plan: &Plan,
        mut places: Places,
        head: &DataHead,
        needed: u8,
        deadline: Deadline,
    ) -> Result<(GetReply, Vec<NodeId>), Refusal> {
        let candidates = self.candidates(&plan.replicas, &places);
        let mut core = GetCore::new(
            plan.replicas.clone(),
            needed,
            plan.partition_epoch,
            candidates,
        );
        let mut answers = Answers::new();
        let mut waited = Waited::default();
        let ask =
            |answers: &Answers, waited: &mut Waited, places: &Places, asks: Vec<(NodeId, Want)>| {
                for (owner, want) in asks {
                    let place = Place {
                        owner,
                        node: places.node_for(owner),
                    };
                    waited.add(place.node);
                    let answer =
                        Arc::clone(self).ask(plan.clone(), head.clone(), place, want, deadline);
                    answers.push(Box::pin(async move { (place, want, answer.await) }));
                }
            };
        ask(&answers, &mut waited, &places, core.start());

        let mut answered: BTreeMap<NodeId, NodeId> = BTreeMap::new();
        let collecting = async {
            let patience = self.patience(&waited);
            let very_late = self.env.now() + STAND_IN_AFTER;
            let mut late = Some(self.env.sleep(patience));
            loop {
                let next = match late.take() {
                    None => answers.next().await,
                    Some(timer) => match select(answers.next(), timer).await {
                        Either::Left((next, timer)) => {
                            late = Some(timer);
                            next
                        }
                        Either::Right(_) => {
                            if core.can_ask_more() && self.may_hedge(&waited) {
                                ask(&answers, &mut waited, &places, core.on_late());
                            }
                            let now = self.env.now();
                            if places.are_sloppy() && now >= very_late {
                                // Whoever is late may answer yet; of the two, the first one counts.
                                let silent = waited.nodes();
                                let owners = plan.replicas.nodes();
                                let silent: Vec<NodeId> = owners
                                    .filter(|owner| silent.contains(&places.node_for(*owner)))
                                    .collect();
                                for owner in silent {
                                    answered.remove(&owner);
                                    if places.replace(owner, || self.fallbacks(plan)).is_some() {
                                        let asks = vec![(owner, Want::Object)];
                                        ask(&answers, &mut waited, &places, asks);
                                    }
                                }
                                continue;
                            }
                            if places.are_sloppy() || core.can_ask_more() {
                                let rest = very_late.saturating_sub(now);
                                let pause = match core.can_ask_more() {
                                    true => patience,
                                    false => rest,
                                };
                                late = Some(self.env.sleep(pause));
                            }
                            continue;
                        }
                    },
                };
                let Some((place, want, answer)) = next else {
                    return Err(Refusal::not_enough(needed, core.count(), DOING));
                };
                waited.remove(place.node);
                let who = answered.get(&place.owner);
                if who.is_some_and(|node| *node != place.node) {
                    continue;
                }
                if answer == GetAnswer::Failed {
                    answered.remove(&place.owner);
                    // Another node may be about to answer in its place.
                    let now = places.node_for(place.owner);
                    if now != place.node && waited.nodes().contains(&now) {
                        continue;
                    }
                } else {
                    answered.insert(place.owner, place.node);
                }
                // Where another node may stand in for one that failed, that one is asked.
                if answer == GetAnswer::Failed
                    && places
                        .replace(place.owner, || self.fallbacks(plan))
                        .is_some()
                {
                    ask(&answers, &mut waited, &places, vec![(place.owner, want)]);
                    continue;
                }
                match core.on_answer(place.owner, answer) {
                    GetStep::Ask(asks) => ask(&answers, &mut waited, &places, asks),
                    GetStep::Reply(mut reply) => {
                        let by = |owner: &NodeId| answered.get(owner).copied().unwrap_or(*owner);
                        let who = reply.answered.iter().map(by).collect();
                        // Those who stand in keep what they were given for the owner, and need no more.
                        reply.repair.retain(|owner| by(owner) == *owner);
                        return Ok((reply, who));
                    }
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

    pub(super) async fn ask(
        self: Arc<Self>,
        plan: Plan,
        head: DataHead,
        place: Place,
        want: Want,
        deadline: Deadline,
    ) -> GetAnswer {
        let Place { owner, node } = place;
        let stands_in_for = (node != owner).then_some(owner);
        plan.note(self.env.now(), node, stands_in_for, || match want {
            Want::Object => StepKind::AskedForObject,
            Want::Digest => StepKind::AskedForDigest,
        });
        if node == self.me {
            return self.ask_self(&plan, stands_in_for).await;
        }
        let head = plan.head(head);
        let digest_only = want == Want::Digest;
        let (bucket, key) = (plan.target.bucket, plan.target.key.clone());
        let request = match stands_in_for {
            None => Request::ReplicaRead(ReplicaReadV1 {
                head,
                bucket,
                key,
                digest_only,
            }),
            Some(owner) => Request::StandInRead(StandInReadV1 {
                head,
                bucket,
                key,
                owner,
                digest_only,
            }),
        };
        match self.call(&plan.topology, node, request, deadline).await {
            Ok(Response::ReplicaRead(reply, encoded) | Response::StandInRead(reply, encoded)) => {
                let bytes = encoded.len();
                let answer = self.understand(&reply, encoded, want);
                plan.note(self.env.now(), node, stands_in_for, || {
                    step(&answer, bytes, reply.source)
                });
                answer
            }
            Ok(other) => {
                plan.note(self.env.now(), node, stands_in_for, || StepKind::Failed {
                    why: unexpected(&other).message,
                });
                GetAnswer::Failed
            }
            Err(refusal) if refusal.code == ErrorCode::StaleEpoch => {
                plan.note(self.env.now(), node, stands_in_for, || StepKind::Failed {
                    why: refusal.message,
                });
                let learnt = self.learn_topology(&plan.topology, node, deadline).await;
                learnt.map_or(GetAnswer::Failed, GetAnswer::Stale)
            }
            Err(refusal) => {
                tracing::debug!(peer = %node, %refusal, "a replica did not answer a read");
                plan.note(self.env.now(), node, stands_in_for, || StepKind::Failed {
                    why: refusal.message,
                });
                GetAnswer::Failed
            }
        }
    }

    async fn ask_self(&self, plan: &Plan, stands_in_for: Option<NodeId>) -> GetAnswer {
        let target = plan.target.standing_in_for(stands_in_for);
        let (mut bytes, mut source) = (0, None);
        let sent = self.waiting(self.me);
        let read = self.replica.read(&target).await;
        sent.ended(true);
        let failed = |why: String| {
            let now = self.env.now();
            plan.note(now, self.me, stands_in_for, || StepKind::Failed { why });
            GetAnswer::Failed
        };
        let (held, through) = match read {
            Ok(told) => (told.held, told.through),
            Err(refusal) => {
                if refusal.code != ErrorCode::Incomplete {
                    tracing::error!(%refusal, "this node's replica could not be read");
                }
                return failed(refusal.message);
            }
        };
        let holding = match held {
            None => Holding::Nothing,
            Some(held) => match Object::decode(&held.encoded) {
                Ok(object) => {
                    (bytes, source) = (held.encoded.len(), Some(held.source));
                    Holding::Object {
                        digest: held.digest,
                        object: Box::new(object),
                    }
                }
                Err(damage) => {
                    tracing::error!(%damage, key = %plan.target.key, "a stored object is damaged");
                    return failed(damage.to_string());
                }
            },
        };
        let answer = GetAnswer::Held {
            epoch: plan.partition_epoch,
            through,
            holding,
        };
        plan.note(self.env.now(), self.me, stands_in_for, || {
            step(&answer, bytes, source)
        });
        answer
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
        GetAnswer::Held {
            epoch: reply.partition_epoch,
            through: reply.through,
            holding,
        }
    }

    /// Fetches and adopts a newer topology from a peer. Returns this node's epoch afterwards if it
    /// is newer than the request's.
    pub(crate) async fn learn_topology(
        &self,
        topology: &Topology,
        from: NodeId,
        deadline: Deadline,
    ) -> Option<Epoch> {
        // Many requests meet one newer topology, and one of them fetches it for all; unless that one waits for too long.
        let patience = deadline.left(&self.env).min(LEARNT_BY_ANOTHER);
        let _one = self.env.timeout(patience, self.learning.lock()).await;
        let known = self.topologies.current().epoch();
        if known > topology.epoch() {
            return Some(known);
        }
        let request = Request::Topology(TopologyV1 { known });
        if let Ok(Response::Topology(_, entry)) = self.call(topology, from, request, deadline).await
            && !entry.is_empty()
            && let Err(error) = self.topologies.adopt(entry).await
        {
            tracing::warn!(%error, peer = %from, "a newer topology was not taken over");
        }
        Some(self.topologies.current().epoch()).filter(|epoch| *epoch > topology.epoch())
    }
}

/// Whether what was found covers what a reader has seen, but for what was deleted and is forgotten since: owners that lack
/// it know that, those that stand in for them do not.
fn covers(found: &GetReply, seen: &Clock) -> bool {
    if planted!("answer a session with something older") {
        return true;
    }
    found.object.clock().covers_all_above(seen, found.through)
}

/// An answer as a step.
fn step(answer: &GetAnswer, bytes: usize, source: Option<ReadSource>) -> StepKind {
    match answer {
        GetAnswer::Held { holding, .. } => match holding {
            Holding::Nothing => StepKind::Nothing,
            Holding::Digest(digest) => StepKind::Digest {
                digest: *digest,
                source,
            },
            Holding::Object { object, .. } => journal::held(object, bytes, source),
        },
        GetAnswer::Stale(epoch) => StepKind::Failed {
            why: format!("it knows the newer topology of epoch {epoch}"),
        },
        GetAnswer::Failed => StepKind::Failed {
            why: "its answer makes no sense".to_owned(),
        },
    }
}

/// All that can be asked are older than what the reader has seen.
fn behind(plan: &Plan, asked: u8) -> Refusal {
    let message = format!(
        "this session has seen something newer of {} than the {asked} replicas that answer; try again when the others are back",
        plan.target.key
    );
    Refusal::new(ErrorCode::NotEnoughReplicas, message)
}
