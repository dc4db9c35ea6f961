//! The engine's settings and their limits.

use crate::error::OpenError;

/// Longest key in bytes.
pub const MAX_KEY_BYTES: usize = 65_535;

/// Settings of one open store. They may differ at every open; none of them is stored.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// Size at which a memtable is sealed and flushed, in bytes (default 64 MiB). Raising it means fewer,
    /// larger flushes and less compaction; lowering it saves memory and makes recovery shorter.
    pub memtable_bytes: usize,
    /// Sealed memtables that may wait for their flush before writes get `Busy` (default 3).
    pub sealed_memtables_max: usize,
    /// Log bytes that may wait to be handed to the operating system before writes get `Busy` (default 32 MiB).
    pub log_buffer_bytes: usize,
    /// Largest batch in encoded bytes (default 32 MiB).
    pub max_batch_bytes: usize,
    /// Uncompressed size at which a data block is cut (default 8 KiB). Larger blocks compress better
    /// and scan faster; smaller ones make cold reads cheaper.
    pub block_bytes: usize,
    /// zstd level of data blocks (default 1; 0 stores them uncompressed).
    pub zstd_level: i32,
    /// Bloom filter bits per key (default 10, about 1 % false positives; 0 writes no filter).
    pub filter_bits_per_key: u32,
    /// Size of the tables that compactions write, in bytes on disk (default 32 MiB): three quarters to twice
    /// this, to end at good places. Smaller tables make partial compactions finer and files more.
    pub table_bytes: u64,
    /// Runs in level 0 that start a compaction (default 5). Raising it saves writing and costs readers.
    pub level0_trigger: usize,
    /// Runs in level 0 at which writes get `Busy` (default 24). They are slowed down from 60 % of that on.
    pub level0_stop: usize,
    /// Runs between level 0 and the bottom before some of them are merged (default 6). Raising it saves
    /// writing and costs readers.
    pub middle_runs_max: usize,
    /// Space that may be taken in percent of what one sorted run would take, before the middle is merged into
    /// the bottom (default 130). Lowering it saves space and costs writing.
    pub space_percent: u32,
    /// Compactions that may be under way at once (default 2). With at least 2, one place is kept for level 0.
    pub compactions_max: usize,
    /// Input bytes one compaction job works through before it yields (default 8 MiB).
    pub compaction_step_bytes: u64,
    /// Write tables past the page cache, where the file system can (default true). Otherwise they go through it,
    /// and stay in it as long as there is room.
    pub direct_io: bool,
    /// Decoded blocks kept in memory, in bytes (default 64 MiB).
    pub block_cache_bytes: u64,
    /// Free disk space below which writes get `Full` (default 64 MiB; 0 never looks).
    pub min_free_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memtable_bytes: 64 << 20,
            sealed_memtables_max: 3,
            log_buffer_bytes: 32 << 20,
            max_batch_bytes: 32 << 20,
            block_bytes: 8 << 10,
            zstd_level: 1,
            filter_bits_per_key: 10,
            table_bytes: 32 << 20,
            level0_trigger: 5,
            level0_stop: 24,
            middle_runs_max: 6,
            space_percent: 130,
            compactions_max: 2,
            compaction_step_bytes: 8 << 20,
            direct_io: true,
            block_cache_bytes: 64 << 20,
            min_free_bytes: 64 << 20,
        }
    }
}

impl Options {
    /// Tiny sizes, so that a few kilobytes already cause flushes and compactions over several
    /// levels: for tests and simulation.
    pub fn tiny() -> Self {
        Self {
            memtable_bytes: 4 << 10,
            log_buffer_bytes: 64 << 10,
            max_batch_bytes: 1 << 20,
            block_bytes: 512,
            table_bytes: 4 << 10,
            level0_trigger: 3,
            middle_runs_max: 3,
            compaction_step_bytes: 4 << 10,
            block_cache_bytes: 16 << 10,
            min_free_bytes: 0,
            ..Self::default()
        }
    }

    /// Refuses settings the engine cannot work with.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let rules: [(&'static str, bool, &'static str); 13] = [
            (
                "memtable_bytes",
                self.memtable_bytes >= 1024,
                "must be at least 1024",
            ),
            (
                "sealed_memtables_max",
                self.sealed_memtables_max >= 1,
                "must be at least 1",
            ),
            (
                "log_buffer_bytes",
                self.log_buffer_bytes >= 1024,
                "must be at least 1024",
            ),
            (
                "max_batch_bytes",
                (1024..=1 << 30).contains(&self.max_batch_bytes),
                "must be 1 KiB to 1 GiB",
            ),
            (
                "block_bytes",
                (64..=1 << 20).contains(&self.block_bytes),
                "must be 64 B to 1 MiB",
            ),
            (
                "zstd_level",
                (0..=19).contains(&self.zstd_level),
                "must be 0 to 19",
            ),
            (
                "filter_bits_per_key",
                self.filter_bits_per_key <= 64,
                "must be at most 64",
            ),
            (
                "table_bytes",
                self.table_bytes >= 1024,
                "must be at least 1024",
            ),
            (
                "level0_trigger",
                self.level0_trigger >= 1,
                "must be at least 1",
            ),
            (
                "level0_stop",
                self.level0_trigger.saturating_mul(2) <= self.level0_stop,
                "must be at least twice level0_trigger",
            ),
            (
                "middle_runs_max",
                self.middle_runs_max >= 1,
                "must be at least 1",
            ),
            (
                "space_percent",
                self.space_percent > 100,
                "must be above 100",
            ),
            (
                "compactions_max",
                self.compactions_max >= 1,
                "must be at least 1",
            ),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((name, _, problem)) => Err(OpenError::InvalidOption { name, problem }),
            None => Ok(()),
        }
    }
}
