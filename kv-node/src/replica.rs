//! What this node holds: the only code that writes user data.
//!
//! Invariants:
//! 1. Changes of one key happen one after another ([`Turns`]); each reads the engine, never a cache.
//! 2. A turn ends once the change has its place in the log; acknowledging waits until the log is
//!    durable up to there. A merge that changes nothing waits just the same, because what it found
//!    may not be durable yet. Only a writer who asks for it is answered earlier.
//! 3. Nothing is appended for a partition that changed owners since the request's topology: the
//!    check and the append are one critical section with the adoption of a topology.
//! 4. Nothing is told to any reader, digest included, before it is durable.
//! 5. Nothing new is taken in from at or below the floor, and nothing that was deleted and forgotten comes back
//!    ([`crate::tombstones`]).

mod deletions;
mod marks;
mod pages;
pub mod read_stages;
mod stand_in_mints;
mod stand_ins;

pub use deletions::{Deletion, DeletionPage};
pub use pages::{Copy, HeldPage, PageLimits, Stretch};
pub use stand_ins::{StandIn, StandInPage};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use kv_net::ErrorCode;
use kv_net::message::{AnswerWhen, ReadSource};
use kv_ring::{HashSecret, KeyHash, PartitionId};
use kv_storage::{Commit, Durability as Syncing, Keeping, Seq, Source, WriteBatch};
use kv_types::{
    Admission, BucketId, BucketMode, Clock, ContextKey, DecodeError, Dot, Epoch, Hlc, Key, NodeId,
    Object, RowCache, Sibling, Write, WriteId, WriteRefused, planted,
};

use crate::anti_entropy::trees::{Place, note};
use crate::completeness::Completeness;
use crate::env::{Deadline, Env};
use crate::fates::settled::Settled;
use crate::hints::{Kept, Weight};
use crate::minter::Minter;
use crate::refusal::Refusal;
use crate::storage_key;
use crate::store::{Store, StoreError, committed};
use crate::tombstones::Counts;
use crate::tombstones::floor::Floor;
use crate::tombstones::watermarks::Watermarks;
use crate::topologies::Topologies;
use crate::turns::Turns;
use deletions::Grave;
use read_stages::ReadStages;
use stand_in_mints::StandInMints;

/// How soon a write is synced for which nobody waits.
const SYNC_WITHIN: Duration = Duration::from_millis(10);
/// How long a request waits, right after the start, until another member has told what it remembers.
const UNTIL_TOLD: Duration = Duration::from_millis(300);

/// One key, and the topology under which a request reached it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Key,
    /// Its place on the ring.
    pub hash: KeyHash,
    /// Its partition.
    pub partition: PartitionId,
    /// The epoch of the request: the append is refused if the partition has changed since.
    pub epoch: Epoch,
    /// How its bucket treats concurrent writes.
    pub mode: BucketMode,
    /// `None` is this node's own copy of the key; else what it keeps for that owner, who is away.
    pub stands_in_for: Option<NodeId>,
}

impl Target {
    /// The engine's key.
    pub(crate) fn stored(&self) -> Bytes {
        self.stored_beside(&self.own())
    }

    /// Under which key this node's own copy is stored.
    fn own(&self) -> Bytes {
        storage_key::encode(self.bucket, self.hash, &self.key)
    }

    fn stored_beside(&self, own: &Bytes) -> Bytes {
        match self.stands_in_for {
            None => own.clone(),
            Some(owner) => storage_key::stand_in(owner, own),
        }
    }

    /// The same key, kept for an owner that is away; or this node's own copy.
    #[must_use]
    pub fn standing_in_for(&self, owner: Option<NodeId>) -> Self {
        Self {
            stands_in_for: owner,
            ..self.clone()
        }
    }
}

