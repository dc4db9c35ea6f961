//! Floors, watermarks, and the order in which they rise.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use kv_net::message::{PlaceV1, WatermarkV1};
use kv_node::storage_key;
use kv_ring::{PartitionId, Topology};
use kv_types::{BucketId, BucketMode, Epoch, Hlc, NodeId, Object, Payload, Sibling};

use super::{CHANCES, Witness};
use crate::sim::client::BUCKET;
use crate::sim::image::{Image, Unreadable};

/// What was heard of them so far.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    /// What each node has promised, and since when.
    floors: BTreeMap<NodeId, Vec<(Duration, Hlc)>>,
    /// Who was promised a floor, and compared with whom last, by number.
    promised: BTreeMap<(NodeId, Hlc), u64>,
    compared: BTreeMap<(NodeId, NodeId), u64>,
    next: u64,
    /// Watermarks whose rise was looked at.
    raised: BTreeSet<(BucketId, u16, Hlc)>,
    /// The highest watermark that a node was seen to have of a place, by the epoch of the partition's last change.
    highest: BTreeMap<(NodeId, PlaceV1, Epoch), Hlc>,
}

impl Deletions {
    /// Takes in a watermark, and gives the one from which it has fallen, if it has.
    fn fallen_from(&mut self, of: (NodeId, PlaceV1, Epoch), mark: Hlc) -> Option<Hlc> {
        let highest = self.highest.entry(of).or_default();
        *highest = mark.max(*highest);
        (mark < *highest).then_some(*highest)
    }

    /// How high the watermark of a place was said to rise.
    pub(super) fn raised_most(&self, bucket: BucketId, partition: PartitionId) -> Hlc {
        let all = (bucket, partition.0, Hlc::ZERO)..=(bucket, partition.0, Hlc(u64::MAX));
        let highest = self.raised.range(all).next_back();
        highest.map_or(Hlc::ZERO, |(.., through)| *through)
    }
}

/// A step on the way to higher watermarks.
pub(super) enum Order {
    Promised(Hlc),
    Compared,
    Raises(Hlc),
}

impl Witness {
    /// A node says where its floor is.
    pub(super) fn floor_told(&self, node: NodeId, floor: Hlc) {
        if floor == Hlc::ZERO {
            return;
        }
        let now = self.handle.now();
        let rises = {
            let mut state = self.state();
            let told = state.deletions.floors.entry(node).or_default();
            let rises = told.last().is_none_or(|(_, before)| *before < floor);
            if rises {
                told.push((now, floor));
            }
            rises
        };
        let is_watched = !self.damaged.contains(&node) && !self.restored.contains(&node);
        if !is_watched || !rises && !self.looks_at("look at a floor", CHANCES.floor) {
            return;
        }
        let promised = self.floor_of(node, now);
        let Some(image) = self.cluster.image(node) else {
            return;
        };
        let (Ok(stored), Ok(kept)) = (image.floor(), image.stand_ins()) else {
            return;
        };
        // Whatever else is in it: what comes later is looked at when watermarks rise.
        let is_old = |object: &Object| object.oldest_dot().is_some_and(|oldest| oldest <= floor);
        if let Some((owner, stored, _)) = kept.iter().find(|(.., object)| is_old(object)) {
            let key = storage_key::decode(stored);
            let what = format!(
                "{node} promises {floor:?}, and keeps something older for {owner}: {key:?}"
            );
            self.wrong("floor", what);
        }
        if stored < promised {
            let what = format!("{node} has promised {promised:?}, and has {stored:?} on its disk");
            self.wrong("floor", what);
        }
    }

    /// What a node had promised by then.
    pub(super) fn floor_of(&self, node: NodeId, by: Duration) -> Hlc {
        let state = self.state();
        let told = state.deletions.floors.get(&node).into_iter().flatten();
        let until = told.take_while(|(at, _)| *at < by);
        until.map(|(_, floor)| *floor).max().unwrap_or(Hlc::ZERO)
    }

