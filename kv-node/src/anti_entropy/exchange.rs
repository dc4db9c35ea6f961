//! The side that compares: in turn with each peer, for as long as the node runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use futures::{FutureExt, StreamExt};
use kv_net::message::{
    AnswerWhen, CompareReplyV1, CompareV1, DataHead, ReplicaListReplyV1, ReplicaWriteV1, Request,
    Response, TreeKeysV1, TreeNodesV1, TreeObjectsV1, TreeRootsV1,
};
use kv_ring::{PartitionId, Topology};
use kv_types::{BucketId, Hlc, HybridClock, Key, NodeId, Object, WriteId, planted};

use super::answers::{self, numbers, sum};
use super::tree::FAN_OUT;
use super::trees::{Place, Trees};
use super::{making, shared};
use crate::completeness::Completeness;
use crate::env::Env;
use crate::liveness::Liveness;
use crate::membership::Membership;
use crate::replica::{Arrival, Copy, Replica, Target};
use crate::store::Store;
use crate::topologies::Topologies;
use crate::transport::Peer;

/// The time between two comparisons.
const PERIOD: Duration = Duration::from_secs(2);
/// What is younger is on its way to its replicas by itself.
const YOUNG_MS: u64 = 10_000;
/// The time until trees are made once more, when the store could not be read.
const RETRY: Duration = Duration::from_secs(10);
/// How long a peer may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Partitions that are compared at once, and objects that are under way at once in each: what users wait for goes first.
const PARTITIONS_AT_ONCE: usize = 4;
const OBJECTS_AT_ONCE: usize = 8;
/// Nodes in one question, and nodes whose keys are compared at once.
const NODES_AT_ONCE: usize = 64;
const LEAVES_AT_ONCE: usize = 16;

/// The task that compares.
#[derive(Debug)]
pub struct Exchange {
    pub(crate) env: Env,
    pub(crate) me: NodeId,
    pub(crate) topologies: Arc<Topologies>,
    pub(crate) trees: Arc<Trees>,
    pub(crate) store: Store,
    pub(crate) replica: Arc<Replica>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) completeness: Arc<Completeness>,
    pub(crate) counts: Counts,
}

/// What comparing came to since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Comparisons that ended.
    pub rounds: AtomicU64,
    /// Objects that were fetched.
    pub fetched: AtomicU64,
    /// Objects that were brought to peers.
    pub sent: AtomicU64,
}

impl Counts {
    fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// What is not on its way by itself.
    Usual,
    /// Everything: afterwards each of the two holds all that the other one held.
    Everything,
    /// Everything, by a node whose own copies may hold what was deleted long ago: up to a point, what the peer does not know
    /// was deleted.
    Relearning(Hlc),
}

impl Aim {
    fn is_everything(self) -> bool {
        self != Self::Usual
    }
}

/// A comparison that could not go on: the peer does not answer, or the topology has changed. The next one begins anew.
struct Interrupted;