/// A write to be coordinated here.
#[derive(Debug, Clone)]
pub struct NewWrite {
    /// The write.
    pub write: Write,
    /// What the writer had read; `None` takes what this replica holds as read.
    pub read: Option<Clock>,
    /// When it was first sent, by this node's clock, if it was sent before.
    pub first_sent: Option<Hlc>,
    /// Whether somebody will wait until it is durable here.
    pub answer: AnswerWhen,
    /// Whether somebody wants to know what it replaces.
    pub is_explained: bool,
}

/// A coordinated write that has its place in the log.
#[derive(Debug)]
pub struct Appended {
    /// The whole resulting object.
    pub object: Object,
    /// Its bytes.
    pub encoded: Bytes,
    /// What the writer knows now: what it had read, and its own write. Never the siblings beside it,
    /// which it has not seen and so must not supersede with its next write.
    pub known: Clock,
    /// The dots of what it has replaced here, if somebody wants to know.
    pub replaced: Vec<Dot>,
    durable: Durable,
}

impl Appended {
    /// Whether the write was there before.
    #[must_use]
    pub fn was_there(&self) -> bool {
        matches!(self.durable, Durable::Seq(_))
    }
}

/// When something becomes durable.
#[derive(Debug)]
enum Durable {
    Commit(Commit),
    Seq(Seq),
}

/// What a replica holds of a key; durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The object's bytes.
    pub encoded: Bytes,
    /// Its keyed digest.
    pub digest: u64,
    /// Where it was found.
    pub source: ReadSource,
}

/// What a reader is told of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What is held; `None` when nothing is.
    pub held: Option<Held>,
    /// The watermark of that moment: what lies below and is unknown here was deleted. Zero where this node may lack what was
    /// acknowledged, or keeps for another.
    pub through: Hlc,
}

/// What is stored under a key.
#[derive(Debug, Default)]
struct Loaded {
    object: Object,
    /// The write that stored it, if anything is stored.
    seq: Option<Seq>,
    was: Was,
    /// From when on readers see nothing of it, as it is noted.
    gone_from: Option<Hlc>,
}

/// What a write replaces.
#[derive(Debug, Clone, Copy, Default)]
struct Was {
    /// What it counts for in what is kept for others, if there is anything.
    weight: Option<Weight>,
    /// What stands for it in the Merkle tree; 0 for none.
    item: u64,
}

/// In what way an object comes to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// For the first time, from the coordinator of this write, as one of the copies that the write needs.
    Owed(WriteId),
    /// The same, but one too many: where this node stands in for the owner, it is refused before there is no room left
    /// for those that count.
    Spare(WriteId),
    /// From another replica, or from one that stood in for it.
    Repair,
}

impl Arrival {
    /// The write that it comes for, if it comes from a coordinator.
    fn write_id(self) -> Option<WriteId> {
        match self {
            Self::Owed(id) | Self::Spare(id) => Some(id),
            Self::Repair => None,
        }
    }

    /// The dots that no replica may have had before. What is kept for another is as new as its latest dot: of a repeated
    /// write that was superseded meanwhile, nothing is in it any more.
    fn new_dots(self, incoming: &Object, stands_in: bool) -> Vec<Hlc> {
        let Some(id) = self.write_id() else {
            return Vec::new();
        };
        let own = incoming.siblings().filter(|s| s.write_id() == id);
        let own = own.flat_map(|s| s.dots()).map(|dot| dot.hlc);
        let latest = stands_in.then(|| incoming.clock().latest());
        own.chain(latest).collect()
    }
}

/// This node's copies.
#[derive(Debug)]
pub struct Replica {
    env: Env,
    limits: PageLimits,
    store: Store,
    minter: Minter,
    topologies: Arc<Topologies>,
    turns: Turns,
    secret: HashSecret,
    kept: Arc<Kept>,
    floor: Arc<Floor>,
    settled: Settled,
    watermarks: Arc<Watermarks>,
    completeness: Arc<Completeness>,
    counts: Arc<Counts>,
    reads: ReadStages,
    stand_in_mints: StandInMints,
    /// Places with keys whose clocks have many gaps, and up to where.
    gaps: Mutex<BTreeMap<Place, Hlc>>,
}

