//! All Merkle trees of a node, in step with the log of its engine.
//!
//! Invariants:
//! 1. A tree that is there is over exactly what the engine holds after the last write that it was told of.
//! 2. While a tree is made from a snapshot, later writes are kept aside for it, and none is counted twice: what the
//!    snapshot shows has numbers up to its own, what is kept aside has later ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kv_ring::{KeyHash, PartitionCount, PartitionId};
use kv_storage::{Observed, Seq, WriteKind, WriteObserver};
use kv_types::{BucketId, planted};

use super::tree::{Change, FAN_OUT, Tree};
use crate::storage_key;

/// A partition of a bucket: what has a tree of its own.
pub type Place = (BucketId, PartitionId);

/// The trees. Told of every write by the engine, in the order of the log.
#[derive(Debug)]
pub struct Trees {
    partitions: PartitionCount,
    /// Stands for the root of a tree that is not known. Another one in each node, so that such a tree differs from all.
    no_root: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    /// What the trees are being made from is not what the store holds any more.
    is_spoilt: bool,
    /// Places whose rows were deleted and not looked at since: most likely nothing is in them but what their trees are over.
    unknown: BTreeSet<Place>,
    /// Places whose trees are over some of the rows only, until they are made anew.
    partial: BTreeSet<Place>,
    last: Seq,
    plots: BTreeMap<Place, Plot>,
}

/// How far the first making of all trees is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The store is being opened: what it holds will be read afterwards.
    Opening,
    /// What it holds is read; writes are kept aside for trees that are not there yet.
    Making,
    /// Places without a tree are empty.
    Made,
}

/// Where a tree is, or will be.
#[derive(Debug, Default)]
struct Plot {
    tree: Option<Tree>,
    /// Writes for the tree that is being made.
    aside: Option<Vec<(Seq, Change)>>,
}

/// The writer's note for the observer: the items before and after.
#[must_use]
pub fn note(was: u64, is: u64) -> [u8; 16] {
    let mut note = [0; 16];
    note[..8].copy_from_slice(&was.to_le_bytes());
    note[8..].copy_from_slice(&is.to_le_bytes());
    note
}

impl Trees {
    /// The trees of a store that is about to be opened; `no_root` is a number that no other node has, and not 0.
    #[must_use]
    pub fn new(partitions: PartitionCount, no_root: u64) -> Self {
        Self {
            partitions,
            no_root,
            state: Mutex::new(State {
                stage: Stage::Opening,
                is_spoilt: false,
                unknown: BTreeSet::new(),
                partial: BTreeSet::new(),
                last: Seq(0),
                plots: BTreeMap::new(),
            }),
        }
    }

    /// From now on writes are kept aside: the next snapshot is the one that trees are made from.
    pub fn begin(&self) {
        self.state().stage = Stage::Making;
    }

    /// Forgets all trees, to make them from a later snapshot. Gives the number that it must have reached.
    pub fn begin_again(&self) -> Seq {
        let mut state = self.state();
        state.stage = Stage::Making;
        state.is_spoilt = false;
        state.unknown.clear();
        state.partial.clear();
        state.plots.clear();
        state.last
    }

    /// Whether all trees are there.
    #[must_use]
    pub fn are_made(&self) -> bool {
        self.state().stage == Stage::Made
    }

    /// The first making ends: places that were not met hold only what was written since the snapshot. False if the trees
    /// have to be made once more.
    #[must_use]
    pub fn end(&self, snapshot: Seq) -> bool {
        let mut state = self.state();
        if state.is_spoilt {
            return false;
        }
        for plot in state.plots.values_mut() {
            if plot.tree.is_none() {
                plot.plant(snapshot, &[]);
            }
        }
        state.stage = Stage::Made;
        true
    }

    /// Begins to make one tree anew. Gives the number that the snapshot must have reached.
    pub fn begin_one(&self, place: Place) -> Seq {
        let mut state = self.state();
        let last = state.last;
        state.plots.entry(place).or_default().aside = Some(Vec::new());
        last
    }

    /// Puts a tree in its place: that of what a snapshot shows, and of what was kept aside since. Of a place that was
    /// forgotten since its making began nothing is kept aside, and the snapshot shows what is not there any more.
    pub fn plant(&self, place: Place, snapshot: Seq, items: &[Change]) {
        let mut state = self.state();
        match state.stage {
            Stage::Opening | Stage::Making => {
                state.plots.entry(place).or_default().plant(snapshot, items);
            }
            Stage::Made => {
                let plot = state.plots.get_mut(&place);
                if let Some(plot) = plot.filter(|plot| plot.aside.is_some()) {
                    plot.plant(snapshot, items);
                    state.is_known(place);
                }
            }
        }
    }

