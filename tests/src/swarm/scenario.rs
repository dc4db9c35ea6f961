//! Everything about one day, as a seed draws it or a file holds it.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;
use kv_node::replica::PageLimits;
use kv_node::topologies::USUAL_HISTORY;
use kv_ring::ClusterMode;
use kv_storage::Options;
use kv_types::{BlindPut, BucketMode, BucketProperties, Quorum};
use serde::{Deserialize, Serialize};

use super::fault::{Event, Fault, NodeNumber, Plan, absent, doubted, hermits, with_restores};
use super::members::{self, Order, What};
use super::work::FIRST_ROW;

use crate::history::KeyNumber;

/// One day. Equal scenarios give equal runs, bit for bit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Draws everything that is not said here: delays, orders of tasks, what clients do.
    pub seed: u64,
    /// Nodes and clients speak real QUIC over simulated datagrams, instead of mere messages.
    #[serde(default)]
    pub quic: bool,
    /// How many nodes there are.
    pub nodes: NodeNumber,
    /// How many more may join.
    #[serde(default)]
    pub newcomers: NodeNumber,
    /// What is to happen to the members.
    #[serde(default)]
    pub orders: Vec<Order>,
    /// How many keys clients use.
    pub keys: u32,
    /// The clients, by number.
    pub clients: Vec<u32>,
    /// The longest rest of a client between two operations, in milliseconds.
    pub rest_ms: u64,
    /// How many operators change the topology meanwhile.
    #[serde(default)]
    pub operators: u64,
    /// Clients keep sessions.
    #[serde(default)]
    pub sessions: bool,
    /// Deletions are forgotten within the day.
    #[serde(default)]
    pub forgets: bool,
    /// How much nodes keep in memory and in their logs before they write tables, in KiB.
    #[serde(default = "smallest_buffer")]
    pub buffer_kib: usize,
    /// Replicas of each key, and how many of them a read and a write at level quorum need.
    #[serde(default = "majorities")]
    pub quorum: Quorum,
    /// The cluster has no sloppy quorums, and clients name no level where they mean quorum.
    #[serde(default)]
    pub cp: bool,
    /// Of each key only the write shows that was made last.
    #[serde(default)]
    pub last_writer_wins: bool,
    /// Writes without a context replace nothing.
    #[serde(default)]
    pub blind_adds: bool,
    /// How many copies nodes go through for one answer, when they compare or list.
    #[serde(default = "usual_page")]
    pub page_copies: usize,
    /// How many topologies nodes keep: whoever is further behind takes the newest one.
    #[serde(default = "usual_history")]
    pub history: usize,
    /// All keys are rows of one partition key.
    #[serde(default)]
    pub has_rows: bool,
    /// After how many milliseconds nodes ask others for one that does not answer a ping.
    #[serde(default = "usual_ping")]
    pub ping_ms: u64,
    /// By how many milliseconds the clocks of clients are wrong at most, once they have asked nodes what time it is.
    #[serde(default)]
    pub clients_off_ms: u64,
    /// How long clients work, in milliseconds.
    pub work_ms: u64,
    /// How clients work.
    pub mix: Mix,
    /// What goes wrong.
    pub events: Vec<Event>,
}

/// Of 1,000 operations, how many are of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mix {
    /// Reads and writes at level weak.
    pub weak: u64,
    /// Reads and writes at level all.
    pub all: u64,
    /// Reads and writes at level eventual.
    #[serde(default)]
    pub eventual: u64,
    /// Reads and writes that name a number of replicas.
    #[serde(default)]
    pub numbers: u64,
    /// Writes without a context.
    pub blind: u64,
    /// Writes that delete.
    pub deletes: u64,
    /// Writes of values that expire.
    #[serde(default)]
    pub passing: u64,
    /// Writes of values that are too long for the streams shared by small messages.
    #[serde(default)]
    pub large: u64,
    /// Writes that are acknowledged before any replica has synced them.
    #[serde(default)]
    pub memory: u64,
    /// Writes that are acknowledged when one replica has synced them.
    #[serde(default)]
    pub one: u64,
    /// Reads that are followed by a write of another key with the context of the one that was read.
    #[serde(default)]
    pub astray: u64,
    /// Listings of what is in the partition of a key.
    #[serde(default)]
    pub lists: u64,
    /// Writes of unknown fate after which it is asked what became of them.
    #[serde(default)]
    pub asks: u64,
}

