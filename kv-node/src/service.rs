//! One match: every request of the wire to the component that owns it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kv_net::ErrorCode;
use kv_net::Role;
use kv_net::message::{
    AnswerWhen, ChangeKind, ChangeReplyV1, ChangeV1, CompareV1, DataHead, ErrorReplyV1,
    ExplainedGetV1, ExplainedPutV1, ExplanationV1, FateReplyV1, MetricsReplyV1, ObjectsV1,
    RememberReplyV1, RememberV1, ReplicaListEntryV1, ReplicaListReplyV1, ReplicaListV1,
    ReplicaReadReplyV1, ReplicaReadV1, ReplicaWriteReplyV1, ReplicaWriteV1, Request, Response,
    StandInReadV1, StandInWriteV1, StatusReplyV1, TopologyReplyV1, VoteReplyV1, VoteV1,
};
use kv_ring::{PartitionId, Topology};
use kv_types::{BucketId, Epoch, Key, NodeId, Object};

use crate::anti_entropy::answers::Answers;
use crate::anti_entropy::exchange::Exchange;
use crate::changes::Changes;
use crate::clock_watch::ClockWatch;
use crate::completeness::Completeness;
use crate::completeness::boots::Boots;
use crate::coordinator::Coordinator;
use crate::coordinator::journal::Notes;
use crate::coordinator::plan::{Plan, check_fenced};
use crate::env::{Deadline, Env};
use crate::fates::Fates;
use crate::healing::Damages;
use crate::hints::Kept;
use crate::membership::Membership;
use crate::metrics::{Metrics, Operation, Sources};
use crate::refusal::Refusal;
use crate::replica::{Arrival, Replica, Target, Told};
use crate::store::Store;
use crate::tombstones::answers::Forgetting;
use crate::topologies::Topologies;
use crate::voting::Voting;

/// How long one peer is asked for a newer topology before the next is.
const CATCH_UP_PATIENCE: Duration = Duration::from_millis(200);

/// The most of a request's time that is left for its answer.
const MOST_WAY_BACK: Duration = Duration::from_millis(50);

/// Answers requests.
#[derive(Debug)]
pub struct Service {
    pub(crate) env: Env,
    pub(crate) me: NodeId,
    pub(crate) started: Duration,
    pub(crate) topologies: Arc<Topologies>,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) store: Store,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) answers: Answers,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) forgetting: Forgetting,
    pub(crate) fates: Fates,
    pub(crate) boots: Boots,
    pub(crate) completeness: Arc<Completeness>,
    pub(crate) damages: Arc<Damages>,
    pub(crate) watch: Arc<ClockWatch>,
    pub(crate) voting: Arc<Voting>,
    pub(crate) changes: Changes,
}

