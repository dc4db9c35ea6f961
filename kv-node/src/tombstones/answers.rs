//! The side that is asked: promises a floor, makes durable what it holds, and raises its watermarks.

use std::sync::Arc;

use kv_net::message::{
    FloorReplyV1, FloorV1, PlaceV1, Response, WatermarkReplyV1, WatermarkStep, WatermarkV1,
    WatermarksReplyV1, WatermarksV1,
};
use kv_net::{ErrorCode, Role};
use kv_ring::PartitionId;
use kv_types::{Hlc, NodeId, planted};

use super::Counts;
use super::floor::Floor;
use super::watermarks::Watermarks;
use crate::anti_entropy::trees::Place;
use crate::completeness::Completeness;
use crate::hints::Kept;
use crate::membership::Membership;
use crate::refusal::Refusal;
use crate::replica::Replica;
use crate::topologies::Topologies;

/// Answers those who want deletions to be forgotten.
#[derive(Debug, Clone)]
pub struct Forgetting {
    pub(crate) me: NodeId,
    /// Which run of this node it is.
    pub(crate) boot: u64,
    pub(crate) topologies: Arc<Topologies>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) floor: Arc<Floor>,
    pub(crate) watermarks: Arc<Watermarks>,
    pub(crate) completeness: Arc<Completeness>,
    pub(crate) counts: Arc<Counts>,
}

impl Forgetting {
    /// What this node's clock showed a while ago, and its floor, after it has promised what it is asked to, if it can.
    ///
    /// # Errors
    /// [`Refusal`] when the promise cannot be made durable.
    pub async fn floor(&self, asked: &FloorV1) -> Result<Response, Refusal> {
        let promised = self.promise(asked.promise, asked.settle).await;
        promised.map(Response::Floor)
    }

    /// The same, for this node itself.
    pub(super) async fn promise(
        &self,
        to: Option<Hlc>,
        settle: Option<Hlc>,
    ) -> Result<FloorReplyV1, Refusal> {
        self.membership.check_memory()?;
        if let Some(latest_dot) = settle {
            if latest_dot > self.floor.wall() && !planted!("settle writes before their time") {
                // Points of hybrid time may be far ahead of all clocks. Settled too early, all that is written until then is refused.
                let message = "by this node's clock that write may be on its way still";
                return Err(Refusal::new(ErrorCode::ClockSkew, message));
            }
            self.replica.settled().settle(latest_dot).await?;
        }
        let (reading, minter) = (self.floor.reading(), self.replica.minter());
        let oldest_kept = || {
            let is_hidden = planted!("let a floor rise over what is kept for others");
            self.kept.oldest().filter(|_| !is_hidden)
        };
        let floor = match to {
            None => self.floor.promised(),
            Some(to) => {
                // So that what is minted from now on is above.
                minter.rise_to(to.min(reading));
                self.floor.raise(to, oldest_kept).await?
            }
        };
        // After a loss it may keep something older that it does not know it kept, and that came with what is newer.
        let below_kept = oldest_kept().map(|oldest| Hlc(oldest.0.saturating_sub(1)));
        Ok(FloorReplyV1 {
            boot: self.boot,
            reading,
            floor: below_kept.map_or(floor, |below| floor.min(below)),
            lost_through: self.completeness.lost_through(),
            // Only now: what is taken in after it was settled is another write.
            late_through: minter.late_through(),
        })
    }

    /// One of the two steps in which the watermarks of some places rise.
    ///
    /// # Errors
    /// [`Refusal`] when this node is no owner of them any more, has been started anew, or its disk fails.
    pub async fn watermark(&self, from: &Role, asked: &WatermarkV1) -> Result<Response, Refusal> {
        self.membership.check_memory()?;
        let Role::Node(from) = *from else {
            let message = "only owners have watermarks rise";
            return Err(Refusal::new(ErrorCode::BadRequest, message));
        };
        let topology = self.topologies.current();
        if asked.epoch != topology.epoch() {
            return Err(Refusal::stale(topology.epoch()));
        }
        if asked.boot != self.boot {
            let message = "this node was started anew, and may have lost what was compared";
            return Err(Refusal::new(ErrorCode::Overloaded, message));
        }
        if asked.through > self.floor.promised() {
            let message = "this node has not promised to take nothing new from so far back";
            return Err(Refusal::new(ErrorCode::BadRequest, message));
        }
        let _whole = self.completeness.hold().await;
        let mut places: Vec<Place> = Vec::with_capacity(asked.places.len());
        for place in &asked.places {
            let partition = PartitionId(place.partition);
            let bucket = topology.bucket(place.bucket);
            let owners = bucket
                .filter(|_| u32::from(place.partition) < topology.partition_count().get())
                .map(|bucket| topology.replicas(partition, bucket.properties.quorum.n()));
            let is_settled = topology.is_settled(partition)
                || planted!("let watermarks rise while owners change");
            if !owners.is_some_and(|owners| {
                owners.contains(self.me) && owners.contains(from) && is_settled
            }) {
                let message =
                    format!("this node and {from} hold no settled replicas of {partition}");
                return Err(Refusal::new(ErrorCode::NotReplica, message));
            }
            self.completeness.check(partition)?;
            places.push((place.bucket, partition));
        }
        match asked.step {
            WatermarkStep::Seal => self.seal().await?,
            WatermarkStep::Raise => self.watermarks.raise(&places, asked.through).await?,
            WatermarkStep::Forget => self.watermarks.let_forget(&places, asked.through),
        }
        Ok(Response::Watermark(WatermarkReplyV1 {}))
    }

    /// This node's watermarks, for an owner that is behind.
    ///
    /// # Errors
    /// [`Refusal`] when the two are at different epochs.
    pub fn watermarks(&self, asked: &WatermarksV1) -> Result<Response, Refusal> {
        let topology = self.topologies.current();
        if asked.epoch != topology.epoch() {
            return Err(Refusal::stale(topology.epoch()));
        }
        // Before the marks: what becomes incomplete while they are read has another number the next time.
        let losses = self.completeness.losses();
        let may_count = self.completeness.check_told(&topology).is_ok();
        let (gained, joining) = (topology.gained_by(self.me), self.completeness.joining());
        // What it was to gain is off the record a little before the topology that calls that off is in force.
        let is_called_off = |partition: &PartitionId| {
            let since = gained.get(partition);
            since.is_some_and(|since| joining.get(partition) != Some(since))
        };
        let mark = |place: &PlaceV1| {
            let partition = PartitionId(place.partition);
            let is_incomplete = self.completeness.is_incomplete(partition);
            let is_complete = may_count && !is_incomplete && !is_called_off(&partition);
            is_complete.then(|| self.watermarks.of((place.bucket, partition)))
        };
        let marks = asked.places.iter().map(mark).collect();
        Ok(Response::Watermarks(WatermarksReplyV1 { marks, losses }))
    }

    /// Makes durable all that this node holds.
    pub(super) async fn seal(&self) -> Result<(), Refusal> {
        self.replica.sync().await
    }
}