/// A table for every few writes.
fn smallest_buffer() -> usize {
    4
}

/// How long it takes at most until a disk that is put back is in its place.
const LONGEST_PUT_BACK: Duration = Duration::from_secs(5);

fn majorities() -> Quorum {
    Quorum::new(3, 2, 2).expect("two of three")
}

fn usual_history() -> usize {
    USUAL_HISTORY
}

fn usual_ping() -> u64 {
    125
}

fn usual_page() -> usize {
    PageLimits::default().copies
}

impl Scenario {
    /// The day that a seed draws, in which clients work for so long.
    #[must_use]
    pub fn draw(seed: u64, work: Duration) -> Self {
        let mut rng = Rng::with_seed(seed);
        let nodes = rng.u8(3..=5);
        // Such a day takes twice the time.
        let quic = rng.u8(0..5) == 0;
        let comes_and_goes = rng.u8(0..3) == 0;
        let newcomers = if comes_and_goes { rng.u8(1..=2) } else { 0 };
        // A damaged disk may take with it what only one replica acknowledged: never both on one day, so that nothing
        // is forfeited.
        let has_damage = rng.u8(0..4) == 0;
        let share = |rng: &mut Rng| if rng.bool() { 0 } else { rng.u64(0..300) };
        let mix = Mix {
            weak: if has_damage { 0 } else { share(&mut rng) },
            all: share(&mut rng) / 3,
            eventual: [0, 300, 800][rng.usize(0..3)],
            numbers: 0,
            blind: share(&mut rng),
            deletes: share(&mut rng),
            passing: 0,
            large: if quic {
                [0, 40, 300][rng.usize(0..3)]
            } else {
                [0, 0, 0, 40][rng.usize(0..4)]
            },
            memory: 0,
            one: 0,
            astray: 0,
            lists: 0,
            asks: 0,
        };
        let work_ms = u64::try_from(work.as_millis()).unwrap_or(u64::MAX);
        let plan = Plan {
            nodes: nodes + newcomers,
            until_ms: work_ms,
            victim: has_damage.then(|| rng.u8(1..=nodes)),
            quic,
        };
        let clients = rng.u32(4..=9);
        let mut day = Self {
            seed,
            quic,
            nodes,
            newcomers,
            orders: Vec::new(),
            keys: [2, 8, 40, 200][rng.usize(0..if quic { 3 } else { 4 })],
            clients: (1..=clients).collect(),
            rest_ms: [10, 35, 100][rng.usize(0..3)],
            operators: rng.u64(0..3),
            work_ms,
            mix,
            events: plan.draw(&mut rng),
            forgets: rng.bool(),
            buffer_kib: smallest_buffer(),
            quorum: majorities(),
            cp: false,
            last_writer_wins: false,
            blind_adds: false,
            page_copies: usual_page(),
            history: usual_history(),
            has_rows: false,
            ping_ms: usual_ping(),
            clients_off_ms: 0,
            sessions: false,
        };
        day.mix.passing = share(&mut rng);
        // While some node was started a moment ago nobody forgets.
        if day.forgets && rng.bool() {
            day.events.retain(|event| event.fault.leaves_processes());
            if rng.bool() {
                day.events.extend(hermits(&plan, &mut rng));
            }
        }
        day.sessions = rng.bool();
        if !quic && rng.u8(0..5) < 2 {
            // What only the node knew whose disk is put back is gone.
            day.mix.weak = 0;
            day.operators = day.operators.max(1);
            if rng.bool() {
                // So that something is forgotten before a disk is put back.
                day.forgets = true;
                day.mix.deletes = day.mix.deletes.max(100);
                let events = &mut day.events;
                events.retain(|event| event.fault.leaves_processes() && rng.u8(0..3) == 0);
            }
            day.events = with_restores(day.events, &plan, &mut rng);
        }
        day.buffer_kib = [smallest_buffer(), 16, 64][rng.usize(0..3)];
        if !quic && rng.u8(0..4) == 0 {
            for _ in 0..4 {
                day.events.extend(doubted(&plan, &mut rng));
            }
        }
        day.has_rows = rng.u8(0..4) == 0;
        day.ping_ms = match seed % 3 {
            0 => 50,
            _ => usual_ping(),
        };
        day.mix.lists = [0, 40][rng.usize(0..2)];
        day.mix.astray = [0, 10][rng.usize(0..2)];
        day.mix.asks = [0, 500][rng.usize(0..2)];
        if rng.u8(0..4) == 0 {
            day.mix.memory = share(&mut rng);
            // The one disk must not be taken away.
            let may_lose_disks = has_damage || day.restores();
            day.mix.one = if may_lose_disks { 0 } else { share(&mut rng) };
        }
        day.page_copies = [2, 10, usual_page()][rng.usize(0..3)];
        if rng.u8(0..8) == 0 {
            day.events.push(absent(&plan, &mut rng));
        }
        if rng.u8(0..4) == 0 {
            day.quorum = day.other_numbers(&mut rng, has_damage);
        }
        day.mix.numbers = [0, 0, 100][rng.usize(0..3)];
        match rng.u8(0..12) {
            0 | 1 => {
                day.last_writer_wins = true;
                // Contexts are not looked at.
                day.mix.astray = 0;
                // What a clock has dated ahead wins, for as long as it was ahead: too much would have to be excused.
                let keeps_time = |event: &Event| !matches!(event.fault, Fault::Skew { .. });
                day.events.retain(keeps_time);
            }
            2 => {
                day.blind_adds = true;
                day.mix.blind = day.mix.blind.max(50);
            }
            3 | 4 => {
                day.cp = true;
                day.mix.eventual = 0;
            }
            _ => {}
        }
        if comes_and_goes {
            let may_lose = day.keeps_bytes() && day.quorum.w() > 1 && rng.u8(0..3) == 0;
            if may_lose {
                // What only one node has goes with it.
                day.mix.weak = 0;
                day.mix.one = 0;
            }
            if rng.bool() {
                // Some know of a change what others do not, for as long as it takes.
                day.events.extend(hermits(&plan, &mut rng));
            }
            day.orders = members::draw(&mut rng, nodes, newcomers, work_ms, may_lose);
        }
        day.history = [1, 2, usual_history()][rng.usize(0..3)];
        day.clients_off_ms = [0, 100, 500][rng.usize(0..3)];
        day
    }

