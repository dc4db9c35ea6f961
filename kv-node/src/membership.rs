//! The driver of gossip: feeds it messages, time and liveness proofs, and does what it says.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use kv_gossip::{Config, Event, Gossip, Incarnation, Input, Member, Myself, Output, State, Time};
use kv_net::ErrorCode;
use kv_net::message::{MemberState, MemberViewV1, Request, Response, TopologyV1};
use kv_ring::{ChainHash, Topology};
use kv_storage::WriteBatch;
use kv_types::{Epoch, NodeId};
use tokio::sync::Notify;

use crate::env::Env;
use crate::fork::Fork;
use crate::liveness::Liveness;
use crate::refusal::Refusal;
use crate::storage_key;
use crate::store::{Store, StoreError, committed};
use crate::topologies::{Topologies, TopologyError};
use crate::transport::Peer;

/// How long a topology may take to be fetched from a peer.
const FETCH_BUDGET: Duration = Duration::from_secs(2);

/// This node's part in the gossip.
pub struct Membership {
    env: Env,
    me: NodeId,
    gossip: Mutex<Gossip>,
    /// The deadline may have moved.
    wake: Notify,
    liveness: Arc<Liveness>,
    topologies: Arc<Topologies>,
    store: Store,
    /// Peers remember a later start of this node.
    rolled_back: AtomicBool,
    fork: Fork,
}

impl Membership {
    /// Starts gossiping with the members of the topology. `boot` counts the starts of this node.
    #[must_use]
    pub fn start(
        env: Env,
        config: Config,
        me: NodeId,
        boot: u64,
        liveness: Arc<Liveness>,
        topologies: Arc<Topologies>,
        store: Store,
    ) -> Arc<Self> {
        let topology = topologies.current();
        let address = topology
            .member(me)
            .map(|member| member.address.clone())
            .unwrap_or_default();
        let myself = Myself {
            node: me,
            address,
            incarnation: Incarnation::first_of_boot(boot),
            boot,
            epoch: topology.epoch(),
            chain_hash: short(topologies.chain_hash()),
        };
        let gossip = Mutex::new(Gossip::new(
            config,
            myself,
            env.host.random(),
            Time::from(env.now()),
        ));
        let membership = Arc::new(Self {
            env,
            me,
            gossip,
            wake: Notify::new(),
            liveness,
            topologies,
            store,
            rolled_back: AtomicBool::new(false),
            fork: Fork::default(),
        });
        membership.feed(Input::LivenessProof { healthy: true });
        membership.feed(Input::Removed(removed(&topology)));
        membership.feed(Input::Seeds(others(&topology, me)));
        membership.env.spawn(Arc::clone(&membership).keep_time());
        membership
            .env
            .spawn(Arc::clone(&membership).prove_liveness());
        membership
    }

    /// Takes in a message from a peer.
    pub fn on_message(self: &Arc<Self>, from: NodeId, bytes: Bytes) {
        self.feed(Input::Message { from, bytes });
    }

    /// Tells the others that this node stops on purpose.
    pub async fn leave(self: &Arc<Self>) {
        self.feed(Input::Leave);
        let linger = self.gossip().config().leave_linger();
        self.env.sleep(linger).await;
    }

    /// This node's view of every member of the topology.
    #[must_use]
    pub fn views(&self) -> Vec<MemberViewV1> {
        let now = Time::from(self.env.now());
        let gossip = self.gossip();
        let topology = self.topologies.current();
        let view = |node: NodeId| match gossip.member(node) {
            Some(member) => MemberViewV1 {
                node,
                state: state(member.state()),
                since_ms: millis(now.since(member.since())),
                heartbeat: member.heartbeat(),
            },
            None => MemberViewV1 {
                node,
                state: self.liveness.state(node),
                since_ms: 0,
                heartbeat: 0,
            },
        };
        topology
            .members()
            .iter()
            .map(|member| view(member.node))
            .collect()
    }

    /// A hash of this node's view: equal on nodes that see the same.
    #[must_use]
    pub fn view_hash(&self) -> u64 {
        self.gossip().view_hash()
    }

    /// Whether peers remember a later start of this node than this one: its disk was rolled back or
    /// copied, so what it holds must not count.
    #[must_use]
    pub fn is_rolled_back(&self) -> bool {
        self.rolled_back.load(Ordering::SeqCst)
    }

