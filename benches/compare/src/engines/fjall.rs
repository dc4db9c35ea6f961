//! fjall. It has no zstd, so it compresses with LZ4.

use crate::dataset::Key;
use crate::engine::{Budget, Engine, SeeRow};
use anyhow::Result;
use fjall::config::{
    BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry,
};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Log on disk that makes it write out memtables. Large, so that memtables are full when they are.
const JOURNAL_BYTES: u64 = 1 << 30;
/// How often [`Engine::settle`] looks, and how many quiet looks in a row it wants.
const LOOK: Duration = Duration::from_millis(20);
const QUIET_LOOKS: u32 = 5;

struct Fjall {
    database: Database,
    keyspace: Keyspace,
}

/// Opens a store.
pub(super) fn open(folder: &Path, budget: &Budget) -> Result<Box<dyn Engine>> {
    let database = Database::builder(folder)
        .cache_size(budget.cache_bytes as u64)
        .worker_threads(budget.background_threads)
        .max_journaling_size(JOURNAL_BYTES)
        .open()?;
    let keyspace = database.keyspace("rows", || options(budget))?;
    Ok(Box::new(Fjall { database, keyspace }))
}

fn options(budget: &Budget) -> KeyspaceCreateOptions {
    let filter = BloomConstructionPolicy::BitsPerKey(budget.filter_bits_per_key as f32);
    KeyspaceCreateOptions::default()
        .max_memtable_size(budget.memtable_bytes as u64)
        .data_block_size_policy(BlockSizePolicy::all(budget.block_bytes as u32))
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
        .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(filter)))
}

impl Engine for Fjall {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.keyspace.insert(key, value)?)
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.keyspace.insert(key, value)?;
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn get(&self, key: &[u8], see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.keyspace.get(key)?;
        if let Some(value) = &value {
            see(value);
        }
        Ok(value.is_some())
    }

    fn scan(&self, start: &[u8], limit: usize, see: SeeRow<'_>) -> Result<usize> {
        let mut rows = 0;
        for row in self.keyspace.range(start..).take(limit) {
            let (key, value) = row.into_inner()?;
            see(&key, &value);
            rows += 1;
        }
        Ok(rows)
    }

    fn load(&self, rows: &[(Key, Vec<u8>)]) -> Result<()> {
        let mut batch = self.database.batch();
        for (key, value) in rows {
            batch.insert(&self.keyspace, key.as_slice(), value.as_slice());
        }
        Ok(batch.commit()?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.keyspace.rotate_memtable_and_wait()?)
    }

    fn settle(&self) -> Result<()> {
        let mut quiet = 0;
        while quiet < QUIET_LOOKS {
            let busy = self.database.outstanding_flushes() + self.database.active_compactions();
            quiet = if busy == 0 { quiet + 1 } else { 0 };
            thread::sleep(LOOK);
        }
        Ok(())
    }
}
