//! What of this node's copies counts: a disk that was rolled back, copied or emptied lacks what the node acknowledged.
//!
//! Every member tells the others its boot counter, which rises with every start and while it runs, and each remembers the
//! others' durably ([`boots`]). A node that finds itself remembered under a later counter than its disk knows has lost what
//! came in between. Then, until it has compared everything with the other owners ([`recovery`]), its copies answer no read
//! and it coordinates nothing there, though it takes in all writes; it mints under an actor that nobody had before, because
//! it may have minted dots it no longer knows; it does not vote on what was open before it was given that actor; and what
//! it keeps for others is not shown until it is delivered. `docs/adr/0020-a-node-that-lost-a-part-of-its-disk.md`.
//!
//! Invariants:
//! 1. A boot counter is durable before anyone is told.
//! 2. What is lost is on record, durably and together with the new boot counter, before the node answers anything.
//! 3. A partition leaves the record only when all that enough others held of it is durable here.

pub mod boots;
pub mod recovery;
mod runs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use bytes::Bytes;
use kv_ring::{PartitionId, Topology};
use kv_storage::WriteBatch;
use kv_types::{ActorId, Epoch, Hlc, NodeId, planted};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, SetOnce};

use crate::anti_entropy::trees::Place;
use crate::refusal::Refusal;
use crate::storage_key;
use crate::store::{Store, StoreError, committed};
use crate::tombstones::watermarks::Watermarks;

/// What of this node's copies does not count.
#[derive(Debug)]
pub struct Completeness {
    store: Store,
    record: RwLock<Record>,
    /// One change of the record at a time.
    changing: tokio::sync::Mutex<()>,
    /// Held while copies are compared to complete them, and while damage is cut out of some.
    mending: tokio::sync::Mutex<()>,
    /// Held by readers while something is done that only complete copies allow.
    losing: tokio::sync::RwLock<()>,
    /// What has become incomplete since the round of comparisons under way began: it completes none of that.
    doubted: Mutex<BTreeSet<u16>>,
    /// Another number after each time that something becomes incomplete, and in each run.
    losses: AtomicU64,
    /// The node ends, because of a loss that is on record: nothing may take its place there.
    is_closed: AtomicBool,
    /// Another member has said in this run that it remembers no later start of this node.
    told: SetOnce<()>,
    /// Told when there is something new to gain.
    gains: Notify,
}

/// What is stored, in postcard; `docs/formats/storage-key.md`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Whether anything was ever lost.
    has_lost: bool,
    /// The actor that was granted since, and the epoch that granted it.
    grant: Option<(ActorId, Epoch)>,
    /// Where copies may lack what this node has acknowledged.
    incomplete: BTreeSet<u16>,
    /// Of what is kept for others, nothing that was minted up to here is shown.
    hidden_through: Hlc,
    /// What was made up to here may have been here once, though nobody remembers it.
    lost_through: Hlc,
    /// Partitions that this node is to gain, with the epochs in which their owners became joint.
    joining: BTreeMap<u16, Epoch>,
}

impl Record {
    /// Everything of a ring may be lost. What was granted before goes with it. What the node is to gain it is to gain still: of
    /// that, what it has is not from before, and must not go as such when it learns of the next epoch.
    pub(crate) fn of_loss(topology: &Topology, me: NodeId, now: Hlc) -> Self {
        let partitions = topology.partition_count().iter();
        let joining = topology.gained_by(me).into_iter();
        Self {
            has_lost: true,
            grant: None,
            incomplete: partitions.map(|partition| partition.0).collect(),
            hidden_through: now,
            lost_through: now,
            joining: joining
                .map(|(partition, since)| (partition.0, since))
                .collect(),
        }
    }

    /// Adds it to the batch that notes why.
    pub(crate) fn keep_in(&self, batch: &mut WriteBatch) -> Result<(), StoreError> {
        let bytes = postcard::to_stdvec(self).map_err(|error| {
            StoreError::Failed(format!("what is lost cannot be stored: {error}"))
        })?;
        batch.put(&record_key(), &bytes);
        Ok(())
    }
}

