//! How a node that has lost a part of its disk becomes whole again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kv_net::message::{ChangeKind, MAX_PAGE, PlaceV1, Request, Response, WatermarksV1};
use kv_ring::{ChainEntry, PartitionId, Topology};
use kv_types::{Hlc, NodeId, planted};

use super::Completeness;
use crate::anti_entropy::exchange::Exchange;
use crate::anti_entropy::trees::Place;
use crate::changes::Changes;
use crate::env::{Deadline, Env};
use crate::hints::Kept;
use crate::liveness::Liveness;
use crate::replica::Replica;
use crate::store::StoreError;
use crate::tombstones::floor::Floor;
use crate::tombstones::watermarks::Watermarks;
use crate::topologies::Topologies;
use crate::transport::Peer;

/// The time between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the voters may take to grant an actor.
const GRANT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a peer may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Partitions that are compared in one round.
const PARTITIONS_AT_ONCE: usize = 256;

/// The task that makes a node whole.
#[derive(Debug)]
pub struct Recovery {
    pub(crate) env: Env,
    pub(crate) me: NodeId,
    pub(crate) topologies: Arc<Topologies>,
    pub(crate) completeness: Arc<Completeness>,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) changes: Changes,
    pub(crate) replica: Arc<Replica>,
    pub(crate) floor: Arc<Floor>,
    pub(crate) watermarks: Arc<Watermarks>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) liveness: Arc<Liveness>,
}

/// What is known of one place.
#[derive(Debug)]
struct Progress {
    /// The other owners: while owners change, the old ones and the new ones, each by themselves.
    sides: Vec<BTreeSet<NodeId>>,
    /// How many of one side are enough, if their own copies are complete.
    enough: usize,
    /// This one must be among those that were compared with, however many others are.
    must: Option<NodeId>,
    /// Those that were compared with.
    heard: BTreeSet<NodeId>,
    /// Those of them that are complete.
    complete: BTreeSet<NodeId>,
    /// The highest watermark of one of them, and whose it is.
    most: Option<(Hlc, NodeId)>,
}

/// What a peer has told of some places.
#[derive(Debug)]
struct Told {
    /// Up to where it knows what was deleted; `None` where its own copies are incomplete.
    marks: BTreeMap<Place, Option<Hlc>>,
    /// A number that becomes another one with each of its losses.
    losses: u64,
}

impl Progress {
    /// A write that this node has acknowledged was acknowledged by w of n, and what a read at level quorum has shown was held
    /// by n − r + 1: so many others must be heard that one of those is among them. Where all are heard, there is nobody
    /// left who could know more.
    fn is_done(&self) -> bool {
        if planted!("complete copies after one comparison") && !self.heard.is_empty() {
            return true;
        }
        self.must.is_none_or(|must| self.heard.contains(&must))
            && (self.is_enough() || self.others().is_subset(&self.heard))
    }

    /// Whether enough others that are complete were heard.
    fn is_enough(&self) -> bool {
        // What was acknowledged while owners change had both quorums.
        let others = self.others();
        let is_enough = |side: &BTreeSet<NodeId>| {
            let complete = side.intersection(&self.complete).count();
            complete >= self.enough.min(side.len()) && (others.is_empty() || !side.is_empty())
        };
        self.sides.iter().any(is_enough)
    }

    fn others(&self) -> BTreeSet<NodeId> {
        self.sides.iter().flatten().copied().collect()
    }
}

impl Recovery {
    /// Makes up for what is missing, as long as the node runs.
    pub async fn run(self) {
        let mut told = None;
        loop {
            if self.is_whole() || self.completeness.is_closed() {
                told = None;
                let _ = self
                    .env
                    .timeout(PAUSE, self.completeness.until_gains())
                    .await;
                continue;
            }
            if !self.completeness.has_actor() {
                self.ask_for_actor().await;
            }
            if let Err(error) = self.fetch().await {
                tracing::debug!(%error, "what was fetched is not complete yet");
            }
            let hidden = self.completeness.hidden_through();
            let is_delivered = self.kept.oldest().is_none_or(|oldest| oldest > hidden);
            if hidden > Hlc::ZERO && is_delivered {
                // If that fails, it is tried again.
                let _ = self.completeness.show_stand_ins().await;
            }
            let missing = self.completeness.missing();
            if told != Some(missing) {
                told = Some(missing);
                let joining = self.completeness.joining().len();
                tracing::info!(
                    missing,
                    joining,
                    "partitions of which others have what this node lacks, after a loss or because it is to gain them"
                );
            }
            let _ = self
                .env
                .timeout(PAUSE, self.completeness.until_gains())
                .await;
        }
    }