    /// Ends the making of one tree: if nothing was met, the place is empty but for what was kept aside.
    pub fn end_one(&self, place: Place, snapshot: Seq) {
        let mut state = self.state();
        if let Some(plot) = state.plots.get_mut(&place)
            && plot.aside.is_some()
        {
            plot.plant(snapshot, &[]);
            state.is_known(place);
        }
    }

    /// Forgets the trees of some places whose rows are deleted. False if all are being made, which then has to be done once
    /// more.
    #[must_use]
    pub fn drop_some(&self, places: &[Place]) -> bool {
        self.drop_as(places, |state| &mut state.unknown)
    }

    /// Forgets the trees of some places, of whose rows some are cut out: until they are made anew, these differ from all
    /// peers'. False as [`Self::drop_some`].
    #[must_use]
    pub fn doubt_some(&self, places: &[Place]) -> bool {
        self.drop_as(places, |state| {
            match planted!("take a tree that is not known for an empty one") {
                true => &mut state.unknown,
                false => &mut state.partial,
            }
        })
    }

    fn drop_as(
        &self,
        places: &[Place],
        noted_in: impl Fn(&mut State) -> &mut BTreeSet<Place>,
    ) -> bool {
        let mut state = self.state();
        if state.stage != Stage::Made {
            state.is_spoilt = true;
            return false;
        }
        for place in places {
            state.plots.remove(place);
            state.partial.remove(place);
        }
        noted_in(&mut state).extend(places);
        true
    }

    /// All places in which something is, or may be.
    #[must_use]
    pub fn places(&self) -> BTreeSet<Place> {
        let state = self.state();
        let is_empty = |plot: &Plot| plot.tree.as_ref().is_some_and(|tree| tree.items() == 0);
        let places = state.plots.iter().filter(|(_, plot)| !is_empty(plot));
        let places = places.map(|(place, _)| *place);
        places.chain(state.partial.iter().copied()).collect()
    }

    /// The buckets in which something was written.
    #[must_use]
    pub fn buckets(&self) -> Vec<BucketId> {
        let state = self.state();
        let mut buckets: Vec<BucketId> = state.plots.keys().map(|(bucket, _)| *bucket).collect();
        buckets.dedup();
        buckets
    }

    /// Forgets the trees of a bucket whose rows are deleted.
    pub fn forget(&self, bucket: BucketId) {
        let mut state = self.state();
        state.plots.retain(|(other, _), _| *other != bucket);
        state.unknown.retain(|(other, _)| *other != bucket);
        state.partial.retain(|(other, _)| *other != bucket);
    }

    /// Places whose trees have become too coarse, or are over some of the rows only.
    #[must_use]
    pub fn to_make(&self) -> BTreeSet<Place> {
        let state = self.state();
        let is_overfull = |plot: &Plot| plot.tree.as_ref().is_some_and(Tree::is_overfull);
        let plots = state.plots.iter();
        let overfull = plots.filter(|(_, plot)| is_overfull(plot));
        let overfull = overfull.map(|(place, _)| *place);
        overfull.chain(state.partial.iter().copied()).collect()
    }

    /// The roots of some places; 0 where nothing is, and what no other node says where that is not known.
    #[must_use]
    pub fn roots(&self, places: &[Place]) -> Vec<u64> {
        let state = self.state();
        let root = |place| match state.tree(place) {
            Some(tree) => tree.root(),
            None if state.partial.contains(place) => self.no_root,
            None => 0,
        };
        places.iter().map(root).collect()
    }

    /// How deep a tree is.
    #[must_use]
    pub fn depth(&self, place: Place) -> u8 {
        self.state().tree(&place).map_or(0, Tree::depth)
    }

    /// Whether nothing is in a place, as far as that is known.
    #[must_use]
    pub fn is_empty(&self, place: Place) -> bool {
        let state = self.state();
        let is_known = state.stage == Stage::Made
            && !state.unknown.contains(&place)
            && !state.partial.contains(&place);
        is_known && state.tree(&place).is_none_or(|tree| tree.items() == 0)
    }

    /// How many items a tree is over.
    #[must_use]
    #[cfg(test)]
    fn items(&self, place: Place) -> u64 {
        self.state().tree(&place).map_or(0, Tree::items)
    }

