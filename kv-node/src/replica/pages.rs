//! Pages of what a replica holds, in the order in which it is stored: what is listed, and what replicas compare.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use kv_net::message::{MAX_PAGE, ReplicaListV1};
use kv_ring::PartitionId;
use kv_storage::{ScanRequest, Seq};
use kv_types::{Hlc, Key, Object};

use super::marks::Marks;
use super::{Replica, damaged, damaged_key};
use crate::anti_entropy::tree;
use crate::anti_entropy::trees::Place;
use crate::refusal::Refusal;
use crate::storage_key;

/// How much of what is stored is gone through for one answer, when replicas compare or list, before others have their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimits {
    /// Copies at most.
    pub copies: usize,
    /// Bytes of objects after which there are no more.
    pub bytes: usize,
    /// What the store goes through at most: copies, and what it has not dropped yet of deleted and replaced ones.
    pub visited: usize,
}

impl Default for PageLimits {
    /// Some milliseconds' work.
    fn default() -> Self {
        const COPIES: usize = 4_096;
        const { assert!(COPIES <= MAX_PAGE, "an answer cannot name as many") };
        Self {
            copies: COPIES,
            bytes: 16 << 20,
            visited: ScanRequest::DEFAULT_MAX_VISITED,
        }
    }
}

/// A page of what a replica holds; durable.
#[derive(Debug, Clone, Default)]
pub struct HeldPage {
    /// The objects in storage order.
    pub entries: Vec<(Key, Bytes)>,
    /// Up to which key these are all, though that one itself may be gone; `None` if there are no more.
    pub until: Option<Key>,
    /// As with [`super::Told`].
    pub through: Hlc,
    /// The newest write in it, whether it is shown or not.
    newest: Option<Seq>,
}

/// One of this node's own copies, as replicas compare them.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The key's name in comparisons.
    pub id: u64,
    /// The object's digest.
    pub digest: u64,
    /// The key.
    pub key: Key,
    /// The newest dot of its clock.
    pub newest: Hlc,
}

/// A stretch of a partition's copies, as replicas compare them.
#[derive(Debug, Clone, Copy)]
pub struct Stretch<'a> {
    /// At which depth of the partition's Merkle tree the nodes are.
    pub depth: u8,
    /// The nodes under which it lies, ascending.
    pub nodes: &'a [u32],
    /// Behind which key it begins, if not with the first.
    pub after: Option<&'a Key>,
    /// With which key it ends, if not with the last.
    pub until: Option<&'a Key>,
}

impl Replica {
    /// A page of what is held of a partition, or of rows in it, after a key. It ends with its work, however little it found.
    ///
    /// # Errors
    /// [`Refusal`] when it cannot be read, or what is held may lack what this node has acknowledged.
    pub async fn list(&self, asked: &ReplicaListV1) -> Result<HeldPage, Refusal> {
        let partition = PartitionId(asked.partition);
        let place = (asked.bucket, partition);
        self.check_readable(partition)?;
        let page = loop {
            let marks = self.marks_of(place);
            let page = self.page(asked, marks).await?;
            // If they rose meanwhile, some of it may be from before and some from after.
            if marks == self.marks_of(place) {
                break page;
            }
        };
        // It may have become incomplete meanwhile, or what was there may be gone with the partition.
        self.check_readable(partition)?;
        self.topologies
            .unchanged_since(asked.head.epoch, partition, || ())
            .map_err(Refusal::stale)?;
        if let Some(seq) = page.newest {
            self.store.durable(seq).await?;
        }
        Ok(page)
    }

