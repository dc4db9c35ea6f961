//! Looks at the disks of all nodes in the moment in which somebody is told something.
//!
//! Checkers of histories see a broken promise only once faults have made a client suffer from it. A witness sees it when it is
//! given: what a node or client is told must be so, on the disks as a loss of power of all nodes in that very moment would
//! leave them. It opens copies of them, so that changes nothing in the day; only what it reads of running engines, to compare their
//! memory with their store, is a read of the disk like any other.
//!
//! | when | what must be so |
//! |---|---|
//! | a client's write is acknowledged | as many nodes as asked for have it on their disks, and its dot lies above its minter's floor |
//! | a client's read at `quorum` or above is answered | max(r, n − r + 1) owners have what it shows on their disks |
//! | a replica answers that it has a write | it is on its disk |
//! | a node promises a floor | that is on its disk, and never falls |
//! | watermarks are about to rise | all owners hold the same from below, and nobody keeps anything from there for others |
//! | watermarks are about to rise | no owner's has fallen since they rose last |
//! | a quorum of owners has served a client | nobody has heard before it asked of a write under a later change of the partition |
//! | a node asks another one | its history of the topology is that of all others |
//! | a voter answers | its vote is on its disk, and does not contradict an earlier one |
//! | watermarks rise | their owners were compared after all members had promised |
//! | a replica answers that it has a write | no interval of its clock spans a start of its minter above the watermark |
//! | a node has started that has lost something | its watermarks went with it |
//! | a node answers by a copy that it lacked at its start | it has compared with enough other owners since |
//! | any of the first three | what readers find in memory is what the engine has stored |
//!
//! Opening disks takes time, so it looks only now and then, but whenever watermarks rise.

mod chain;
mod deletions;
mod epochs;
mod intervals;
mod recoveries;
mod votes;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use kv_net::message::{AnswerWhen, FloorV1, GetReplyV1, Request, Response, WatermarkStep};
use kv_node::storage_key;
use kv_ring::{PartitionId, Topology};
use kv_storage::Read;
use kv_types::{Context, ContextKey, Durability, Hlc, Key, Level, NodeId, Object, Quorum, WriteId};

use super::fault::Fault;
use super::scenario::Scenario;
use crate::check::Violation;
use crate::sim::client::BUCKET;
use crate::sim::image::{Image, Unreadable};
use crate::sim::network::Overhear;
use crate::sim::{Handle, SimCluster};

pub use epochs::Served;

use chain::Chain;
use deletions::{Deletions, Order};
use epochs::Epochs;
use intervals::Starts;
use recoveries::Recoveries;
use votes::Votes;

/// How many of 1,000 events of each kind it looks at.
#[derive(Debug, Clone, Copy)]
struct Chances {
    client: u32,
    replica: u32,
    /// A replica that hears of the same object again.
    repeated: u32,
    vote: u32,
    floor: u32,
}

const CHANCES: Chances = Chances {
    client: 5,
    replica: 5,
    repeated: 100,
    vote: 250,
    floor: 200,
};
/// What is told of one rule at most.
const MOST_TOLD: usize = 5;

/// Looks at all disks now and then.
#[derive(Debug)]
pub struct Witness {
    handle: Handle,
    cluster: SimCluster,
    contexts: ContextKey,
    quorum: Quorum,
    /// Nodes on whose disks bytes go bad.
    damaged: BTreeSet<NodeId>,
    /// Nodes that are put back to what they were.
    restored: BTreeSet<NodeId>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    found: Vec<Violation>,
    looks: BTreeMap<&'static str, u64>,
    /// Since when each node had its disk when it started last.
    disks: BTreeMap<NodeId, Option<Duration>>,
    /// Which objects each replica was sent, by a hash.
    sent: BTreeSet<(NodeId, u64)>,
    chain: Chain,
    deletions: Deletions,
    epochs: Epochs,
    recoveries: Recoveries,
    starts: Starts,
    votes: Votes,
}

/// What a client was told of its write.
#[derive(Debug)]
pub struct Acknowledged<'a> {
    /// Of what.
    pub key: &'a Key,
    /// Which write it is.
    pub id: WriteId,
    /// How many it asked for.
    pub level: Level,
    /// So many replicas instead of what the level says.
    pub number: Option<u8>,
    /// What had to be on their disks.
    pub durability: Durability,
    /// When it was first sent.
    pub begun: Duration,
    /// What it was answered with.
    pub context: &'a Context,
}

