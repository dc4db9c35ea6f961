//! The contract that each engine's adapter fulfils.
//!
//! An adapter passes calls on. It must not cache, batch or reorder anything by itself, so that what is measured
//! is the engine.

use crate::dataset::Key;
use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// Sees a row of a scan: key and value.
pub(crate) type SeeRow<'a> = &'a mut dyn FnMut(&[u8], &[u8]);

/// An open store. Closed when dropped.
pub(crate) trait Engine: Send + Sync {
    /// Sets a key. On return it survives the death of the process, if the engine can do that without a sync.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Sets a key. On return it survives power loss.
    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Shows a key's value to `see`, and says whether there is one.
    fn get(&self, key: &[u8], see: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// Shows up to `limit` rows from `start` on, in order; returns how many.
    fn scan(&self, start: &[u8], limit: usize, see: SeeRow<'_>) -> Result<usize>;

    /// Shows all rows in order; returns how many. An engine with settings for long scans uses them here.
    fn scan_all(&self, see: SeeRow<'_>) -> Result<usize> {
        self.scan(&[], usize::MAX, see)
    }

    /// Sets many keys in one batch, as fast as the engine can.
    fn load(&self, rows: &[(Key, Vec<u8>)]) -> Result<()>;

    /// Writes out what is only in the log and in memory.
    fn flush(&self) -> Result<()>;

    /// Waits until flushes and compactions have nothing left to do.
    fn settle(&self) -> Result<()> {
        Ok(())
    }
}

/// What every engine may use, the same for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Memory for cached blocks, rows, indexes and filters together, in bytes.
    pub(crate) cache_bytes: usize,
    /// Size at which a memtable is written out, in bytes.
    pub(crate) memtable_bytes: usize,
    /// Uncompressed size of a data block in bytes.
    pub(crate) block_bytes: usize,
    /// Size of the filters.
    pub(crate) filter_bits_per_key: u32,
    /// Level of zstd, for engines that have it.
    pub(crate) zstd_level: i32,
    /// Threads for flushes and compactions.
    pub(crate) background_threads: usize,
    /// Puts will be durable: for engines that must know it when a store is opened.
    pub(crate) is_durable: bool,
}

/// Opens a store in a folder, or makes a new one.
pub(crate) type Open = fn(&Path, &Budget) -> Result<Box<dyn Engine>>;

/// One of the engines that can be compared.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub(crate) enum EngineName {
    /// Ours.
    Kv,
    /// RocksDB, the anchor of the field.
    RocksDb,
    /// fjall, the best log-structured engine in Rust.
    Fjall,
    /// redb, a copy-on-write B-tree.
    Redb,
    /// LMDB, a copy-on-write B-tree read in place through a memory map.
    Lmdb,
}

impl EngineName {
    /// All, in the order of the tables.
    pub(crate) const ALL: [Self; 5] =
        [Self::Kv, Self::RocksDb, Self::Fjall, Self::Redb, Self::Lmdb];

    /// The log-structured engines that ours is judged against.
    pub(crate) const JUDGED_AGAINST: [Self; 2] = [Self::RocksDb, Self::Fjall];

    /// Its name on the command line and in folder names.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::RocksDb => "rocksdb",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
            Self::Lmdb => "lmdb",
        }
    }
}

impl fmt::Display for EngineName {
    /// As its makers write it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Kv => "kv-storage",
            Self::RocksDb => "RocksDB",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
            Self::Lmdb => "LMDB",
        })
    }
}
