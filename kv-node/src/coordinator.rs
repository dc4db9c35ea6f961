//! Requests of clients: plan, fan out, feed answers to a pure core, reply.
//!
//! A coordinator holds no state between requests. Decisions are in the cores ([`put_core`],
//! [`get_core`], [`list_core`]); the drivers here only send, wait and answer.

mod get;
pub mod get_core;
mod hedge;
pub mod journal;
mod list;
pub mod list_core;
pub mod places;
pub mod plan;
mod put;
pub mod put_core;
pub(crate) mod recall;
mod repairs;
mod sends;
pub mod told;

use std::sync::Arc;

use bytes::Bytes;
use kv_net::ErrorCode;
use kv_net::message::{ExplanationV1, MemberState, PreferredV1, Request, Response, SiblingHeadV1};
use kv_ring::{ReplicaSet, Topology};
use kv_types::{BucketId, BucketMode, Context, ContextKey, Key, Level, NodeId, Object, Outcome};

use self::hedge::HedgeBudget;
use self::journal::{Journal, Notes};
use self::places::Places;
use self::plan::Plan;
use self::repairs::Repairs;
use crate::env::{Deadline, Env};
use crate::evidence::{Evidence, Sent};
use crate::liveness::Liveness;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::replica::Replica;
use crate::topologies::Topologies;
use crate::transport::{CallFailure, Peer};

/// The coordinating side of a node.
#[derive(Debug)]
pub struct Coordinator {
    env: Env,
    me: NodeId,
    topologies: Arc<Topologies>,
    replica: Arc<Replica>,
    liveness: Arc<Liveness>,
    metrics: Arc<Metrics>,
    evidence: Evidence,
    hedges: HedgeBudget,
    repairs: Arc<Repairs>,
    contexts: ContextKey,
    /// Held while a newer topology is fetched for a request.
    learning: tokio::sync::Mutex<()>,
}

impl Coordinator {
    /// A coordinator over this node's replica and its view of the others.
    #[must_use]
    pub fn new(
        env: Env,
        me: NodeId,
        topologies: Arc<Topologies>,
        replica: Arc<Replica>,
        liveness: Arc<Liveness>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let contexts = ContextKey::new(topologies.current().secret().context_key());
        Self {
            env,
            me,
            topologies,
            replica,
            liveness,
            metrics,
            evidence: Evidence::default(),
            hedges: HedgeBudget::default(),
            repairs: Arc::default(),
            contexts,
            learning: tokio::sync::Mutex::default(),
        }
    }

    /// The topology that this node lives by.
    pub(crate) fn topology(&self) -> Arc<Topology> {
        self.topologies.current()
    }

    /// The owners worth asking: this node first, then those that are up, in slot order, then those that others stand in
    /// for, then the rest, which may be back without anyone having noticed. Those that keep requests waiting, or come and
    /// go, come after their like. While owners change, those that are up and stay come first, so that as few as ever make a quorum.
    fn candidates(&self, replicas: &ReplicaSet, places: &Places) -> Vec<NodeId> {
        let mut owners: Vec<NodeId> = replicas.nodes().collect();
        let now = self.env.now();
        owners.sort_by_key(|owner| {
            let node = places.node_for(*owner);
            let is_me = *owner == self.me;
            let is_up = is_me || self.liveness.is_up(node, now);
            let is_slow = self.evidence.is_slow(node, now) || self.liveness.is_damped(node, now);
            let is_slow = is_slow && !is_me;
            let is_half = !replicas.counts_fully(*owner);
            (!is_up, is_half, !is_me, is_slow, node != *owner)
        });
        owners
    }

    /// Who answers for the owners of a key: at level eventual others stand in for those that are away.
    fn places(&self, plan: &Plan, level: Level) -> Places {
        if level != Level::Eventual {
            return Places::strict();
        }
        let mut places = Places::sloppy();
        let now = self.env.now();
        let is_away = |node| !self.liveness.is_up(node, now);
        places.replace_all(plan.replicas.nodes(), is_away, || self.fallbacks(plan));
        places
    }

    /// The same for a write that this node coordinates without being an owner: it stands in for one.
    fn places_around_me(&self, plan: &Plan) -> Places {
        let mut places = self.places(plan, Level::Eventual);
        // Whoever sent it here could not reach the owners, or those who would stand in before this node.
        if places.owner_behind(self.me).is_none()
            && let Some(first) = plan.replicas.nodes().next()
        {
            places.put_in(self.me, first);
        }
        places
    }

    /// The nodes that may stand in for owners of a key, and are there, best first.
    fn fallbacks(&self, plan: &Plan) -> Vec<NodeId> {
        let mut nodes = plan.fallbacks();
        let now = self.env.now();
        nodes.retain(|node| self.liveness.is_up(*node, now));
        if plan.distinct_zones > 1 {
            // Those come first that are elsewhere than the owners that are there.
            let zone = |node| plan.topology.member(node).map(|member| &member.zone);
            let owners = plan.replicas.nodes();
            let owners = owners.filter(|node| self.liveness.is_up(*node, now));
            let zones: Vec<_> = owners.map(zone).collect();
            nodes.sort_by_key(|node| zones.contains(&zone(*node)));
        }
        nodes
    }