/// What a replica is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) env: Env,
    pub(crate) limits: PageLimits,
    pub(crate) store: Store,
    pub(crate) minter: Minter,
    pub(crate) topologies: Arc<Topologies>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) floor: Arc<Floor>,
    pub(crate) settled: Settled,
    pub(crate) watermarks: Arc<Watermarks>,
    pub(crate) completeness: Arc<Completeness>,
    pub(crate) counts: Arc<Counts>,
}

impl Replica {
    /// The copies in the store.
    #[must_use]
    pub(crate) fn new(parts: Parts) -> Self {
        let secret = *parts.topologies.current().secret();
        let Parts {
            env,
            limits,
            store,
            minter,
            topologies,
            kept,
            floor,
            settled,
            watermarks,
            completeness,
            counts,
        } = parts;
        Self {
            env,
            limits,
            store,
            minter,
            topologies,
            turns: Turns::default(),
            secret,
            kept,
            floor,
            settled,
            watermarks,
            completeness,
            counts,
            reads: ReadStages::default(),
            stand_in_mints: StandInMints::default(),
            gaps: Mutex::default(),
        }
    }

    /// Where reads of clients and coordinators found what they asked for.
    #[must_use]
    pub fn reads(&self) -> &ReadStages {
        &self.reads
    }

    /// Which writes are settled.
    #[must_use]
    pub fn settled(&self) -> &Settled {
        &self.settled
    }

    /// The node's source of dots.
    #[must_use]
    pub fn minter(&self) -> &Minter {
        &self.minter
    }

    /// Refuses where this node must not coordinate writes, though others may.
    ///
    /// # Errors
    /// [`Refusal`]: it may lack what it has acknowledged in the partition, or cannot mint.
    pub fn may_coordinate(&self, partition: PartitionId) -> Result<(), Refusal> {
        self.completeness.check(partition)?;
        self.minter.check().map(drop)
    }

