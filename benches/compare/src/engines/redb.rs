//! redb. Its puts without a sync do not survive the death of the process: the tables say so.

use crate::dataset::Key;
use crate::engine::{Budget, Engine, SeeRow};
use anyhow::Result;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use std::fs;
use std::path::Path;

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

struct Redb {
    database: Database,
}

/// Opens a store. A B-tree has no memtable, so its cache may take that memory too.
pub(super) fn open(folder: &Path, budget: &Budget) -> Result<Box<dyn Engine>> {
    fs::create_dir_all(folder)?;
    let database = Database::builder()
        .set_cache_size(budget.cache_bytes + budget.memtable_bytes)
        .create(folder.join("rows.redb"))?;
    let transaction = database.begin_write()?;
    transaction.open_table(ROWS)?;
    transaction.commit()?;
    Ok(Box::new(Redb { database }))
}

impl Redb {
    fn write<'a>(
        &self,
        rows: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        durability: Durability,
    ) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut table = transaction.open_table(ROWS)?;
            for (key, value) in rows {
                table.insert(key, value)?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Engine for Redb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write([(key, value)].into_iter(), Durability::None)
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write([(key, value)].into_iter(), Durability::Immediate)
    }

    fn get(&self, key: &[u8], see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let table = self.database.begin_read()?.open_table(ROWS)?;
        let value = table.get(key)?;
        if let Some(value) = &value {
            see(value.value());
        }
        Ok(value.is_some())
    }

    fn scan(&self, start: &[u8], limit: usize, see: SeeRow<'_>) -> Result<usize> {
        let table = self.database.begin_read()?.open_table(ROWS)?;
        let mut rows = 0;
        for row in table.range(start..)?.take(limit) {
            let (key, value) = row?;
            see(key.value(), value.value());
            rows += 1;
        }
        Ok(rows)
    }

    fn load(&self, rows: &[(Key, Vec<u8>)]) -> Result<()> {
        let rows = rows
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_slice()));
        self.write(rows, Durability::None)
    }

    fn flush(&self) -> Result<()> {
        self.write(std::iter::empty(), Durability::Immediate)
    }
}