impl Witness {
    /// One for a day of a cluster; it listens to the cluster's messages for as long as it is there.
    #[must_use]
    pub(super) fn new(scenario: &Scenario, handle: &Handle, cluster: &SimCluster) -> Arc<Self> {
        let of = |kind: fn(&Fault) -> Option<u8>| -> BTreeSet<NodeId> {
            let events = scenario.events.iter();
            let nodes = events.filter_map(|event| kind(&event.fault));
            nodes.map(|node| NodeId(node.into())).collect()
        };
        let damaged = of(|fault| match fault {
            Fault::Damage { node, .. } | Fault::FlippedRead { node, .. } => Some(*node),
            _ => None,
        });
        let restored = of(|fault| match fault {
            Fault::Restore { node, .. } | Fault::Wipe(node) => Some(*node),
            _ => None,
        });
        let this = Arc::new(Self {
            handle: handle.clone(),
            cluster: cluster.clone(),
            contexts: ContextKey::new(cluster.topology().secret().context_key()),
            quorum: scenario.quorum,
            damaged,
            restored,
            state: Mutex::new(State {
                rng: Rng::with_seed(scenario.seed ^ 0x7717_e55e),
                found: Vec::new(),
                looks: BTreeMap::new(),
                disks: BTreeMap::new(),
                sent: BTreeSet::new(),
                chain: Chain::default(),
                deletions: Deletions::default(),
                epochs: Epochs::default(),
                recoveries: Recoveries::new(),
                starts: Starts::new(),
                votes: Votes::default(),
            }),
        });
        let listener: Arc<dyn Overhear> = Arc::clone(&this) as Arc<dyn Overhear>;
        cluster.network.tell(Arc::downgrade(&listener));
        this
    }

    /// What it found.
    #[must_use]
    pub fn found(&self) -> Vec<Violation> {
        self.state().found.clone()
    }

