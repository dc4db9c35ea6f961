//! Makes things go wrong, and right again.

mod course;
mod step;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use futures::future::{Either, select};
use kv_net::message::{RememberV1, Request, Response};
use kv_net::{Endpoint, Role};
use kv_node::StartError;
use kv_storage::sim::SimFs;
use kv_types::{BucketName, NodeId};

use super::fault::{Event, NodeNumber};
use super::healing::empty_store;
use super::operator::{Ledger, create};
use super::scenario::Scenario;
use crate::sim::executor::OUTSIDE;
use crate::sim::network::{Link, address_of, address_of_client};
use crate::sim::papers::Papers;
use crate::sim::{Handle, SimCluster};
use step::Step;

/// What must never be counted.
pub const STRANGER_LET_IN: &str = "stranger let in";
/// How long nothing goes wrong at most while a node starts from a copy of its disk.
const MOST_QUIET: Duration = Duration::from_secs(20);
/// After this a node is started once more that did not start from the disk that was put back.
const RETRY: Duration = Duration::from_millis(100);
/// How long another node may take to tell what it remembers.
const TELLING_LIMIT: Duration = Duration::from_millis(250);
/// Strangers have addresses from this on.
const FIRST_STRANGER: u16 = 1_000;

/// How often things were seen that are worth seeing.
pub type Counts = BTreeMap<&'static str, u64>;

/// Works through the events of a day. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Nemesis {
    handle: Handle,
    cluster: SimCluster,
    /// What became of changes of the topology.
    ledger: Ledger,
    /// All nodes that there are or may be.
    nodes: Vec<NodeId>,
    /// How many rivals have proposed so far. Two may do so at the same instant.
    rivals: Arc<AtomicU64>,
    disks: Arc<Mutex<Disks>>,
    log: bool,
    counts: Arc<Mutex<Counts>>,
}

/// Copies of disks.
#[derive(Debug, Default)]
struct Disks {
    /// The last copy of a disk, and the highest boot counter that can be on it.
    copies: BTreeMap<NodeId, (SimFs, u64)>,
    /// Who is away on purpose, from when to when.
    away: BTreeMap<NodeId, (Duration, Duration)>,
    /// Links that faults block which have not ended, each as often as faults do.
    standing: BTreeMap<Link, u32>,
    /// Until then nothing goes wrong: a node that starts from a copy of its disk is told by the others.
    quiet_until: Duration,
}

fn id(number: NodeNumber) -> NodeId {
    NodeId(u128::from(number))
}

impl Nemesis {
    /// One for a cluster; with `log` it says what it does.
    #[must_use]
    pub(super) fn new(
        scenario: &Scenario,
        handle: Handle,
        cluster: SimCluster,
        ledger: Ledger,
        log: bool,
    ) -> Self {
        Self {
            handle,
            cluster,
            ledger,
            nodes: scenario.machines().map(id).collect(),
            rivals: Arc::default(),
            disks: Arc::default(),
            log,
            counts: Arc::default(),
        }
    }