impl Service {
    /// Answers one request within its budget.
    pub async fn handle(
        self: Arc<Self>,
        from: Role,
        request: Request,
        budget: Duration,
    ) -> Response {
        let deadline = Deadline::after(&self.env, budget - way_back(budget));
        let is_about_data = epoch_of(&request).is_some();
        // It would vote for its own change, too.
        let is_change = matches!(request, Request::Change(_));
        // It would bring to others what they know was deleted.
        let is_comparison = matches!(request, Request::Compare(_));
        if let Err(refusal) = self.membership.check_memory()
            && (is_about_data || is_change || is_comparison)
        {
            return refusal.reply(self.topologies.current().epoch());
        }
        if let Some(epoch) = epoch_of(&request) {
            self.catch_up(&from, epoch, deadline).await;
        }
        let answered = match request {
            Request::Get(get) => {
                let answered = self
                    .measured(Operation::Get, self.coordinator.get(get, deadline))
                    .await;
                answered.map(|(reply, values)| Response::Get(reply, values))
            }
            Request::Put(put, value) => self
                .measured(Operation::Put, self.coordinator.put(put, value, deadline))
                .await
                .map(Response::Put),
            Request::ExplainGet(get) => {
                let notes = Notes::default();
                let explained = self.coordinator.explain_get(get, deadline, &notes);
                let answered = self.measured(Operation::Get, explained).await;
                self.explained(answered, &notes)
                    .map(|(answer, explanation)| {
                        let (answer, values) = match answer {
                            Ok((reply, values)) => (Ok(reply), values),
                            Err(error) => (Err(error), Bytes::new()),
                        };
                        let told = ExplainedGetV1 {
                            answer,
                            explanation,
                        };
                        Response::ExplainGet(told, values)
                    })
            }
            Request::ExplainPut(put, value) => {
                let notes = Notes::default();
                let explained = self.coordinator.explain_put(put, value, deadline, &notes);
                let answered = self.measured(Operation::Put, explained).await;
                self.explained(answered, &notes)
                    .map(|(answer, explanation)| {
                        Response::ExplainPut(ExplainedPutV1 {
                            answer,
                            explanation,
                        })
                    })
            }
            Request::Fate(asked) => {
                let fate = self.fates.of(&asked, deadline).await;
                fate.map(|fate| Response::Fate(FateReplyV1 { fate }))
            }
            Request::Compare(asked) => self.compare_now(asked, deadline).await,
            Request::List(list) => {
                let answered = self
                    .measured(Operation::List, self.coordinator.list(list, deadline))
                    .await;
                answered.map(|(reply, values)| Response::List(reply, values))
            }
            Request::Topology(request) => {
                let (epoch, entry) = self.topologies.entry_after(request.known);
                let now_ms = self.replica.minter().right_ms();
                Ok(Response::Topology(TopologyReplyV1 { epoch, now_ms }, entry))
            }
            Request::Status(_) => Ok(Response::Status(self.status())),
            Request::Metrics(_) => {
                let text = self.metrics_text();
                Ok(Response::Metrics(MetricsReplyV1 {}, text.into()))
            }
            Request::Hints(_) => Ok(Response::Hints(self.kept.report())),
            Request::ReplicaWrite(write, object) => {
                let arrival = Arrival::Owed(write.head.write_id);
                let taken = self.replica_write(write, object, arrival).await;
                taken.map(Response::ReplicaWrite)
            }
            Request::Repair(write, object) => {
                let taken = self.replica_write(write, object, Arrival::Repair).await;
                taken.map(Response::Repair)
            }
            Request::StandInWrite(write, object) => self.stand_in_write(write, object).await,
            Request::StandInRead(read) => self.stand_in_read(read).await,
            Request::TreeRoots(asked) => match from {
                Role::Node(from) => self.answers.roots(from, &asked),
                Role::Client(_) | Role::Admin(_) => {
                    Err(Refusal::new(ErrorCode::Denied, "only nodes compare"))
                }
            },
            Request::TreeNodes(asked) => self.answers.nodes(&asked),
            Request::TreeKeys(asked) => self.answers.keys(&asked).await,
            Request::TreeObjects(asked) => self.answers.objects(&asked).await,
            Request::Floor(asked) => self.forgetting.floor(&asked).await,
            Request::Watermark(asked) => self.forgetting.watermark(&from, &asked).await,
            Request::Remember(told) => self.remember(from, told).await,
            Request::Watermarks(asked) => self.forgetting.watermarks(&asked),
            Request::ReplicaRead(read) => self.replica_read(read).await,
            Request::ReplicaList(list) => self.replica_list(list).await,
            Request::Change(ChangeV1 {
                change:
                    ChangeKind::BeginMoves { .. }
                    | ChangeKind::FinishMoves { .. }
                    | ChangeKind::Drained { .. },
            }) => {
                let message = "only the nodes themselves take this step";
                Err(Refusal::new(ErrorCode::BadRequest, message))
            }
            Request::Change(ChangeV1 {
                change: ChangeKind::RemoveMember { node },
            }) if !self.is_lost(node) => {
                let message = format!(
                    "{node} is not given up, so it is not taken off the list; one that leaves goes by itself when it owns and keeps nothing more; nothing was changed"
                );
                Err(Refusal::new(ErrorCode::BadRequest, message))
            }
            Request::Change(change) => {
                let made = self.changes.make(change.change, deadline).await;
                made.map(|epoch| Response::Change(ChangeReplyV1 { epoch }))
            }
            Request::Vote(vote, entry) => self.vote(from, vote, entry).await,
        };
        answered.unwrap_or_else(|refusal| refusal.reply(self.topologies.current().epoch()))
    }

