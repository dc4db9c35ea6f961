//! The Merkle tree over one partition of one bucket. Pure.
//!
//! Merkle (1987), with sums in place of hashes of hashes: an item is a keyed hash of a key and of its object's digest, and
//! a node is the sum of the items below it, so that a change costs one addition on each level that is kept. Only the
//! leaves and the root are: a coarser tree is sums of a finer one's leaves, and so trees of different depths can be compared.

/// Children of a node.
pub const FAN_OUT: usize = 16;
const FAN_OUT_BITS: u32 = 4;
/// Items that a leaf should have at most.
const ITEMS_PER_LEAF: u64 = 16;
/// The deepest tree: 16,777,216 leaves.
const MAX_DEPTH: u8 = 6;

/// One change of a partition: an item goes, another comes; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The key's hash, without the bits that name its partition, from the left.
    pub position: u64,
    /// The item before.
    pub was: u64,
    /// The item after.
    pub is: u64,
}

/// Sums of items over equal parts of a partition's hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    depth: u8,
    items: u64,
    root: u64,
    leaves: Vec<u64>,
}

impl Tree {
    /// An empty tree that is right for so many items.
    #[must_use]
    pub fn for_items(items: u64) -> Self {
        let depth = (0..MAX_DEPTH)
            .find(|depth| items <= ITEMS_PER_LEAF << (FAN_OUT_BITS * u32::from(*depth)))
            .unwrap_or(MAX_DEPTH);
        Self {
            depth,
            items: 0,
            root: 0,
            leaves: vec![0; leaves_at(depth)],
        }
    }

    /// Takes in a change.
    pub fn apply(&mut self, change: Change) {
        self.items = self
            .items
            .wrapping_add(u64::from(change.is != 0))
            .wrapping_sub(u64::from(change.was != 0));
        let leaf = &mut self.leaves[node_at(change.position, self.depth)];
        for sum in [leaf, &mut self.root] {
            *sum = sum.wrapping_add(change.is).wrapping_sub(change.was);
        }
    }

    /// Levels below the root.
    #[must_use]
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// How many items it is over.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.items
    }

    /// Whether its leaves have become so full that it should be made anew.
    #[must_use]
    pub fn is_overfull(&self) -> bool {
        self.depth < MAX_DEPTH && self.items > 2 * ITEMS_PER_LEAF * self.leaves.len() as u64
    }

    /// The sum of everything.
    #[must_use]
    pub fn root(&self) -> u64 {
        self.root
    }

    /// The sums of the children of a node at `depth`; `None` where it is a leaf, or not in the tree.
    #[must_use]
    pub fn children(&self, depth: u8, node: u32) -> Option<[u64; FAN_OUT]> {
        if depth >= self.depth || node as usize >= leaves_at(depth) {
            return None;
        }
        let width = leaves_at(self.depth - depth - 1);
        let first = node as usize * FAN_OUT * width;
        Some(core::array::from_fn(|child| {
            sum(&self.leaves[first + child * width..][..width])
        }))
    }
}

fn sum(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |sum, part| sum.wrapping_add(*part))
}

fn leaves_at(depth: u8) -> usize {
    1 << (FAN_OUT_BITS * u32::from(depth))
}

/// The node at a depth under which a position lies.
fn node_at(position: u64, depth: u8) -> usize {
    match u64::BITS - FAN_OUT_BITS * u32::from(depth) {
        u64::BITS => 0,
        shift => (position >> shift) as usize,
    }
}

/// The positions under a node, first and last.
#[must_use]
pub fn positions(depth: u8, node: u32) -> (u64, u64) {
    match u64::BITS - FAN_OUT_BITS * u32::from(depth.min(MAX_DEPTH)) {
        u64::BITS => (0, u64::MAX),
        shift => {
            let first = u64::from(node) << shift;
            (first, first | ((1 << shift) - 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(position: u64, is: u64) -> Change {
        Change {
            position,
            was: 0,
            is,
        }
    }

    proptest! {
        #[test]
        fn a_tree_is_a_function_of_its_items_and_not_of_their_history(
            items in proptest::collection::vec((any::<u64>(), 1..u64::MAX), 0..60),
            replaced in proptest::collection::vec((0..60_usize, 1..u64::MAX), 0..30),
        ) {
            let mut items = items;
            let mut lived = Tree::for_items(2_000);
            for (position, is) in &items {
                lived.apply(put(*position, *is));
            }
            for (place, is) in replaced {
                if let Some((position, was)) = items.get_mut(place) {
                    lived.apply(Change { position: *position, was: *was, is });
                    *was = is;
                }
            }
            let mut fresh = Tree::for_items(2_000);
            for (position, is) in items.iter().rev() {
                fresh.apply(put(*position, *is));
            }
            prop_assert_eq!(lived.items(), items.len() as u64);
            prop_assert_eq!(lived, fresh);
        }

        #[test]
        fn trees_of_other_depths_agree_wherever_both_have_nodes(
            items in proptest::collection::vec((any::<u64>(), 1..u64::MAX), 0..60),
        ) {
            let mut trees = [10, 100, 3_000, 50_000].map(Tree::for_items);
            for (position, is) in &items {
                for tree in &mut trees {
                    tree.apply(put(*position, *is));
                }
            }
            prop_assert_eq!(trees.each_ref().map(Tree::depth), [0, 1, 2, 3]);
            for pair in trees.windows(2) {
                prop_assert_eq!(pair[0].root(), pair[1].root());
                prop_assert_eq!(pair[0].root(), sum(&pair[0].leaves));
                for depth in 0..pair[0].depth() {
                    for node in 0..leaves_at(depth) as u32 {
                        let children = pair[0].children(depth, node);
                        prop_assert!(children.is_some());
                        prop_assert_eq!(children, pair[1].children(depth, node));
                    }
                }
            }
        }
    }

    #[test]
    fn a_node_knows_where_it_is() {
        for depth in 0..=MAX_DEPTH {
            for node in [0, leaves_at(depth) as u32 - 1] {
                let (first, last) = positions(depth, node);
                assert_eq!(node_at(first, depth), node as usize);
                assert_eq!(node_at(last, depth), node as usize);
            }
        }
        assert_eq!(positions(1, 15), (0xf << 60, u64::MAX));
    }

    #[test]
    fn a_tree_grows_with_its_items() {
        for (items, depth) in [(0, 0), (16, 0), (17, 1), (256, 1), (257, 2), (u64::MAX, 6)] {
            assert_eq!(Tree::for_items(items).depth(), depth, "{items} items");
        }
        let mut tree = Tree::for_items(0);
        for n in 1..=33 {
            assert!(!tree.is_overfull());
            tree.apply(put(n, n));
        }
        assert!(tree.is_overfull());
        assert_eq!(tree.children(0, 0), None, "it has only a root");
        assert_eq!(Tree::for_items(100).children(0, 1), None);
        assert_eq!(Tree::for_items(100).children(1, 0), None);
    }
}
