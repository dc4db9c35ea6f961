//! One place compared with one peer: down the trees to where they differ, then by name and digest, in stretches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use futures::{FutureExt, StreamExt};
use kv_net::message::{
    AnswerWhen, DataHead, ObjectsV1, ReplicaWriteV1, Request, Response, TreeKeysV1, TreeNodesV1,
    TreeObjectsV1,
};
use kv_ring::{PartitionId, Topology};
use kv_types::{Hlc, HybridClock, Key, NodeId, Object, WriteId, planted};

use super::answers::{self, numbers};
use super::exchange::{Exchange, Interrupted};
use super::tree::FAN_OUT;
use super::trees::Place;
use crate::replica::{Arrival, Copy, Target};

/// What is younger is on its way to its replicas by itself.
const YOUNG_MS: u64 = 10_000;
/// Objects that are under way at once in each place: what users wait for goes first.
const OBJECTS_AT_ONCE: usize = 8;
/// Nodes in one question, and nodes whose keys are compared at once.
const NODES_AT_ONCE: usize = 64;
const LEAVES_AT_ONCE: usize = 16;
/// The longest rest after a stretch.
const LONGEST_REST: Duration = Duration::from_millis(50);
/// Stretches after which a usual comparison lets other places have their turn.
const STRETCHES_AT_ONCE: usize = 16;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// What is not on its way by itself.
    Usual,
    /// Everything: afterwards each of the two holds all that the other one held.
    Everything,
    /// Everything, by a node whose own copies may hold what was deleted long ago.
    Relearning(Known),
}

/// What a peer knows of a place to which a node compares its own copies that lack something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// Up to here, what the peer does not hold was deleted.
    pub(super) through: Hlc,
    /// The number of its losses under which it is complete; `None` if it is not.
    pub(super) whole_since: Option<u64>,
}

/// A comparison of one place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Comparison<'a> {
    pub(super) exchange: &'a Exchange,
    pub(super) topology: &'a Topology,
    pub(super) peer: NodeId,
    pub(super) place: Place,
    pub(super) aim: Aim,
}

