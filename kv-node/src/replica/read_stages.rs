//! Where reads found what they asked for: memory, table files, or nowhere.

use std::sync::atomic::{AtomicU64, Ordering};

use kv_net::message::ReadSource;

/// How many reads ended at each stage since the start.
#[derive(Debug, Default)]
pub struct ReadStages([AtomicU64; 5]);

impl ReadStages {
    /// The names of the stages, from the nearest to the farthest; the last one is that of what is not there.
    pub const NAMES: [&str; 5] = ["row_cache", "memtable", "block_cache", "disk", "nowhere"];

    pub(super) fn note(&self, source: Option<ReadSource>) {
        let stage = match source {
            Some(ReadSource::RowCache) => 0,
            Some(ReadSource::Memtable) => 1,
            Some(ReadSource::BlockCache) => 2,
            Some(ReadSource::Disk) => 3,
            None => 4,
        };
        self.0[stage].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts, in the order of the names.
    #[must_use]
    pub fn counts(&self) -> [u64; 5] {
        self.0.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}