    /// All nodes that there are or may be.
    pub fn machines(&self) -> impl Iterator<Item = NodeNumber> + use<> {
        1..=self.nodes + self.newcomers
    }

    /// Numbers that keep the promises of level quorum whatever happens on the day.
    fn other_numbers(&self, rng: &mut Rng, has_damage: bool) -> Quorum {
        let possible = |(n, r, w): &(u8, u8, u8)| {
            // What only one disk holds goes with it, and those that are left must be able to serve without one.
            let loses_disks = has_damage || self.restores();
            let spared = n - u8::from(has_damage);
            *n <= self.nodes
                && (!loses_disks || *w > 1)
                && *w <= spared
                && *r.max(&(n - r + 1)) <= spared
        };
        let all = [
            (3, 1, 3),
            (3, 3, 1),
            (3, 3, 2),
            (5, 2, 4),
            (5, 4, 2),
            (5, 3, 3),
            (3, 2, 2),
        ];
        let all: Vec<_> = all.into_iter().filter(possible).collect();
        let (n, r, w) = all[rng.usize(0..all.len())];
        Quorum::new(n, r, w).expect("they are possible")
    }

    /// By how many milliseconds the clock of a client is ahead; behind, if that is negative.
    #[must_use]
    pub fn client_ahead_ms(&self, client: u32) -> i64 {
        let most = i64::try_from(self.clients_off_ms).expect("some seconds");
        let mut rng = Rng::with_seed(self.seed ^ u64::from(client) << 24);
        rng.i64(-most..=most)
    }

    /// Whether the cluster has sloppy quorums.
    #[must_use]
    pub fn cluster_mode(&self) -> ClusterMode {
        match self.cp {
            true => ClusterMode::Cp,
            false => ClusterMode::Ap,
        }
    }