    fn is_whole(&self) -> bool {
        self.completeness.missing() == 0
            && self.completeness.has_actor()
            && self.completeness.hidden_through() == Hlc::ZERO
    }

    /// Has the voters grant an actor that nobody had before.
    async fn ask_for_actor(&self) {
        let kind = ChangeKind::GrantActor { node: self.me };
        let deadline = Deadline::after(&self.env, GRANT_PATIENCE);
        let epoch = match self.changes.make(kind, deadline).await {
            Ok(epoch) => epoch,
            Err(refusal) => {
                tracing::debug!(%refusal, "no actor is granted yet");
                return;
            }
        };
        let entry = self.topologies.entry_of(epoch);
        let entry = entry.and_then(|entry| ChainEntry::decode(&entry).ok());
        let Some(actor) = entry.and_then(|entry| entry.topology().actor_of(self.me)) else {
            return;
        };
        if self.completeness.grant(actor, epoch).await.is_ok() {
            self.replica.minter().set_actor(actor);
            tracing::info!(actor = actor.0, %epoch, "this node mints under a new actor");
        }
    }

    /// Compares incomplete partitions with their other owners, and takes those off the record that are done.
    async fn fetch(&self) -> Result<(), StoreError> {
        let _mending = self.completeness.mending().lock().await;
        let topology = {
            // What a topology that is being adopted makes doubtful is judged by that one, not by the one before.
            let _in_force = self.topologies.hold().await;
            self.completeness.begin_round();
            self.topologies.current()
        };
        let incomplete: Vec<PartitionId> = self.completeness.incomplete().into_iter().collect();
        // Until it has heard from another one, this node may not know of buckets that make it an owner.
        let members = topology.members().iter().map(|member| member.node);
        let mut others = members.filter(|node| *node != self.me);
        let mut is_current = !others.any(|node| topology.is_counted_on(node));
        for partitions in incomplete.chunks(PARTITIONS_AT_ONCE) {
            let mut places = self.owned(&topology, partitions);
            let peers: BTreeSet<NodeId> = places.values().flat_map(Progress::others).collect();
            let now = self.env.now();
            let answering = |peer: &NodeId| self.liveness.may_answer(*peer, now);
            let mut before = BTreeMap::new();
            for peer in peers.into_iter().filter(answering) {
                let shared = shared(&places, peer);
                let told = self.watermarks_of(&topology, peer, &shared).await;
                before.extend(told.map(|told| (peer, told)));
            }
            for (peer, told) in &before {
                self.compare(&topology, *peer, told, &mut places).await;
            }
            self.hear_all(&topology, &before, &mut places).await;
            is_current = is_current
                || places.values().any(|progress| !progress.heard.is_empty())
                || self.is_current(&topology).await;
            let mut done: BTreeSet<PartitionId> = partitions.iter().copied().collect();
            let mut compared: BTreeMap<Option<(Hlc, NodeId)>, Vec<Place>> = BTreeMap::new();
            for (place, progress) in &places {
                if progress.is_done() {
                    compared.entry(progress.most).or_default().push(*place);
                } else {
                    done.remove(&place.1);
                }
            }
            for (most, places) in compared {
                if let Some((through, peer)) = most {
                    for unsettled in self.let_go(&topology, peer, &places, through).await? {
                        done.remove(&unsettled.1);
                    }
                }
            }
            if is_current && !done.is_empty() {
                // In between this node may have minted in another's place, or in an attempt that was called off, what it does
                // not hold.
                self.replica.minter().hold_anew();
                self.completeness.complete(&done, &topology).await?;
            }
        }
        Ok(())
    }

    /// Whether another member answers that knows no newer topology.
    async fn is_current(&self, topology: &Topology) -> bool {
        let now = self.env.now();
        let members = topology.members().iter().map(|member| member.node);
        for peer in members.filter(|node| *node != self.me) {
            if self.liveness.may_answer(peer, now)
                && self.watermarks_of(topology, peer, &[]).await.is_some()
            {
                return true;
            }
        }
        false
    }

