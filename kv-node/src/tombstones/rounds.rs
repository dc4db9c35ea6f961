//! The side that asks: has deletions forgotten that its own partitions hold, for as long as the node runs.
//!
//! The first owner of each partition does it for all; where that does not happen in time, any of them. Where nothing is
//! deleted, nothing is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use kv_net::message::{FloorReplyV1, PlaceV1, Request, Response, WatermarkStep, WatermarkV1};
use kv_ring::Topology;
use kv_types::{Hlc, HybridClock, NodeId, planted};

use super::Overdue;
use super::answers::Forgetting;
use super::floor::READINGS;
use super::promises::{HeldUp, Promises};
use crate::anti_entropy::exchange::Exchange;
use crate::anti_entropy::trees::Place;
use crate::env::Env;
use crate::replica::Deletion;

/// How often the least age of a tombstone passes until people are told who holds rounds up.
const PATIENCE_BEFORE_TELLING: u32 = 4;
/// The longest time between two rounds.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// The time between two looks while there is more to forget: what users wait for goes first.
const BETWEEN_PASSES: Duration = Duration::from_millis(100);
/// Copies that are forgotten at once.
const FORGOTTEN_AT_ONCE: usize = 32;
/// Pages of deletions, of 1,024 at most each, that are looked at before a round.
const PAGES_AT_ONCE: usize = 64;
/// By then a clock that was set is compared with those of the others.
const UNTIL_COMPARED: Duration = Duration::from_secs(10);
/// Places that are settled in one round.
const PLACES_AT_ONCE: usize = 1_024;

/// The task that has deletions forgotten.
#[derive(Debug)]
pub struct Rounds {
    pub(crate) env: Env,
    pub(crate) forgetting: Forgetting,
    pub(crate) promises: Promises,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) trouble: Option<Trouble>,
    /// Where the next look at what is deleted begins.
    pub(crate) next: Option<Bytes>,
    /// Something went in the last pass, so more may go.
    pub(crate) has_forgotten: bool,
    /// What the clock on the wall showed when it was looked at last, and when that was.
    pub(crate) looked: Option<(Duration, Hlc)>,
    /// When it was seen last that the clock had been set.
    pub(crate) was_set: Option<Duration>,
}

/// A member that does not let rounds go on.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    by: NodeId,
    since: Duration,
    is_told: bool,
}

impl Rounds {
    /// Goes on as long as the node runs.
    pub async fn run(mut self) {
        let between_readings = self.forgetting.floor.keep() / READINGS;
        let between_rounds = between_readings.min(LONGEST_PAUSE);
        let (mut reading_at, mut round_at) = (self.env.now(), self.env.now());
        loop {
            // As long as there is more to forget, it goes on.
            let pause = if self.has_forgotten {
                BETWEEN_PASSES
            } else {
                between_rounds
            };
            self.env.sleep(pause.min(between_rounds)).await;
            let now = self.env.now();
            if now.saturating_sub(reading_at) >= between_readings {
                reading_at = now;
                self.read_clock();
            }
            if self.forgetting.membership.is_rolled_back() {
                continue;
            }
            let waiting = self.forget_what_may_go().await;
            if now.saturating_sub(round_at) < between_rounds {
                continue;
            }
            round_at = now;
            let topology = self.forgetting.topologies.current();
            let mut wanted = self.forgetting.replica.gaps();
            wanted.extend(waiting.iter().map(|(place, oldest)| (*place, *oldest)));
            let mine = self.mine(&topology, &wanted);
            let is_my_turn = !mine.is_empty();
            let outcome = if mine.is_empty() {
                Ok(())
            } else {
                self.round(&topology, mine, &wanted).await
            };
            // What its watermarks have passed now goes at once, as it does elsewhere.
            self.has_forgotten |= outcome.is_ok() && is_my_turn;
            self.report(&topology, &waiting, outcome);
        }
    }

    /// Notes what the clock on the wall shows, if it is none that is known to be wrong, nor was set a moment ago: whether that made
    /// it right the others have not said yet.
    fn read_clock(&mut self) {
        let (now, wall) = (self.env.now(), self.forgetting.floor.wall());
        if let Some((at, showed)) = self.looked.replace((now, wall)) {
            let expected = showed.plus(now.saturating_sub(at)).millis();
            if wall.millis().abs_diff(expected) >= HybridClock::MAX_SKEW.as_millis() as u64 {
                self.was_set = Some(now);
            }
        }
        let is_new = self
            .was_set
            .is_some_and(|set| now.saturating_sub(set) < UNTIL_COMPARED);
        let minter = self.forgetting.replica.minter();
        if is_new || minter.check_clock().is_err() {
            return;
        }
        if !planted!("mint below an earlier reading") {
            // A clock that is set back must not make what is minted later seem to be from before.
            minter.rise_to(wall);
        }
        self.forgetting.floor.note(wall);
    }