    /// Refuses to let what is held here count beside what others hold, as long as it may be an old disk that nobody noticed: in
    /// the first moments after a start it waits for one of them to tell. Who asks for one node's answer only is promised
    /// nothing that this could break.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub async fn may_count(&self) -> Result<(), Refusal> {
        let check = || self.completeness.check_told(&self.topologies.current());
        if check().is_ok() {
            return Ok(());
        }
        let told = self.completeness.until_told();
        // Else it is said below that it was not.
        let _ = self.env.timeout(UNTIL_TOLD, told).await;
        check()
    }

    /// Refuses to take in what others count on being here: as [`Self::may_count`], and where this node may have lost the
    /// partition without knowing.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub async fn may_be_counted_on(&self, partition: PartitionId) -> Result<(), Refusal> {
        self.may_count().await?;
        self.completeness.check_present(partition)
    }

    /// Applies a write under a new dot. A write that was applied before is not applied again: its
    /// object is returned as it stands. After the deadline nothing is applied: the client has gone on.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed, but for a failed disk.
    pub async fn coordinate(
        &self,
        target: &Target,
        new: NewWrite,
        deadline: Deadline,
    ) -> Result<Appended, Refusal> {
        match target.stands_in_for {
            // It may have seen this very write before, and no longer know.
            None => self.completeness.check(target.partition)?,
            // What is hidden would go on to others with what is written.
            Some(_) => self.completeness.check_stand_ins()?,
        }
        let answer = new.answer;
        let own = target.own();
        let stored = target.stored_beside(&own);
        // Also of a copy for another: all dots of a key are minted in turn.
        let _turn = self.turns.take(&own).await?;
        let _copy_turn = match target.stands_in_for {
            None => None,
            Some(_) => Some(self.turns.take(&stored).await?),
        };
        let Loaded {
            mut object,
            seq,
            was,
            gone_from,
        } = self.load(&stored, target.mode).await?;
        if target.stands_in_for.is_none() {
            // It may have become incomplete meanwhile.
            self.completeness.check(target.partition)?;
        }
        let now_ms = self.env.host.wall_ms();
        match (object.admit(new.write.write_id, now_ms), seq) {
            (Admission::Known, Some(seq)) => {
                // This node may be an owner no more, though it was when it planned: then it must not count.
                self.check_unchanged(target)?;
                if answer != AnswerWhen::Taken {
                    // It may carry another write, which nobody must hear of before.
                    self.store.durable(seq).await?;
                }
                let encoded = object.encode();
                let known = writer_knows(new.read, object.dots_of(new.write.write_id));
                return Ok(Appended {
                    object,
                    encoded,
                    known,
                    replaced: Vec::new(),
                    durable: Durable::Seq(seq),
                });
            }
            (Admission::New | Admission::Known, _) => {}
            (Admission::TooOld | Admission::FromTheFuture, _) => {
                return Err(stale_write_id(new.write.write_id.created_ms(), now_ms));
            }
        }
        self.close_gaps(target, &mut object);
        self.note_gaps(target, &object);
        let created_ms = new.write.write_id.created_ms();
        let mut read = new
            .read
            .unwrap_or_else(|| object.clock_at(created_ms, new.first_sent));
        if planted!("let a write supersede what its writer never saw") {
            read = object.clock().clone();
        }
        let latest_dot = new.write.write_id.latest_dot();
        // What a write replaces is older by the nodes' clocks, too: this one may have been started anew since it took that in.
        self.minter.observe(object.clock().latest());
        let last = self.stand_in_mints.take(&own);
        let dot = self.minter.mint_by(latest_dot).await?;
        let known = writer_knows(Some(read.clone()), [dot]);
        let is_deletion = new.write.payload.value().is_none();
        // What this node minted as a stand-in may have gone to the owner and been forgotten here.
        let held_since = match target.stands_in_for {
            None => self.minter.held_since(),
            Some(_) => stand_in_mints::held_since(last, dot.actor),
        };
        let was_there = match new.is_explained {
            true => object.siblings().flat_map(Sibling::dots).copied().collect(),
            false => Vec::new(),
        };
        object
            .write(new.write, &read, dot, held_since, now_ms)
            .map_err(|refused| match refused {
                WriteRefused::TooManySiblings { .. } => {
                    Refusal::new(ErrorCode::TooManySiblings, refused.to_string())
                }
                WriteRefused::TooLarge { .. } => {
                    Refusal::new(ErrorCode::TooLarge, refused.to_string())
                }
            })?;
        // A deletion is always taken, so that a key with too rich a history can be got rid of.
        if !is_deletion {
            ContextKey::check_size(object.clock()).map_err(|error| {
                let refusal = Refusal::from(error);
                Refusal {
                    message: format!("{}: {}", target.key, refusal.message),
                    ..refusal
                }
            })?;
        }
        let encoded = object.encode();
        let change = Change {
            stored,
            encoded: encoded.clone(),
            was,
            grave: Grave {
                was: gone_from,
                is: object.gone_from(target.mode),
            },
            weight: Weight::of(&object, encoded.len()),
            new_dots: vec![dot.hlc],
            latest_dot: Some(latest_dot),
            is_owed: true,
        };
        let append = self.append(target, change, answer, Some(deadline));
        let commit = append.await?;
        if target.stands_in_for.is_some() {
            self.stand_in_mints.stored(own, dot);
        }
        let is_replaced = |dot: &Dot| !object.siblings().any(|left| left.dots().contains(dot));
        let replaced = was_there.into_iter().filter(is_replaced).collect();
        Ok(Appended {
            object,
            encoded,
            known,
            replaced,
            durable: Durable::Commit(commit),
        })
    }

    /// Makes durable all that this node holds.
    ///
    /// # Errors
    /// [`Refusal`] when the disk failed.
    pub async fn sync(&self) -> Result<(), Refusal> {
        let held = self.store.db().snapshot().seq();
        Ok(self.store.durable(held).await?)
    }

    /// Waits until a coordinated write is durable here.
    ///
    /// # Errors
    /// [`Refusal`] with an unknown outcome when the disk failed.
    pub async fn durable(&self, appended: Appended) -> Result<(), Refusal> {
        let synced = match appended.durable {
            Durable::Commit(commit) => committed(commit).await,
            Durable::Seq(seq) => self.store.durable(seq).await,
        };
        synced.map_err(|error| Refusal::from(error).unknown())
    }

    /// Takes in an object from another node. On return it is durable here.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed, but for a failed disk.
    pub async fn merge(
        &self,
        target: &Target,
        incoming: &Object,
        arrival: Arrival,
    ) -> Result<(), Refusal> {
        self.take_in(target, incoming, arrival, AnswerWhen::Synced)
            .await
    }

    /// As [`Self::merge`], but on return it may only be about to become durable.
    ///
    /// # Errors
    /// As [`Self::merge`].
    pub async fn take_in(
        &self,
        target: &Target,
        incoming: &Object,
        arrival: Arrival,
        answer: AnswerWhen,
    ) -> Result<(), Refusal> {
        self.minter.observe(incoming.clock().latest());
        let stored = target.stored();
        let turn = self.turns.take(&stored).await?;
        let Loaded {
            mut object,
            seq,
            was,
            gone_from,
        } = {
            let held = self.load(&stored, target.mode).await?;
            self.remembered(target, held, self.through(target))
        };
        let left = self.not_deleted(target, &object, incoming).await?;
        let changed = object.merge(left.as_ref().unwrap_or(incoming));
        // Of a key that is forgotten, its past is not remembered either.
        let is_past =
            object.oldest_dot().is_none() && object.clock().latest() <= self.through(target);
        if !changed || is_past {
            // As where something is appended: who takes over the partition has asked already what is here.
            self.check_unchanged(target)?;
            drop(turn);
            let is_waited_for = answer != AnswerWhen::Taken
                && !planted!("acknowledge what was there before it is synced");
            if let Some(seq) = seq.filter(|_| is_waited_for) {
                self.store.durable(seq).await?;
            }
            return Ok(());
        }
        self.note_gaps(target, &object);
        let encoded = object.encode();
        let new = Change {
            stored,
            was,
            grave: Grave {
                was: gone_from,
                is: object.gone_from(target.mode),
            },
            weight: Weight::of(&object, encoded.len()),
            encoded,
            new_dots: arrival.new_dots(incoming, target.stands_in_for.is_some()),
            latest_dot: arrival.write_id().map(WriteId::latest_dot),
            is_owed: !matches!(arrival, Arrival::Spare(_)),
        };
        let commit = self.append(target, new, answer, None).await?;
        drop(turn);
        if planted!("let a replica acknowledge before its log is synced") {
            return Ok(());
        }
        committed(commit).await?;
        Ok(())
    }

    /// What a reader is told of a key.
    ///
    /// # Errors
    /// [`Refusal`] when it cannot be read, or what is held may lack what this node has acknowledged.
    pub async fn read(&self, target: &Target) -> Result<Told, Refusal> {
        let topology = self.topologies.current();
        match target.stands_in_for {
            None => self.check_readable(target.partition)?,
            Some(_) => self.completeness.check_stand_ins()?,
        }
        let keeping = match topology.bucket(target.bucket) {
            Some(bucket) if bucket.properties.row_cache == RowCache::On => Keeping::Rows,
            _ => Keeping::Blocks,
        };
        let (held, marks) = loop {
            let marks = self.marks(target);
            let held = self.held_keeping(target, keeping).await?;
            // If they rose meanwhile, what was read may be from before or after.
            if marks == self.marks(target) {
                break (held, marks);
            }
        };
        if target.stands_in_for.is_none() {
            // It may have become incomplete meanwhile, or what was there may be gone with the partition.
            self.check_readable(target.partition)?;
            self.topologies
                .unchanged_since(target.epoch, target.partition, || ())
                .map_err(Refusal::stale)?;
        }
        let held = match held {
            Some(held) if marks.hide(target.mode, &target.key, &held.encoded)? => None,
            held => held,
        };
        self.reads.note(held.as_ref().map(|held| held.source));
        Ok(Told {
            held,
            through: marks.knows,
        })
    }

    /// Refuses where the partition has changed since a request was planned.
    fn check_unchanged(&self, target: &Target) -> Result<(), Refusal> {
        let (epoch, partition) = (target.epoch, target.partition);
        let unchanged = self.topologies.unchanged_since(epoch, partition, || ());
        unchanged.map_err(Refusal::stale)
    }

    /// Refuses to show what may lack what this node has acknowledged; but for a partition that it is to gain, where its answer
    /// counts only beside a quorum of the old owners. Unless something of its disk is lost and it has no actor yet: then it may
    /// have gained the partition before, and not know.
    fn check_readable(&self, partition: PartitionId) -> Result<(), Refusal> {
        let is_joining = self.completeness.is_joining(partition);
        let may_have_joined =
            !self.completeness.has_actor() && !planted!("show what a lost disk was to gain");
        if is_joining && !may_have_joined {
            return Ok(());
        }
        self.completeness.check(partition)
    }

    /// What is held of a key, complete or not; `None` when nothing is.
    ///
    /// # Errors
    /// [`Refusal`] when it cannot be read.
    pub async fn held(&self, target: &Target) -> Result<Option<Held>, Refusal> {
        self.held_keeping(target, Keeping::Blocks).await
    }

    async fn held_keeping(
        &self,
        target: &Target,
        keeping: Keeping,
    ) -> Result<Option<Held>, Refusal> {
        let stored = target.stored();
        let Some(found) = self.store.get_keeping(&stored, keeping).await? else {
            return Ok(None);
        };
        self.store.durable(found.seq).await?;
        let digest = self
            .digest(&found.value)
            .map_err(|damage| damaged(&target.key, damage))?;
        Ok(Some(Held {
            encoded: found.value,
            digest,
            source: match found.source {
                Source::RowCache => ReadSource::RowCache,
                Source::Memtable => ReadSource::Memtable,
                Source::BlockCache => ReadSource::BlockCache,
                Source::Disk => ReadSource::Disk,
            },
        }))
    }

    /// The keyed digest of an encoded object: equal exactly when the objects are.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not an object.
    pub fn digest(&self, encoded: &[u8]) -> Result<u64, DecodeError> {
        Ok(self.secret.digest(Object::header_of(encoded)?))
    }

    /// A key's name where replicas compare.
    #[must_use]
    pub fn key_id(&self, target: &Target) -> u64 {
        self.secret.key_id(&target.stored())
    }

    /// What stands for a stored object in the Merkle tree.
    fn item(&self, stored: &[u8], encoded: &[u8]) -> Result<u64, Refusal> {
        let digest = self.digest(encoded).map_err(|damage| {
            let message = format!("a stored object is damaged: {damage}");
            Refusal::new(ErrorCode::Storage, message)
        })?;
        Ok(self.secret.item(stored, digest))
    }

    async fn load(&self, stored: &[u8], mode: BucketMode) -> Result<Loaded, Refusal> {
        let Some(found) = self.store.get(stored).await? else {
            return Ok(Loaded::default());
        };
        let object = Object::decode(&found.value).map_err(|damage| {
            Refusal::new(
                ErrorCode::Storage,
                format!("a stored object is damaged: {damage}"),
            )
        })?;
        let gone_from = object.gone_from(mode);
        let was = Was {
            weight: Some(Weight::of(&object, found.value.len())),
            item: self.item(stored, &found.value)?,
        };
        Ok(Loaded {
            object,
            seq: Some(found.seq),
            was,
            gone_from,
        })
    }

    async fn append(
        &self,
        target: &Target,
        new: Change,
        answer: AnswerWhen,
        deadline: Option<Deadline>,
    ) -> Result<Commit, Refusal> {
        let admit = |owner| {
            self.kept
                .admit(owner, new.was.weight, new.weight, new.is_owed)
        };
        let admitted = target.stands_in_for.map(admit).transpose()?;
        let commit = self.append_admitted(target, &new, answer, deadline).await?;
        if let Some(admitted) = admitted {
            admitted.stored();
        }
        Ok(commit)
    }

    async fn append_admitted(
        &self,
        target: &Target,
        new: &Change,
        answer: AnswerWhen,
        deadline: Option<Deadline>,
    ) -> Result<Commit, Refusal> {
        let syncing = match answer {
            AnswerWhen::Synced | AnswerWhen::Delivered => Syncing::Sync,
            AnswerWhen::Taken => Syncing::Interval(SYNC_WITHIN),
        };
        let mut batch = WriteBatch::new();
        if target.stands_in_for.is_some() {
            batch.put(&new.stored, &new.encoded);
        } else {
            let is = self.item(&new.stored, &new.encoded)?;
            batch.put_noted(&new.stored, &new.encoded, &note(new.was.item, is));
            new.grave.keep_in(&mut batch, &new.stored);
        }
        let mut waited = Duration::ZERO;
        loop {
            if deadline.is_some_and(|deadline| deadline.left(&self.env).is_zero()) {
                let message = "the deadline passed before the write could begin; try again";
                return Err(Refusal::new(ErrorCode::Timeout, message));
            }
            let appended = self
                .topologies
                .unchanged_since(target.epoch, target.partition, || {
                    self.settled.unless_settled(new.latest_dot, || {
                        self.floor.above(&new.new_dots, || {
                            self.store.try_write(batch.clone(), syncing)
                        })
                    })
                })
                .map_err(Refusal::stale)?
                .and_then(Result::ok)
                .ok_or_else(below_floor)?;
            match appended {
                Err(StoreError::Busy) if waited < Store::REQUEST_PATIENCE => {
                    let pause = Duration::from_millis(5);
                    self.env.sleep(pause).await;
                    waited += pause;
                }
                done => return Ok(done?),
            }
        }
    }
}

