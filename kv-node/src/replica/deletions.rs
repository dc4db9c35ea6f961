//! How this node's copies are forgotten: single ones that were deleted, and dropped buckets.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use kv_net::message::AnswerWhen;
use kv_ring::Topology;
use kv_storage::WriteBatch;
use kv_types::{BucketId, BucketMode, Hlc, Object, Payload, Sibling, planted};

use super::{Change, Loaded, Replica, Target, damaged_key};
use crate::anti_entropy::trees::{Place, note};
use crate::hints::Weight;
use crate::refusal::Refusal;
use crate::storage_key;
use crate::store::{Store, StoreError, committed};

/// How many gaps a clock may have until it is seen to that they can be closed.
const MOST_GAPS: usize = 8;
/// In how many places everything is deleted in one write: the engine takes some two thousand ranges at once.
const PLACES_AT_ONCE: usize = 1_000;

/// A copy of which readers see nothing, from some time on.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// Where it is.
    pub place: Place,
    /// From when on.
    pub from: Hlc,
    stored: Bytes,
}

/// A page of deletions, in storage order. It may be empty although there are more: many that are forgotten lie before them.
#[derive(Debug, Default)]
pub struct DeletionPage {
    /// The deletions.
    pub entries: Vec<Deletion>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Bytes>,
}

/// From when on readers see nothing of a copy, before and after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Grave {
    pub(super) was: Option<Hlc>,
    pub(super) is: Option<Hlc>,
}

impl Grave {
    /// Adds what keeps the note true to the batch that writes the copy.
    pub(super) fn keep_in(self, batch: &mut WriteBatch, stored: &[u8]) {
        if self.was == self.is {
            return;
        }
        if let Some(from) = self.was {
            batch.delete(&storage_key::grave(from, stored));
        }
        if let Some(from) = self.is {
            batch.put(&storage_key::grave(from, stored), &[]);
        }
    }
}

impl Replica {
    /// A page of what is deleted or has expired at a time, and is not forgotten; it begins at `from`, or with the oldest.
    ///
    /// # Errors
    /// [`Refusal`] when it cannot be read.
    pub async fn deletions(&self, from: Option<Bytes>, at: Hlc) -> Result<DeletionPage, Refusal> {
        let partitions = self.topologies.current().partition_count();
        let start = from.unwrap_or_else(|| storage_key::graves_of(None));
        let end = storage_key::graves_of(Some(BucketId(u32::MAX)));
        let page = self.store.scan(start, Bound::Excluded(end), 1_024, 1 << 20);
        let page = page.await?;
        let mut entries = Vec::with_capacity(page.entries.len());
        for item in page.entries {
            let (from, stored) = storage_key::split_grave(&item.key).ok_or_else(damaged_key)?;
            let (bucket, hash) = storage_key::place(&stored).ok_or_else(damaged_key)?;
            if from > at {
                // So are all others of this bucket.
                let next = BucketId(bucket.0.saturating_add(1));
                let next = Some(storage_key::graves_of(Some(next)));
                return Ok(DeletionPage { entries, next });
            }
            entries.push(Deletion {
                place: (bucket, partitions.partition_of(hash)),
                from,
                stored,
            });
        }
        Ok(DeletionPage {
            entries,
            next: page.next.map(|next| next.start),
        })
    }

    /// Forgets a copy, if it is still deleted or expired and the watermark has passed that. Says whether it went.
    ///
    /// # Errors
    /// [`Refusal`]; it is there as before.
    pub async fn forget(&self, deletion: &Deletion) -> Result<bool, Refusal> {
        let stored = &deletion.stored;
        let _turn = self.turns.take(stored).await?;
        let topology = self.topologies.current();
        let bucket = topology.bucket(deletion.place.0);
        let mode = bucket.map(|bucket| bucket.properties.mode);
        let held = self.load(stored, topology.mode_of(deletion.place.0));
        let held = held.await?;
        let through = self.forgettable(deletion.place);
        let mut batch = WriteBatch::new();
        // It frees space.
        batch.use_reserve();
        batch.delete(&storage_key::grave(deletion.from, stored));
        // In a bucket that was dropped there is nothing any more, or nothing for long.
        if let Some(mode) = mode.filter(|_| held.seq.is_some()) {
            if !is_forgettable(&held.object, mode, through) {
                if held.gone_from != Some(deletion.from) {
                    // It is left over from a row that was damaged and cut out; what came back says for itself when it goes.
                    let _ = self.store.write(batch, Store::REQUEST_PATIENCE).await?;
                }
                return Ok(false);
            }
            batch.delete_noted(stored, &note(held.was.item, 0));
        }
        // If power is lost before this is durable, it is forgotten once more.
        let _ = self.store.write(batch, Store::REQUEST_PATIENCE).await?;
        self.counts.forgotten.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(place = ?deletion.place, from = ?deletion.from, ?through, key = ?storage_key::decode(stored), "a deletion is forgotten");
        Ok(true)
    }

