//! The engine's settings and their limits.

use crate::compress::Compression;
use crate::error::OpenError;
use crate::memtable::MAX_MEMTABLE_BYTES;

/// Longest key in bytes.
pub const MAX_KEY_BYTES: usize = 65_535;

/// Settings of one open store. They may differ at every open; none of them is stored.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// Size at which a memtable is sealed and flushed, in bytes (default 64 MiB). Raising it means fewer,
    /// larger flushes and less compaction; lowering it saves memory and makes recovery shorter.
    pub memtable_bytes: usize,
    /// Sealed memtables that may wait for their flush before writes get `Busy` (default 1). Memtables take up to one
    /// more than this times `memtable_bytes`; writers are slowed down in the last half of the last of them. Raising it lets longer
    /// bursts pass at full speed.
    pub sealed_memtables_max: usize,
    /// Size of a log segment, in bytes (default 4 MiB). Segments are filled with zeros before their first use and
    /// used again afterwards; as many are kept as two memtables fill. Lowering it saves disk space in small stores.
    pub log_segment_bytes: u64,
    /// Largest batch in encoded bytes (default 32 MiB). Lowering it bounds the memory of one write.
    pub max_batch_bytes: usize,
    /// How flushes and compactions write tables below which lies older data.
    pub upper_tables: TableOptions,
    /// How compactions write tables of the lowest level that has data: most of the store.
    pub bottom_tables: TableOptions,
    /// Size of the tables that compactions write, in bytes on disk (default 32 MiB): three quarters to twice
    /// this, to end at good places. Smaller tables make partial compactions finer and files more.
    pub table_bytes: u64,
    /// Values of at least this many bytes are kept in files of their own, so that compaction does not copy them
    /// (default 2 KiB; 0 never does). Ingested values stay in their tables until a compaction rewrites those. Lowering it saves writing when such values are overwritten, and makes scans
    /// read each of them from its own place; raising it does the reverse, and lets the row cache serve more.
    pub blob_value_bytes: usize,
    /// Size at which a file of large values is ended, in bytes (default 64 MiB); a flush ends its own earlier.
    /// Smaller files give space back in smaller pieces, and are more.
    pub blob_file_bytes: u64,
    /// Share of a file of large values, in percent, that must be garbage before what is left is written anew and
    /// the file removed (default 50; at 100 a file goes only when nothing is left). Once half of that share of all
    /// files together is garbage, files with half of it count too. Lowering it saves space and costs writing: at
    /// 50, about a byte is rewritten for each byte that becomes free.
    pub blob_garbage_percent: u32,
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
    /// Write tables past the page cache, where the file system can (default false). Otherwise they go through it, and
    /// stay in it as long as there is room, so that what was just compacted is read from memory. Set it where
    /// other programs need the page cache more.
    pub direct_io: bool,
    /// Memory for what is kept of tables, in bytes (default 80 MiB): decoded blocks, single rows, and the
    /// indexes and filters of open tables. The last two always stay; the rest is divided between blocks and
    /// rows by what saves more reads. Raising it saves reads of the disk; 0 keeps only indexes and filters.
    pub cache_bytes: u64,
    /// Free disk space below which writes get `Full` (default 64 MiB; 0 never looks).
    pub min_free_bytes: u64,
    /// Size of the ballast, in bytes (default 16 MiB; 0 keeps none): a file that is given back when the disk
    /// runs full, so that flushes and compactions can still free space, and the store can be opened for reading.
    /// Writes get `Full` from then on, until there is room to make it again. Raise it with `memtable_bytes`
    /// where others fill the disk too.
    pub ballast_bytes: u64,
}

/// How the tables of one kind are written. Tables that exist stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableOptions {
    /// Most memory that a data block takes, in bytes (default 4 KiB), if it holds more than one entry. Larger
    /// blocks compress better and scan faster; smaller ones make reads from disk cheaper.
    pub block_bytes: usize,
    /// How data blocks are compressed (default LZ4, and zstd at level 1 at the bottom). A block that it
    /// makes smaller by less than 12 % is stored as it is.
    pub compression: Compression,
    /// Bloom filter bits per key (default 14, about 0.15 % false positives, and 10 at the bottom, about
    /// 1 %; 0 writes no filter). Filters stay in memory.
    pub filter_bits_per_key: u32,
}

