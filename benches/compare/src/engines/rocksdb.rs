//! RocksDB with its defaults, which do better on two cores than what an expert would switch on.

use crate::dataset::Key;
use crate::engine::{Budget, Engine, SeeRow};
use anyhow::{Result, anyhow};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Options, ReadOptions, WriteBatch, WriteOptions,
};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// zlib's window; zstd ignores it.
const WINDOW_BITS: i32 = -14;
/// Read-ahead of a full scan.
const READ_AHEAD_BYTES: usize = 1 << 20;
/// How often [`Engine::settle`] looks, and how many quiet looks in a row it wants.
const LOOK: Duration = Duration::from_millis(20);
const QUIET_LOOKS: u32 = 5;
/// Any of these above zero means background work.
const BUSY_PROPERTIES: [&str; 4] = [
    "rocksdb.num-running-compactions",
    "rocksdb.compaction-pending",
    "rocksdb.num-running-flushes",
    "rocksdb.mem-table-flush-pending",
];

struct RocksDb {
    db: DB,
    plain: WriteOptions,
    durable: WriteOptions,
}

/// Opens a store.
pub(super) fn open(folder: &Path, budget: &Budget) -> Result<Box<dyn Engine>> {
    let mut durable = WriteOptions::default();
    durable.set_sync(true);
    Ok(Box::new(RocksDb {
        db: DB::open(&options(budget), folder)?,
        plain: WriteOptions::default(),
        durable,
    }))
}

fn options(budget: &Budget) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(budget.cache_bytes));
    table.set_block_size(budget.block_bytes);
    table.set_format_version(5);
    table.set_bloom_filter(f64::from(budget.filter_bits_per_key), false);
    // Otherwise they would stand beside the cache and outside the budget.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(budget.memtable_bytes);
    options.set_max_background_jobs(budget.background_threads as i32);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_bytes_per_sync(1 << 20);
    options.set_compression_type(DBCompressionType::Zstd);
    options.set_compression_options(WINDOW_BITS, budget.zstd_level, 0, 0);
    options
}

impl RocksDb {
    fn rows(
        &self,
        options: ReadOptions,
        start: &[u8],
        limit: usize,
        see: SeeRow<'_>,
    ) -> Result<usize> {
        let mut rows = self.db.raw_iterator_opt(options);
        rows.seek(start);
        let mut count = 0;
        while count < limit {
            let Some((key, value)) = rows.item() else {
                break;
            };
            see(key, value);
            count += 1;
            rows.next();
        }
        rows.status()?;
        Ok(count)
    }

    fn is_busy(&self) -> Result<bool> {
        for name in BUSY_PROPERTIES {
            let value = self.db.property_int_value(name)?;
            if value.ok_or_else(|| anyhow!("RocksDB has no property {name}"))? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Engine for RocksDb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.db.put_opt(key, value, &self.plain)?)
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.db.put_opt(key, value, &self.durable)?)
    }

    fn get(&self, key: &[u8], see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.db.get_pinned(key)?;
        if let Some(value) = &value {
            see(value);
        }
        Ok(value.is_some())
    }

    fn scan(&self, start: &[u8], limit: usize, see: SeeRow<'_>) -> Result<usize> {
        self.rows(ReadOptions::default(), start, limit, see)
    }

    fn scan_all(&self, see: SeeRow<'_>) -> Result<usize> {
        let mut options = ReadOptions::default();
        options.set_readahead_size(READ_AHEAD_BYTES);
        options.fill_cache(false);
        self.rows(options, &[], usize::MAX, see)
    }

    fn load(&self, rows: &[(Key, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in rows {
            batch.put(key, value);
        }
        Ok(self.db.write_opt(batch, &self.plain)?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.db.flush()?)
    }

    fn settle(&self) -> Result<()> {
        let mut quiet = 0;
        while quiet < QUIET_LOOKS {
            quiet = if self.is_busy()? { 0 } else { quiet + 1 };
            thread::sleep(LOOK);
        }
        Ok(())
    }
}