    /// Refuses what a node must not do whose disk is an old one, or as which another process runs.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub(crate) fn check_memory(&self) -> Result<(), Refusal> {
        if self.is_rolled_back() {
            let message = "peers remember a later start of this node; see that no other process runs as it: some time after that it fetches what it lacks";
            return Err(Refusal::new(ErrorCode::Storage, message));
        }
        Ok(())
    }

    /// A peer has another history of the topology: from now on the topology is not changed from here.
    fn meet_fork(&self, node: NodeId, epoch: Epoch) {
        if self.fork.met(node, self.env.now()) {
            tracing::error!(
                peer = %self.name(node), %epoch,
                "a peer has another history of the topology; nothing is changed in it from here until a minute after that peer was heard last: stop it, and compare its data directory with the others'"
            );
        }
    }

    /// Whether no peer with another history of the topology was heard lately.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub(crate) fn check_history(&self) -> Result<(), Refusal> {
        let Some(node) = self.fork.peer(self.env.now()) else {
            return Ok(());
        };
        let message = format!(
            "{} has another history of the topology: a node of another cluster, or a fork; nothing was changed; stop it, compare its data directory with the others', and try again a minute later",
            self.name(node)
        );
        Err(Refusal::new(ErrorCode::BadRequest, message))
    }

    /// Whether a peer with another history of the topology was heard lately.
    pub(crate) fn has_met_fork(&self) -> bool {
        self.fork.peer(self.env.now()).is_some()
    }

    /// Peers remember a later start of this node than this one.
    pub(crate) fn meet_later_self(&self, remembered: u64) {
        if !self.rolled_back.swap(true, Ordering::SeqCst) {
            tracing::error!(
                remembered,
                "peers remember a later start of this node: another process runs under its identity, or its disk is an old one and no peer could be asked at its start; it refuses all requests; see that no other runs: some time after that it ends, and fetches what it lacks when it is started again"
            );
        }
    }

    /// The boot counter of a member, as gossip spreads it; `None` before anything was heard of it.
    pub(crate) fn boot_of(&self, node: NodeId) -> Option<u64> {
        self.gossip().member(node).map(Member::boot)
    }

    /// Counters of the gossip.
    #[must_use]
    pub fn stats(&self) -> kv_gossip::Stats {
        self.gossip().stats()
    }

    fn feed(self: &Arc<Self>, input: Input) {
        let mut out = Vec::new();
        {
            // States are passed on under the lock: two threads must not pass them on in another
            // order than the gossip decided them.
            let mut gossip = self.gossip();
            gossip.handle(Time::from(self.env.now()), input, &mut out);
            for output in &out {
                if let Output::Event(event) = output {
                    self.pass_on(event);
                }
                if let Output::Event(Event::Alive { node }) = output
                    && let Some(until) = gossip.member(*node).and_then(Member::damped_until)
                {
                    if !self.liveness.is_damped(*node, self.env.now()) {
                        tracing::warn!(member = %self.name(*node), "this member comes and goes; for some minutes it is asked last");
                    }
                    self.liveness.damp(*node, until.since(Time::ZERO));
                }
            }
        }
        self.wake.notify_one();
        for output in out {
            match output {
                Output::Send { to, address, bytes } => self.send(to, address, bytes),
                Output::Event(event) => self.on_event(event),
            }
        }
    }

    /// Lets requests see a change of a member's state.
    fn pass_on(&self, event: &Event) {
        let (node, state) = match event {
            Event::Alive { node } => (*node, MemberState::Up),
            Event::Suspect { node } => (*node, MemberState::Suspect),
            Event::Dead { node } => (*node, MemberState::Down),
            Event::Left { node } => (*node, MemberState::Left),
            Event::NewerTopology { .. }
            | Event::ConflictingTopology { .. }
            | Event::OlderBoot { .. } => return,
        };
        self.liveness.set(node, state, self.env.now());
    }

    fn send(&self, to: NodeId, address: String, bytes: Bytes) {
        // Gossip may not have heard where a member is; the topology lists all.
        let listed = || {
            self.topologies
                .current()
                .member(to)
                .map(|member| member.address.clone())
        };
        let address = Some(address)
            .filter(|address| !address.is_empty())
            .or_else(listed);
        if let Some(address) = address {
            self.env.transport.gossip(Peer { node: to, address }, bytes);
        }
    }

    fn on_event(self: &Arc<Self>, event: Event) {
        match event {
            Event::Alive { node } => self.member_is(node, MemberState::Up),
            Event::Suspect { node } => self.member_is(node, MemberState::Suspect),
            Event::Dead { node } => self.member_is(node, MemberState::Down),
            Event::Left { node } => self.member_is(node, MemberState::Left),
            Event::NewerTopology { node, epoch, .. } => {
                tracing::info!(peer = %self.name(node), %epoch, "a peer has a newer topology");
                self.env.spawn(Arc::clone(self).fetch_topology(node));
            }
            Event::ConflictingTopology { node, epoch, .. } => self.meet_fork(node, epoch),
            Event::OlderBoot { remembered } => self.meet_later_self(remembered),
        }
    }

    fn member_is(&self, node: NodeId, state: MemberState) {
        tracing::info!(member = %self.name(node), ?state, "membership changed");
    }

    fn name(&self, node: NodeId) -> String {
        self.topologies
            .current()
            .member(node)
            .map_or_else(|| node.short(), |member| member.name.clone())
    }

    async fn fetch_topology(self: Arc<Self>, from: NodeId) {
        // Who knows of a newer topology may be a member only by that one.
        let told = || {
            let gossip = self.gossip();
            gossip
                .member(from)
                .map(|member| member.address().to_owned())
        };
        loop {
            self.topology_changed();
            let topology = self.topologies.current();
            let listed = topology.member(from).map(|member| member.address.clone());
            let Some(address) = listed.or_else(told) else {
                return;
            };
            let peer = Peer {
                node: from,
                address,
            };
            let request = Request::Topology(TopologyV1 {
                known: topology.epoch(),
            });
            let answer = self.env.transport.call(peer, request, FETCH_BUDGET).await;
            let entry = match answer {
                Ok(Response::Topology(_, entry)) if !entry.is_empty() => entry,
                // Whoever else learnt it first.
                Ok(_) => return self.topology_changed(),
                Err(failure) => {
                    tracing::debug!(%failure, "a newer topology could not be fetched yet");
                    return;
                }
            };
            match self.topologies.adopt(entry).await {
                Ok(_) => {}
                Err(TopologyError::OtherHistory { epoch }) => {
                    self.meet_fork(from, epoch);
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "a newer topology was not taken over");
                    return;
                }
            }
        }
    }

    /// Tells the gossip that this node has adopted another topology.
    pub fn topology_changed(self: &Arc<Self>) {
        let (topology, chain_hash) = self.topologies.tip();
        self.feed(Input::Topology {
            epoch: topology.epoch(),
            chain_hash: short(chain_hash),
        });
        self.feed(Input::Removed(removed(&topology)));
        self.feed(Input::Seeds(others(&topology, self.me)));
    }

    async fn keep_time(self: Arc<Self>) {
        loop {
            let deadline = self.gossip().next_deadline();
            let now = Time::from(self.env.now());
            match deadline {
                Some(deadline) if deadline <= now => self.feed(Input::Tick),
                Some(deadline) => {
                    let nap = self.env.sleep(deadline.since(now));
                    if let Either::Right(_) = select(Box::pin(self.wake.notified()), nap).await {
                        self.feed(Input::Tick);
                    }
                }
                None => self.wake.notified().await,
            }
        }
    }

    /// Shows again and again that the log can be synced and that this task is run.
    async fn prove_liveness(self: Arc<Self>) {
        let period = self.gossip().config().proof_validity / 4;
        loop {
            self.env.sleep(period).await;
            let mut batch = WriteBatch::new();
            batch.put(
                &storage_key::system("liveness-probe"),
                &self.env.host.wall_ms().to_le_bytes(),
            );
            let probe = async {
                match self.store.write(batch, Store::REQUEST_PATIENCE).await {
                    Ok(commit) => committed(commit).await,
                    // An engine that is behind or full is alive: it goes on reading.
                    Err(StoreError::Busy | StoreError::Full(_)) => Ok(()),
                    Err(broken) => Err(broken),
                }
            };
            let healthy = match self.env.timeout(period, probe).await {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    tracing::error!(%error, "the log cannot be written; this node stops claiming to be alive");
                    false
                }
                Err(_) => {
                    tracing::warn!(
                        "the log was not synced within {period:?}: a stuck disk, or this process was stopped"
                    );
                    false
                }
            };
            self.feed(Input::LivenessProof { healthy });
        }
    }

    fn gossip(&self) -> std::sync::MutexGuard<'_, Gossip> {
        self.gossip.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("me", &self.me)
            .finish_non_exhaustive()
    }
}

fn others(topology: &Topology, me: NodeId) -> Vec<(NodeId, String)> {
    let members = topology.members().iter().filter(|member| member.node != me);
    members
        .map(|member| (member.node, member.address.clone()))
        .collect()
}

/// Whom the topology has removed for ever.
fn removed(topology: &Topology) -> Vec<NodeId> {
    topology.removed().keys().copied().collect()
}

/// Gossip carries half of the chain hash: enough to notice a difference.
fn short(hash: ChainHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn state(state: State) -> MemberState {
    match state {
        State::Alive => MemberState::Up,
        State::Suspect => MemberState::Suspect,
        State::Dead => MemberState::Down,
        State::Left => MemberState::Left,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