    /// Looks at what was deleted or has expired, as much at once as does no harm, the oldest first; and forgets what is
    /// below the watermarks. Gives the places where more is, and from when the oldest is there.
    async fn forget_what_may_go(&mut self) -> BTreeMap<Place, Hlc> {
        let mut waiting: BTreeMap<Place, Hlc> = BTreeMap::new();
        self.has_forgotten = false;
        let reading = self.forgetting.floor.reading();
        let topology = self.forgetting.topologies.current();
        let me = self.forgetting.me;
        for _ in 0..PAGES_AT_ONCE {
            let from = self.next.take();
            let page = match self.forgetting.replica.deletions(from, reading).await {
                Ok(page) => page,
                Err(refusal) => {
                    tracing::error!(%refusal, "what is deleted cannot be read, so it is not forgotten yet");
                    return waiting;
                }
            };
            let mut ripe: Vec<Deletion> = Vec::new();
            for deletion in page.entries {
                // Of copies that went with their partition the notes are left.
                let is_nobodys =
                    topology.is_counted_on(me) && !topology.has_or_drains(me, deletion.place.1);
                let through = self.forgetting.replica.forgettable(deletion.place);
                if is_nobodys || deletion.from <= through {
                    ripe.push(deletion);
                } else {
                    let oldest = waiting.entry(deletion.place).or_insert(deletion.from);
                    *oldest = (*oldest).min(deletion.from);
                }
            }
            self.has_forgotten |= !ripe.is_empty();
            let replica = &self.forgetting.replica;
            let forget = |deletion: Deletion| async move {
                if let Err(refusal) = replica.forget(&deletion).await {
                    tracing::debug!(%refusal, "a deletion is not forgotten yet");
                }
            };
            stream::iter(ripe)
                .for_each_concurrent(FORGOTTEN_AT_ONCE, forget)
                .await;
            self.next = page.next;
            if self.next.is_none() {
                break;
            }
        }
        waiting
    }

    /// Of some places those that it is this node's turn to see to, with their other owners.
    fn mine(
        &self,
        topology: &Topology,
        waiting: &BTreeMap<Place, Hlc>,
    ) -> BTreeMap<Place, Vec<NodeId>> {
        let me = self.forgetting.me;
        let reading = self.forgetting.floor.reading();
        let patience = self.forgetting.floor.keep();
        let others = |((bucket, partition), oldest): (&Place, &Hlc)| {
            let n = topology.bucket(*bucket)?.properties.quorum.n();
            let owners = topology.replicas(*partition, n);
            if !owners.contains(me) {
                return None;
            }
            let nodes: Vec<NodeId> = owners.nodes().collect();
            let is_mine = nodes.first() == Some(&me) || oldest.plus(patience) <= reading;
            let others = nodes.into_iter().filter(|node| *node != me);
            let completeness = &self.forgetting.completeness;
            let is_settled = topology.is_settled(*partition)
                || planted!("let watermarks rise while owners change");
            let is_whole = is_settled && !completeness.is_incomplete(*partition);
            (is_mine && is_whole).then(|| ((*bucket, *partition), others.collect()))
        };
        // Beginning anywhere, so that none is always among those that are too many.
        let start = self.env.host.random() as usize % waiting.len().max(1);
        let turned = waiting.iter().skip(start).chain(waiting.iter().take(start));
        turned.filter_map(others).take(PLACES_AT_ONCE).collect()
    }