impl Exchange {
    /// Makes all trees, then compares as long as the node runs.
    pub async fn run(self: Arc<Self>, snapshot: kv_storage::Snapshot) {
        let mut snapshot = Some(snapshot);
        while let Some(at) = snapshot.take() {
            let topology = self.topologies.current();
            let made = making::make_all(&self.trees, &self.store, &topology, at).await;
            if let Err(error) = made {
                tracing::error!(%error, "the Merkle trees cannot be made, so this node is not compared with others; it goes on trying");
                self.env.sleep(RETRY).await;
                let reached = self.trees.begin_again();
                snapshot = Some(making::snapshot_after(&self.store, &self.env, reached).await);
            }
        }
        let mut turn = self.env.host.random();
        loop {
            self.env.sleep(PERIOD).await;
            if self.membership.is_rolled_back() {
                continue;
            }
            let topology = self.topologies.current();
            self.grow(&topology).await;
            // What is incomplete here is brought up to date by recovery, which knows what was deleted elsewhere.
            if self.completeness.missing() > 0 {
                continue;
            }
            let now = self.env.now();
            let members = topology.members().iter().map(|member| member.node);
            let peers: Vec<NodeId> = members
                .filter(|node| *node != self.me && self.liveness.is_up(*node, now))
                .collect();
            if peers.is_empty() {
                continue;
            }
            turn = turn.wrapping_add(1);
            let peer = peers[(turn % peers.len() as u64) as usize];
            if self.compare(&topology, peer).await.is_ok() {
                self.counts.rounds.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Makes trees finer that have become too coarse.
    async fn grow(&self, topology: &Topology) {
        for place in self.trees.overfull() {
            let _mending = self.completeness.mending().lock().await;
            let made = making::make_one(&self.trees, &self.store, &self.env, topology, place).await;
            if let Err(error) = made {
                tracing::error!(%error, "a Merkle tree could not be made finer");
            }
        }
    }

    /// Compares with all other owners, one after the other, what this node holds of some partitions, of one bucket or of
    /// all, and brings each of them what only the other one holds.
    pub async fn compare_now(&self, asked: &CompareV1) -> CompareReplyV1 {
        let topology = self.topologies.current();
        let before = (self.counts.fetched(), self.counts.sent());
        let (mut shared_places, mut settled) = (0, 0);
        let others = topology.members().iter().map(|member| member.node);
        for peer in others.filter(|node| *node != self.me) {
            let mut places = shared(&topology, self.me, peer);
            places.retain(|(bucket, partition)| {
                asked.bucket.is_none_or(|asked| asked == *bucket)
                    && (asked.first..=asked.last).contains(&partition.0)
            });
            shared_places += places.len();
            let now = self.env.now();
            if !places.is_empty() && self.liveness.may_answer(peer, now) {
                settled += self.settle(&topology, peer, &places).await.len();
            }
        }
        let number = |places| u32::try_from(places).unwrap_or(u32::MAX);
        CompareReplyV1 {
            shared: number(shared_places),
            settled: number(settled),
            fetched: self.counts.fetched() - before.0,
            sent: self.counts.sent() - before.1,
        }
    }

    /// Compares some places with a peer, and brings each of the two all that the other one holds. Gives the places where
    /// that was done: there both held the same, once.
    pub async fn settle(
        &self,
        topology: &Topology,
        peer: NodeId,
        places: &[Place],
    ) -> BTreeSet<Place> {
        let aims = places.iter().map(|place| (*place, Aim::Everything));
        self.settle_as(topology, peer, &aims.collect()).await
    }

    /// The same, for places where this node's copies may still hold what was deleted long ago: there the peer knows what
    /// was deleted up to a point, which stands beside the place.
    pub async fn relearn(
        &self,
        topology: &Topology,
        peer: NodeId,
        places: &BTreeMap<Place, Hlc>,
    ) -> BTreeSet<Place> {
        let aims = places
            .iter()
            .map(|(place, through)| (*place, Aim::Relearning(*through)));
        self.settle_as(topology, peer, &aims.collect()).await
    }

    async fn settle_as(
        &self,
        topology: &Topology,
        peer: NodeId,
        aims: &BTreeMap<Place, Aim>,
    ) -> BTreeSet<Place> {
        let mut settled: BTreeSet<Place> = aims.keys().copied().collect();
        let Ok(differing) = self.differing(topology, peer).await else {
            return BTreeSet::new();
        };
        let mut work = Vec::new();
        for place in differing {
            let Some(aim) = aims.get(&place) else {
                continue;
            };
            let reconciled = self.reconcile(topology, peer, place, *aim);
            work.push(async move { (place, reconciled.await) }.boxed());
        }
        let mut reconciled = stream::iter(work).buffer_unordered(PARTITIONS_AT_ONCE);
        while let Some((place, done)) = reconciled.next().await {
            if done.is_err() {
                settled.remove(&place);
            }
        }
        settled
    }

    /// Compares everything that this node shares with a peer.
    async fn compare(&self, topology: &Topology, peer: NodeId) -> Result<(), Interrupted> {
        let mut work = Vec::new();
        for place in self.differing(topology, peer).await? {
            if !planted!("repair nothing that a comparison finds") {
                work.push(self.reconcile(topology, peer, place, Aim::Usual).boxed());
            }
        }
        let mut reconciled = stream::iter(work).buffer_unordered(PARTITIONS_AT_ONCE);
        let mut outcome = Ok(());
        while let Some(done) = reconciled.next().await {
            if done.is_err() {
                outcome = done;
            }
        }
        outcome
    }

    /// The places that this node shares with a peer and where the two differ.
    async fn differing(
        &self,
        topology: &Topology,
        peer: NodeId,
    ) -> Result<Vec<Place>, Interrupted> {
        let places = shared(topology, self.me, peer);
        if !self.trees.are_made() {
            return Err(Interrupted);
        }
        let roots = self.trees.roots(&places);
        let request = Request::TreeRoots(TreeRootsV1 {
            epoch: topology.epoch(),
            sum: sum(&roots),
        });
        let Response::TreeRoots(reply, tail) = self.ask(topology, peer, request).await? else {
            return Err(Interrupted);
        };
        if !reply.ready {
            return Err(Interrupted);
        }
        let theirs = numbers(&tail);
        if theirs.is_empty() {
            return Ok(Vec::new());
        }
        if theirs.len() != places.len() {
            return Err(Interrupted);
        }
        let pairs = places.into_iter().zip(roots.iter().zip(&theirs));
        let differing = pairs.filter(|(_, (mine, theirs))| mine != theirs);
        Ok(differing.map(|(place, _)| place).collect())
    }

    /// Goes down a tree to where it differs from the peer's, and compares the keys there.
    async fn reconcile(
        &self,
        topology: &Topology,
        peer: NodeId,
        place: Place,
        aim: Aim,
    ) -> Result<(), Interrupted> {
        let mut level: Vec<(u8, u32)> = vec![(0, 0)];
        while let Some((depth, _)) = level.first().copied() {
            let mut below = Vec::new();
            let mut ends = Vec::new();
            let nodes: Vec<u32> = level.iter().map(|(_, node)| *node).collect();
            for nodes in nodes.chunks(NODES_AT_ONCE) {
                match self
                    .differing_below(topology, peer, place, depth, nodes)
                    .await?
                {
                    Some(children) => {
                        below.extend(children.into_iter().map(|node| (depth + 1, node)));
                    }
                    None => ends.extend_from_slice(nodes),
                }
            }
            for leaves in ends.chunks(LEAVES_AT_ONCE) {
                self.compare_keys(topology, peer, place, (depth, leaves), aim)
                    .await?;
            }
            level = below;
        }
        Ok(())
    }

    /// The children of nodes in which the two trees differ; `None` where one of them has no children.
    async fn differing_below(
        &self,
        topology: &Topology,
        peer: NodeId,
        place: Place,
        depth: u8,
        nodes: &[u32],
    ) -> Result<Option<Vec<u32>>, Interrupted> {
        if depth >= self.trees.depth(place) {
            return Ok(None);
        }
        let request = Request::TreeNodes(question(topology, place, depth, nodes));
        let Response::TreeNodes(_, tail) = self.ask(topology, peer, request).await? else {
            return Err(Interrupted);
        };
        let theirs = numbers(&tail);
        // Taken after the answer, so that what came in between is not taken for a difference more often than need be.
        let Some(mine) = self.trees.children(place, depth, nodes) else {
            return Ok(None);
        };
        if theirs.len() != mine.len() {
            return Ok(None);
        }
        let children = nodes
            .iter()
            .flat_map(|node| (0..FAN_OUT as u32).map(move |child| node * FAN_OUT as u32 + child));
        let pairs = children.zip(mine.iter().zip(&theirs));
        let differing = pairs.filter(|(_, (mine, theirs))| mine != theirs);
        Ok(Some(differing.map(|(child, _)| child).collect()))
    }

    /// Compares the keys below nodes by name and digest, stretch by stretch, and moves the objects that differ.
    async fn compare_keys(
        &self,
        topology: &Topology,
        peer: NodeId,
        place: Place,
        (depth, nodes): (u8, &[u32]),
        aim: Aim,
    ) -> Result<(), Interrupted> {
        let mut rest = TreeKeysV1 {
            under: question(topology, place, depth, nodes),
            after: None,
            until: None,
        };
        while let Some(last) = self
            .compare_stretch(topology, peer, place, &rest, aim)
            .await?
        {
            rest.after = Some(last);
        }
        Ok(())
    }

    /// Compares the first keys of a stretch. Gives the last of them; `None` if the stretch ends with it.
    async fn compare_stretch(
        &self,
        topology: &Topology,
        peer: NodeId,
        place: Place,
        rest: &TreeKeysV1,
        aim: Aim,
    ) -> Result<Option<Key>, Interrupted> {
        let copies = answers::copies(&self.replica, place, &answers::stretch(rest)).await;
        let (mut mine, until) = copies.map_err(|refusal| {
            tracing::error!(%refusal, "what this node holds cannot be compared");
            Interrupted
        })?;
        let mut stretch = TreeKeysV1 {
            until,
            ..rest.clone()
        };
        let request = Request::TreeKeys(stretch.clone());
        let Response::TreeKeys(reply, tail) = self.ask(topology, peer, request).await? else {
            return Err(Interrupted);
        };
        if let Some(last) = reply.until {
            // The peer had more to go through.
            let stored = |key: &Key| target(topology, place, key.clone()).stored();
            let end = stored(&last);
            if rest
                .after
                .as_ref()
                .is_some_and(|after| end <= stored(after))
            {
                return Err(Interrupted);
            }
            mine.truncate(mine.partition_point(|copy| stored(&copy.key) <= end));
            stretch.until = Some(last);
        }
        let theirs: BTreeMap<u64, u64> = numbers(&tail)
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .collect();
        let now_ms = self.env.host.wall_ms();
        let is_young = |copy: &Copy| {
            // A dot from the future is one of a clock that was wrong, and says nothing of its age.
            let latest = now_ms + HybridClock::MAX_SKEW.as_millis() as u64;
            let young = now_ms.saturating_sub(YOUNG_MS)..=latest;
            !aim.is_everything() && young.contains(&copy.newest.millis())
        };
        let known: BTreeMap<u64, &Copy> = mine.iter().map(|copy| (copy.id, copy)).collect();
        let differs = |(id, digest): &(&u64, &u64)| match known.get(*id) {
            Some(copy) => copy.digest != **digest && !is_young(copy),
            None => true,
        };
        let wanted = theirs.iter().filter(differs).map(|(id, _)| *id).collect();
        let mut missing = Vec::new();
        for copy in &mine {
            if !theirs.contains_key(&copy.id) && !is_young(copy) {
                let key = copy.key.clone();
                missing.push(self.bring(topology, peer, place, key, aim).boxed());
            }
        }
        self.fetch(topology, peer, place, &stretch, wanted, aim)
            .await?;
        all_done(missing).await?;
        Ok(stretch.until)
    }

    /// Fetches objects of a stretch.
    async fn fetch(
        &self,
        topology: &Topology,
        peer: NodeId,
        place: Place,
        stretch: &TreeKeysV1,
        mut wanted: BTreeSet<u64>,
        aim: Aim,
    ) -> Result<(), Interrupted> {
        let mut stretch = stretch.clone();
        while !wanted.is_empty() {
            let request = Request::TreeObjects(TreeObjectsV1 {
                stretch: stretch.clone(),
                ids: wanted.iter().copied().collect(),
            });
            let Response::TreeObjects(page, tail) = self.ask(topology, peer, request).await? else {
                return Err(Interrupted);
            };
            let is_last = page.complete || page.entries.is_empty();
            let objects = objects(page, tail);
            if let Some((key, _)) = objects.last() {
                stretch.after = Some(key.clone());
            }
            let mut taken = Vec::new();
            for (key, object) in objects {
                wanted.remove(&self.replica.key_id(&target(topology, place, key.clone())));
                let take_in = self.take_in(topology, peer, place, key, object, aim);
                taken.push(take_in.boxed());
            }
            all_done(taken).await?;
            if is_last {
                break;
            }
        }
        if aim.is_everything() && !wanted.is_empty() {
            return Err(Interrupted);
        }
        Ok(())
    }

    /// Merges an object of the peer's; if that is not all that is known of its key, the peer gets the rest.
    async fn take_in(
        &self,
        topology: &Topology,
        peer: NodeId,
        place: Place,
        key: Key,
        encoded: Bytes,
        aim: Aim,
    ) -> Result<(), Interrupted> {
        let object = Object::decode(&encoded).map_err(|_| Interrupted)?;
        let target = target(topology, place, key);
        let merged = match aim {
            Aim::Usual | Aim::Everything => {
                self.replica.merge(&target, &object, Arrival::Repair).await
            }
            Aim::Relearning(through) => self.replica.relearn(&target, &object, through).await,
        };
        merged.map_err(|_| Interrupted)?;
        self.counts.fetched.fetch_add(1, Ordering::Relaxed);
        let held = self.replica.held(&target).await.map_err(|_| Interrupted)?;
        match held.filter(|held| held.encoded != encoded) {
            None => Ok(()),
            Some(held) => {
                self.send(topology, peer, place.0, target.key, held.encoded)
                    .await
            }
        }
    }

    /// Brings an object to a peer that has nothing of its key, if that does not mean that it was deleted.
    async fn bring(
        &self,
        topology: &Topology,
        peer: NodeId,
        place: Place,
        key: Key,
        aim: Aim,
    ) -> Result<(), Interrupted> {
        let target = target(topology, place, key);
        if let Aim::Relearning(through) = aim {
            let nothing = Object::new();
            let relearnt = self.replica.relearn(&target, &nothing, through).await;
            relearnt.map_err(|_| Interrupted)?;
        }
        let held = self.replica.held(&target).await.map_err(|_| Interrupted)?;
        match held {
            None => Ok(()),
            Some(held) => {
                self.send(topology, peer, place.0, target.key, held.encoded)
                    .await
            }
        }
    }

    /// Brings an object to the peer.
    async fn send(
        &self,
        topology: &Topology,
        peer: NodeId,
        bucket: BucketId,
        key: Key,
        encoded: Bytes,
    ) -> Result<(), Interrupted> {
        let head = DataHead {
            epoch: topology.epoch(),
            trace: 0,
            write_id: WriteId::from_bytes([0; 16]),
        };
        let message = ReplicaWriteV1 {
            head,
            bucket,
            key,
            answer: AnswerWhen::Synced,
        };
        let request = Request::Repair(message, encoded);
        match self.ask(topology, peer, request).await? {
            Response::Repair(_) => {
                self.counts.sent.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            _ => Err(Interrupted),
        }
    }

    async fn ask(
        &self,
        topology: &Topology,
        peer: NodeId,
        request: Request,
    ) -> Result<Response, Interrupted> {
        let member = topology.member(peer).ok_or(Interrupted)?;
        let peer = Peer {
            node: peer,
            address: member.address.clone(),
        };
        let answer = self.env.transport.call(peer, request, PATIENCE).await;
        answer.map_err(|_| Interrupted)
    }
}

fn target(topology: &Topology, (bucket, partition): Place, key: Key) -> Target {
    let (hash, _) = topology.locate(bucket, key.partition_key());
    Target {
        bucket,
        key,
        hash,
        partition,
        epoch: topology.epoch(),
        mode: topology.mode_of(bucket),
        stands_in_for: None,
    }
}

/// Does all of it, some at once, and says whether all was done.
async fn all_done(work: Vec<BoxFuture<'_, Result<(), Interrupted>>>) -> Result<(), Interrupted> {
    let mut work = stream::iter(work).buffer_unordered(OBJECTS_AT_ONCE);
    let mut outcome = Ok(());
    while let Some(done) = work.next().await {
        outcome = outcome.and(done);
    }
    outcome
}

fn question(topology: &Topology, place: Place, depth: u8, nodes: &[u32]) -> TreeNodesV1 {
    let (bucket, PartitionId(partition)) = place;
    TreeNodesV1 {
        epoch: topology.epoch(),
        bucket,
        partition,
        depth,
        nodes: nodes.to_vec(),
    }
}

/// The keys of a page, with their objects from its tail.
fn objects(page: ReplicaListReplyV1, mut tail: Bytes) -> Vec<(Key, Bytes)> {
    let split = |entry: kv_net::message::ReplicaListEntryV1| {
        let object = tail.split_to((entry.object_bytes as usize).min(tail.len()));
        (entry.key, object)
    };
    page.entries.into_iter().map(split).collect()
}