    /// The properties of the bucket that clients use.
    ///
    /// # Panics
    /// When its numbers are not possible.
    #[must_use]
    pub fn bucket(&self) -> BucketProperties {
        let majorities = BucketProperties::majority_of(self.quorum.n()).expect("a possible number");
        BucketProperties {
            quorum: self.quorum,
            mode: match self.last_writer_wins {
                true => BucketMode::Lww,
                false => BucketMode::Siblings,
            },
            blind_put: match self.blind_adds {
                true => BlindPut::Sibling,
                false => BlindPut::Overwrite,
            },
            ..majorities
        }
    }

    /// The least number of replicas that clients name for a write: a disk that was lost is filled from as many others as
    /// the bucket's numbers need.
    #[must_use]
    pub fn least_to_write(&self) -> u8 {
        match self.keeps_bytes() {
            true => 1,
            false => self.quorum.w(),
        }
    }

    /// The numbers of the keys that clients use.
    #[must_use]
    pub fn key_numbers(&self) -> Range<KeyNumber> {
        let first = if self.has_rows { FIRST_ROW } else { 0 };
        first..first + self.keys
    }

    /// The engine of each node.
    #[must_use]
    pub fn storage(&self) -> Options {
        let mut options = Options::tiny();
        options.memtable_bytes = self.buffer_kib << 10;
        options.log_segment_bytes = options.log_segment_bytes.max((self.buffer_kib as u64) << 9);
        options
    }

    /// Whether no node has to fetch again what it had.
    #[must_use]
    pub fn keeps_bytes(&self) -> bool {
        !self.events.iter().any(|event| event.fault.takes_bytes()) && !self.loses_member()
    }

    /// Whether a member is lost with its disk.
    fn loses_member(&self) -> bool {
        let mut orders = self.orders.iter();
        orders.any(|order| matches!(order.what, What::Replace { .. }))
    }

    /// Until when durable bytes of a node are destroyed for certain, if any are. What a read from a disk has flipped may be cut
    /// out, too.
    #[must_use]
    pub fn loses_until(&self) -> Option<Duration> {
        let ends = self.events.iter().filter_map(|event| match event.fault {
            // Its store is emptied when all is mended.
            Fault::Damage { .. } => Some(Duration::MAX),
            Fault::Restore { .. } | Fault::Wipe(_) => {
                Some(Duration::from_millis(event.at_ms + event.lasts_ms) + LONGEST_PUT_BACK)
            }
            _ => None,
        });
        // When another one has taken its place nobody can tell.
        let lost = self.loses_member().then_some(Duration::MAX);
        ends.max().max(lost)
    }

    /// Whether a disk is emptied, or put back, and with it what was deleted meanwhile.
    #[must_use]
    pub fn restores(&self) -> bool {
        let mut events = self.events.iter();
        events.any(|event| matches!(event.fault, Fault::Restore { .. } | Fault::Wipe(_)))
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mix {
            weak,
            all,
            eventual,
            numbers,
            blind,
            deletes,
            passing,
            large,
            memory,
            one,
            astray,
            lists,
            asks: _,
        } = self.mix;
        let wire = if self.quic { " over QUIC" } else { "" };
        let kind = match self {
            Self { cp: true, .. } => " in mode cp",
            Self {
                last_writer_wins: true,
                ..
            } => " where the last writer wins",
            Self {
                blind_adds: true, ..
            } => " where blind writes add",
            _ => "",
        };
        let members = match self.newcomers {
            0 => String::new(),
            newcomers => format!(
                " and {newcomers} newcomers with {} orders",
                self.orders.len()
            ),
        };
        write!(
            f,
            "seed {}: {} nodes{members}{wire}{kind} with n={} r={} w={} and buffers of {} KiB and pages of {} copies, {} keys, {} clients resting up to {} ms, {:?} of work by clocks up to {} ms wrong, of 1,000: {weak} weak, {all} all, {eventual} eventual, {numbers} by number, {blind} blind, {deletes} deletes, {passing} passing, {large} large, {memory} in memory, {one} synced once, {astray} astray, {lists} lists; {} faults",
            self.seed,
            self.nodes,
            self.quorum.n(),
            self.quorum.r(),
            self.quorum.w(),
            self.buffer_kib,
            self.page_copies,
            self.keys,
            self.clients.len(),
            self.rest_ms,
            Duration::from_millis(self.work_ms),
            self.clients_off_ms,
            self.events.len()
        )
    }
}
