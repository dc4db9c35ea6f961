//! The side that compares: in turn with each peer, for as long as the node runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream;
use futures::{FutureExt, StreamExt};
use kv_net::message::{CompareReplyV1, CompareV1, Request, Response, TreeRootsV1};
use kv_ring::Topology;
use kv_types::{Hlc, Key, NodeId, planted};

use super::answers::{numbers, sum};
use super::comparison::{Aim, Comparison, Known};
use super::pace::Pace;
use super::trees::{Place, Trees};
use super::{making, shared};
use crate::completeness::Completeness;
use crate::env::Env;
use crate::liveness::Liveness;
use crate::membership::Membership;
use crate::replica::Replica;
use crate::store::Store;
use crate::topologies::Topologies;
use crate::transport::Peer;

/// The time between two comparisons.
const PERIOD: Duration = Duration::from_secs(2);
/// The time until trees are made once more, when the store could not be read.
const RETRY: Duration = Duration::from_secs(10);
/// How long a peer may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Partitions that are compared at once: what users wait for goes first.
const PARTITIONS_AT_ONCE: usize = 4;

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
    /// How fast objects are fetched.
    pub(crate) pace: Pace,
    /// Where comparisons ended that had too much to do.
    pub(crate) rests: Mutex<BTreeMap<(NodeId, Place, u32), Key>>,
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

/// A comparison that could not go on: the peer does not answer, or the topology has changed. The next one begins anew.
#[derive(Debug)]
pub(super) struct Interrupted;

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

    /// Makes trees anew that have become too coarse, or are over some of the rows only.
    async fn grow(&self, topology: &Topology) {
        for place in self.trees.to_make() {
            // While lost copies are fetched, which may take long, comparing goes on; trees can wait.
            let Ok(_mending) = self.completeness.mending().try_lock() else {
                return;
            };
            let made = making::make_one(&self.trees, &self.store, &self.env, topology, place).await;
            if let Err(error) = made {
                tracing::error!(%error, "a Merkle tree could not be made anew");
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

    /// The same, for places where this node's copies may still hold what was deleted long ago: what the peer knew of that, and
    /// under which number of its losses, stands beside the place; `None` where its own copies lack something.
    pub async fn relearn(
        &self,
        topology: &Topology,
        peer: NodeId,
        places: &BTreeMap<Place, Option<Hlc>>,
        losses: u64,
    ) -> BTreeSet<Place> {
        let known = |mark: Option<Hlc>| Known {
            through: mark.unwrap_or(Hlc::ZERO),
            whole_since: mark.map(|_| losses),
        };
        let aims = places
            .iter()
            .map(|(place, mark)| (*place, Aim::Relearning(known(*mark))));
        self.settle_as(topology, peer, &aims.collect()).await
    }

    /// Brings an owner of a place what only this node holds there, which owns it no more.
    pub async fn give(&self, topology: &Topology, owner: NodeId, place: Place) -> bool {
        let comparison = self.comparison(topology, owner, place, Aim::Everything);
        self.trees.are_made() && comparison.run().await.is_ok()
    }

    async fn settle_as(
        &self,
        topology: &Topology,
        peer: NodeId,
        aims: &BTreeMap<Place, Aim>,
    ) -> BTreeSet<Place> {
        // What is not shared is not compared.
        let both = shared(topology, self.me, peer).into_iter();
        let mut settled: BTreeSet<Place> = both.filter(|place| aims.contains_key(place)).collect();
        let Ok(differing) = self.differing(topology, peer).await else {
            return BTreeSet::new();
        };
        let mut work = Vec::new();
        for place in differing {
            let Some(aim) = aims.get(&place) else {
                continue;
            };
            let comparison = self.comparison(topology, peer, place, *aim);
            work.push(async move { (place, comparison.run().await) }.boxed());
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
        let mut places = self.differing(topology, peer).await?;
        // Another peer may find the same at this moment: whoever comes later to a place finds it equal.
        let start = self.env.host.random() as usize % places.len().max(1);
        places.rotate_left(start);
        for place in places {
            // What is incomplete here is brought up to date by recovery, which knows what was deleted elsewhere.
            if self.completeness.is_incomplete(place.1) {
                continue;
            }
            if !planted!("repair nothing that a comparison finds") {
                let comparison = self.comparison(topology, peer, place, Aim::Usual);
                work.push(async move { comparison.run().await }.boxed());
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

    fn comparison<'a>(
        &'a self,
        topology: &'a Topology,
        peer: NodeId,
        place: Place,
        aim: Aim,
    ) -> Comparison<'a> {
        Comparison {
            exchange: self,
            topology,
            peer,
            place,
            aim,
        }
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

    /// Where the last comparison with a peer, of the keys from below a node of a place's tree on, ended that had too much to
    /// do; the next one begins there.
    pub(super) fn take_rest(&self, of: (NodeId, Place, u32)) -> Option<Key> {
        self.rests().remove(&of)
    }

    /// Notes where a comparison ends that has too much to do.
    pub(super) fn leave_rest(&self, of: (NodeId, Place, u32), after: Option<Key>) {
        if let Some(after) = after {
            self.rests().insert(of, after);
        }
    }

    fn rests(&self) -> MutexGuard<'_, BTreeMap<(NodeId, Place, u32), Key>> {
        self.rests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn ask(
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