impl TableOptions {
    /// The rules that its fields break or keep, with their names.
    fn rules(&self) -> [(&'static str, bool, &'static str); 3] {
        let level_is_known = match self.compression {
            Compression::None | Compression::Lz4 => true,
            Compression::Zstd(level) | Compression::ZstdDictionary(level) => {
                (1..=19).contains(&level)
            }
        };
        [
            (
                "block_bytes",
                (64..=1 << 20).contains(&self.block_bytes),
                "must be 64 B to 1 MiB",
            ),
            (
                "compression",
                level_is_known,
                "must have a zstd level of 1 to 19",
            ),
            (
                "filter_bits_per_key",
                self.filter_bits_per_key <= 64,
                "must be at most 64",
            ),
        ]
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memtable_bytes: 64 << 20,
            sealed_memtables_max: 1,
            log_segment_bytes: 4 << 20,
            max_batch_bytes: 32 << 20,
            upper_tables: TableOptions {
                block_bytes: 4 << 10,
                compression: Compression::Lz4,
                filter_bits_per_key: 14,
            },
            bottom_tables: TableOptions {
                block_bytes: 4 << 10,
                compression: Compression::Zstd(1),
                filter_bits_per_key: 10,
            },
            table_bytes: 32 << 20,
            blob_value_bytes: 2 << 10,
            blob_file_bytes: 64 << 20,
            blob_garbage_percent: 50,
            level0_trigger: 5,
            level0_stop: 24,
            middle_runs_max: 6,
            space_percent: 130,
            compactions_max: 2,
            compaction_step_bytes: 8 << 20,
            direct_io: false,
            cache_bytes: 80 << 20,
            min_free_bytes: 64 << 20,
            ballast_bytes: 16 << 20,
        }
    }
}

impl Options {
    /// Tiny sizes, so that a few kilobytes already cause flushes and compactions over several
    /// levels: for tests and simulation.
    pub fn tiny() -> Self {
        let default = Self::default();
        Self {
            memtable_bytes: 4 << 10,
            sealed_memtables_max: 3,
            log_segment_bytes: 4 << 10,
            max_batch_bytes: 1 << 20,
            upper_tables: TableOptions {
                block_bytes: 512,
                ..default.upper_tables
            },
            bottom_tables: TableOptions {
                block_bytes: 512,
                ..default.bottom_tables
            },
            table_bytes: 4 << 10,
            blob_value_bytes: 200,
            blob_file_bytes: 2 << 10,
            level0_trigger: 3,
            middle_runs_max: 3,
            compaction_step_bytes: 4 << 10,
            cache_bytes: 24 << 10,
            min_free_bytes: 0,
            ballast_bytes: 0,
            ..default
        }
    }

    /// Refuses settings the engine cannot work with.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let rules: [(&'static str, bool, &'static str); 14] = [
            (
                "memtable_bytes",
                (1024..=MAX_MEMTABLE_BYTES).contains(&self.memtable_bytes),
                "must be 1 KiB to 1 GiB",
            ),
            (
                "sealed_memtables_max",
                self.sealed_memtables_max >= 1,
                "must be at least 1",
            ),
            (
                "log_segment_bytes",
                (1024..=1 << 30).contains(&self.log_segment_bytes),
                "must be 1 KiB to 1 GiB",
            ),
            (
                "max_batch_bytes",
                (1024..=512 << 20).contains(&self.max_batch_bytes),
                "must be 1 KiB to 512 MiB",
            ),
            (
                "table_bytes",
                self.table_bytes >= 1024,
                "must be at least 1024",
            ),
            (
                "blob_value_bytes",
                self.blob_value_bytes == 0 || self.blob_value_bytes >= 64,
                "must be 0 or at least 64",
            ),
            (
                "blob_file_bytes",
                self.blob_file_bytes >= 1024,
                "must be at least 1024",
            ),
            (
                "blob_garbage_percent",
                (1..=100).contains(&self.blob_garbage_percent),
                "must be 1 to 100",
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
                "compaction_step_bytes",
                self.compaction_step_bytes >= 1,
                "must be at least 1",
            ),
            (
                "compactions_max",
                self.compactions_max >= 1,
                "must be at least 1",
            ),
        ];
        let tables = [self.upper_tables, self.bottom_tables];
        let mut rules = rules
            .into_iter()
            .chain(tables.iter().flat_map(TableOptions::rules));
        match rules.find(|(_, holds, _)| !holds) {
            Some((name, _, problem)) => Err(OpenError::InvalidOption { name, problem }),
            None => Ok(()),
        }
    }
}
