//! Changes of the topology: plans the next one, has the voters decide, and takes over what they decide.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use kv_net::ErrorCode;
use kv_net::message::{
    ChangeKind, MemberChangesV1, NewMemberV1, Request, Response, TopologyV1, TreeRootsV1,
    VoteAnswer, VoteStep, VoteV1,
};
use kv_ring::consensus::{Attempt, Proposer, Step};
use kv_ring::{
    ChainEntry, ChainHash, Change, Member, MemberChanges, MemberState, PartitionId, PlanId,
    Topology,
};
use kv_types::{Epoch, NodeId};

use crate::coordinator::Coordinator;
use crate::env::{Deadline, Env};
use crate::membership::Membership;
use crate::moves::gains;
use crate::refusal::Refusal;
use crate::topologies::Topologies;
use crate::voting::{Voting, heard, sent};

/// The longest rest of a proposer whom another one has beaten; drawn anew each time, so that one of them gets through.
const MOST_REST: Duration = Duration::from_millis(200);
/// How long a change that is decided waits until the others know.
const SPREADING: Duration = Duration::from_millis(500);
/// How long a voter may take.
const VOTER_PATIENCE: Duration = Duration::from_secs(1);

/// Makes changes of the topology.
#[derive(Debug, Clone)]
pub struct Changes {
    pub(crate) env: Env,
    pub(crate) me: NodeId,
    pub(crate) topologies: Arc<Topologies>,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) voting: Arc<Voting>,
}

/// How an attempt ended.
enum Ended {
    /// The voters have decided on this entry, ours or another's.
    Decided(Bytes),
    /// That voter knows a newer topology.
    Behind(NodeId),
    /// Another proposer was ahead, or too few voters answered.
    Beaten,
}

impl Changes {
    /// Makes a change, by the votes of a majority of the voters; on return it is in force here, and
    /// everyone who answers at once knows of it. Another change that comes
    /// first is taken over, and this one made after it.
    ///
    /// # Errors
    /// [`Refusal`]; when its outcome is unknown, the change may still come into force: look at the topology.
    pub async fn make(&self, kind: ChangeKind, deadline: Deadline) -> Result<Epoch, Refusal> {
        self.make_after(None, kind, deadline).await
    }

    /// The same, for a change that is right only as the one right after an epoch.
    ///
    /// # Errors
    /// [`Refusal`], also when another change came first.
    pub async fn make_next(
        &self,
        kind: ChangeKind,
        seen: Epoch,
        deadline: Deadline,
    ) -> Result<Epoch, Refusal> {
        self.make_after(Some(seen), kind, deadline).await
    }

    async fn make_after(
        &self,
        seen: Option<Epoch>,
        kind: ChangeKind,
        deadline: Deadline,
    ) -> Result<Epoch, Refusal> {
        let given_up = given_up_for_certain(&kind);
        let change = change_of(kind);
        // An entry of ours that a voter may have accepted, and that may be decided although we did not hear of it.
        let mut asked: Option<(Epoch, Bytes)> = None;
        loop {
            let (topology, chain_hash) = self.topologies.tip();
            if let Some((epoch, entry)) = &asked
                && topology.epoch() >= *epoch
            {
                match self.topologies.entry_of(*epoch) {
                    Some(decided) if decided == *entry => {
                        self.spread(*epoch, deadline).await;
                        return Ok(*epoch);
                    }
                    Some(_) => asked = None,
                    None => return Err(Self::left_behind(*epoch)),
                }
            }
            let refused = |message: String| Refusal::new(ErrorCode::BadRequest, message);
            // Another process may run as this node, with votes of its own.
            let may_change = self.membership.check_memory();
            let may_change = may_change.and_then(|()| self.membership.check_history());
            may_change.map_err(|refusal| match asked {
                Some(_) => refusal.unknown(),
                None => refusal,
            })?;
            if seen.is_some_and(|seen| seen != topology.epoch()) {
                let message = "another change came first; nothing was changed by this one";
                return Err(refused(message.to_owned()));
            }
            if topology.member(self.me).is_none() && asked.is_none() {
                // Nobody would learn from it what is decided.
                let message = "this node is no member of the cluster any more; ask another one";
                return Err(Refusal::new(ErrorCode::ShuttingDown, message));
            }
            if let Change::BeginMoves { partitions } = &change
                && let Some(partition) = gains::not_next_for(self.me, &topology, partitions)
            {
                // It is another node's by now, which may not even run.
                return Err(refused(format!(
                    "this node is not the next that gains partition {partition}; nothing was changed"
                )));
            }
            let next = topology
                .changed_by(change.clone())
                .map_err(|error| refused(error.to_string()))?;
            let may_lose = topology.may_lose(&next, &given_up).len();
            if may_lose > 0 && asked.is_none() {
                return Err(refused(format!(
                    "acknowledged writes of {may_lose} partitions may be lost with the members that are given up, and the \
                     change does not accept that; nothing was changed"
                )));
            }
            let entry = ChainEntry::snapshot(Arc::new(next), chain_hash)
                .map_err(|error| refused(error.to_string()))?
                .encode();
            let attempt = self.attempt(&topology, chain_hash, entry, &mut asked, deadline);
            let left = deadline.left(&self.env);
            let Ok(ended) = self.env.timeout(left, attempt).await else {
                return Err(self.late(&topology, asked.is_some()));
            };
            match ended {
                Ended::Decided(entry) => {
                    let adopted = self.topologies.adopt(entry).await;
                    adopted.map_err(|error| {
                        Refusal::new(ErrorCode::Storage, error.to_string()).unknown()
                    })?;
                    self.membership.topology_changed();
                }
                Ended::Behind(voter) => {
                    let learnt = self.coordinator.learn_topology(&topology, voter, deadline);
                    if learnt.await.is_some() {
                        self.membership.topology_changed();
                    } else {
                        self.rest().await;
                    }
                }
                Ended::Beaten => {}
            }
        }
    }