    /// Somebody asks or answers about floors, comparisons, or watermarks.
    pub(super) fn note_order(&self, by: NodeId, with: NodeId, what: Order) {
        let mut state = self.state();
        state.deletions.next += 1;
        let number = state.deletions.next;
        match what {
            Order::Promised(through) => _ = state.deletions.promised.insert((by, through), number),
            Order::Compared => _ = state.deletions.compared.insert((by, with), number),
            Order::Raises(through) => {
                let promised = state.deletions.promised.get(&(by, through)).copied();
                let compared = state.deletions.compared.get(&(by, with)).copied();
                if compared < promised {
                    let what = format!(
                        "{by} raises watermarks of {with} to {through:?} without having compared with it after all had promised"
                    );
                    drop(state);
                    self.wrong("order", what);
                }
            }
        }
    }

    /// A node has started.
    pub(super) fn look_at_loss(&self, node: NodeId) {
        let since = self.cluster.disk_since(node);
        let is_first = self.state().disks.insert(node, since) != Some(since);
        if since.is_none() || !is_first {
            return;
        }
        let Some(image) = self.cluster.image(node) else {
            return;
        };
        // Of a damaged disk, too: what stands there was voted before, whatever else is unreadable.
        if let Ok(Some((epoch, promised, _))) = image.vote() {
            self.state().votes.then.insert(node, (epoch, promised));
        }
        if self.damaged.contains(&node) {
            return;
        }
        self.count("look at a loss");
        let Ok(incomplete) = image.incomplete() else {
            return;
        };
        let mut kept = incomplete.iter().filter_map(|partition| {
            let mark = image.watermark(BUCKET, PartitionId(*partition)).ok()?;
            (mark > Hlc::ZERO).then_some((*partition, mark))
        });
        if let Some((partition, mark)) = kept.next() {
            let what = format!(
                "{node} starts with an incomplete partition {partition}, whose watermark is {mark:?}"
            );
            self.wrong("watermark-kept", what);
        }
    }

    /// Watermarks are about to rise.
    pub(super) fn raise(&self, from: NodeId, raise: &WatermarkV1) {
        let sender = self.cluster.node(from).map(|node| node.topology());
        let Some(topology) = sender.filter(|topology| topology.epoch() == raise.epoch) else {
            return;
        };
        let on_its_way = raise
            .places
            .iter()
            .find(|place| !topology.is_settled(PartitionId(place.partition)));
        if let Some(place) = on_its_way {
            let what = format!("{from} has the watermark of {place:?} rise, whose owners change");
            self.wrong("watermark", what);
        }
        let places: Vec<PlaceV1> = {
            let mut state = self.state();
            let is_new = |place: &&PlaceV1| {
                let rise = (place.bucket, place.partition, raise.through);
                state.deletions.raised.insert(rise)
            };
            raise.places.iter().filter(is_new).copied().collect()
        };
        if places.is_empty() {
            return;
        }
        self.count("look at watermarks");
        let images: BTreeMap<NodeId, Image> = self
            .cluster
            .nodes()
            .filter(|node| !self.damaged.contains(node))
            .filter_map(|node| Some((node, self.cluster.image(node)?)))
            .collect();
        for place in places {
            if self
                .compare_owners(&topology, &images, place, raise.through)
                .is_err()
            {
                return;
            }
        }
        for (node, image) in &images {
            if self.restored.contains(node) || topology.member(*node).is_none() {
                continue;
            }
            let Ok(kept) = image.stand_ins() else { return };
            // What was there at the promise was looked at then. An old value may have come with a new one since: owners have that
            // one, or a deletion of it which lasts longer, and know with it of what became of the old one.
            let old = kept.iter().find(|(_, stored, object)| {
                object.oldest_dot().is_some()
                    && object.clock().latest() <= raise.through
                    && self.is_in(stored, &raise.places)
            });
            if let Some((owner, stored, _)) = old {
                let what = format!(
                    "watermarks rise to {:?}, and {node} keeps something older for {owner}: {:?}",
                    raise.through,
                    storage_key::decode(stored)
                );
                self.wrong("watermark", what);
            }
        }
    }

