//! Finds bytes that went bad on this node's disk, and makes up for them from the other owners.
//!
//! A scrub reads everything again and again, slowly. Where damage is met, by it or by anything else, and it touches user
//! data only that others own too, this node's copies of the partitions in question become incomplete
//! ([`crate::completeness`]), what cannot be read is cut out of the store, and recovery fetches it from the others. Damage
//! of the node's own records cannot be made up for like that: the store has to be emptied.
//!
//! Invariants:
//! 1. That copies are incomplete is durable before anything is cut out.
//! 2. While something is cut out nothing is compared that was incomplete: the Merkle trees of those partitions are gone
//!    from before the record until they are made anew.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kv_ring::{KeyHash, PartitionId, Topology};
use kv_storage::{CutReport, Damage, Events, KeyRange};
use kv_types::{BucketId, NodeId};

use crate::anti_entropy::making;
use crate::anti_entropy::trees::{Place, Trees};
use crate::completeness::Completeness;
use crate::env::Env;
use crate::replica::Replica;
use crate::storage_key;
use crate::store::{Store, StoreError};
use crate::tombstones::watermarks::Watermarks;
use crate::topologies::Topologies;

/// How often it is looked for damage that was met.
const PERIOD: Duration = Duration::from_secs(1);
/// The longest time between two tries to cut out what could not be.
const LONGEST_PAUSE: Duration = Duration::from_secs(64);

/// How the disk is read in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Bytes a second; 0 reads nothing.
    pub bytes_per_s: u64,
    /// The time between two passes over everything.
    pub pause: Duration,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self {
            bytes_per_s: 4 << 20,
            pause: Duration::from_hours(1),
        }
    }
}

/// Damage that was met.
#[derive(Debug, Default)]
pub struct Damages {
    /// What was not yet looked at.
    new: Mutex<Vec<Damage>>,
    cut_out: AtomicU64,
}

impl Damages {
    /// Ranges of keys that were cut out since the start, because they could not be read.
    #[must_use]
    pub fn cut_out(&self) -> u64 {
        self.cut_out.load(Ordering::Relaxed)
    }