    /// Tells all others of an epoch, so that whoever asks for it next finds it in force, through any node that answers.
    async fn spread(&self, epoch: Epoch, deadline: Deadline) {
        let topology = self.topologies.current();
        let patience = deadline.at_most(&self.env, SPREADING);
        let members = topology.members().iter().map(|member| member.node);
        let tells = members.filter(|node| *node != self.me).map(|node| {
            // Who is asked about a newer epoch learns it first. The answer does not matter.
            let request = Request::TreeRoots(TreeRootsV1 { epoch, sum: 0 });
            self.coordinator.call(&topology, node, request, patience)
        });
        let _ = join_all(tells).await;
    }

    /// Ends once another member knows this node's topology, if there is another one: a sole voter decides alone that it goes,
    /// and nobody else could tell.
    pub(crate) async fn until_another_knows(&self) {
        loop {
            let topology = self.topologies.current();
            let epoch = topology.epoch();
            self.spread(epoch, Deadline::after(&self.env, SPREADING))
                .await;
            let members = topology.members().iter().map(|member| member.node);
            let others = members.filter(|node| *node != self.me);
            let patience = Deadline::after(&self.env, SPREADING);
            let asks = others.map(|node| {
                // Of the epoch alone.
                let known = Epoch(u64::MAX);
                let request = Request::Topology(TopologyV1 { known });
                self.coordinator.call(&topology, node, request, patience)
            });
            let knows = |answer: &Result<Response, Refusal>| matches!(answer, Ok(Response::Topology(reply, _)) if reply.epoch >= epoch);
            let answers = join_all(asks).await;
            if answers.is_empty() || answers.iter().any(knows) {
                return;
            }
            tracing::info!(%epoch, "no other member that answers knows yet that this node has left; it waits for one");
            self.rest().await;
        }
    }

    /// What became of a change is not known any more.
    fn left_behind(epoch: Epoch) -> Refusal {
        let message = format!(
            "the others went on so far while the change was decided on that nobody keeps epoch {epoch} any more; it may be in force: look before you try again"
        );
        Refusal::new(ErrorCode::Timeout, message).unknown()
    }

    fn late(&self, topology: &Topology, is_asked: bool) -> Refusal {
        let needed = u8::try_from(topology.voters().len() / 2 + 1).unwrap_or(u8::MAX);
        let refusal = Refusal::timeout(needed, 0, "decide on the change");
        if is_asked { refusal.unknown() } else { refusal }
    }

    /// Has the voters decide on the entry after `topology`, with as many ballots as it takes.
    async fn attempt(
        &self,
        topology: &Topology,
        previous: ChainHash,
        wanted: Bytes,
        asked: &mut Option<(Epoch, Bytes)>,
        deadline: Deadline,
    ) -> Ended {
        let epoch = topology.epoch().next();
        let (mut proposer, mut attempt) =
            Proposer::begin(self.me, topology.voters(), wanted.clone());
        loop {
            if matches!(&attempt, Attempt::Accept(_, value) if *value == wanted) {
                *asked = Some((epoch, wanted.clone()));
            }
            let ballot = proposer.ballot();
            let mut answers: FuturesUnordered<_> = topology
                .voters()
                .iter()
                .map(|voter| self.ask(topology, epoch, previous, *voter, &attempt, deadline))
                .collect();
            let mut next = None;
            while let Some((voter, answer)) = answers.next().await {
                let Ok((answer, entry)) = answer else {
                    continue;
                };
                let Some(answer) = heard(answer, entry) else {
                    return Ended::Behind(voter);
                };
                match proposer.on_answer(voter, ballot, answer) {
                    Step::Wait => {}
                    Step::Ask(asking) => {
                        next = Some(asking);
                        break;
                    }
                    Step::Decided(entry) => return Ended::Decided(entry),
                    Step::Beaten => break,
                }
            }
            drop(answers);
            attempt = match next {
                Some(asking) => asking,
                None => {
                    self.rest().await;
                    if self.topologies.current().epoch() >= epoch {
                        return Ended::Beaten;
                    }
                    match proposer.again() {
                        Some(again) => again,
                        None => return Ended::Beaten,
                    }
                }
            };
        }
    }