    async fn page(&self, asked: &ReplicaListV1, marks: Marks) -> Result<HeldPage, Refusal> {
        let (bucket, partition) = (asked.bucket, PartitionId(asked.partition));
        let topology = self.topologies.current();
        let located = |partition_key: &[u8]| topology.locate(bucket, partition_key).0;
        let hashes = topology.partition_count().hash_range(partition);
        let (first, end) = match &asked.rows {
            None => storage_key::partition_range(bucket, &hashes),
            Some(rows) => {
                let (from, until) = (&rows.from, rows.until.as_deref());
                let hash = located(&rows.partition_key);
                let range =
                    storage_key::rows_range(bucket, hash, &rows.partition_key, (from, until));
                (range.0, Some(range.1))
            }
        };
        let after = asked.after.as_ref().map(|key| {
            let stored = storage_key::encode(bucket, located(key.partition_key()), key);
            storage_key::next(&stored)
        });
        // A key from before the range begins at its start.
        let mut from = after.into_iter().fold(first, Bytes::max);
        let mode = topology.mode_of(bucket);
        let (mut entries, mut newest) = (Vec::new(), None);
        let (mut rows, mut visited) = (0, 0);
        let until = loop {
            if end.as_ref().is_some_and(|end| from >= *end) {
                break None;
            }
            let page = self.store.page(ScanRequest {
                start: from,
                end: end.clone().map_or(Bound::Unbounded, Bound::Excluded),
                reverse: false,
                max_items: asked.max_items as usize,
                max_bytes: asked.max_bytes as usize,
                max_visited: self.limits.visited - visited,
            });
            let page = page.await?;
            rows += page.entries.len();
            visited += page.visited;
            for item in page.entries {
                newest = newest.max(Some(item.seq));
                let key = decoded(&item.key)?;
                if !marks.hide(mode, &key, &item.value)? {
                    entries.push((key, item.value));
                }
            }
            let (Some(through), Some(next)) = (page.through, page.next) else {
                break None;
            };
            let is_enough = rows >= self.limits.copies || visited >= self.limits.visited;
            if is_enough || !entries.is_empty() {
                break Some(decoded(&through)?);
            }
            from = next.start;
        };
        Ok(HeldPage {
            entries,
            until,
            through: marks.knows,
            newest,
        })
    }

    /// Goes through the copies of a partition in the order in which they are stored, with their bytes, but for those that
    /// another replica may have forgotten, until `visit` wants no more, the one that it was given included, or so many have
    /// been read that others should have their turn, or so much was gone through that is not there any more. Then it gives the
    /// last key that was gone through, if any was; `None` if these are all, or `visit` did not want the first one.
    ///
    /// # Errors
    /// [`Refusal`] when they cannot be read.
    pub async fn visit_copies(
        &self,
        (bucket, partition): Place,
        stretch: &Stretch<'_>,
        mut visit: impl FnMut(Copy, Bytes) -> ControlFlow<()>,
    ) -> Result<Option<Key>, Refusal> {
        let topology = self.topologies.current();
        let (partitions, mode) = (topology.partition_count(), topology.mode_of(bucket));
        let whole = partitions.hash_range(partition);
        let at = |position: u64| whole.start() | position >> partitions.bits();
        let stored = |key: &Key| {
            let (hash, _) = topology.locate(bucket, key.partition_key());
            storage_key::encode(bucket, hash, key)
        };
        let after = stretch.after.map(|key| storage_key::next(&stored(key)));
        let until = stretch.until.map(|key| storage_key::next(&stored(key)));
        let limits = self.limits;
        let (mut rows, mut bytes, mut visited, mut last) = (0, 0, 0, None);
        for node in stretch.nodes {
            let (first, end) = tree::positions(stretch.depth, *node);
            let (first, end) = storage_key::partition_range(bucket, &(at(first)..=at(end)));
            let mut from = after
                .iter()
                .fold(first, |from, after| from.max(after.clone()));
            let end = end.into_iter().chain(until.clone()).min();
            loop {
                if end.as_ref().is_some_and(|end| from >= *end) {
                    break;
                }
                let is_enough =
                    rows >= limits.copies || bytes >= limits.bytes || visited >= limits.visited;
                // Without a last key it would be taken for the end.
                if is_enough && last.is_some() {
                    return Ok(last);
                }
                let page = self.store.page(ScanRequest {
                    start: from,
                    end: end.clone().map_or(Bound::Unbounded, Bound::Excluded),
                    reverse: false,
                    max_items: limits.copies.saturating_sub(rows).min(1_024),
                    max_bytes: 1 << 20,
                    max_visited: limits.visited.saturating_sub(visited),
                });
                let page = page.await?;
                visited += page.visited;
                for item in page.entries {
                    rows += 1;
                    bytes += item.value.len();
                    let key = decoded(&item.key)?;
                    let object =
                        Object::decode(&item.value).map_err(|damage| damaged(&key, damage))?;
                    if self.may_be_forgotten((bucket, partition), mode, &object) {
                        last = Some(key);
                        continue;
                    }
                    let digest = self.digest(&item.value);
                    let copy = Copy {
                        id: self.secret.key_id(&item.key),
                        digest: digest.map_err(|damage| damaged(&key, damage))?,
                        newest: object.clock().latest(),
                        key: key.clone(),
                    };
                    if visit(copy, item.value).is_break() {
                        return Ok(last);
                    }
                    last = Some(key);
                }
                let (Some(through), Some(next)) = (page.through, page.next) else {
                    break;
                };
                last = Some(decoded(&through)?);
                from = next.start;
            }
        }
        Ok(None)
    }
}

fn decoded(stored: &[u8]) -> Result<Key, Refusal> {
    storage_key::decode(stored).ok_or_else(damaged_key)
}