    /// A watermark never falls while its owner has its disk and the partition its owners.
    fn check_rise(&self, of: (NodeId, PlaceV1, Epoch), mark: Hlc) {
        if self.restored.contains(&of.0) {
            return;
        }
        let fallen_from = self.state().deletions.fallen_from(of, mark);
        if let Some(highest) = fallen_from {
            let what = format!("the watermark of {of:?} has fallen from {highest:?} to {mark:?}");
            self.wrong("watermark-falls", what);
        }
    }

    /// Whether a stored key lies in one of these places.
    fn is_in(&self, stored: &[u8], places: &[PlaceV1]) -> bool {
        let Some((bucket, hash)) = storage_key::place(stored) else {
            return false;
        };
        let partition = self.cluster.topology().partition_count().partition_of(hash);
        let mut places = places.iter();
        places.any(|place| place.bucket == bucket && place.partition == partition.0)
    }

    /// What is alive up to the new watermark is known to all owners.
    fn compare_owners(
        &self,
        topology: &Topology,
        images: &BTreeMap<NodeId, Image>,
        place: PlaceV1,
        through: Hlc,
    ) -> Result<(), Unreadable> {
        let partition = PartitionId(place.partition);
        let hashes = topology.partition_count().hash_range(partition);
        let mut copies: BTreeMap<NodeId, BTreeMap<Bytes, Object>> = BTreeMap::new();
        let mut marks: BTreeMap<NodeId, Hlc> = BTreeMap::new();
        let replicas = topology.replication_factor();
        for owner in topology.replicas(partition, replicas).nodes() {
            if let Some(image) = images.get(&owner) {
                let range = storage_key::partition_range(place.bucket, &hashes);
                copies.insert(owner, image.objects(range)?.into_iter().collect());
                marks.insert(owner, image.watermark(place.bucket, partition)?);
            }
        }
        for (owner, mark) in &marks {
            self.check_rise((*owner, place, topology.changed_at(partition)), *mark);
        }
        let is_old = |sibling: &Sibling| {
            let is_value = matches!(sibling.payload(), Payload::Value(_));
            let newest = sibling.newest_dot().hlc;
            is_value && !sibling.is_expired(through.millis()) && newest <= through
        };
        // Where the last writer wins, what another write hides is forgotten with that.
        let mode = topology.mode_of(place.bucket);
        let shown = |object: &Object| -> Vec<Sibling> {
            match mode {
                BucketMode::Siblings => object.siblings().cloned().collect(),
                BucketMode::Lww => object.last_written().into_iter().cloned().collect(),
            }
        };
        let nothing = Object::new();
        for (node, own) in &copies {
            for (stored, object) in own {
                for sibling in shown(object).into_iter().filter(is_old) {
                    for (other, theirs) in &copies {
                        let held = theirs.get(stored).unwrap_or(&nothing);
                        let mut siblings = held.siblings();
                        // One whose watermark a faster round has raised further may have forgotten what has expired by that.
                        let knows = siblings.any(|same| same.write_id() == sibling.write_id())
                            || held.clock().covers(sibling.newest_dot())
                            || sibling.is_expired(marks[other].millis());
                        if !knows {
                            let what = format!(
                                "watermarks rise to {through:?}, and {other} does not know {:?} of {:?}, which {node} has",
                                sibling.write_id(),
                                storage_key::decode(stored)
                            );
                            self.wrong("watermark", what);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_that_falls_under_the_same_owners_is_told_of() {
        let bucket = BUCKET;
        let of = |partition, changed| (NodeId(1), PlaceV1 { bucket, partition }, Epoch(changed));
        let mut deletions = Deletions::default();
        for mark in [Hlc(5), Hlc(5), Hlc(9)] {
            assert_eq!(deletions.fallen_from(of(1, 1), mark), None);
        }
        assert_eq!(deletions.fallen_from(of(1, 1), Hlc(8)), Some(Hlc(9)));
        assert_eq!(deletions.fallen_from(of(2, 1), Hlc(8)), None);
        assert_eq!(
            deletions.fallen_from(of(1, 2), Hlc(0)),
            None,
            "it is gained anew"
        );
    }
}