    async fn rest(&self) {
        let most = u64::try_from(MOST_REST.as_micros()).unwrap_or(u64::MAX);
        let micros = self.env.host.random() % most.max(1);
        self.env.sleep(Duration::from_micros(micros)).await;
    }

    async fn ask(
        &self,
        topology: &Topology,
        epoch: Epoch,
        previous: ChainHash,
        voter: NodeId,
        attempt: &Attempt<Bytes>,
        deadline: Deadline,
    ) -> (NodeId, Result<(VoteAnswer, Bytes), Refusal>) {
        let (ballot, step, entry) = match attempt {
            Attempt::Prepare(ballot) => (*ballot, VoteStep::Prepare, Bytes::new()),
            Attempt::Accept(ballot, entry) => (*ballot, VoteStep::Accept, entry.clone()),
        };
        let vote = VoteV1 {
            epoch,
            previous: previous.0,
            ballot: sent(ballot),
            step,
        };
        if voter == self.me {
            return match self.membership.check_memory() {
                Ok(()) => (voter, self.voting.vote(self.me, vote, entry).await),
                Err(refusal) => (voter, Err(refusal)),
            };
        }
        let request = Request::Vote(vote, entry);
        let patience = deadline.at_most(&self.env, VOTER_PATIENCE);
        let called = self.coordinator.call(topology, voter, request, patience);
        let answer = match called.await {
            Ok(Response::Vote(reply, entry)) => Ok((reply.answer, entry)),
            Ok(_) => Err(Refusal::new(ErrorCode::Internal, "not an answer to a vote")),
            Err(refusal) => {
                tracing::debug!(%voter, %refusal, "a voter did not vote");
                Err(refusal)
            }
        };
        (voter, answer)
    }
}

/// The members that a change gives up though nothing may be lost with them.
fn given_up_for_certain(kind: &ChangeKind) -> Vec<NodeId> {
    match kind {
        ChangeKind::Members {
            changes,
            accepts_loss: false,
            ..
        } => changes.lost.clone(),
        _ => Vec::new(),
    }
}

fn change_of(kind: ChangeKind) -> Change {
    match kind {
        ChangeKind::CreateBucket { name, properties } => Change::CreateBucket { name, properties },
        ChangeKind::SetBucket {
            id,
            was,
            properties,
            repaired,
        } => Change::SetBucket {
            id,
            was,
            properties,
            repaired,
        },
        ChangeKind::DropBucket { id } => Change::DropBucket { id },
        ChangeKind::GrantActor { node } => Change::GrantActor { node },
        ChangeKind::MoveMember { node, address } => Change::MoveMember { node, address },
        ChangeKind::Members {
            changes,
            plan,
            accepts_loss: _,
        } => Change::Members {
            changes: member_changes(changes),
            plan: PlanId(plan),
        },
        ChangeKind::AbortMoves => Change::AbortMoves,
        ChangeKind::RemoveMember { node } => Change::RemoveMember { node },
        ChangeKind::BeginMoves { partitions } => Change::BeginMoves {
            partitions: partitions.into_iter().map(PartitionId).collect(),
        },
        ChangeKind::FinishMoves { by, partitions } => {
            let partitions = partitions.into_iter();
            let partitions = partitions.map(|(partition, since)| (PartitionId(partition), since));
            Change::FinishMoves {
                by,
                partitions: partitions.collect(),
            }
        }
        ChangeKind::ClearLoss { through } => Change::ClearLoss { through },
        ChangeKind::Drained { by, partitions } => Change::Drained {
            by,
            partitions: partitions.into_iter().map(PartitionId).collect(),
        },
    }
}

/// What is wanted of the members, as the topology takes it.
#[must_use]
pub fn member_changes(wanted: MemberChangesV1) -> MemberChanges {
    MemberChanges {
        joins: wanted.joins.iter().map(member).collect(),
        leaves: wanted.leaves,
        lost: wanted.lost,
        weights: wanted.weights,
        zones: wanted.zones,
    }
}

fn member(joining: &NewMemberV1) -> Member {
    let NewMemberV1 {
        node,
        name,
        zone,
        weight,
        address,
        fingerprint,
    } = joining.clone();
    Member {
        node,
        name,
        zone,
        weight,
        address,
        fingerprint,
        state: MemberState::Active,
    }
}
