//! The block cache: decoded blocks, bounded by their bytes.

use crate::hash::FixedState;
use crate::table::Block;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A block is named by its table file and its number in it, which is known before the block's handle
/// is looked up. File numbers are never reused while a store is open.
type BlockName = (u64, usize);

#[derive(Debug, Clone)]
struct BlockWeight;

impl Weighter<BlockName, Arc<Block>> for BlockWeight {
    fn weight(&self, _name: &BlockName, block: &Arc<Block>) -> u64 {
        block.size_bytes() as u64 + 64
    }
}

/// Shared by all tables of a store. Eviction depends only on the order of calls, so a
/// single-threaded run repeats exactly.
pub(crate) struct BlockCache {
    blocks: Cache<
        BlockName,
        Arc<Block>,
        BlockWeight,
        FixedState,
        DefaultLifecycle<BlockName, Arc<Block>>,
    >,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl BlockCache {
    pub(crate) fn new(capacity_bytes: u64, block_bytes: usize) -> Self {
        let blocks = usize::try_from(capacity_bytes / block_bytes as u64)
            .unwrap_or(usize::MAX)
            .max(16);
        let options = OptionsBuilder::new()
            .weight_capacity(capacity_bytes)
            .estimated_items_capacity(blocks)
            // Not derived from the number of cores: that would make eviction differ between machines.
            .shards(if capacity_bytes >= 1 << 20 { 16 } else { 1 })
            .build()
            .expect("both required options are set");
        let blocks = Cache::with_options(
            options,
            BlockWeight,
            FixedState::default(),
            DefaultLifecycle::default(),
        );
        Self {
            blocks,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    pub(crate) fn get(&self, file: u64, number: usize) -> Option<Arc<Block>> {
        let found = self.blocks.get(&(file, number));
        let counter = if found.is_some() {
            &self.hits
        } else {
            &self.misses
        };
        counter.fetch_add(1, Relaxed);
        found
    }

    pub(crate) fn insert(&self, file: u64, number: usize, block: Arc<Block>) {
        self.blocks.insert((file, number), block);
    }

    /// Hits and misses so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.hits.load(Relaxed), self.misses.load(Relaxed))
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.blocks.weight()
    }
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache")
            .field("size_bytes", &self.size_bytes())
            .finish_non_exhaustive()
    }
}
