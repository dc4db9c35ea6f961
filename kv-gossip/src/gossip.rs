//! The machine: takes inputs, keeps the nouns consistent, gives outputs.
//!
//! | part | what it does |
//! |---|---|
//! | `beliefs` | merges rumors, accuses, clears, refutes |
//! | `probing` | probe cycles and what they ask of others |
//! | `reconciling` | compares views, tries the dead and the unknown |
//! | `spreading` | composes messages, sends rounds of news, says goodbye |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use core::time::Duration;

use fastrand::Rng;
use kv_types::NodeId;

use crate::config::Config;
use crate::health::LocalHealth;
use crate::heartbeat::OwnHeartbeat;
use crate::io::{Event, Input, Myself, Output, Stats};
use crate::member::Member;
use crate::members::Members;
use crate::message::{Body, Header, MAX_ADDRESS_SIZE_BYTES, Message, Profile};
use crate::pings::Pings;
use crate::probe::Probe;
use crate::rumors::Rumors;
use crate::standing::{Incarnation, Standing, State};
use crate::time::Time;
use crate::timers::{Timer, Timers};
use crate::topology::TopologyWatch;

mod beliefs;
mod probing;
mod reconciling;
mod spreading;

/// One member of the cluster, as a pure state machine.
///
/// Not thread-safe: one owner feeds it. See the crate's page for the protocol and an example.
pub struct Gossip {
    config: Config,
    rng: Rng,
    me: NodeId,
    started: Time,
    /// The time of the input being handled; never goes back.
    now: Time,
    /// What the input being handled has led to so far.
    out: Vec<Output>,

    members: Members,
    rumors: Rumors,
    /// Listed members and join seeds, with their listed addresses.
    seeds: BTreeMap<NodeId, String>,
    /// Whom the topology has removed for ever, with their last address, empty if not known.
    removed: BTreeMap<NodeId, String>,
    topology: TopologyWatch,
    own: OwnHeartbeat,
    health: LocalHealth,

    timers: Timers,
    /// When the next round of news is sent, if there are any.
    news_due: Option<Time>,
    /// When the last round of news was sent.
    news_at: Time,
    pings: Pings,
    /// The probe of the period.
    probe: Option<Probe>,
    /// Probes of suspects beside it, because this member observes them; a few at most.
    checks: Vec<Probe>,
    /// Members to probe next, because a peer's view doubts them.
    doubted: BTreeSet<NodeId>,
    /// How many probes were free to go to whom this member observes, or to the next of the round.
    turns_count: usize,
    suspicions_count: u64,
    /// No suspicion ends before this: this member has slept and must first hear the news.
    grace_until: Time,
    /// No reconciliation out of turn before this.
    sync_free_at: Time,

    /// The highest incarnation of this member that others have accused and that is not refuted yet.
    accused: Option<Incarnation>,
    /// The highest boot of this node that peers remember, if above its own.
    remembered_boot: u64,
    leaving: bool,
    stats: Stats,
}

impl Gossip {
    /// A member that knows nobody yet. `seed` feeds all its random choices.
    ///
    /// # Panics
    ///
    /// If the address is longer than [`MAX_ADDRESS_SIZE_BYTES`]: peers would drop every message.
    #[must_use]
    pub fn new(config: Config, me: Myself, seed: u64, now: Time) -> Self {
        let address_size_bytes = me.address.len();
        assert!(
            address_size_bytes <= MAX_ADDRESS_SIZE_BYTES,
            "address of {address_size_bytes} bytes"
        );
        let profile = Profile {
            address: me.address,
            boot: me.boot,
            heartbeat: 0,
            age: 0,
            epoch: me.epoch,
        };
        let own = Member::new(me.node, Standing::alive(me.incarnation), &profile, 0, now);
        let mut gossip = Self {
            rng: Rng::with_seed(seed),
            me: me.node,
            started: now,
            now,
            out: Vec::new(),
            members: Members::new(own),
            rumors: Rumors::default(),
            seeds: BTreeMap::new(),
            removed: BTreeMap::new(),
            topology: TopologyWatch::new(me.epoch, me.chain_hash),
            own: OwnHeartbeat::new(now, config.period(), config.proof_validity),
            health: LocalHealth::new(config.health_limit),
            timers: Timers::default(),
            news_due: None,
            news_at: now,
            pings: Pings::default(),
            probe: None,
            checks: Vec::new(),
            doubted: BTreeSet::new(),
            turns_count: 0,
            suspicions_count: 0,
            grace_until: now,
            sync_free_at: now,
            accused: None,
            remembered_boot: me.boot,
            leaving: false,
            stats: Stats::default(),
            config,
        };
        gossip.arm_all();
        gossip
    }