impl Completeness {
    /// What is on record; `run` is a random number.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub async fn start(store: Store, run: u64) -> Result<Self, StoreError> {
        let mut record = match store.get(&record_key()).await? {
            None => Record::default(),
            Some(found) => postcard::from_bytes(&found.value)
                .map_err(|_| StoreError::Failed("what is lost is not readable".to_owned()))?,
        };
        if planted!("forget over a restart what is to be gained") {
            record.joining.clear();
        }
        Ok(Self {
            store,
            record: RwLock::new(record),
            changing: tokio::sync::Mutex::default(),
            mending: tokio::sync::Mutex::default(),
            losing: tokio::sync::RwLock::default(),
            doubted: Mutex::default(),
            losses: AtomicU64::new(run),
            is_closed: AtomicBool::new(false),
            told: SetOnce::new(),
            gains: Notify::new(),
        })
    }

    /// A number that is another one after each time that something here became incomplete, from when that is in force and before
    /// anything goes: what was complete before and after a comparison, under one number, was complete all the while.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    fn note_loss_of_some(&self) {
        self.losses.fetch_add(1, Ordering::AcqRel);
    }

    /// How many partitions are incomplete.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.read(|record| record.incomplete.len())
    }

    /// Whether this node's copies of a partition may lack what it has acknowledged.
    #[must_use]
    pub fn is_incomplete(&self, partition: PartitionId) -> bool {
        if planted!("let incomplete copies answer") {
            return false;
        }
        self.read(|record| record.incomplete.contains(&partition.0))
    }

    /// Refuses what only complete copies may serve.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub fn check(&self, partition: PartitionId) -> Result<(), Refusal> {
        if self.is_incomplete(partition) {
            return Err(Refusal::incomplete());
        }
        Ok(())
    }

    /// Refuses to show what was kept for others before something was lost.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub fn check_stand_ins(&self) -> Result<(), Refusal> {
        if self.read(|record| record.hidden_through > Hlc::ZERO) {
            return Err(Refusal::incomplete());
        }
        Ok(())
    }

    /// The actor that this node mints under: that of the topology, unless something was lost since it was granted; `None`
    /// until another one is granted.
    #[must_use]
    pub fn actor(&self, of_topology: ActorId) -> Option<ActorId> {
        self.read(|record| match record.grant {
            Some((actor, _)) => Some(actor),
            None if record.has_lost => None,
            None => Some(of_topology),
        })
    }

    /// Whether this node has an actor to mint under.
    pub(crate) fn has_actor(&self) -> bool {
        self.read(|record| record.grant.is_some() || !record.has_lost)
    }

    /// Refuses to take in what is counted, until the voters have granted an actor after a loss, or the copies are complete again.
    /// What this node knew of the topology may be lost, too: that it was asked by who took over a partition, say, and answered
    /// that it takes in nothing more of the epoch before.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub(crate) fn check_present(&self, partition: PartitionId) -> Result<(), Refusal> {
        if self.has_actor() || planted!("take in what is counted by an old topology") {
            return Ok(());
        }
        self.check(partition)
    }

    /// Whether this node may vote on the topology of an epoch: it may not know how it has voted on it before.
    #[must_use]
    pub fn may_vote(&self, epoch: Epoch) -> bool {
        if planted!("let a restored voter vote") {
            return true;
        }
        self.read(|record| match record.grant {
            // Its votes on later ones were all made since, for it has not known this one before.
            Some((_, granted)) => epoch > granted,
            None => !record.has_lost,
        })
    }

    /// Another member remembers no later start of this node.
    pub(crate) fn was_told(&self) {
        // It need be said only once.
        let _ = self.told.set(());
    }

    /// Whether another member has said so in this run.
    pub(crate) fn is_told(&self) -> bool {
        self.told.initialized()
    }

    /// Ends when one has.
    pub(crate) async fn until_told(&self) {
        self.told.wait().await;
    }

    /// Refuses until another member has said so in this run: till then this node's disk may be an old one, and nobody noticed.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub(crate) fn check_told(&self, topology: &Topology) -> Result<(), Refusal> {
        let members = topology.members().iter().map(|member| member.node);
        let is_alone = members
            .filter(|node| topology.is_counted_on(*node))
            .nth(1)
            .is_none();
        if is_alone || self.is_told() || planted!("count an old disk before others can tell") {
            return Ok(());
        }
        Err(Refusal::unnoticed())
    }

    /// Notes durably what this node mints under from now on.
    pub(crate) async fn grant(&self, actor: ActorId, epoch: Epoch) -> Result<(), StoreError> {
        let granted = |record: &mut Record| record.grant = Some((actor, epoch));
        self.change(granted).await
    }

    /// To be held while copies are compared to complete them, or cut: what is compared must not be lost meanwhile.
    pub(crate) fn mending(&self) -> &tokio::sync::Mutex<()> {
        &self.mending
    }

    /// Keeps all copies as complete as they are while the guard lives.
    pub(crate) async fn hold(&self) -> tokio::sync::RwLockReadGuard<'_, ()> {
        self.losing.read().await
    }

    /// Notes durably that copies in some places may lack what this node has acknowledged. Their watermarks go with that.
    pub(crate) async fn lose(
        &self,
        places: &[Place],
        watermarks: &Watermarks,
        now: Hlc,
    ) -> Result<(), StoreError> {
        let _alone = self.losing.write().await;
        let mut batch = WriteBatch::new();
        let keeps = planted!("keep the watermark of what is damaged");
        for (bucket, partition) in places.iter().filter(|_| !keeps) {
            batch.delete(&storage_key::watermark(*bucket, *partition));
        }
        let lost = |record: &mut Record| {
            let partitions = places.iter().map(|(_, partition)| partition.0);
            record.incomplete.extend(partitions);
            record.lost_through = record.lost_through.max(now);
        };
        self.change_with(batch, lost).await?;
        self.note_loss_of_some();
        if !keeps {
            watermarks.drop_some(places);
        }
        Ok(())
    }

    /// Notes durably, with the rest of a batch, that everything may be lost. Nothing is noted any more after that until the
    /// node is started again.
    pub(crate) async fn lose_everything(
        &self,
        record: Record,
        batch: WriteBatch,
    ) -> Result<(), StoreError> {
        let lost = |kept: &mut Record| {
            let joining = std::mem::take(&mut kept.joining);
            *kept = Record { joining, ..record };
        };
        self.is_closed.store(true, Ordering::Release);
        let _one = self.changing.lock().await;
        self.write(batch, lost).await
    }

    /// Whether nothing is to be made up for any more before the node is started again.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Notes durably that this node's copies of some partitions count for nothing, before they are deleted because it is to gain
    /// them. No epoch is the one since when, so nothing completes them, and whoever is interrupted here begins again.
    pub(crate) async fn begin_joining(&self, new: &[PartitionId]) -> Result<(), StoreError> {
        if new.is_empty() {
            return Ok(());
        }
        let _alone = self.losing.write().await;
        self.note_doubted(new);
        let begun = |record: &mut Record| {
            for partition in new {
                record.joining.insert(partition.0, Epoch(0));
                record.incomplete.insert(partition.0);
            }
        };
        self.change(begun).await?;
        self.note_loss_of_some();
        Ok(())
    }

    /// A round of comparisons begins, by the topology that is in force from here on.
    pub(crate) fn begin_round(&self) {
        let mut doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        doubted.clear();
    }

    fn note_doubted(&self, partitions: &[PartitionId]) {
        let mut doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        doubted.extend(partitions.iter().map(|partition| partition.0));
    }

    /// Notes durably that this node's copies of some partitions may lack anything.
    pub(crate) async fn doubt(&self, partitions: &[PartitionId]) -> Result<(), StoreError> {
        if partitions.is_empty() || planted!("believe copies that were gained by a lost disk") {
            return Ok(());
        }
        let _alone = self.losing.write().await;
        self.note_doubted(partitions);
        let doubted = |record: &mut Record| {
            let partitions = partitions.iter().map(|partition| partition.0);
            record.incomplete.extend(partitions);
        };
        self.change(doubted).await?;
        self.note_loss_of_some();
        Ok(())
    }

    /// Notes durably all that this node is to gain. What is new there, or was begun anew, is
    /// incomplete; what `ends` without having been gained is nothing that this node should have.
    pub(crate) async fn join(
        &self,
        gained: BTreeMap<PartitionId, Epoch>,
        ends: &BTreeSet<PartitionId>,
    ) -> Result<(), StoreError> {
        let _alone = self.losing.write().await;
        let joined = |record: &mut Record| {
            record
                .incomplete
                .retain(|partition| !ends.contains(&PartitionId(*partition)));
            let gained = gained
                .into_iter()
                .map(|(partition, since)| (partition.0, since));
            let before = std::mem::replace(&mut record.joining, gained.collect());
            let anew = record
                .joining
                .iter()
                .filter(|(partition, since)| before.get(partition) != Some(since));
            record
                .incomplete
                .extend(anew.map(|(partition, _)| *partition));
        };
        self.change(joined).await?;
        self.gains.notify_one();
        Ok(())
    }

    /// Waits until there is something new to gain.
    pub(crate) async fn until_gains(&self) {
        self.gains.notified().await;
    }

    /// Whether this node is to gain a partition.
    pub(crate) fn is_joining(&self, partition: PartitionId) -> bool {
        self.read(|record| record.joining.contains_key(&partition.0))
    }

    /// What this node is to gain, with the epochs in which the owners became joint.
    pub(crate) fn joining(&self) -> BTreeMap<PartitionId, Epoch> {
        self.read(|record| {
            let joining = record.joining.iter();
            joining
                .map(|(partition, since)| (PartitionId(*partition), *since))
                .collect()
        })
    }

    /// Notes durably that all that others held of some partitions is here, of each that is still the one which it was in a
    /// topology.
    pub(crate) async fn complete(
        &self,
        partitions: &BTreeSet<PartitionId>,
        topology: &Topology,
    ) -> Result<(), StoreError> {
        let without = |record: &mut Record| {
            let doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
            let joining = &record.joining;
            let is_done = |partition: &u16| {
                let since = joining.get(partition);
                let partition = PartitionId(*partition);
                let is_same = since.is_none_or(|since| *since == topology.changed_at(partition));
                is_same && partitions.contains(&partition) && !doubted.contains(&partition.0)
            };
            record.incomplete.retain(|partition| !is_done(partition));
        };
        self.change(without).await
    }

    /// Up to where what is kept for others is not shown.
    pub(crate) fn hidden_through(&self) -> Hlc {
        self.read(|record| record.hidden_through)
    }

    /// Notes durably that what was made up to here may have been there once, though nobody remembers it.
    pub(crate) async fn note_loss(&self, through: Hlc) -> Result<(), StoreError> {
        let noted = |record: &mut Record| record.lost_through = record.lost_through.max(through);
        self.change(noted).await
    }

    /// Up to where somebody may have held what nobody remembers.
    pub(crate) fn lost_through(&self) -> Hlc {
        self.read(|record| record.lost_through)
    }

    /// All that was kept for others before something was lost is delivered.
    pub(crate) async fn show_stand_ins(&self) -> Result<(), StoreError> {
        let shown = |record: &mut Record| record.hidden_through = Hlc::ZERO;
        self.change(shown).await
    }

    /// The partitions that are incomplete.
    pub(crate) fn incomplete(&self) -> BTreeSet<PartitionId> {
        self.read(|record| record.incomplete.iter().copied().map(PartitionId).collect())
    }

    async fn change(&self, change: impl FnOnce(&mut Record)) -> Result<(), StoreError> {
        self.change_with(WriteBatch::new(), change).await
    }

    async fn change_with(
        &self,
        batch: WriteBatch,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), StoreError> {
        let _one = self.changing.lock().await;
        if self.is_closed() {
            let what = "a loss is on record, and this node has to be started again".to_owned();
            return Err(StoreError::Refused(what));
        }
        self.write(batch, change).await
    }

    async fn write(
        &self,
        mut batch: WriteBatch,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), StoreError> {
        let mut record = self.read(Clone::clone);
        change(&mut record);
        record.keep_in(&mut batch)?;
        // It lets the node count again.
        batch.use_reserve();
        committed(self.store.write(batch, Store::REQUEST_PATIENCE).await?).await?;
        *self.record.write().unwrap_or_else(PoisonError::into_inner) = record;
        Ok(())
    }

    fn read<T>(&self, read: impl FnOnce(&Record) -> T) -> T {
        read(&self.record.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn record_key() -> Bytes {
    storage_key::system("completeness")
}