    pub(crate) async fn call(
        &self,
        topology: &Topology,
        to: NodeId,
        request: Request,
        deadline: Deadline,
    ) -> Result<Response, Refusal> {
        let Some(member) = topology.member(to) else {
            return Err(Refusal::new(
                ErrorCode::Internal,
                format!("{to} is not a member of epoch {}", topology.epoch()),
            ));
        };
        let peer = Peer {
            node: to,
            address: member.address.clone(),
        };
        let sent = self.waiting(to);
        let answer = self
            .env
            .transport
            .call(peer, request, deadline.left(&self.env))
            .await;
        sent.ended(answer.is_ok());
        match answer {
            Ok(Response::Error(error)) => Err(error.into()),
            Ok(response) => Ok(response),
            Err(CallFailure { outcome, reason }) => {
                let code = match outcome {
                    Outcome::NotApplied => ErrorCode::NotEnoughReplicas,
                    Outcome::Unknown => ErrorCode::Timeout,
                };
                Err(Refusal {
                    outcome,
                    ..Refusal::new(code, format!("{}: {reason}", member.name))
                })
            }
        }
    }

    /// Notes that a request to a node begins.
    fn waiting(&self, to: NodeId) -> Waiting<'_> {
        Waiting {
            env: &self.env,
            evidence: &self.evidence,
            sent: Some(self.evidence.sent(to, self.env.now())),
        }
    }

    /// Has it noted what happens to a request.
    fn keep_journal(&self, notes: &Notes, plan: &mut Plan, level: Level, needed: u8) {
        let now = self.env.now();
        let owners = plan.replicas.nodes().map(|node| (node, true));
        let others = plan.fallbacks().into_iter().map(|node| (node, false));
        let preferred = |(node, is_owner)| PreferredV1 {
            node,
            is_owner,
            state: if node == self.me {
                MemberState::Up
            } else {
                self.liveness.state(node)
            },
            is_slow: self.evidence.is_slow(node, now),
        };
        let explanation = ExplanationV1 {
            epoch: plan.target.epoch,
            partition: plan.target.partition.0,
            partition_epoch: plan.partition_epoch,
            coordinator: self.me,
            forwarded_by: None,
            level,
            needed,
            preference: owners.chain(others).map(preferred).collect(),
            steps: Vec::new(),
        };
        plan.journal = Some(notes.keep(Journal::new(now, explanation)));
    }

    /// The context of a key whose replicas know `object`.
    fn seal(&self, bucket: BucketId, key: &Key, object: &Object) -> Context {
        self.contexts.seal(bucket, key, object.clock())
    }
}

/// A request that is waited for.
struct Waiting<'a> {
    env: &'a Env,
    evidence: &'a Evidence,
    sent: Option<Sent>,
}

impl Waiting<'_> {
    fn ended(mut self, was_answered: bool) {
        if let Some(sent) = self.sent.take() {
            self.evidence.ended(sent, was_answered, self.env.now());
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(sent) = self.sent.take() {
            self.evidence.given_up(sent, self.env.now());
        }
    }
}

/// A peer answered with the reply to another request: a defect on one side.
fn unexpected(response: &Response) -> Refusal {
    let name = format!("{response:?}");
    let name = name.split('(').next().unwrap_or_default().to_owned();
    Refusal::new(
        ErrorCode::Internal,
        format!("a peer answered with an unexpected {name}"),
    )
    .unknown()
}

/// The siblings of an object as a reply shows them at a time; values are appended to `tail`.
fn describe(
    object: &Object,
    mode: BucketMode,
    now_ms: u64,
    headers_only: bool,
    tail: &mut Vec<Bytes>,
) -> Vec<SiblingHeadV1> {
    let shown: Vec<_> = match mode {
        BucketMode::Siblings => object.siblings().collect(),
        BucketMode::Lww => object.last_written().into_iter().collect(),
    };
    shown
        .into_iter()
        .filter(|sibling| !sibling.is_expired(now_ms))
        .map(|sibling| {
            let payload = sibling.payload();
            if !headers_only {
                tail.extend(payload.value().cloned());
            }
            SiblingHeadV1 {
                write_id: sibling.write_id(),
                dot: sibling.newest_dot(),
                tombstone: payload.value().is_none(),
                value_bytes: u32::try_from(payload.size_bytes()).expect("values are at most 4 MiB"),
                value_hash: sibling.payload_hash(),
                expires_ms: sibling.expires_ms(),
            }
        })
        .collect()
}

/// Joins values into one tail; a single value is passed on without a copy.
fn join(mut tail: Vec<Bytes>) -> Bytes {
    match tail.len() {
        0 => Bytes::new(),
        1 => tail.remove(0),
        _ => tail.concat().into(),
    }
}