    /// Deletes all copies in a bucket, which is dropped.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was deleted, but for a failed disk.
    pub async fn delete_bucket(&self, bucket: BucketId) -> Result<(), Refusal> {
        let mut batch = WriteBatch::new();
        // It frees space.
        batch.use_reserve();
        let prefix = bucket.0.to_be_bytes();
        batch.delete_prefix(&prefix);
        batch.delete_prefix(&storage_key::graves_of(Some(bucket)));
        batch.delete_prefix(&storage_key::quarantined(&prefix));
        batch.delete_prefix(&storage_key::watermarks_of(bucket));
        committed(self.store.write(batch, Store::REQUEST_PATIENCE).await?).await?;
        self.watermarks.forget(bucket);
        Ok(())
    }

    /// Deletes everything in some places, and their watermarks; rows only where there may be some.
    ///
    /// # Errors
    /// [`StoreError`]; it is deleted in some of them.
    pub(crate) async fn delete_places(
        &self,
        topology: &Topology,
        places: &[Place],
        may_hold_rows: impl Fn(Place) -> bool,
    ) -> Result<(), StoreError> {
        for part in places.chunks(PLACES_AT_ONCE) {
            let mut batch = WriteBatch::new();
            // It frees space.
            batch.use_reserve();
            for (bucket, partition) in part {
                batch.delete(&storage_key::watermark(*bucket, *partition));
                if may_hold_rows((*bucket, *partition)) {
                    let hashes = topology.partition_count().hash_range(*partition);
                    let (from, end) = storage_key::partition_range(*bucket, &hashes);
                    let end = end.map_or(Bound::Unbounded, Bound::Excluded);
                    batch.delete_range((Bound::Included(from), end));
                }
            }
            committed(self.store.write(batch, Store::REQUEST_PATIENCE).await?).await?;
            self.watermarks.drop_some(part);
        }
        Ok(())
    }

    /// Up to where nothing of a place's past is missing here: what is unknown was deleted.
    #[must_use]
    pub fn watermark(&self, place: Place) -> Hlc {
        if planted!("forget deletions by their age") {
            return self.floor.reading();
        }
        self.watermarks.of(place)
    }

    /// Up to where what was deleted in a place may be forgotten: all its owners know that watermark.
    #[must_use]
    pub fn forgettable(&self, place: Place) -> Hlc {
        if planted!("forget deletions by their age") {
            return self.floor.reading();
        }
        self.watermarks.forgettable(place)
    }

    /// Closes the gaps in the clock of an own copy that is about to be written, up to the watermark: all owners know the same of
    /// what lies below. Only who coordinates a write does that, so that all get the same from it.
    pub(super) fn close_gaps(&self, target: &Target, object: &mut Object) {
        if target.stands_in_for.is_some() {
            return;
        }
        let through = if planted!("close gaps before owners are equal") {
            Hlc(u64::MAX - 1)
        } else {
            self.watermark((target.bucket, target.partition))
        };
        object.close_gaps(through);
    }

    /// Notes where clocks have many gaps: watermarks are to rise there, though there may be nothing to forget.
    pub(super) fn note_gaps(&self, target: &Target, object: &Object) {
        if target.stands_in_for.is_none() && object.clock().gaps() > MOST_GAPS {
            let place = (target.bucket, target.partition);
            let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
            let latest = object.clock().latest();
            let gap = gaps.entry(place).or_insert(latest);
            *gap = (*gap).min(latest);
        }
    }

    /// Where clocks have gaps that a watermark would close which can rise by now, and up to where it must for that.
    #[must_use]
    pub fn gaps(&self) -> BTreeMap<Place, Hlc> {
        let (topology, reading) = (self.topologies.current(), self.floor.reading());
        let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        gaps.retain(|place, latest| {
            topology.bucket(place.0).is_some() && self.watermark(*place) < *latest
        });
        let mut ripe = gaps.clone();
        ripe.retain(|_, latest| *latest <= reading);
        ripe
    }

    /// That of the place where a copy is.
    pub(super) fn through(&self, target: &Target) -> Hlc {
        match target.stands_in_for {
            None => self.watermark((target.bucket, target.partition)),
            Some(_) => Hlc::ZERO,
        }
    }

    /// Whether a copy is as good as forgotten: another replica may have done so already.
    pub(super) fn may_be_forgotten(&self, place: Place, mode: BucketMode, copy: &Object) -> bool {
        is_forgettable(copy, mode, self.watermark(place))
    }