    /// The sums of the children of nodes at a depth, node after node; `None` if the tree is not that deep.
    #[must_use]
    pub fn children(&self, place: Place, depth: u8, nodes: &[u32]) -> Option<Vec<u64>> {
        let state = self.state();
        let tree = state.tree(&place)?;
        let mut sums = Vec::with_capacity(nodes.len() * FAN_OUT);
        for node in nodes {
            sums.extend(tree.children(depth, *node)?);
        }
        Some(sums)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The tree of a place; `None` if there is none over all of its rows.
    fn tree(&self, place: &Place) -> Option<&Tree> {
        if self.partial.contains(place) {
            return None;
        }
        self.plots.get(place)?.tree.as_ref()
    }
}

impl State {
    fn is_known(&mut self, place: Place) {
        self.unknown.remove(&place);
        self.partial.remove(&place);
    }
}

impl Plot {
    fn plant(&mut self, snapshot: Seq, items: &[Change]) {
        let aside = self.aside.take().unwrap_or_default();
        let mut tree = Tree::for_items((items.len() + aside.len()) as u64);
        let since = aside.iter().filter(|(seq, _)| *seq > snapshot);
        for change in items.iter().chain(since.map(|(_, change)| change)) {
            tree.apply(*change);
        }
        self.tree = Some(tree);
    }
}

impl WriteObserver for Trees {
    fn wrote(&self, write: &Observed<'_>) {
        let Some((bucket, hash)) = storage_key::place(write.key) else {
            return;
        };
        let is_row = matches!(write.kind, WriteKind::Put | WriteKind::Delete);
        if bucket == storage_key::SYSTEM_BUCKET || !is_row {
            return;
        }
        let Some((was, is)) = write.note.split_first_chunk() else {
            return;
        };
        let Ok(is) = is.try_into() else { return };
        let items = (u64::from_le_bytes(*was), u64::from_le_bytes(is));
        self.take_in(write.seq, bucket, hash, items);
    }
}

impl Trees {
    /// One write: the items before and after.
    pub fn take_in(&self, seq: Seq, bucket: BucketId, hash: KeyHash, (was, is): (u64, u64)) {
        let mut state = self.state();
        if state.stage == Stage::Opening {
            return;
        }
        state.last = seq;
        let change = Change {
            position: hash.0 << self.partitions.bits(),
            was,
            is,
        };
        if planted!("leave writes out of the tree") {
            return;
        }
        let is_made = state.stage == Stage::Made;
        let plot = state
            .plots
            .entry((bucket, self.partitions.partition_of(hash)))
            .or_insert_with(|| Plot {
                tree: is_made.then(|| Tree::for_items(0)),
                aside: None,
            });
        if let Some(tree) = &mut plot.tree {
            tree.apply(change);
            if plot.aside.is_none() {
                return;
            }
        }
        plot.aside.get_or_insert_default().push((seq, change));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_storage::{Durability, Options, WriteBatch};
    use kv_types::Key;
    use std::path::Path;
    use std::sync::Arc;

    const BUCKET: BucketId = BucketId(1);

    fn key(n: u64) -> Vec<u8> {
        let hash = KeyHash(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let key = Key::new(format!("k{n}")).expect("short");
        storage_key::encode(BUCKET, hash, &key).to_vec()
    }

    /// Writes of some keys, over and over, while trees are made: whatever the moment, they end as those of a store at
    /// rest.
    #[test]
    fn trees_made_while_writes_go_on_are_those_of_what_is_stored() {
        for begin_at in [0, 1, 50, 199] {
            let trees = Arc::new(Trees::new(PartitionCount::MIN, 1));
            let mut env = kv_storage::Env::embedded(7);
            env.hooks.observer = Some(Arc::clone(&trees) as Arc<dyn WriteObserver>);
            env.fs = Arc::new(kv_storage::sim::SimFs::new());
            let db = kv_storage::Db::open(Path::new("/d"), Options::tiny(), env).expect("opens");
            let mut items: BTreeMap<u64, u64> = BTreeMap::new();
            let mut snapshot = None;
            for n in 0..200_u64 {
                if n == begin_at {
                    trees.begin();
                    snapshot = Some((db.snapshot().seq(), items.clone()));
                }
                let (which, is) = (n % 23, n + 1);
                let was = items.insert(which, is).unwrap_or(0);
                let mut batch = WriteBatch::new();
                batch.put_noted(&key(which), b"v", &note(was, is));
                let commit = db.write(batch, Durability::Process).expect("room");
                drop(commit);
                if n == 150.max(begin_at) {
                    let (seq, shown) = snapshot.take().expect("begun");
                    plant(&trees, seq, &shown);
                    assert!(trees.end(seq));
                }
            }
            let expected = Trees::new(PartitionCount::MIN, 1);
            expected.begin();
            plant(&expected, Seq(0), &items);
            assert!(expected.end(Seq(0)));
            let places: Vec<Place> = PartitionCount::MIN.iter().map(|p| (BUCKET, p)).collect();
            assert!(trees.are_made());
            assert_eq!(
                trees.roots(&places),
                expected.roots(&places),
                "from {begin_at}"
            );
            let count = |trees: &Trees| places.iter().map(|p| trees.items(*p)).sum::<u64>();
            assert_eq!(count(&trees), items.len() as u64);
        }
    }

    #[test]
    fn a_tree_that_is_made_of_what_was_deleted_meanwhile_is_not_planted() {
        let trees = Trees::new(PartitionCount::MIN, 1);
        trees.begin();
        assert!(trees.end(Seq(0)));
        let hash = KeyHash(1 << 40);
        let place = (BUCKET, PartitionCount::MIN.partition_of(hash));
        trees.take_in(Seq(1), BUCKET, hash, (0, 7));
        let held = trees.roots(&[place]);
        let snapshot = trees.begin_one(place);
        assert!(trees.drop_some(&[place]));
        trees.take_in(Seq(2), BUCKET, hash, (0, 9));
        let written_since = trees.roots(&[place]);
        let position = hash.0 << PartitionCount::MIN.bits();
        let deleted = Change {
            position,
            was: 0,
            is: 7,
        };
        trees.plant(place, snapshot, &[deleted]);
        trees.end_one(place, snapshot);
        assert_eq!(trees.roots(&[place]), written_since);
        assert_ne!(written_since, held);
        assert!(trees.drop_some(&[place]));
        assert!(!trees.is_empty(place), "nobody knows");
        let snapshot = trees.begin_one(place);
        trees.end_one(place, snapshot);
        assert!(trees.is_empty(place));
    }

    #[test]
    fn where_rows_are_cut_out_a_tree_is_like_no_other_until_it_is_made_anew() {
        let hash = KeyHash(1 << 40);
        let place = (BUCKET, PartitionCount::MIN.partition_of(hash));
        let [one, other] = [5, 6].map(|no_root| {
            let trees = Trees::new(PartitionCount::MIN, no_root);
            trees.begin();
            assert!(trees.end(Seq(0)));
            trees
        });
        assert_eq!(one.roots(&[place]), other.roots(&[place]), "both are empty");
        assert!(one.doubt_some(&[place]));
        assert_ne!(one.roots(&[place]), other.roots(&[place]));
        assert!(other.doubt_some(&[place]));
        assert_ne!(one.roots(&[place]), other.roots(&[place]), "nobody knows");
        // What is written meanwhile is not all that is there.
        let doubted = one.roots(&[place]);
        one.take_in(Seq(1), BUCKET, hash, (0, 7));
        assert_eq!(one.roots(&[place]), doubted);
        assert_eq!((one.depth(place), one.children(place, 0, &[0])), (0, None));
        assert!(!one.is_empty(place));
        let snapshot = one.begin_one(place);
        let position = hash.0 << PartitionCount::MIN.bits();
        let was = 0;
        let written = Change {
            position,
            was,
            is: 7,
        };
        one.plant(place, snapshot, &[written]);
        let made = one.roots(&[place]);
        one.take_in(Seq(2), BUCKET, hash, (7, 0));
        assert_eq!(one.roots(&[place]), [0]);
        assert!(made != [0] && made != doubted);
    }

    fn plant(trees: &Trees, seq: Seq, items: &BTreeMap<u64, u64>) {
        let mut by_place: BTreeMap<Place, Vec<Change>> = BTreeMap::new();
        for (which, is) in items {
            let (bucket, hash) = storage_key::place(&key(*which)).expect("a key");
            let place = (bucket, PartitionCount::MIN.partition_of(hash));
            by_place.entry(place).or_default().push(Change {
                position: hash.0 << PartitionCount::MIN.bits(),
                was: 0,
                is: *is,
            });
        }
        for (place, items) in by_place {
            trees.plant(place, seq, &items);
        }
    }
}