    /// One round: promises, comparisons, durability, and only then the watermarks.
    async fn round(
        &self,
        topology: &Topology,
        mut places: BTreeMap<Place, Vec<NodeId>>,
        wanted: &BTreeMap<Place, Hlc>,
    ) -> Result<(), HeldUp> {
        let me = self.forgetting.me;
        let readings = self.promises.all(topology, None, None).await?;
        let readings = readings.iter().map(|(node, floor)| (floor.reading, *node));
        let (through, least) = readings.min().unwrap_or((Hlc::ZERO, me));
        places.retain(|place, _| wanted.get(place).is_some_and(|oldest| *oldest <= through));
        if places.is_empty() {
            // It was started not long ago, or its clock is behind, or wrong.
            return Err(HeldUp { by: least });
        }
        let is_promised = |floors: &BTreeMap<NodeId, FloorReplyV1>| {
            floors
                .iter()
                .find(|(_, floor)| floor.floor < through)
                .map(|(node, _)| *node)
        };
        let peers: BTreeSet<NodeId> = places.values().flatten().copied().collect();
        if planted!("compare before the floors are promised") {
            self.settle_all(topology, &peers, &mut places).await;
        }
        let floors = self.promises.all(topology, Some(through), None).await?;
        if let Some(by) = is_promised(&floors) {
            return Err(HeldUp { by });
        }
        if !planted!("compare before the floors are promised") {
            self.settle_all(topology, &peers, &mut places).await;
        }
        if places.is_empty() {
            return Ok(());
        }
        if self.forgetting.seal().await.is_err() {
            return Err(HeldUp { by: me });
        }
        let boots: BTreeMap<NodeId, u64> = floors
            .into_iter()
            .map(|(node, floor)| (node, floor.boot))
            .collect();
        // Each step is taken by all owners of a place before any takes the next one.
        for step in [
            WatermarkStep::Seal,
            WatermarkStep::Raise,
            WatermarkStep::Forget,
        ] {
            // What is no single owner's any more when it rises, others have learnt before.
            let in_force = self.forgetting.topologies.hold().await;
            if self.forgetting.topologies.current().epoch() != topology.epoch() {
                return Ok(());
            }
            let whole = self.forgetting.completeness.hold().await;
            let completeness = &self.forgetting.completeness;
            places.retain(|(_, partition), _| !completeness.is_incomplete(*partition));
            let own: Vec<Place> = places.keys().copied().collect();
            match step {
                WatermarkStep::Seal => {}
                WatermarkStep::Raise => {
                    let raised = self.forgetting.watermarks.raise(&own, through).await;
                    raised.map_err(|_| HeldUp { by: me })?;
                }
                WatermarkStep::Forget => self.forgetting.watermarks.let_forget(&own, through),
            }
            drop((whole, in_force));
            for peer in &peers {
                let shared = shared_with(*peer, &places);
                if shared.is_empty() {
                    continue;
                }
                let message = WatermarkV1 {
                    epoch: topology.epoch(),
                    boot: boots.get(peer).copied().unwrap_or(0),
                    through,
                    step,
                    places: shared
                        .iter()
                        .map(|(bucket, partition)| PlaceV1 {
                            bucket: *bucket,
                            partition: partition.0,
                        })
                        .collect(),
                };
                let request = Request::Watermark(message);
                let answer = self.promises.ask(topology, *peer, request).await;
                // One that is not told to forget remembers for longer, which does no harm.
                let is_done = matches!(answer, Some(Response::Watermark(_)));
                if !is_done && step != WatermarkStep::Forget {
                    for place in shared {
                        places.remove(&place);
                    }
                }
            }
        }
        Ok(())
    }

    /// Compares with all peers, twice: what the last of them had reaches the first one then.
    async fn settle_all(
        &self,
        topology: &Topology,
        peers: &BTreeSet<NodeId>,
        places: &mut BTreeMap<Place, Vec<NodeId>>,
    ) {
        for peer in peers.iter().chain(peers) {
            self.settle(topology, *peer, places).await;
        }
    }

    /// Compares with a peer what this node shares with it of some places, and takes out of them where that failed.
    async fn settle(
        &self,
        topology: &Topology,
        peer: NodeId,
        places: &mut BTreeMap<Place, Vec<NodeId>>,
    ) {
        let shared = shared_with(peer, places);
        if planted!("raise a watermark without comparing") {
            return;
        }
        let settled = self.exchange.settle(topology, peer, &shared).await;
        for place in shared {
            if !settled.contains(&place) {
                places.remove(&place);
            }
        }
    }

    /// Tells people how far forgetting is behind, and who holds it up.
    fn report(
        &mut self,
        topology: &Topology,
        waiting: &BTreeMap<Place, Hlc>,
        outcome: Result<(), HeldUp>,
    ) {
        let reading = self.forgetting.floor.reading();
        let overdue = waiting.iter().map(|(place, oldest)| Overdue {
            place: *place,
            by_ms: reading.millis().saturating_sub(oldest.millis()),
        });
        let overdue = overdue.filter(|overdue| overdue.by_ms > 0).collect();
        self.forgetting.counts.set_overdue(overdue);
        let now = self.env.now();
        let name = |node| {
            topology
                .member(node)
                .map_or_else(String::new, |member| member.name.clone())
        };
        match (outcome, &mut self.trouble) {
            (Ok(()), trouble) => {
                if trouble.take().is_some_and(|trouble| trouble.is_told) {
                    tracing::info!("deletions are forgotten again");
                }
            }
            (Err(HeldUp { by }), Some(trouble)) => {
                // Another one is named, too, when it is its turn.
                trouble.is_told &= trouble.by == by;
                trouble.by = by;
                let lasts = now.saturating_sub(trouble.since);
                if !trouble.is_told
                    && lasts > PATIENCE_BEFORE_TELLING * self.forgetting.floor.keep()
                {
                    trouble.is_told = true;
                    tracing::warn!(
                        member = %name(by),
                        "deletions are not forgotten until this member answers and keeps nothing old for others; start it again, or, if it will never be back, replace or remove it (kv cluster replace, kv cluster remove)"
                    );
                }
            }
            (Err(HeldUp { by }), none) => {
                *none = Some(Trouble {
                    by,
                    since: now,
                    is_told: false,
                });
            }
        }
    }
}

/// The places that a peer owns, too.
fn shared_with(peer: NodeId, places: &BTreeMap<Place, Vec<NodeId>>) -> Vec<Place> {
    let shared = places.iter().filter(|(_, others)| others.contains(&peer));
    shared.map(|(place, _)| *place).collect()
}
