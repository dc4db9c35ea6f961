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
//! | a voter answers | its vote is on its disk, and does not contradict an earlier one |
//! | watermarks rise | their owners were compared after all members had promised |
//! | a node has started that has lost something | its watermarks went with it |
//! | any of the first three | what readers find in memory is what the engine has stored |
//!
//! Opening disks takes time, so it looks only now and then, but whenever watermarks rise.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use kv_net::message::{
    AnswerWhen, BallotV1, FloorV1, GetReplyV1, PlaceV1, Request, Response, VoteAnswer, VoteStep,
    VoteV1, WatermarkStep, WatermarkV1,
};
use kv_node::storage_key;
use kv_ring::{PartitionId, Topology};
use kv_storage::Read;
use kv_types::{
    BucketId, Context, ContextKey, Durability, Epoch, Hlc, Key, Level, NodeId, Object, Payload,
    Sibling, WriteId,
};

use super::fault::Fault;
use super::scenario::{REPLICAS, Scenario};
use crate::check::Violation;
use crate::sim::client::BUCKET;
use crate::sim::image::{Image, Unreadable};
use crate::sim::network::Overhear;
use crate::sim::{Handle, SimCluster};

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
    /// What each node has promised, and since when.
    floors: BTreeMap<NodeId, Vec<(Duration, Hlc)>>,
    /// When each voter was first asked for each vote, by number.
    asked: BTreeMap<(NodeId, Epoch, BallotV1, bool), u64>,
    /// Since when each node had its disk when it started last.
    disks: BTreeMap<NodeId, Option<Duration>>,
    /// What stood on a disk of each voter's vote when it started from that disk: a ballot comes again.
    votes_then: BTreeMap<NodeId, (Epoch, Option<BallotV1>)>,
    /// When anybody was first asked to vote on an instance.
    opened: BTreeMap<Epoch, Duration>,
    /// Who was promised a floor by whom, and compared with whom last, by number.
    promised: BTreeMap<(NodeId, Hlc), u64>,
    compared: BTreeMap<(NodeId, NodeId), u64>,
    /// What each voter has answered on each instance, and before which number.
    told: BTreeMap<(NodeId, Epoch), Vec<Told>>,
    next: u64,
    /// Which objects each replica was sent, by a hash.
    sent: BTreeSet<(NodeId, u64)>,
    /// Watermarks whose rise was looked at.
    raised: BTreeSet<(BucketId, u16, Hlc)>,
}