    /// Takes over the watermark of a peer whose copies are complete, and then lets go of what that one knows to be deleted:
    /// owners whose copies are not complete either may have brought it meanwhile, and from here on they cannot any more.
    /// Gives the places where that could not be done.
    async fn let_go(
        &self,
        topology: &Topology,
        peer: NodeId,
        places: &[Place],
        through: Hlc,
    ) -> Result<Vec<Place>, StoreError> {
        self.floor.restate(through).await?;
        self.replica.minter().rise_to(through);
        self.watermarks.raise(places, through).await?;
        // A round that was under way when the copies were lost may have raised the peer's meanwhile. Later ones cannot: they
        // need this node.
        let Some(mut told) = self.watermarks_of(topology, peer, places).await else {
            return Ok(places.to_vec());
        };
        told.marks.retain(|_, mark| mark.is_some());
        for (place, mark) in &mut told.marks {
            if let Some(mark) = mark.as_mut().filter(|mark| **mark > through) {
                self.floor.restate(*mark).await?;
                self.replica.minter().rise_to(*mark);
                self.watermarks.raise(&[*place], *mark).await?;
            } else {
                *mark = Some(through);
            }
        }
        let relearnt = self
            .exchange
            .relearn(topology, peer, &told.marks, told.losses);
        let settled = relearnt.await;
        let places = places.iter().copied();
        Ok(places.filter(|place| !settled.contains(place)).collect())
    }

    /// The places in some partitions that this node owns.
    fn owned(&self, topology: &Topology, partitions: &[PartitionId]) -> BTreeMap<Place, Progress> {
        let mut places = BTreeMap::new();
        for bucket in topology.buckets() {
            let quorum = bucket.properties.quorum;
            let (n, r, w) = (quorum.n(), quorum.r(), quorum.w());
            for partition in partitions {
                let owners = topology.replicas(*partition, n);
                if !owners.contains(self.me) {
                    continue;
                }
                if let Some(joining) = self.joining(topology, (bucket.id, *partition)) {
                    places.insert((bucket.id, *partition), joining);
                    continue;
                }
                let without_me = |side: &[NodeId]| {
                    let others = side.iter().filter(|node| **node != self.me);
                    others.copied().collect()
                };
                let sides = [Some(owners.old()), owners.new_owners()];
                let progress = Progress {
                    sides: sides.into_iter().flatten().map(without_me).collect(),
                    enough: usize::from((n + 1 - w).max(r).max(n + 1 - r)),
                    must: None,
                    heard: BTreeSet::new(),
                    complete: BTreeSet::new(),
                    most: None,
                };
                places.insert((bucket.id, *partition), progress);
            }
        }
        places
    }

    /// What has to be known of a place that this node is to gain.
    fn joining(&self, topology: &Topology, place: Place) -> Option<Progress> {
        let (bucket, partition) = place;
        let moving = topology.moving(partition);
        let moving = moving.filter(|moving| moving.to == self.me)?;
        let sources = topology.sources(bucket, partition);
        // A bucket with fewer replicas may have nothing in the slot.
        let (among, enough) =
            sources.map_or_else(Default::default, |sources| (sources.among, sources.needed));
        // Of whoever loses the slot, so that the new owners have together what any of the old ones had.
        let must = moving.from.filter(|from| among.contains(from));
        Some(Progress {
            must,
            sides: vec![among.into_iter().collect()],
            enough: match planted!("gain from one source") {
                true => usize::from(enough).min(1),
                false => usize::from(enough),
            },
            heard: BTreeSet::new(),
            complete: BTreeSet::new(),
            most: None,
        })
    }

    /// Brings this node's copies, in places that a peer owns, too, to what the peer knows; and the peer's to what is left here.
    /// `told` is from before: what the peer lacks now, from up to there, was deleted.
    async fn compare(
        &self,
        topology: &Topology,
        peer: NodeId,
        told: &Told,
        places: &mut BTreeMap<Place, Progress>,
    ) {
        let is_open = |place: &Place| places.get(place).is_some_and(|it| !it.is_done());
        let open = told.marks.iter().filter(|(place, _)| is_open(place));
        let open: BTreeMap<Place, Option<Hlc>> =
            open.map(|(place, mark)| (*place, *mark)).collect();
        if open.is_empty() {
            return;
        }
        let settled = self
            .exchange
            .relearn(topology, peer, &open, told.losses)
            .await;
        // A peer that has lost something meanwhile may have had what was not compared yet, also if it has fetched it since.
        let still = self.watermarks_of(topology, peer, &[]).await;
        let is_whole = still.is_some_and(|still| still.losses == told.losses)
            || planted!("count a source that has lost something");
        for place in settled {
            let Some(progress) = places.get_mut(&place) else {
                continue;
            };
            progress.heard.insert(peer);
            if let Some(Some(mark)) = open.get(&place).filter(|_| is_whole) {
                progress.complete.insert(peer);
                progress.most = progress.most.max(Some((*mark, peer)));
            }
        }
    }

