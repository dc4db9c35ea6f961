//! LMDB through heed. Its cache is the kernel's page cache, which no budget limits.

use crate::dataset::Key;
use crate::engine::{Budget, Engine, SeeRow};
use anyhow::Result;
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, WithoutTls};
use std::fs;
use std::ops::Bound;
use std::path::Path;

/// Address space for the map; the file grows as it needs.
const MAP_BYTES: usize = 16 << 30;
const READERS: u32 = 64;
/// LMDB refuses an empty key; no key that is stored lies before this one.
const FIRST_KEY: &[u8] = &[0];

struct Lmdb {
    environment: Env<WithoutTls>,
    rows: Database<'static, Bytes, Bytes>,
}

/// Opens a store. Whether commits are synced is a flag of the whole environment.
#[expect(
    unsafe_code,
    reason = "heed marks flags and opening as unsafe: the file is mapped into memory"
)]
pub(super) fn open(folder: &Path, budget: &Budget) -> Result<Box<dyn Engine>> {
    fs::create_dir_all(folder)?;
    let flags = if budget.is_durable {
        EnvFlags::NO_READ_AHEAD
    } else {
        EnvFlags::NO_READ_AHEAD | EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC
    };
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(MAP_BYTES).max_readers(READERS);
    // SAFETY: without syncs a power loss may damage the file; it is made and thrown away by one run.
    unsafe { options.flags(flags) };
    // SAFETY: the folder belongs to this run, so no other process changes the mapped file, and a run
    // opens it once.
    let environment = unsafe { options.open(folder)? };
    let transaction = environment.write_txn()?;
    let rows = environment
        .create_databases_and_commit(transaction, |opener, transaction| {
            let rows = opener.create_database(transaction, None)?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(rows))
        })?
        .unwrap_commit();
    Ok(Box::new(Lmdb { environment, rows }))
}

impl Engine for Lmdb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut transaction = self.environment.write_txn()?;
        self.rows.put(&mut transaction, key, value)?;
        Ok(transaction.commit()?)
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.put(key, value)
    }

    fn get(&self, key: &[u8], see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let transaction = self.environment.read_txn()?;
        let value = self.rows.get(&transaction, key)?;
        if let Some(value) = value {
            see(value);
        }
        Ok(value.is_some())
    }

    fn scan(&self, start: &[u8], limit: usize, see: SeeRow<'_>) -> Result<usize> {
        let transaction = self.environment.read_txn()?;
        let start = if start.is_empty() { FIRST_KEY } else { start };
        let range = (Bound::Included(start), Bound::Unbounded);
        let mut rows = 0;
        for row in self.rows.range(&transaction, &range)?.take(limit) {
            let (key, value) = row?;
            see(key, value);
            rows += 1;
        }
        Ok(rows)
    }

    fn load(&self, rows: &[(Key, Vec<u8>)]) -> Result<()> {
        let mut transaction = self.environment.write_txn()?;
        for (key, value) in rows {
            self.rows.put(&mut transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.environment.force_sync()?)
    }
}