    /// Handles one input; what the driver must do is appended to `out`.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        self.now = self.now.max(now);
        self.beat();
        match input {
            Input::Message { from, bytes } => self.on_message(from, &bytes),
            Input::Tick => self.on_tick(),
            Input::Seeds(seeds) => self.on_seeds(seeds),
            Input::Removed(nodes) => self.on_removed(nodes),
            Input::Topology { epoch, chain_hash } => {
                let announcements = self.transmissions();
                self.topology.adopt(epoch, chain_hash, announcements);
                self.members.update(self.me, |me| me.learn_epoch(epoch));
                self.arm_news();
            }
            Input::LivenessProof { healthy } => {
                self.own.report(self.now, healthy);
                self.beat();
                self.refute();
            }
            Input::Leave => self.leave(),
        }
        out.append(&mut self.out);
    }

    /// When the next [`Input::Tick`] is due. Earlier ticks do nothing, later ones make this member
    /// doubt its own health.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.earliest()
    }

    /// Every node heard of, this one included, by node id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// What is known of one node.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(node)
    }

    /// What one node is believed to be doing; `None` if nobody has heard of it.
    #[must_use]
    pub fn state_of(&self, node: NodeId) -> Option<State> {
        self.member(node).map(Member::state)
    }

    /// Whether a node has come back from suspicion or death four times or more in the last minutes,
    /// as of the last input: routing should prefer others as coordinator and as source of full
    /// values, not as replica. See [`Member::damped_until`]; false if nobody has heard of the node.
    #[must_use]
    pub fn is_damped(&self, node: NodeId) -> bool {
        self.member(node)
            .and_then(Member::damped_until)
            .is_some_and(|until| self.now < until)
    }

    /// The members that observe a node: up to four of those that this member believes alive, the same
    /// for all members with the same view. Their word shortens suspicions of the node.
    #[must_use]
    pub fn observers_of(&self, node: NodeId) -> Vec<NodeId> {
        self.members.observers_of(node)
    }

    /// A hash of this member's view: equal exactly where standing, boot and address of every member
    /// agree (but for collisions of 64 bits). Heartbeats and epochs, which always move, do not count.
    #[must_use]
    pub fn view_hash(&self) -> u64 {
        self.members.hash()
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            health_score: self.health.score(),
            ..self.stats
        }
    }

    /// The configuration it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Spreads the periodic work of members that start together.
    fn arm_all(&mut self) {
        let period = self.config.period();
        let probe_in = self.up_to(period);
        self.timers.set(self.now + probe_in, Timer::NextProbe);
        // A newcomer reconciles early: others joined while it did.
        let sync_in = period + self.up_to(period);
        self.timers.set(self.now + sync_in, Timer::Sync);
        self.timers.set(self.now + period, Timer::Reconnect);
    }

    fn on_tick(&mut self) {
        self.notice_sleep();
        while let Some(timer) = self.timers.pop_due(self.now) {
            match timer {
                Timer::NextProbe => self.start_probe(),
                Timer::ProbeTimeout { seq } => self.ask_others(seq),
                Timer::ProbeEnd { seq } => self.end_probe(seq),
                Timer::RelayPatience { seq } => self.give_up_relay(seq),
                Timer::News => self.send_news(),
                Timer::Sync => self.sync(),
                Timer::Reconnect => self.reconnect(),
                Timer::SuspicionEnd { node, token } => self.end_suspicion(node, token),
            }
        }
    }

    /// A tick that comes late means that this process was paused. Then it is this member that
    /// missed answers, so nobody is accused for them, and no suspicion ends before the news of the
    /// meantime had time to arrive.
    fn notice_sleep(&mut self) {
        let period = self.config.period();
        let late = self
            .timers
            .earliest()
            .map_or(Duration::ZERO, |due| self.now.since(due));
        if late < period {
            return;
        }
        self.health.worsen(1);
        self.grace_until = self.now + 2 * period;
        self.checks.clear();
        if self.probe.take().is_some() {
            self.timers.set(self.now, Timer::NextProbe);
        }
    }

    fn on_message(&mut self, from: NodeId, bytes: &[u8]) {
        self.stats.messages_received += 1;
        self.stats.bytes_received += bytes.len() as u64;
        let Ok(message) = Message::decode(bytes) else {
            self.stats.malformed += 1;
            return;
        };
        if from == self.me {
            return;
        }
        if self.removed.contains_key(&from) {
            return self.on_message_of_removed(from, &message);
        }
        // Rumors first: they may introduce the sender, or hold the refutation that an ack rests on.
        let Message {
            header,
            body,
            rumors,
        } = message;
        let is_view = body == Body::State;
        for rumor in rumors {
            self.on_rumor(from, rumor, is_view);
        }
        self.on_header(from, &header);
        self.on_body(from, &header, body);
    }

    /// A removed node may not know yet that it is: its pings and its digests are answered, by messages
    /// that state the newer epoch and nothing else. Nothing it says about itself or others counts, but
    /// for where it is, if that is not known here.
    fn on_message_of_removed(&mut self, from: NodeId, message: &Message) {
        let mut own = message.rumors.iter().filter(|rumor| rumor.node == from);
        let told = own.find_map(|rumor| rumor.profile.as_ref());
        if let (Some(address), Some(told)) = (self.removed.get_mut(&from), told)
            && address.is_empty()
        {
            address.clone_from(&told.address);
        }
        match message.body {
            Body::Ping { seq } => {
                let stalled = self.own.is_stalled(self.now);
                self.transmit(from, Body::Ack { seq, stalled }, vec![]);
            }
            // It sees nobody alive, so it pings nobody.
            Body::Digest { .. } => self.transmit(from, Body::News, vec![]),
            _ => {}
        }
    }

    fn on_header(&mut self, from: NodeId, header: &Header) {
        let period = self.config.period();
        let stated = (header.epoch, header.chain_hash);
        if let Some(event) = self.topology.compare(self.now, period, from, stated) {
            self.emit(event);
        }
        let now = self.now;
        let known = self.members.update(from, |member| {
            member.learn_epoch(header.epoch);
            member.learn_pulse(header.incarnation, |pulse| {
                pulse.hear(now, header.heartbeat, period);
            });
            member.standing()
        });
        match known {
            Some(standing) if header.incarnation <= standing.incarnation => {
                if standing.state != State::Alive || header.incarnation < standing.incarnation {
                    self.tell_own_standing(from);
                }
            }
            Some(_) | None => self.sync_out_of_turn(from),
        }
    }

    fn on_body(&mut self, from: NodeId, header: &Header, body: Body) {
        match body {
            Body::Ping { seq } => self.on_ping(from, seq),
            Body::Ack { seq, stalled } => self.on_ack(from, header, seq, stalled),
            Body::PingRequest { seq, target } => self.on_ping_request(from, seq, target),
            Body::RelayedAck {
                seq,
                incarnation,
                heartbeat,
                stalled,
            } => {
                self.on_relayed_ack(seq, incarnation, heartbeat, stalled);
            }
            Body::Nack { seq } => self.on_nack(seq),
            Body::Digest { answer, buckets } => self.on_digest(from, answer, &buckets),
            Body::News | Body::State => {}
        }
    }

    /// Moves the own heartbeat on, as far as the proofs allow.
    fn beat(&mut self) {
        let (now, period) = (self.now, self.config.period());
        if self.members.live_count() <= 1 {
            self.own.contact(now);
        }
        let (heartbeat, age) = (self.own.beat(now), self.own.age(now));
        self.members.update(self.me, |me| {
            me.learn_pulse(me.incarnation(), |pulse| {
                pulse.hear(now, heartbeat, period);
                pulse.place(now, age, period);
            });
        });
    }

    fn emit(&mut self, event: Event) {
        self.out.push(Output::Event(event));
    }

    fn transmissions(&self) -> u32 {
        self.config.transmissions(self.members.live_count())
    }

    /// A random part of `span`.
    fn up_to(&mut self, span: Duration) -> Duration {
        span.mul_f64(self.rng.f64())
    }

    /// `span`, a quarter more or less.
    fn about(&mut self, span: Duration) -> Duration {
        span * 3 / 4 + self.up_to(span / 2)
    }
}

impl fmt::Debug for Gossip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gossip")
            .field("me", &self.me)
            .field("now", &self.now)
            .field("members", &self.members.len())
            .field("live", &self.members.live_count())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