/// Other bytes for a stored key.
#[derive(Debug)]
struct Change {
    stored: Bytes,
    encoded: Bytes,
    /// What they replace.
    was: Was,
    grave: Grave,
    weight: Weight,
    /// When dots in it were minted that no replica may have had before.
    new_dots: Vec<Hlc>,
    /// The latest dot in time of the write that a coordinator brings, if one does.
    latest_dot: Option<Hlc>,
    /// Whether it may count towards a write's quorum.
    is_owed: bool,
}

fn below_floor() -> Refusal {
    let message = "the write was under way for so long that it must not be taken any more; nothing was changed here; try again";
    Refusal::new(ErrorCode::Timeout, message)
}

fn damaged_key() -> Refusal {
    Refusal::new(ErrorCode::Storage, "a stored key is damaged")
}

/// What a writer knows after its write, for the context of its next one.
fn writer_knows(read: Option<Clock>, own: impl IntoIterator<Item = Dot>) -> Clock {
    let mut known = read.unwrap_or_default();
    for dot in own {
        known.insert(dot);
    }
    known
}

fn stale_write_id(created_ms: u64, now_ms: u64) -> Refusal {
    let message = format!(
        "the write was created {} ms before this node's clock and may have been applied before; \
         read the key to see, check this machine's clock, then write anew",
        i128::from(now_ms) - i128::from(created_ms)
    );
    Refusal::new(ErrorCode::StaleWriteId, message).unknown()
}

fn damaged(key: &Key, damage: DecodeError) -> Refusal {
    Refusal::new(
        ErrorCode::Storage,
        format!("the stored object of {key} is damaged: {damage}"),
    )
}