    /// What was seen so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Counts something.
    pub fn count(&self, what: &'static str, times: u64) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if times > 0 {
            *counts.entry(what).or_default() += times;
        }
    }

    /// Lets all events happen that begin before `until`; ends then.
    pub async fn torment(&self, events: &[Event], until: Duration) {
        let mut steps: Vec<(Duration, Step)> = Vec::new();
        for event in events {
            let begin = Duration::from_millis(event.at_ms);
            if begin < until {
                self.count("fault", 1);
                self.count(event.fault.kind(), 1);
                steps.extend(self.steps(
                    begin,
                    Duration::from_millis(event.lasts_ms),
                    &event.fault,
                ));
            }
        }
        // Stable: what comes at the same time comes in the order of the events.
        steps.sort_by_key(|(at, _)| *at);
        for (at, step) in steps {
            if at > until {
                break;
            }
            self.handle
                .sleep(at.saturating_sub(self.handle.now()))
                .await;
            if self.log {
                self.say(&format!("{step:?}"));
            }
            self.note_blocked(&step);
            let is_quiet = self.handle.now() < self.disks().quiet_until;
            if !(is_quiet && step.is_trouble()) {
                self.take(step);
            }
        }
        self.handle
            .sleep(until.saturating_sub(self.handle.now()))
            .await;
        self.disks().standing.clear();
    }

    fn note_blocked(&self, step: &Step) {
        let standing = &mut self.disks().standing;
        match step {
            Step::Block(links) => links.iter().for_each(|link| {
                *standing.entry(*link).or_default() += 1;
            }),
            Step::Unblock(links) => links.iter().for_each(|link| {
                let count = standing.entry(*link).or_default();
                *count = count.saturating_sub(1);
            }),
            _ => {}
        }
    }

    #[expect(clippy::print_stdout, reason = "the user asked to be told")]
    fn say(&self, what: &str) {
        println!("{:>12?} {what}", self.handle.now());
    }

    fn take(&self, step: Step) {
        if step.node().is_some_and(|node| !self.is_there(node)) {
            return;
        }
        let (cluster, network) = (&self.cluster, &self.cluster.network);
        match step {
            Step::Kill(node) => {
                self.look_at(node);
                cluster.kill(node);
            }
            Step::CutPower(node) => {
                self.look_at(node);
                cluster.cut_power(node);
            }
            Step::Start(node) | Step::PutBack(node) if self.is_away(node) => {}
            Step::Start(node) => self.start(node),
            Step::Copy(node) => self.copy(node),
            Step::PutBack(node) => self.handle.spawn(OUTSIDE, self.clone().put_back(node)),
            Step::Wipe(node) => {
                self.look_at(node);
                cluster.kill(node);
                let disk = cluster.fs(node);
                if empty_store(&disk) {
                    self.count("store emptied amid faults", 1);
                    cluster.put_in_disk(node, disk);
                }
            }
            Step::Pause(node) => cluster.pause(node),
            Step::Resume(node) => cluster.resume(node),
            Step::Block(links) => network.block(&links),
            Step::Unblock(links) => network.unblock(&links),
            Step::Chances { loss, duplicates } => network.set_chances(loss, duplicates),
            Step::SlowDown(link, by) => network.slow_down(link, by),
            Step::SpeedUp(link, by) => network.speed_up(link, by),
            Step::DiskFault(node, fault, after) => {
                let fs = cluster.fs(node);
                fs.plan(fs.calls() + after, fault);
            }
            Step::Fill(node, room) => {
                let fs = cluster.fs(node);
                fs.set_capacity(used(&fs) + room);
            }
            Step::Free(node) => cluster.fs(node).set_capacity(u64::MAX),
            Step::Slowness(node, factor) => cluster.conditions(node).set_slowness(factor),
            Step::HangUntil(node, time) => cluster.conditions(node).hang_until(time),
            Step::Skew(node, by_ms) => cluster.conditions(node).set_skew(by_ms),
            Step::Flip(node, seed) => {
                let spoilt = flip(&cluster.fs(node), seed);
                self.count("unreadable sector", u64::from(spoilt));
            }
            Step::Expire(node) => {
                if let Some(expired) = cluster.papers(|papers| papers.expired(node)) {
                    cluster.set_credentials(node, &expired);
                }
            }
            Step::Renew(node) => {
                if let Some(renewed) = cluster.papers(|papers| papers.node(node)) {
                    cluster.set_credentials(node, &renewed);
                }
            }
            Step::FoundAuthority => self.change_authority(Papers::found_authority),
            Step::IssueByNewest => self.change_authority(Papers::issue_by_newest),
            Step::BelieveOnlyIssuing => self.change_authority(Papers::believe_only_issuing),
            Step::Strangers(node, count) => self.send_strangers(node, count),
            Step::Propose(node) => self.propose(node),
        }
    }

    /// Whether a node has a machine, by now.
    fn is_there(&self, node: NodeId) -> bool {
        self.cluster.nodes().any(|there| there == node)
    }

    fn is_away(&self, node: NodeId) -> bool {
        let now = self.handle.now();
        let away = self.disks().away.get(&node).copied();
        away.is_some_and(|(begin, end)| begin <= now && now < end)
    }

    fn disks(&self) -> MutexGuard<'_, Disks> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The highest boot counter of a node that others tell, of those that answer.
    async fn remembered(self, node: NodeId) -> u64 {
        let mut most = 0;
        for other in self.cluster.nodes().filter(|other| *other != node) {
            let request = Request::Remember(RememberV1::default());
            let asking = Role::Node(node);
            let network = &self.cluster.network;
            let answer = network.call(asking, other, &request, TELLING_LIMIT).await;
            if let Ok(Response::Remember(reply)) = answer {
                most = most.max(reply.boot);
            }
        }
        most
    }

    /// Copies the disk of a node that runs.
    fn copy(&self, node: NodeId) {
        let disk = self.cluster.fs(node).fork();
        if let Some(running) = self.cluster.node(node) {
            // It may be one more on the disk.
            let counter = running.boot_counter() + 1;
            self.disks().copies.insert(node, (disk, counter));
        }
    }

    /// Starts a node, from the copy of its disk if another one remembers it as further than it can be on the copy.
    async fn put_back(self, node: NodeId) {
        self.cluster.network.calm();
        self.disks().quiet_until = Duration::MAX;
        let copy = self.disks().copies.remove(&node);
        let remembered = self.clone().remembered(node).await;
        if let Some((disk, counter)) = copy
            && remembered > counter
        {
            self.count("disk put back", 1);
            self.look_at(node);
            self.cluster.kill(node);
            // As a copy of a running machine's disk is: nothing is on it that was not synced, but may be.
            let disk = disk.power_loss(self.handle.seed());
            // The copy was made while it was full, perhaps; now nobody would free it.
            disk.set_capacity(u64::MAX);
            self.cluster.put_in_disk(node, disk);
        }
        let mut limit = Box::pin(self.handle.sleep(MOST_QUIET));
        loop {
            match select(self.cluster.launch(node), limit).await {
                Either::Left((Ok(Ok(())), _)) => break,
                // The day is over, and healing has started it.
                Either::Left(_) if self.cluster.node(node).is_some() => break,
                // A read that went wrong: until it has started it has asked nobody what it lacks, and the weather stays calm.
                Either::Left((_, still)) => limit = still,
                Either::Right(_) => {
                    // Healing starts it, and nobody before.
                    self.cluster.kill(node);
                    let for_ever = (Duration::ZERO, Duration::MAX);
                    self.disks().away.insert(node, for_ever);
                    break;
                }
            }
            self.handle.sleep(RETRY).await;
        }
        self.disks().quiet_until = Duration::ZERO;
        // It knows that it lacks something, and has fetched nothing of it yet.
        let standing = self.disks().standing.clone();
        for (link, count) in standing {
            for _ in 0..count {
                self.cluster.network.block(&[link]);
            }
        }
    }

    /// Takes a step towards another authority, and gives everybody papers that go with it.
    fn change_authority(&self, step: impl FnOnce(&mut Papers)) {
        self.cluster.papers(step);
        self.cluster.renew_all();
    }

    /// Has a node propose a new bucket.
    fn propose(&self, via: NodeId) {
        let number = self.rivals.fetch_add(1, Relaxed);
        let name = BucketName::new(format!("rival-{number}")).expect("a good name");
        let (network, ledger) = (self.cluster.network.clone(), Arc::clone(&self.ledger));
        self.handle.spawn(OUTSIDE, async move {
            create(&network, &ledger, via, name).await;
        });
    }

    /// Has clients with foreign papers dial a node, each from an address of its own.
    fn send_strangers(&self, node: NodeId, count: u16) {
        let Some(papers) = self.cluster.papers(|papers| papers.stranger()) else {
            return;
        };
        for number in 0..count {
            let address = address_of_client(FIRST_STRANGER + number);
            let stranger = self.cluster.stranger(address, papers.clone());
            let this = self.clone();
            self.handle.spawn(OUTSIDE, async move {
                let met = stranger
                    .identify(address_of(node), Duration::from_secs(2))
                    .await;
                if met.is_ok() {
                    this.count(STRANGER_LET_IN, 1);
                }
                drop(stranger);
                this.cluster.network.close_socket(address);
            });
        }
    }

    /// Counts what an end of QUIC did, before it is gone.
    pub fn count_endpoint(&self, endpoint: &Endpoint) {
        let stats = endpoint.stats();
        for (what, times) in [
            ("handshake", stats.dialled),
            ("failed handshake", stats.dials_failed),
            ("refused dialler", stats.refused),
            ("retried dialler", stats.retried),
            ("gossip over QUIC", stats.gossip_received),
            ("cancelled request", stats.cancelled),
        ] {
            self.count(what, times);
        }
    }

    /// Starts a node, if it does not run, and notes if it fails.
    pub(super) fn start(&self, node: NodeId) {
        let this = self.clone();
        let outcome = self.cluster.launch(node);
        self.handle.spawn(OUTSIDE, async move {
            if let Ok(Err(error)) = outcome.await {
                this.note_failed_start(node, &error);
            }
        });
    }

    /// Counts a start that failed.
    pub fn note_failed_start(&self, node: NodeId, error: &StartError) {
        self.count("failed start", 1);
        if self.log {
            self.say(&format!("{node} does not start: {error}"));
        }
    }

    /// Counts what a node did, before it is gone.
    pub fn look_at(&self, node: NodeId) {
        let Some(running) = self.cluster.node(node) else {
            return;
        };
        if let Some(endpoint) = self.cluster.endpoint_of(node) {
            self.count_endpoint(&endpoint);
        }
        let metrics = running.metrics();
        for (what, name) in [
            ("flush", "kv_storage_flushes "),
            ("compaction", "kv_storage_compactions "),
            ("torn tail", "kv_storage_torn_tails "),
            ("read repair", "kv_read_repairs_total "),
            ("hint delivered", "kv_hints_delivered "),
            ("comparison", "kv_anti_entropy_rounds "),
            ("object fetched by comparison", "kv_anti_entropy_fetched "),
            ("object sent by comparison", "kv_anti_entropy_sent "),
            ("hint refused", "kv_hints_refused "),
            ("poisoned store", "kv_storage_poisoned "),
            ("damage found", "kv_storage_damaged_places "),
            ("damage cut out", "kv_damage_cut_out "),
        ] {
            self.count(what, value(&metrics, name));
        }
        let forgotten = value(&metrics, "kv_deletions_forgotten ");
        self.count("deletion forgotten amid faults", forgotten);
        self.look_at_deletions(node);
    }

    /// How many objects comparisons have brought to nodes, or had them bring.
    pub fn brought(&self, nodes: &[NodeId]) -> u64 {
        let running = nodes.iter().filter_map(|node| self.cluster.node(*node));
        let brought = running.map(|node| {
            let metrics = node.metrics();
            value(&metrics, "kv_anti_entropy_fetched ") + value(&metrics, "kv_anti_entropy_sent ")
        });
        brought.sum()
    }

    /// Counts what a node forgot. Gives how many values it met that had been forgotten.
    pub fn look_at_deletions(&self, node: NodeId) -> u64 {
        let Some(running) = self.cluster.node(node) else {
            return 0;
        };
        let metrics = running.metrics();
        let forgotten = value(&metrics, "kv_deletions_forgotten ");
        self.count("deletion forgotten", forgotten);
        value(&metrics, "kv_late_values ")
    }
}