/// A vote, and how many votes had been asked for when it was given.
#[derive(Debug, Clone, Copy)]
struct Told {
    before: u64,
    ballot: BallotV1,
    has_accepted: bool,
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
            Fault::Restore { node, .. } => Some(*node),
            _ => None,
        });
        let this = Arc::new(Self {
            handle: handle.clone(),
            cluster: cluster.clone(),
            contexts: ContextKey::new(cluster.topology().secret().context_key()),
            damaged,
            restored,
            state: Mutex::new(State {
                rng: Rng::with_seed(scenario.seed ^ 0x7717_e55e),
                found: Vec::new(),
                looks: BTreeMap::new(),
                floors: BTreeMap::new(),
                asked: BTreeMap::new(),
                disks: BTreeMap::new(),
                votes_then: BTreeMap::new(),
                opened: BTreeMap::new(),
                promised: BTreeMap::new(),
                compared: BTreeMap::new(),
                told: BTreeMap::new(),
                next: 0,
                sent: BTreeSet::new(),
                raised: BTreeSet::new(),
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
        let needed = match (write.durability, write.level) {
            (Durability::Memory, _) => 0,
            (Durability::One, _) | (Durability::Quorum, Level::Weak) => 1,
            (Durability::Quorum, Level::Usual | Level::Quorum | Level::Eventual) => 2,
            (Durability::Quorum, Level::All) | (Durability::All, _) => usize::from(REPLICAS),
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
        let spot = Spot::of(self.cluster.topology(), write.key);
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
        if holders < needed {
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
            Level::Usual | Level::Quorum => 2,
            Level::All => usize::from(REPLICAS),
        };
        if reply.siblings.is_empty() || !self.looks_at("look at a read", CHANCES.client) {
            return;
        }
        let spot = Spot::of(self.cluster.topology(), key);
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
            if holders < needed {
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
                for owner in &spot.owners {
                    let kept = storage_key::stand_in(*owner, &spot.stored);
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
        if self.damaged.contains(&node) || !self.looks_at("look at a replica", chance) {
            return;
        }
        let Ok(sent) = Object::decode(bytes) else {
            return;
        };
        let spot = Spot::of(self.cluster.topology(), key);
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

    /// A node says where its floor is.
    fn floor_told(&self, node: NodeId, floor: Hlc) {
        if floor == Hlc::ZERO {
            return;
        }
        let now = self.handle.now();
        let rises = {
            let mut state = self.state();
            let told = state.floors.entry(node).or_default();
            let rises = told.last().is_none_or(|(_, before)| *before < floor);
            if rises {
                told.push((now, floor));
            }
            rises
        };
        let is_watched = !self.damaged.contains(&node) && !self.restored.contains(&node);
        if !is_watched || !rises && !self.looks_at("look at a floor", CHANCES.floor) {
            return;
        }
        let promised = self.floor_of(node, now);
        let Some(Ok(stored)) = self.cluster.image(node).map(|image| image.floor()) else {
            return;
        };
        if stored < promised {
            let what = format!("{node} has promised {promised:?}, and has {stored:?} on its disk");
            self.wrong("floor", what);
        }
    }

    /// What a node had promised by then.
    fn floor_of(&self, node: NodeId, by: Duration) -> Hlc {
        let state = self.state();
        let told = state.floors.get(&node).into_iter().flatten();
        let until = told.take_while(|(at, _)| *at < by);
        until.map(|(_, floor)| *floor).max().unwrap_or(Hlc::ZERO)
    }

    /// Somebody asks or answers about floors, comparisons, or watermarks.
    fn note_order(&self, by: NodeId, with: NodeId, what: Order) {
        let mut state = self.state();
        state.next += 1;
        let number = state.next;
        match what {
            Order::Promised(through) => _ = state.promised.insert((by, through), number),
            Order::Compared => _ = state.compared.insert((by, with), number),
            Order::Raises(through) => {
                let promised = state.promised.get(&(by, through)).copied();
                let compared = state.compared.get(&(by, with)).copied();
                if compared < promised {
                    let what = format!(
                        "{by} raises watermarks of {with} to {through:?} without having compared with it after all had promised"
                    );
                    drop(state);
                    self.wrong("order", what);
                }
            }
        }
    }

    /// A node has started.
    fn look_at_loss(&self, node: NodeId) {
        let since = self.cluster.disk_since(node);
        let is_first = self.state().disks.insert(node, since) != Some(since);
        if since.is_none() || !is_first || self.damaged.contains(&node) {
            return;
        }
        self.count("look at a loss");
        let Some(image) = self.cluster.image(node) else {
            return;
        };
        if let Ok(Some((epoch, promised, _))) = image.vote() {
            self.state().votes_then.insert(node, (epoch, promised));
        }
        let Ok(incomplete) = image.incomplete() else {
            return;
        };
        let mut kept = incomplete.iter().filter_map(|partition| {
            let mark = image.watermark(BUCKET, PartitionId(*partition)).ok()?;
            (mark > Hlc::ZERO).then_some((*partition, mark))
        });
        if let Some((partition, mark)) = kept.next() {
            let what = format!(
                "{node} starts with an incomplete partition {partition}, whose watermark is {mark:?}"
            );
            self.wrong("watermark-kept", what);
        }
    }

    /// Watermarks are about to rise.
    fn raise(&self, raise: &WatermarkV1) {
        let places: Vec<PlaceV1> = {
            let mut state = self.state();
            let is_new = |place: &&PlaceV1| {
                let rise = (place.bucket, place.partition, raise.through);
                state.raised.insert(rise)
            };
            raise.places.iter().filter(is_new).copied().collect()
        };
        if places.is_empty() {
            return;
        }
        self.count("look at watermarks");
        let images: BTreeMap<NodeId, Image> = self
            .cluster
            .nodes()
            .filter(|node| !self.damaged.contains(node))
            .filter_map(|node| Some((node, self.cluster.image(node)?)))
            .collect();
        for place in places {
            if self.compare_owners(&images, place, raise.through).is_err() {
                return;
            }
        }
        for (node, image) in &images {
            if self.restored.contains(node) {
                continue;
            }
            let Ok(kept) = image.stand_ins() else { return };
            let old = kept.iter().find(|(_, stored, object)| {
                let oldest = object.oldest_dot();
                oldest.is_some_and(|oldest| oldest <= raise.through)
                    && self.is_in(stored, &raise.places)
            });
            if let Some((owner, stored, _)) = old {
                let what = format!(
                    "watermarks rise to {:?}, and {node} keeps something older for {owner}: {:?}",
                    raise.through,
                    storage_key::decode(stored)
                );
                self.wrong("watermark", what);
            }
        }
    }

    /// Whether a stored key lies in one of these places.
    fn is_in(&self, stored: &[u8], places: &[PlaceV1]) -> bool {
        let Some((bucket, hash)) = storage_key::place(stored) else {
            return false;
        };
        let partition = self.cluster.topology().partition_count().partition_of(hash);
        let mut places = places.iter();
        places.any(|place| place.bucket == bucket && place.partition == partition.0)
    }

    /// What is alive up to the new watermark is known to all owners.
    fn compare_owners(
        &self,
        images: &BTreeMap<NodeId, Image>,
        place: PlaceV1,
        through: Hlc,
    ) -> Result<(), Unreadable> {
        let topology = self.cluster.topology();
        let partition = PartitionId(place.partition);
        let hashes = topology.partition_count().hash_range(partition);
        let mut copies: BTreeMap<NodeId, BTreeMap<Bytes, Object>> = BTreeMap::new();
        for owner in topology.replicas(partition, REPLICAS).nodes() {
            if let Some(image) = images.get(&owner) {
                let range = storage_key::partition_range(place.bucket, &hashes);
                copies.insert(owner, image.objects(range)?.into_iter().collect());
            }
        }
        let is_old = |sibling: &&Sibling| {
            let is_value = matches!(sibling.payload(), Payload::Value(_));
            let newest = sibling.newest_dot().hlc;
            is_value && !sibling.is_expired(through.millis()) && newest <= through
        };
        let nothing = Object::new();
        for (node, own) in &copies {
            for (stored, object) in own {
                for sibling in object.siblings().filter(is_old) {
                    for (other, theirs) in &copies {
                        let held = theirs.get(stored).unwrap_or(&nothing);
                        let mut siblings = held.siblings();
                        let knows = siblings.any(|same| same.write_id() == sibling.write_id())
                            || held.clock().covers(sibling.newest_dot());
                        if !knows {
                            let what = format!(
                                "watermarks rise to {through:?}, and {other} does not know {:?} of {:?}, which {node} has",
                                sibling.write_id(),
                                storage_key::decode(stored)
                            );
                            self.wrong("watermark", what);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// A voter is asked.
    fn vote_asked(&self, from: NodeId, voter: NodeId, vote: &VoteV1) {
        let now = self.handle.now();
        let opened = self.state().opened.get(&vote.epoch).copied();
        if opened.is_some() && self.cluster.disk_since(from) > opened {
            // A proposer's vote for itself is no message.
            let own = self.cluster.image(from).map(|image| image.vote());
            let is_its_own = |(epoch, promised, _): &(Epoch, Option<BallotV1>, _)| {
                *epoch == vote.epoch && *promised == Some(vote.ballot)
            };
            if let Some(Ok(Some(own))) = own
                && is_its_own(&own)
                && self.state().votes_then.get(&from) != Some(&(own.0, own.1))
            {
                let what = format!(
                    "{from} votes for its own {vote:?}, on what was open before its disk was put back"
                );
                self.wrong("vote", what);
            }
        }
        let mut state = self.state();
        state.next += 1;
        let (number, accept) = (state.next, vote.step == VoteStep::Accept);
        state.opened.entry(vote.epoch).or_insert(now);
        let asked = (voter, vote.epoch, vote.ballot, accept);
        state.asked.entry(asked).or_insert(number);
    }

    /// A voter answers.
    fn vote_told(&self, voter: NodeId, vote: &VoteV1, answer: VoteAnswer) {
        let has_accepted = match answer {
            VoteAnswer::Promised(_) => false,
            VoteAnswer::Accepted => true,
            VoteAnswer::Beaten(_) | VoteAnswer::Decided => return,
        };
        if self.damaged.contains(&voter) {
            return;
        }
        let asked = (
            voter,
            vote.epoch,
            vote.ballot,
            vote.step == VoteStep::Accept,
        );
        let (earlier, number) = {
            let mut state = self.state();
            let opened = state.opened.get(&vote.epoch).copied();
            if self.cluster.disk_since(voter) > opened {
                let what = format!(
                    "{voter} answers {answer:?} to {vote:?}, which was open before its disk was put back"
                );
                drop(state);
                return self.wrong("vote", what);
            }
            let number = state.asked.get(&asked).copied().unwrap_or(0);
            let before = state.next;
            let told = state.told.entry((voter, vote.epoch)).or_default();
            let earlier: Vec<Told> = told
                .iter()
                .filter(|told| told.before < number)
                .copied()
                .collect();
            told.push(Told {
                before,
                ballot: vote.ballot,
                has_accepted,
            });
            (earlier, number)
        };
        let is_beaten = earlier.iter().any(|told| told.ballot > vote.ballot);
        let accepted = earlier.iter().filter(|told| told.has_accepted);
        let accepted = accepted.map(|told| told.ballot).max();
        let forgets = match answer {
            VoteAnswer::Promised(before) => accepted > before,
            _ => false,
        };
        if is_beaten || forgets {
            let what = format!(
                "{voter}, asked as number {number}, answers {answer:?} to {vote:?} after {earlier:?}"
            );
            self.wrong("vote", what);
        }
        if !self.looks_at("look at a vote", CHANCES.vote) {
            return;
        }
        let Some(Ok(stored)) = self.cluster.image(voter).map(|image| image.vote()) else {
            return;
        };
        let is_there = stored.is_some_and(|(epoch, promised, accepted)| {
            let has = |ballot: Option<BallotV1>| ballot >= Some(vote.ballot);
            let accepted = accepted.map(|(ballot, _)| ballot);
            epoch > vote.epoch
                || epoch == vote.epoch && has(promised) && (!has_accepted || has(accepted))
        });
        if !is_there {
            let what =
                format!("{voter} answers {answer:?} to {vote:?}, and that is not on its disk");
            self.wrong("vote-not-synced", what);
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

/// A step on the way to higher watermarks.
enum Order {
    Promised(Hlc),
    Compared,
    Raises(Hlc),
}

impl Overhear for Witness {
    fn started(&self, node: NodeId) {
        self.look_at_loss(node);
    }

    fn request(&self, from: NodeId, to: NodeId, request: &Request) {
        match request {
            Request::Vote(vote, _) => self.vote_asked(from, to, vote),
            Request::TreeRoots(_) => self.note_order(from, to, Order::Compared),
            Request::Watermark(raise) if raise.step == WatermarkStep::Raise => {
                self.note_order(from, to, Order::Raises(raise.through));
                self.raise(raise);
            }
            _ => {}
        }
    }

    fn response(&self, from: NodeId, to: NodeId, request: &Request, response: &Response) {
        if let (
            Request::Floor(FloorV1 {
                promise: Some(through),
            }),
            Response::Floor(_),
        ) = (request, response)
        {
            self.note_order(to, from, Order::Promised(*through));
        }
        match (request, response) {
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
    owners: Vec<NodeId>,
}

impl Spot {
    fn of(topology: &Topology, key: &Key) -> Self {
        let (hash, partition) = topology.locate(BUCKET, key.partition_key());
        Self {
            stored: storage_key::encode(BUCKET, hash, key),
            partition,
            owners: topology.replicas(partition, REPLICAS).nodes().collect(),
        }
    }
}