    /// An answer with what was noted; a refusal alone where nothing was.
    fn explained<T>(
        &self,
        answered: Result<T, Refusal>,
        notes: &Notes,
    ) -> Result<(Result<T, ErrorReplyV1>, ExplanationV1), Refusal> {
        match (answered, notes.tell(self.env.now())) {
            (Err(refusal), None) => Err(refusal),
            (answered, told) => {
                let told = told.expect("nothing is done without notes");
                let epoch = self.topologies.current().epoch();
                Ok((answered.map_err(|refusal| refusal.told(epoch)), told))
            }
        }
    }

    fn is_lost(&self, node: NodeId) -> bool {
        let topology = self.topologies.current();
        topology.member(node).is_some() && !topology.is_counted_on(node)
    }

    async fn compare_now(&self, asked: CompareV1, deadline: Deadline) -> Result<Response, Refusal> {
        if self.completeness.missing() > 0 {
            return Err(Refusal::incomplete());
        }
        let comparing = self.exchange.compare_now(&asked);
        let compared = self.env.timeout(deadline.left(&self.env), comparing).await;
        let reply = compared.map_err(|_| {
            let message = "the deadline passed before all was compared; what was fetched stays; ask for fewer partitions at once";
            Refusal::new(ErrorCode::Timeout, message).unknown()
        })?;
        Ok(Response::Compare(reply))
    }

    async fn remember(&self, from: Role, told: RememberV1) -> Result<Response, Refusal> {
        let Role::Node(from) = from else {
            return Err(Refusal::new(ErrorCode::Denied, "only nodes are remembered"));
        };
        let (before, boot) = self.boots.remember(from, &told).await?;
        let floor = self.forgetting.floor.promised();
        Ok(Response::Remember(RememberReplyV1 {
            boot,
            run: before.run,
            told: before.counter,
            wall_ms: self.env.host.wall_ms(),
            floor,
            settled: self.replica.settled().promised(),
        }))
    }

    async fn vote(&self, from: Role, vote: VoteV1, entry: Bytes) -> Result<Response, Refusal> {
        let Role::Node(from) = from else {
            return Err(Refusal::new(ErrorCode::Denied, "only nodes propose"));
        };
        let (answer, entry) = self.voting.vote(from, vote, entry).await?;
        Ok(Response::Vote(VoteReplyV1 { answer }, entry))
    }

