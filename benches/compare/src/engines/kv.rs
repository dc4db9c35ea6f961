//! Our engine.

mod jobs;

use crate::dataset::Key;
use crate::engine::{Budget, Engine, SeeRow};
use anyhow::Result;
use jobs::JobThreads;
use kv_storage::{Compression, Db, Durability, Env, Jobs, Options, WriteBatch};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How often [`Engine::settle`] looks, and how many quiet looks in a row it wants.
const LOOK: Duration = Duration::from_millis(100);
const QUIET_LOOKS: u32 = 15;

struct Kv {
    db: Db,
    jobs: Arc<JobThreads>,
}

/// Opens a store, with threads for its jobs.
pub(super) fn open(folder: &Path, budget: &Budget) -> Result<Box<dyn Engine>> {
    let jobs = Arc::new(JobThreads::start(budget.background_threads));
    // Real files and the real clock, as for any embedder, but with threads.
    let env = Env {
        jobs: Arc::clone(&jobs) as Arc<dyn Jobs>,
        ..Env::embedded(1)
    };
    let db = Db::open(folder, options(budget), env)?;
    Ok(Box::new(Kv { db, jobs }))
}

fn options(budget: &Budget) -> Options {
    let mut options = Options::default();
    options.memtable_bytes = budget.memtable_bytes;
    // Codecs by level are the engine's own choice: LZ4 above, zstd at the bottom, where most data is.
    options.bottom_tables.compression = Compression::Zstd(budget.zstd_level);
    for tables in [&mut options.upper_tables, &mut options.bottom_tables] {
        tables.block_bytes = budget.block_bytes;
        tables.filter_bits_per_key = budget.filter_bits_per_key;
    }
    options.cache_bytes = budget.cache_bytes as u64;
    options
}

impl Kv {
    fn write(&self, key: &[u8], value: &[u8], durability: Durability) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.put(key, value);
        self.db.blocking().write(batch, durability)?;
        Ok(())
    }
}

impl Engine for Kv {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(key, value, Durability::Process)
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(key, value, Durability::Sync)
    }

    fn get(&self, key: &[u8], see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let found = self.db.blocking().get(key)?;
        if let Some(found) = &found {
            see(&found.value);
        }
        Ok(found.is_some())
    }

    fn scan(&self, start: &[u8], limit: usize, see: SeeRow<'_>) -> Result<usize> {
        let mut rows = 0;
        self.db.snapshot().for_each(start.., |key, value| {
            if rows == limit {
                return ControlFlow::Break(());
            }
            see(key, value);
            rows += 1;
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }

    fn load(&self, rows: &[(Key, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::new();
        for (key, value) in rows {
            batch.put(key, value);
        }
        self.db.blocking().write(batch, Durability::Process)?;
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(self.db.flush()?)
    }

    fn settle(&self) -> Result<()> {
        let mut quiet = 0;
        while quiet < QUIET_LOOKS {
            let is_idle = self.jobs.is_idle() && self.db.stats().sealed_memtables == 0;
            quiet = if is_idle { quiet + 1 } else { 0 };
            // Compactions that use idle time begin at a tick.
            self.db.tick();
            thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Kv {
    fn drop(&mut self) {
        // What failed here shows when the store is opened again and read.
        let _ = self.db.close();
        self.jobs.stop();
    }
}