impl Comparison<'_> {
    /// Goes down the tree to where it differs from the peer's, and compares the keys there.
    pub(super) async fn run(&self) -> Result<(), Interrupted> {
        let mut level: Vec<(u8, u32)> = vec![(0, 0)];
        while let Some((depth, _)) = level.first().copied() {
            let mut below = Vec::new();
            let mut ends = Vec::new();
            let nodes: Vec<u32> = level.iter().map(|(_, node)| *node).collect();
            for nodes in nodes.chunks(NODES_AT_ONCE) {
                match self.differing_below(depth, nodes).await? {
                    Some(children) => {
                        below.extend(children.into_iter().map(|node| (depth + 1, node)));
                    }
                    None => ends.extend_from_slice(nodes),
                }
            }
            for leaves in ends.chunks(LEAVES_AT_ONCE) {
                self.compare_keys(depth, leaves).await?;
            }
            level = below;
        }
        Ok(())
    }

    /// The children of nodes in which the two trees differ; `None` where one of them has no children.
    async fn differing_below(
        &self,
        depth: u8,
        nodes: &[u32],
    ) -> Result<Option<Vec<u32>>, Interrupted> {
        let trees = &self.exchange.trees;
        if depth >= trees.depth(self.place) {
            return Ok(None);
        }
        let request = Request::TreeNodes(self.under(depth, nodes));
        let Response::TreeNodes(_, tail) = self.ask(request).await? else {
            return Err(Interrupted);
        };
        let theirs = numbers(&tail);
        // Taken after the answer, so that what came in between is not taken for a difference more often than need be.
        let Some(mine) = trees.children(self.place, depth, nodes) else {
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

    /// Compares the keys below nodes by name and digest, stretch by stretch, and moves the objects that differ. A usual
    /// comparison begins where the last one ended that had too much to do.
    async fn compare_keys(&self, depth: u8, nodes: &[u32]) -> Result<(), Interrupted> {
        let of = (self.peer, self.place, nodes.first().copied().unwrap_or(0));
        let mut begun_at = match self.aim {
            Aim::Usual => self.exchange.take_rest(of),
            Aim::Everything | Aim::Relearning(_) => None,
        };
        let mut rest = TreeKeysV1 {
            under: self.under(depth, nodes),
            after: begun_at.clone(),
            until: None,
        };
        let mut stretches = 0;
        loop {
            // What is incomplete here is brought up to date by recovery, which knows what was deleted elsewhere.
            let is_incomplete = self.exchange.completeness.is_incomplete(self.place.1);
            if self.aim == Aim::Usual && is_incomplete {
                return Err(Interrupted);
            }
            let begun = self.exchange.env.now();
            let compared = self.compare_stretch(&rest).await;
            self.yield_after(begun).await;
            if compared.is_err() && self.aim == Aim::Usual {
                self.exchange.leave_rest(of, rest.after.clone());
            }
            match compared? {
                Some(last) => rest.after = Some(last),
                None => match begun_at.take() {
                    None => return Ok(()),
                    // Then what lies before.
                    until => (rest.after, rest.until) = (None, until),
                },
            }
            stretches += 1;
            if self.aim == Aim::Usual && stretches >= STRETCHES_AT_ONCE {
                self.exchange.leave_rest(of, rest.after);
                return Ok(());
            }
        }
    }

    /// Compares the first keys of a stretch. Gives the last of them; `None` if the stretch ends with it.
    async fn compare_stretch(&self, rest: &TreeKeysV1) -> Result<Option<Key>, Interrupted> {
        let (mut mine, mut cut) = self.copies(rest).await?;
        let mut stretch = rest.clone();
        stretch.until = cut.clone().or(stretch.until);
        let request = Request::TreeKeys(stretch.clone());
        let Response::TreeKeys(reply, tail) = self.ask(request).await? else {
            return Err(Interrupted);
        };
        if let Some(last) = reply.until {
            // The peer had more to go through.
            let stored = |key: &Key| self.target(key.clone()).stored();
            let end = stored(&last);
            if rest
                .after
                .as_ref()
                .is_some_and(|after| end <= stored(after))
            {
                return Err(Interrupted);
            }
            mine.truncate(mine.partition_point(|copy| stored(&copy.key) <= end));
            stretch.until = Some(last.clone());
            cut = Some(last);
        }
        let theirs: BTreeMap<u64, u64> = numbers(&tail)
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .collect();
        let mut missing = Vec::new();
        for copy in &mine {
            if !theirs.contains_key(&copy.id) && !self.is_young(copy) {
                missing.push(self.bring(copy.key.clone()).boxed());
            }
        }
        let mut wanted = self.wanted(&mine, &theirs);
        if self.aim == Aim::Usual && !wanted.is_empty() {
            // What came while the peer answered is no difference.
            let (mine, _) = self.copies(&stretch).await?;
            let still = self.wanted(&mine, &theirs);
            wanted.retain(|id| still.contains(id));
        }
        self.fetch(stretch, wanted).await?;
        all_done(missing).await?;
        Ok(cut)
    }

    /// What this node holds of a stretch, and the key up to which that is all, if there is more.
    async fn copies(&self, stretch: &TreeKeysV1) -> Result<(Vec<Copy>, Option<Key>), Interrupted> {
        let (replica, stretch) = (&self.exchange.replica, answers::stretch(stretch));
        let copies = answers::copies(replica, self.place, &stretch).await;
        copies.map_err(|refusal| {
            tracing::error!(%refusal, "what this node holds cannot be compared");
            Interrupted
        })
    }

    /// Which of the peer's copies this node lacks, or has another one of.
    fn wanted(&self, mine: &[Copy], theirs: &BTreeMap<u64, u64>) -> BTreeSet<u64> {
        let mine: BTreeMap<u64, &Copy> = mine.iter().map(|copy| (copy.id, copy)).collect();
        let differs = |(id, digest): &(&u64, &u64)| match mine.get(*id) {
            Some(copy) => copy.digest != **digest && !self.is_young(copy),
            None => true,
        };
        theirs.iter().filter(differs).map(|(id, _)| *id).collect()
    }

    /// Whether a copy is left to those who bring it by themselves.
    fn is_young(&self, copy: &Copy) -> bool {
        let now_ms = self.exchange.env.host.wall_ms();
        // A dot from the future is one of a clock that was wrong, and says nothing of its age.
        let latest = now_ms + HybridClock::MAX_SKEW.as_millis() as u64;
        let young = now_ms.saturating_sub(YOUNG_MS)..=latest;
        let leaves_young = self.aim == Aim::Usual || planted!("leave out what is young everywhere");
        leaves_young && young.contains(&copy.newest.millis())
    }

    /// Fetches objects of a stretch.
    async fn fetch(
        &self,
        mut stretch: TreeKeysV1,
        mut wanted: BTreeSet<u64>,
    ) -> Result<(), Interrupted> {
        while !wanted.is_empty() {
            let request = Request::TreeObjects(TreeObjectsV1 {
                stretch: stretch.clone(),
                ids: wanted.iter().copied().collect(),
            });
            let Response::TreeObjects(page, tail) = self.ask(request).await? else {
                return Err(Interrupted);
            };
            let until = page.until.clone();
            let came = tail.len();
            let mut taken = Vec::new();
            for (key, object) in objects(page, tail) {
                let id = self.exchange.replica.key_id(&self.target(key.clone()));
                wanted.remove(&id);
                taken.push(self.take_in(key, object).boxed());
            }
            all_done(taken).await?;
            self.rest_after(came).await;
            match until {
                None => break,
                Some(last) if stretch.after.as_ref() == Some(&last) => return Err(Interrupted),
                last => stretch.after = last,
            }
        }
        if self.aim != Aim::Usual && !wanted.is_empty() {
            return Err(Interrupted);
        }
        Ok(())
    }

    /// Merges an object of the peer's; if that is not all that is known of its key, the peer gets the rest.
    async fn take_in(&self, key: Key, encoded: Bytes) -> Result<(), Interrupted> {
        let replica = &self.exchange.replica;
        let object = Object::decode(&encoded).map_err(|_| Interrupted)?;
        let target = self.target(key);
        let merged = match self.aim {
            Aim::Usual | Aim::Everything => replica.merge(&target, &object, Arrival::Repair).await,
            Aim::Relearning(known) => replica.relearn(&target, &object, known.through).await,
        };
        merged.map_err(|_| Interrupted)?;
        let fetched = &self.exchange.counts.fetched;
        fetched.fetch_add(1, Ordering::Relaxed);
        let held = replica.held(&target).await.map_err(|_| Interrupted)?;
        match held.filter(|held| held.encoded != encoded) {
            None => Ok(()),
            Some(held) => self.send(target.key, held.encoded).await,
        }
    }

    /// Brings an object to the peer, which has nothing of its key, if that does not mean that it was deleted.
    async fn bring(&self, key: Key) -> Result<(), Interrupted> {
        if planted!("repair only the side that compares") {
            return Ok(());
        }
        let replica = &self.exchange.replica;
        let target = self.target(key);
        if let Aim::Relearning(known) = self.aim {
            let nothing = Object::new();
            let relearnt = replica.relearn(&target, &nothing, known.through).await;
            relearnt.map_err(|_| Interrupted)?;
        }
        let held = replica.held(&target).await.map_err(|_| Interrupted)?;
        let Some(held) = held else {
            return Ok(());
        };
        let went = held.encoded.len();
        self.send(target.key, held.encoded).await?;
        self.rest_after(went).await;
        Ok(())
    }

    /// Rests for as long as something took: all the longer, the more the two nodes have to do for users.
    async fn yield_after(&self, begun: Duration) {
        let env = &self.exchange.env;
        let took = env.now().saturating_sub(begun);
        env.sleep(took.min(LONGEST_REST)).await;
    }

    /// Keeps the pace after bytes that came or went.
    async fn rest_after(&self, bytes: usize) {
        let env = &self.exchange.env;
        let rest = self.exchange.pace.rest_after(bytes, env.now());
        if rest > Duration::ZERO {
            env.sleep(rest).await;
        }
    }

    /// Sends an object to the peer.
    async fn send(&self, key: Key, encoded: Bytes) -> Result<(), Interrupted> {
        let message = ReplicaWriteV1 {
            head: DataHead {
                epoch: self.topology.epoch(),
                trace: 0,
                write_id: WriteId::from_bytes([0; 16]),
            },
            bucket: self.place.0,
            key,
            answer: AnswerWhen::Synced,
        };
        match self.ask(Request::Repair(message, encoded)).await? {
            Response::Repair(_) => {
                let sent = &self.exchange.counts.sent;
                sent.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            _ => Err(Interrupted),
        }
    }

    async fn ask(&self, request: Request) -> Result<Response, Interrupted> {
        self.exchange.ask(self.topology, self.peer, request).await
    }

    fn target(&self, key: Key) -> Target {
        let (bucket, partition) = self.place;
        let (hash, _) = self.topology.locate(bucket, key.partition_key());
        Target {
            bucket,
            key,
            hash,
            partition,
            epoch: self.topology.epoch(),
            mode: self.topology.mode_of(bucket),
            stands_in_for: None,
        }
    }

    fn under(&self, depth: u8, nodes: &[u32]) -> TreeNodesV1 {
        let (bucket, PartitionId(partition)) = self.place;
        TreeNodesV1 {
            epoch: self.topology.epoch(),
            bucket,
            partition,
            depth,
            nodes: nodes.to_vec(),
            whole_since: match self.aim {
                Aim::Relearning(known) => known.whole_since,
                Aim::Usual | Aim::Everything => None,
            },
        }
    }
}

/// Does all of it, some at once, until something cannot be done.
async fn all_done(work: Vec<BoxFuture<'_, Result<(), Interrupted>>>) -> Result<(), Interrupted> {
    let mut work = stream::iter(work).buffer_unordered(OBJECTS_AT_ONCE);
    while let Some(done) = work.next().await {
        done?;
    }
    Ok(())
}

/// The keys of a page, with their objects from its tail.
fn objects(page: ObjectsV1, mut tail: Bytes) -> Vec<(Key, Bytes)> {
    let split = |entry: kv_net::message::ReplicaListEntryV1| {
        let object = tail.split_to((entry.object_bytes as usize).min(tail.len()));
        (entry.key, object)
    };
    page.entries.into_iter().map(split).collect()
}