    /// How often it looked, by what made it look.
    #[must_use]
    pub fn looks(&self) -> BTreeMap<&'static str, u64> {
        self.state().looks.clone()
    }

    /// A client hears that its write is done.
    pub fn acknowledged(&self, write: &Acknowledged<'_>) {
        if !self.looks_at("look at a write", CHANCES.client) {
            return;
        }
        let of_level = match write.level {
            Level::Weak => 1,
            Level::Usual | Level::Quorum | Level::Eventual => self.quorum.w(),
            Level::All => self.quorum.n(),
        };
        let needed = match write.durability {
            Durability::Memory => 0,
            Durability::One => 1,
            Durability::Quorum => write.number.unwrap_or(of_level),
            Durability::All => self.quorum.n(),
        };
        let Ok(clock) = self
            .contexts
            .open(BUCKET, write.key, write.context, Hlc(u64::MAX))
        else {
            return self.wrong(
                "context",
                format!("the context of {:?} does not open", write.id),
            );
        };
        let spot = Spot::of(&self.cluster.newest(), write.key);
        self.compare_memory(&spot);
        let has = |held: &Object, watermark: Hlc| {
            let is_there = held
                .siblings()
                .any(|sibling| sibling.write_id() == write.id);
            is_there || held.clock().covers_all_above(&clock, watermark)
        };
        let mut holders = 0;
        let mut who = String::new();
        for node in self.cluster.nodes() {
            let of = self.held_at(node, &spot, write.level == Level::Eventual);
            let holds = match of {
                _ if self.is_doubtful(node, write.begun) => true,
                None | Some(Err(Unreadable)) => true,
                Some(Ok(copies)) => {
                    for (held, _) in &copies {
                        self.check_dot(node, held, write);
                    }
                    copies.iter().any(|(held, watermark)| has(held, *watermark))
                }
            };
            if holds {
                holders += 1;
                who.push_str(&format!(" {node}"));
            }
        }
        if holders < usize::from(needed) {
            let what = format!(
                "{:?} of {} was acknowledged at {:?} with durability {:?}, and only{who} of {needed} nodes have it on their disks",
                write.id, write.key, write.level, write.durability
            );
            self.wrong("not-on-disks", what);
        }
    }

    /// The dot of a write that began after its minter had promised a floor lies above that.
    fn check_dot(&self, at: NodeId, held: &Object, write: &Acknowledged<'_>) {
        let Some(sibling) = held
            .siblings()
            .find(|sibling| sibling.write_id() == write.id)
        else {
            return;
        };
        let Some(node) = self.cluster.node(at).map(|node| node.topology()) else {
            return;
        };
        for dot in sibling.dots() {
            let Some(minter) = node.actors().get(&dot.actor).copied() else {
                continue;
            };
            let floor = self.floor_of(minter, write.begun);
            if dot.hlc <= floor {
                let what = format!(
                    "{minter} had promised to mint nothing up to {floor:?}, and minted {dot:?} for {:?}",
                    write.id
                );
                self.wrong("minted-below", what);
            }
        }
    }

    /// A client hears what its read shows.
    pub fn answered(&self, key: &Key, level: Level, begun: Duration, reply: &GetReplyV1) {
        let needed = match level {
            Level::Weak | Level::Eventual => return,
            Level::Usual | Level::Quorum => {
                self.quorum.r().max(self.quorum.n() - self.quorum.r() + 1)
            }
            Level::All => self.quorum.n(),
        };
        if reply.siblings.is_empty() || !self.looks_at("look at a read", CHANCES.client) {
            return;
        }
        let spot = Spot::of(&self.cluster.newest(), key);
        self.compare_memory(&spot);
        for shown in &reply.siblings {
            let mut holders = 0;
            for node in &spot.owners {
                let has = |(held, watermark): &(Object, Hlc)| {
                    let mut siblings = held.siblings();
                    siblings.any(|sibling| sibling.write_id() == shown.write_id)
                        || held.clock().covers(shown.dot)
                        || shown.dot.hlc <= *watermark
                };
                let holds = match self.held_at(*node, &spot, false) {
                    _ if self.is_doubtful(*node, begun) => true,
                    None | Some(Err(Unreadable)) => true,
                    Some(Ok(copies)) => copies.iter().any(has),
                };
                holders += usize::from(holds);
            }
            if holders < usize::from(needed) {
                let what = format!(
                    "{key} was read at {level:?} with {:?}, which only {holders} of {needed} owners have on their disks",
                    shown.write_id
                );
                self.wrong("shown-too-early", what);
            }
        }
    }

    /// What a node certainly has of a key, and from which watermark on that tells: its own copy, and perhaps what it keeps for
    /// owners.
    fn held_at(
        &self,
        node: NodeId,
        spot: &Spot,
        with_stand_ins: bool,
    ) -> Option<Result<Vec<(Object, Hlc)>, Unreadable>> {
        let image = self.cluster.image(node)?;
        let read = || {
            let mut copies = Vec::new();
            if spot.owners.contains(&node) {
                let own = image.object(&spot.stored)?;
                copies.push((own, image.watermark(BUCKET, spot.partition)?));
            }
            if with_stand_ins {
                // Of one that was an owner, too.
                for owner in self.cluster.nodes() {
                    let kept = storage_key::stand_in(owner, &spot.stored);
                    copies.push((image.object(&kept)?, Hlc::ZERO));
                }
            }
            Ok(copies)
        };
        Some(read())
    }

    /// A replica says that it has a write.
    fn replica_has(&self, node: NodeId, key: &Key, stands_in_for: Option<NodeId>, bytes: &Bytes) {
        let is_new = self.state().sent.insert((node, hash_of(key, bytes)));
        let chance = match is_new {
            true => CHANCES.replica,
            false => CHANCES.repeated,
        };
        let looks = !self.damaged.contains(&node) && self.looks_at("look at a replica", chance);
        if !looks && !is_new {
            return;
        }
        let Ok(sent) = Object::decode(bytes) else {
            return;
        };
        let spot = Spot::of(&self.cluster.newest(), key);
        self.check_intervals(key, spot.partition, &sent);
        if !looks {
            return;
        }
        let has = |image: &Image, stored: &[u8], watermark: Hlc| -> Result<bool, Unreadable> {
            let held = image.object(stored)?;
            Ok(held.clock().covers_all_above(sent.clock(), watermark))
        };
        let Some(image) = self.cluster.image(node) else {
            return;
        };
        let is_there = match stands_in_for {
            None => image
                .watermark(BUCKET, spot.partition)
                .and_then(|watermark| has(&image, &spot.stored, watermark)),
            Some(owner) => {
                let kept = storage_key::stand_in(owner, &spot.stored);
                has(&image, &kept, Hlc::ZERO).map(|is_kept| {
                    // It may have been brought home already.
                    is_kept
                        || self.cluster.image(owner).is_none_or(|home| {
                            let watermark = home.watermark(BUCKET, spot.partition);
                            watermark
                                .and_then(|watermark| has(&home, &spot.stored, watermark))
                                .unwrap_or(true)
                        })
                })
            }
        };
        if is_there == Ok(false) {
            let what = format!("{node} has acknowledged {key}, and it is not on its disk");
            self.wrong("replica-not-synced", what);
        }
    }

    /// What readers find in memory must be what the engine has stored.
    fn compare_memory(&self, spot: &Spot) {
        for owner in &spot.owners {
            let Some(node) = self.cluster.node(*owner) else {
                continue;
            };
            let Read::Ready(Ok(in_memory)) = node.engine().get(&spot.stored) else {
                continue;
            };
            let Ok(stored) = node.engine().snapshot().get(&spot.stored) else {
                continue;
            };
            let value =
                |found: Option<kv_storage::Found>| found.map(|found| (found.seq, found.value));
            let (in_memory, stored) = (value(in_memory), value(stored));
            if in_memory != stored {
                let what = format!(
                    "{owner} has {in_memory:?} in memory of {:?}, and {stored:?} in its store",
                    spot.stored
                );
                self.wrong("memory", what);
            }
        }
    }

    /// Whether what a node holds says nothing about what it has acknowledged since `begun`.
    fn is_doubtful(&self, node: NodeId, begun: Duration) -> bool {
        self.damaged.contains(&node) || self.cluster.disk_since(node) >= Some(begun)
    }

    fn looks_at(&self, what: &'static str, permille: u32) -> bool {
        let looks = self.state().rng.u32(0..1_000) < permille;
        if looks {
            self.count(what);
        }
        looks
    }

    fn count(&self, what: &'static str) {
        *self.state().looks.entry(what).or_default() += 1;
    }

    fn wrong(&self, rule: &'static str, what: String) {
        let what = format!("at {:?}: {what}", self.handle.now());
        let found = &mut self.state().found;
        let told = found.iter().filter(|found| found.rule == rule).count();
        if told < MOST_TOLD {
            found.push(Violation::new(rule, what));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Overhear for Witness {
    fn started(&self, node: NodeId, began: Hlc) {
        self.look_at_loss(node);
        self.note_incomplete(node);
        let mut state = self.state();
        let starts = state.starts.entry(node).or_default();
        // Under a clock that was set back since, one that lies later minted nothing.
        starts.retain(|earlier| *earlier < began);
        starts.insert(began);
    }

    fn request(&self, from: NodeId, to: NodeId, request: &Request) {
        self.look_at_chain(from);
        match request {
            Request::Vote(vote, _) => self.vote_asked(from, to, vote),
            Request::TreeRoots(_) => self.note_order(from, to, Order::Compared),
            Request::Watermark(raise) if raise.step == WatermarkStep::Raise => {
                self.note_order(from, to, Order::Raises(raise.through));
                self.raise(from, raise);
            }
            _ => {}
        }
    }

    fn response(&self, from: NodeId, to: NodeId, request: &Request, response: &Response) {
        if let (
            Request::Floor(FloorV1 {
                settle: None,
                promise: Some(through),
            }),
            Response::Floor(_),
        ) = (request, response)
        {
            self.note_order(to, from, Order::Promised(*through));
        }
        match (request, response) {
            (Request::TreeRoots(_), Response::TreeRoots(reply, _)) if reply.ready => {
                self.note_heard(to, from);
            }
            (Request::ReplicaRead(read), Response::ReplicaRead(..)) if read.bucket == BUCKET => {
                self.check_complete(from, &read.key);
            }
            (Request::Vote(vote, _), Response::Vote(reply, _)) => {
                self.vote_told(from, vote, reply.answer);
            }
            (Request::Floor(_), Response::Floor(floor)) => self.floor_told(from, floor.floor),
            (
                Request::ReplicaWrite(write, object) | Request::Repair(write, object),
                Response::ReplicaWrite(_) | Response::Repair(_),
            ) if write.answer == AnswerWhen::Synced && write.bucket == BUCKET => {
                self.replica_has(from, &write.key, None, object);
            }
            (Request::StandInWrite(write, object), Response::StandInWrite(_))
                if write.answer == AnswerWhen::Synced && write.bucket == BUCKET =>
            {
                self.replica_has(from, &write.key, Some(write.owner), object);
            }
            _ => {}
        }
    }
}

fn hash_of(key: &Key, bytes: &Bytes) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, bytes).hash(&mut hasher);
    hasher.finish()
}

/// Where a key of the clients' bucket is.
#[derive(Debug)]
struct Spot {
    stored: Bytes,
    partition: PartitionId,
    /// Old ones and new ones, while it is on its way.
    owners: Vec<NodeId>,
}

impl Spot {
    fn of(topology: &Topology, key: &Key) -> Self {
        let (hash, partition) = topology.locate(BUCKET, key.partition_key());
        Self {
            stored: storage_key::encode(BUCKET, hash, key),
            partition,
            owners: topology
                .replicas(partition, topology.replication_factor())
                .nodes()
                .collect(),
        }
    }
}