    /// Where all others were heard, though too few of them are complete, nobody is left who could know more; but only if none of
    /// them has lost anything since before the first one was heard: it may have brought that to one who was heard already.
    async fn hear_all(
        &self,
        topology: &Topology,
        before: &BTreeMap<NodeId, Told>,
        places: &mut BTreeMap<Place, Progress>,
    ) {
        let by_all = |progress: &&mut Progress| progress.is_done() && !progress.is_enough();
        let others = places.values_mut().filter(by_all);
        let others: BTreeSet<NodeId> = others.flat_map(|progress| progress.others()).collect();
        for other in others {
            let still = self.watermarks_of(topology, other, &[]).await;
            let told = before.get(&other).map(|told| told.losses);
            if still.map(|still| still.losses) != told {
                for progress in places.values_mut().filter(|it| !it.is_enough()) {
                    progress.heard.remove(&other);
                }
            }
        }
    }

    /// What a peer knows of some places; `None` if it does not answer, or loses something meanwhile.
    async fn watermarks_of(
        &self,
        topology: &Topology,
        peer: NodeId,
        places: &[Place],
    ) -> Option<Told> {
        let mut told: Option<Told> = None;
        // Of no places, too, it tells its losses.
        let mut rest = places;
        loop {
            let (some, left) = rest.split_at(rest.len().min(MAX_PAGE));
            let page = self.page_of_watermarks(topology, peer, some).await?;
            match &mut told {
                None => told = Some(page),
                Some(told) if told.losses == page.losses => told.marks.extend(page.marks),
                Some(_) => return None,
            }
            if left.is_empty() {
                return told;
            }
            rest = left;
        }
    }

    async fn page_of_watermarks(
        &self,
        topology: &Topology,
        peer: NodeId,
        places: &[Place],
    ) -> Option<Told> {
        let member = topology.member(peer)?;
        let named = places.iter().map(|(bucket, partition)| PlaceV1 {
            bucket: *bucket,
            partition: partition.0,
        });
        let request = Request::Watermarks(WatermarksV1 {
            epoch: topology.epoch(),
            places: named.collect(),
        });
        let peer = Peer {
            node: peer,
            address: member.address.clone(),
        };
        match self.env.transport.call(peer, request, PATIENCE).await {
            Ok(Response::Watermarks(reply)) if reply.marks.len() == places.len() => Some(Told {
                marks: places.iter().copied().zip(reply.marks).collect(),
                losses: reply.losses,
            }),
            _ => None,
        }
    }
}

/// The places that are not done and that a peer owns, too.
fn shared(places: &BTreeMap<Place, Progress>, peer: NodeId) -> Vec<Place> {
    let is_shared = |(_, progress): &(&Place, &Progress)| progress.others().contains(&peer);
    let shared = places.iter().filter(is_shared);
    let open = shared.filter(|(_, progress)| !progress.is_done());
    open.map(|(place, _)| *place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes<const N: usize>(numbers: [u128; N]) -> BTreeSet<NodeId> {
        numbers.map(NodeId).into()
    }

    fn heard(sides: Vec<BTreeSet<NodeId>>, heard: BTreeSet<NodeId>) -> Progress {
        Progress {
            sides,
            enough: 2,
            must: None,
            complete: heard.clone(),
            heard,
            most: None,
        }
    }

    #[test]
    fn enough_of_the_old_owners_or_of_the_new_ones_are_heard_not_some_of_both() {
        // Node 2 has lost its disk, while owners change from 1 2 3 to 1 2 4. What it acknowledged 1 may have, too, and no other.
        let sides = || vec![nodes([1, 3]), nodes([1, 4])];
        assert!(!heard(sides(), nodes([3, 4])).is_done());
        assert!(heard(sides(), nodes([1, 3])).is_done());
        assert!(heard(sides(), nodes([1, 4])).is_done());
        assert!(!heard(sides(), nodes([1])).is_done());
        let mut all = heard(sides(), nodes([1, 3, 4]));
        all.complete.clear();
        assert!(all.is_done(), "nobody is left who could know more");
        // A single owner that gives its place to another one.
        let sides = || vec![nodes([]), nodes([2])];
        assert!(!heard(sides(), nodes([])).is_done());
        assert!(heard(sides(), nodes([2])).is_done());
        assert!(heard(vec![nodes([])], nodes([])).is_done(), "it is alone");
        let mut one_must = heard(vec![nodes([1, 2, 3])], nodes([1, 2]));
        assert!(one_must.is_done());
        one_must.must = Some(NodeId(3));
        assert!(!one_must.is_done());
    }
}