    fn take(&self) -> Vec<Damage> {
        std::mem::take(&mut *self.new.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Events for Damages {
    fn damaged(&self, damage: &Damage) {
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        new.push(damage.clone());
    }
}

/// The task that makes up for damage.
#[derive(Debug)]
pub struct Healing {
    pub(crate) env: Env,
    pub(crate) me: NodeId,
    pub(crate) damages: Arc<Damages>,
    pub(crate) store: Store,
    pub(crate) topologies: Arc<Topologies>,
    pub(crate) trees: Arc<Trees>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) watermarks: Arc<Watermarks>,
    pub(crate) completeness: Arc<Completeness>,
}

/// Reads everything, as long as the node runs.
pub(crate) async fn scrub(env: Env, store: Store, options: ScrubOptions) {
    if options.bytes_per_s == 0 {
        return;
    }
    loop {
        env.sleep(options.pause).await;
        // What it meets comes as damage.
        if store.scrub(options.bytes_per_s).await.is_err() {
            return;
        }
    }
}

impl Healing {
    /// Looks as long as the node runs.
    pub async fn run(self) {
        let mut ranges: Vec<KeyRange> = Vec::new();
        let mut pause = PERIOD;
        loop {
            self.env.sleep(pause).await;
            let topology = self.topologies.current();
            for damage in self.damages.take() {
                let file = damage.file.display();
                tracing::debug!(%file, damage.offset, damage.what, "damage was met");
                pause = PERIOD;
                self.add(&topology, &mut ranges, damage.range);
            }
            if ranges.is_empty() || self.completeness.is_closed() {
                continue;
            }
            match self.heal(&topology, &ranges).await {
                Ok(report) => {
                    let before = ranges.len();
                    for range in report.left.iter().filter_map(kv_storage::Error::range) {
                        self.add(&topology, &mut ranges, range.clone());
                    }
                    if ranges.len() > before {
                        pause = PERIOD;
                    } else if report.busy == 0 && report.failed.is_empty() {
                        ranges.clear();
                        pause = PERIOD;
                    } else {
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "what is damaged is not cut out yet");
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Takes a range in that was found to be damaged, if it can be made up for.
    fn add(&self, topology: &Topology, ranges: &mut Vec<KeyRange>, range: KeyRange) {
        if touched(topology, self.me, &range).is_none() {
            tracing::error!(
                %range,
                "damage of these keys cannot be made up for while the node runs: empty its directory `store` and start it again, if other nodes hold what is in it"
            );
        } else if !ranges.contains(&range) {
            ranges.push(range);
        }
    }

    /// Cuts ranges out, as far as they cannot be read.
    async fn heal(
        &self,
        topology: &Topology,
        ranges: &[KeyRange],
    ) -> Result<CutReport, StoreError> {
        let mut places: BTreeSet<Place> = BTreeSet::new();
        for range in ranges {
            places.extend(touched(topology, self.me, range).unwrap_or_default());
        }
        let places: Vec<Place> = places.into_iter().collect();
        let _mending = self.completeness.mending().lock().await;
        let _ = self.trees.doubt_some(&places);
        self.replica.minter().hold_anew();
        let now = self.replica.minter().reading();
        self.completeness
            .lose(&places, &self.watermarks, now)
            .await?;
        let cut = self.store.cut_out(ranges.to_vec()).await;
        // Once more: all trees may have been begun anew meanwhile, from what was there before the cut.
        let are_made = self.trees.doubt_some(&places);
        for place in places.iter().filter(|_| are_made) {
            let made = making::make_one(&self.trees, &self.store, &self.env, topology, *place);
            if made.await.is_err() {
                // Something is damaged still. Without a tree it is compared by its keys.
                let _ = self.trees.doubt_some(&[*place]);
            }
        }
        let report = cut?;
        self.damages
            .cut_out
            .fetch_add(report.lost.len() as u64, Ordering::Relaxed);
        for range in &report.lost {
            tracing::warn!(%range, "what could not be read is cut out, and comes back from the other owners");
        }
        Ok(report)
    }
}

/// The bucket and the hash with which a bound of a range begins. Bounds are shortened keys: what they lack is less than
/// anything.
fn place_from(bound: &[u8]) -> (BucketId, KeyHash) {
    let mut whole = [0; 12];
    let given = bound.len().min(whole.len());
    whole[..given].copy_from_slice(&bound[..given]);
    storage_key::place(&whole).expect("a bucket and a hash are twelve bytes")
}

/// The places that a range of stored keys touches; `None` if it may touch the node's own records, or what only this node
/// holds.
fn touched(topology: &Topology, me: NodeId, range: &KeyRange) -> Option<Vec<Place>> {
    let KeyRange::Between { first, last } = range else {
        return None;
    };
    let (first, last) = (place_from(first), place_from(last));
    if first.0 == storage_key::SYSTEM_BUCKET {
        return None;
    }
    let partitions = topology.partition_count();
    let mut places = Vec::new();
    for bucket in topology.buckets() {
        if !(first.0..=last.0).contains(&bucket.id) {
            continue;
        }
        let mut touched = PartitionId(0)..=PartitionId(u16::MAX);
        if bucket.id == first.0 {
            touched = partitions.partition_of(first.1)..=*touched.end();
        }
        if bucket.id == last.0 {
            touched = *touched.start()..=partitions.partition_of(last.1);
        }
        for partition in partitions.iter().filter(|it| touched.contains(it)) {
            let owners = topology.replicas(partition, bucket.properties.quorum.n());
            if owners.contains(me) && owners.nodes().count() == 1 {
                return None;
            }
            places.push((bucket.id, partition));
        }
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortened_bounds_name_their_bucket_and_hash() {
        let at = |bound: &[u8]| place_from(bound);
        assert_eq!(at(b""), (BucketId(0), KeyHash(0)));
        assert_eq!(at(b"\0\0\0\x01"), (BucketId(1), KeyHash(0)));
        let hash = KeyHash(0x7fda << 48);
        assert_eq!(at(b"\0\0\0\x01\x7f\xda"), (BucketId(1), hash));
        let long = b"\0\0\0\x02\0\0\0\0\0\0\0\x09key";
        assert_eq!(at(long), (BucketId(2), KeyHash(9)));
    }
}