    async fn measured<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let begun = self.env.now();
        let done = work.await;
        self.metrics.record(
            operation,
            self.env.now().saturating_sub(begun),
            done.as_ref().err(),
        );
        done
    }

    /// A request from a newer epoch: adopt that epoch, durably, before the request is judged.
    async fn catch_up(&self, from: &Role, epoch: Epoch, deadline: Deadline) {
        for _ in 0..16 {
            let topology = self.topologies.current();
            if epoch <= topology.epoch() {
                return;
            }
            let source = match from {
                Role::Node(node) => Some(*node),
                // A client cannot serve the chain: ask the other members.
                Role::Client(_) | Role::Admin(_) => None,
            };
            let others = topology
                .members()
                .iter()
                .map(|member| member.node)
                .filter(|node| *node != self.me);
            // A node is asked itself, and the others after it; for a client, who may claim anything,
            // one member is enough.
            let most = if source.is_some() { usize::MAX } else { 1 };
            let mut moved = false;
            for node in source.into_iter().chain(others.take(most)) {
                let patience = deadline.at_most(&self.env, CATCH_UP_PATIENCE);
                if self
                    .coordinator
                    .learn_topology(&topology, node, patience)
                    .await
                    .is_some()
                {
                    self.membership.topology_changed();
                    moved = true;
                    break;
                }
            }
            if !moved {
                return;
            }
        }
    }

    async fn replica_write(
        &self,
        write: ReplicaWriteV1,
        encoded: Bytes,
        arrival: Arrival,
    ) -> Result<ReplicaWriteReplyV1, Refusal> {
        let plan = self.owned(&write.head, write.bucket, write.key)?;
        let object = sent_object(&encoded)?;
        if arrival != Arrival::Repair || write.answer == AnswerWhen::Delivered {
            // It is counted, or brought by who keeps it no longer.
            self.replica
                .may_be_counted_on(plan.target.partition)
                .await?;
        }
        self.replica
            .take_in(&plan.target, &object, arrival, write.answer)
            .await?;
        Ok(ReplicaWriteReplyV1 {
            partition_epoch: plan.partition_epoch,
        })
    }

    async fn stand_in_write(
        &self,
        write: StandInWriteV1,
        encoded: Bytes,
    ) -> Result<Response, Refusal> {
        let plan = self.owned_by(write.owner, &write.head, write.bucket, write.key)?;
        let target = plan.target.standing_in_for(Some(write.owner));
        let object = sent_object(&encoded)?;
        let arrival = if write.obligation {
            Arrival::Owed(write.head.write_id)
        } else {
            Arrival::Spare(write.head.write_id)
        };
        self.replica
            .take_in(&target, &object, arrival, write.answer)
            .await?;
        Ok(Response::StandInWrite(ReplicaWriteReplyV1 {
            partition_epoch: plan.partition_epoch,
        }))
    }

    async fn stand_in_read(&self, read: StandInReadV1) -> Result<Response, Refusal> {
        let plan = self.owned_by(read.owner, &read.head, read.bucket, read.key)?;
        let target = plan.target.standing_in_for(Some(read.owner));
        let (reply, object) = self.held(&plan, &target, read.digest_only).await?;
        Ok(Response::StandInRead(reply, object))
    }

    async fn replica_read(&self, read: ReplicaReadV1) -> Result<Response, Refusal> {
        let plan = self.owned(&read.head, read.bucket, read.key)?;
        let (reply, object) = self.held(&plan, &plan.target, read.digest_only).await?;
        Ok(Response::ReplicaRead(reply, object))
    }

    async fn held(
        &self,
        plan: &Plan,
        target: &Target,
        digest_only: bool,
    ) -> Result<(ReplicaReadReplyV1, Bytes), Refusal> {
        self.replica.may_count().await?;
        let Told { held, through } = self.replica.read(target).await?;
        let reply = ReplicaReadReplyV1 {
            partition_epoch: plan.partition_epoch,
            digest: held.as_ref().map(|held| held.digest),
            source: held.as_ref().map(|held| held.source),
            through,
        };
        let object = held.filter(|_| !digest_only).map(|held| held.encoded);
        Ok((reply, object.unwrap_or_default()))
    }

    async fn replica_list(&self, list: ReplicaListV1) -> Result<Response, Refusal> {
        let topology = self.topologies.current();
        let partition = PartitionId(list.partition);
        if u32::from(list.partition) >= topology.partition_count().get() {
            return Err(Refusal::new(
                ErrorCode::BadRequest,
                format!("there is no partition {}", list.partition),
            ));
        }
        check_fenced(&topology, &list.head, list.bucket, partition)?;
        let partition_epoch = topology.changed_at(partition);
        self.replica.may_count().await?;
        let page = self.replica.list(&list).await?;
        let length = |object: &Bytes| {
            u32::try_from(object.len()).expect("objects are at most a little over 16 MiB")
        };
        let entries = page.entries.iter();
        let entries = entries
            .map(|(key, object)| ReplicaListEntryV1 {
                key: key.clone(),
                object_bytes: length(object),
            })
            .collect();
        let tail: Vec<Bytes> = page.entries.into_iter().map(|(_, object)| object).collect();
        let reply = ReplicaListReplyV1 {
            page: ObjectsV1 {
                partition_epoch,
                entries,
                until: page.until,
            },
            through: page.through,
        };
        Ok(Response::ReplicaList(reply, tail.concat().into()))
    }

    /// The plan of a request that only a replica of the key may serve.
    fn owned(&self, head: &DataHead, bucket: BucketId, key: Key) -> Result<Plan, Refusal> {
        let plan = Plan::for_coordinator(self.topologies.current(), head, bucket, key)?;
        if plan.has_replica(self.me) {
            return Ok(plan);
        }
        let message = format!(
            "this node holds no replica of the key at epoch {}",
            plan.target.epoch
        );
        Err(Refusal::new(ErrorCode::NotReplica, message))
    }

    /// The plan of a request that this node serves in an owner's place.
    fn owned_by(
        &self,
        owner: NodeId,
        head: &DataHead,
        bucket: BucketId,
        key: Key,
    ) -> Result<Plan, Refusal> {
        let plan = Plan::for_coordinator(self.topologies.current(), head, bucket, key)?;
        if plan.has_replica(owner) && owner != self.me {
            return Ok(plan);
        }
        let message = format!(
            "{owner} holds no replica of the key at epoch {}",
            plan.target.epoch
        );
        Err(Refusal::new(ErrorCode::NotReplica, message))
    }

    /// The metrics as Prometheus text.
    pub(crate) fn metrics_text(&self) -> String {
        self.metrics.text(&Sources {
            store: &self.store,
            membership: &self.membership,
            topologies: &self.topologies,
            kept: &self.kept,
            repairs: &self.exchange.counts,
            deletions: &self.forgetting.counts,
            completeness: &self.completeness,
            damages: &self.damages,
            replica: &self.replica,
            watch: &self.watch,
        })
    }

    fn status(&self) -> StatusReplyV1 {
        let topology: Arc<Topology> = self.topologies.current();
        let usage = self.store.usage();
        StatusReplyV1 {
            node: self.me,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: topology.epoch(),
            view_hash: self.membership.view_hash(),
            uptime_ms: u64::try_from(self.env.now().saturating_sub(self.started).as_millis())
                .unwrap_or(u64::MAX),
            members: self.membership.views(),
            objects: usage.entries,
            disk_bytes: usage.disk_bytes,
            disk_free_bytes: usage.free_bytes,
            gets: self.metrics.count(Operation::Get),
            puts: self.metrics.count(Operation::Put),
            errors: self.metrics.errors(),
            get_us: self.metrics.percentiles(Operation::Get),
            put_us: self.metrics.percentiles(Operation::Put),
        }
    }
}