/// A figure of a node; 0 if it has none of that name.
fn value(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

/// Bytes in all files of a disk.
pub(super) fn used(fs: &SimFs) -> u64 {
    fs.dump().values().map(|bytes| bytes.len() as u64).sum()
}

/// Flips a bit of some file, or makes a sector with users' data unreadable; true if it was that.
fn flip(fs: &SimFs, seed: u64) -> bool {
    let mut rng = Rng::with_seed(seed);
    let mut files = fs.dump();
    files.retain(|_, bytes| !bytes.is_empty());
    // Mostly where users' data lies: a disk has more of that than of anything else.
    let is_data = |path: &PathBuf| {
        let ending = path.extension();
        ending.is_some_and(|ending| ending == "sst" || ending == "blob")
    };
    if files.keys().any(is_data) && rng.u8(0..4) > 0 {
        files.retain(|path, _| is_data(path));
    }
    if files.is_empty() {
        return false;
    }
    let chosen = rng.usize(0..files.len());
    let Some((path, mut bytes)) = files.into_iter().nth(chosen) else {
        return false;
    };
    let at = rng.usize(0..bytes.len());
    bytes[at] ^= 1 << rng.u8(0..8);
    let spoils = is_data(&path) && rng.bool();
    let done = if spoils {
        fs.spoil(&path, at)
    } else {
        fs.overwrite(&path, bytes)
    };
    // It may have been removed meanwhile; then nothing is damaged.
    spoils && done.is_ok()
}