    /// What is stored, but for what was deleted up to a point and is as good as forgotten.
    pub(super) fn remembered(&self, target: &Target, held: Loaded, through: Hlc) -> Loaded {
        if is_forgettable(&held.object, target.mode, through) {
            Loaded {
                object: Object::new(),
                ..held
            }
        } else {
            held
        }
    }

    /// What is left of an object that arrives, after what was deleted here and is forgotten.
    ///
    /// # Errors
    /// [`Refusal`] when what arrives too late cannot be put aside; nothing was changed.
    pub(super) async fn not_deleted(
        &self,
        target: &Target,
        held: &Object,
        incoming: &Object,
    ) -> Result<Option<Object>, Refusal> {
        let through = self.through(target);
        if incoming.oldest_dot().is_none_or(|oldest| oldest > through) {
            return Ok(None);
        }
        let (left, deleted) = incoming.without_deleted(held.clock(), through);
        // A replica that has not forgotten yet may still bring what all of them know to be deleted or expired.
        let is_wanted = |sibling: &Sibling| {
            matches!(sibling.payload(), Payload::Value(_)) && !sibling.is_expired(through.millis())
        };
        let is_known_gone = is_forgettable(incoming, target.mode, through);
        let dots = deleted.iter().filter(|sibling| is_wanted(sibling));
        let oldest = dots.flat_map(Sibling::dots).map(|dot| dot.hlc).min();
        if let Some(oldest) = oldest.filter(|_| !is_known_gone) {
            let place = (target.bucket, target.partition);
            let was_on_its_way = oldest > self.watermarks.long_since(place);
            self.put_aside(target, incoming, was_on_its_way).await?;
        }
        Ok(Some(left))
    }

    /// Brings this node's copy, which may lack or still hold anything, to what a complete one knows: takes in what that one
    /// holds, and lets go of what it knows to be deleted. `through` is that one's watermark.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed, but for a failed disk.
    pub async fn relearn(
        &self,
        target: &Target,
        theirs: &Object,
        through: Hlc,
    ) -> Result<(), Refusal> {
        let stored = target.stored();
        let _turn = self.turns.take(&stored).await?;
        let held = self.load(&stored, target.mode).await?;
        let (mut object, _) = held.object.without_deleted(theirs.clock(), through);
        object.merge(theirs);
        let is_forgotten = object.oldest_dot().is_none() && object.clock().latest() <= through;
        if is_forgotten {
            if held.seq.is_none() {
                return Ok(());
            }
            let mut batch = WriteBatch::new();
            batch.use_reserve();
            let grave = Grave {
                was: held.gone_from,
                is: None,
            };
            grave.keep_in(&mut batch, &stored);
            batch.delete_noted(&stored, &note(held.was.item, 0));
            committed(self.store.write(batch, Store::REQUEST_PATIENCE).await?).await?;
            return Ok(());
        }
        if object == held.object {
            if let Some(seq) = held.seq {
                self.store.durable(seq).await?;
            }
            return Ok(());
        }
        let encoded = object.encode();
        let new = Change {
            stored,
            was: held.was,
            grave: Grave {
                was: held.gone_from,
                is: object.gone_from(target.mode),
            },
            weight: Weight::of(&object, encoded.len()),
            encoded,
            new_dots: Vec::new(),
            latest_dot: None,
            is_owed: true,
        };
        let append = self.append(target, new, AnswerWhen::Synced, None);
        committed(append.await?).await?;
        Ok(())
    }

    /// Keeps what should not have come, for people to look at. What was sent while its deletion was not forgotten yet is
    /// nothing to worry about.
    async fn put_aside(
        &self,
        target: &Target,
        incoming: &Object,
        was_on_its_way: bool,
    ) -> Result<(), Refusal> {
        if was_on_its_way {
            tracing::info!(key = %target.key, "a value arrived whose deletion was forgotten while it was on its way; it does not show, and is put aside");
        } else {
            tracing::error!(key = %target.key, "a value arrived that was deleted so long ago that the deletion is forgotten, from a copied or restored disk perhaps; it does not show, and is put aside");
            self.counts.late.fetch_add(1, Ordering::Relaxed);
        }
        let mut batch = WriteBatch::new();
        let aside = storage_key::quarantined(&target.stored());
        batch.put(&aside, &incoming.encode());
        committed(self.store.write(batch, Store::REQUEST_PATIENCE).await?).await?;
        Ok(())
    }
}

/// Whether an object can be forgotten where all owners have held the same up to a point.
pub(super) fn is_forgettable(object: &Object, mode: BucketMode, through: Hlc) -> bool {
    object.gone_from(mode).is_some_and(|from| from <= through)
}