/// What of a budget is left for the answer: one that says what is missing must be there before who asked has stopped
/// waiting.
fn way_back(budget: Duration) -> Duration {
    (budget / 20).min(MOST_WAY_BACK)
}

/// The epoch under which a data request was made.
fn epoch_of(request: &Request) -> Option<Epoch> {
    let head = match request {
        Request::Get(get) | Request::ExplainGet(get) => &get.head,
        Request::Put(put, _) | Request::ExplainPut(put, _) => &put.head,
        Request::List(list) => &list.head,
        Request::Fate(asked) => &asked.head,
        Request::ReplicaWrite(write, _) | Request::Repair(write, _) => &write.head,
        Request::ReplicaRead(read) => &read.head,
        Request::StandInWrite(write, _) => &write.head,
        Request::StandInRead(read) => &read.head,
        Request::TreeRoots(asked) => return Some(asked.epoch),
        Request::TreeNodes(asked) => return Some(asked.epoch),
        Request::TreeKeys(asked) => return Some(asked.under.epoch),
        Request::TreeObjects(asked) => return Some(asked.stretch.under.epoch),
        Request::Watermark(asked) => return Some(asked.epoch),
        Request::Watermarks(asked) => return Some(asked.epoch),
        Request::ReplicaList(list) => &list.head,
        // The voters of an epoch decide on the next one.
        Request::Vote(vote, _) => return Some(Epoch(vote.epoch.0.saturating_sub(1))),
        Request::Topology(_)
        | Request::Status(_)
        | Request::Metrics(_)
        | Request::Hints(_)
        | Request::Floor(_)
        | Request::Remember(_)
        | Request::Compare(_)
        | Request::Change(_) => {
            return None;
        }
    };
    Some(head.epoch)
}

fn sent_object(encoded: &Bytes) -> Result<Object, Refusal> {
    Object::decode(encoded).map_err(|damage| {
        Refusal::new(
            ErrorCode::BadRequest,
            format!("the object is damaged: {damage}"),
        )
    })
}
