//! The workloads. Each run is one process, so that memory, page cache and counters belong to it alone.

mod crowd;
mod durable;
mod fill;
mod get;
mod overwrite;
mod recover;
mod scan;
mod stock;
mod victim;
mod ycsb;

pub(crate) use victim::run as run_victim;

use crate::dataset::Dataset;
use crate::engine::{Budget, Engine, EngineName};
use crate::engines;
use crate::measure::Measurements;
use crate::row::{Row, Work};
use crate::scale::Scale;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// What a run works with.
#[derive(Debug)]
pub(crate) struct Run {
    /// The engine.
    pub(crate) engine: EngineName,
    /// Where all stores of this engine lie.
    pub(crate) folder: PathBuf,
    /// Sizes and times.
    pub(crate) scale: Scale,
    /// The scale is that of a quick run: for starting further processes.
    pub(crate) is_quick: bool,
}

impl Run {
    /// Does a row's work and returns its figures.
    ///
    /// # Errors
    /// The engine failed, or something read back is not what was stored.
    pub(crate) fn measure(&self, row: &Row) -> Result<Measurements> {
        match row.work {
            Work::Fill {
                order,
                value_bytes,
                keeps,
            } => fill::measure(self, row, order, value_bytes, keeps),
            Work::Durable { threads } => durable::measure(self, threads),
            Work::Get {
                place,
                dataset,
                threads,
            } => get::measure(self, place, dataset, threads),
            Work::ShortScan { dataset } => scan::measure_short(self, dataset),
            Work::FullScan { is_cold } => scan::measure_full(self, is_cold),
            Work::Ycsb(mix) => ycsb::measure(self, mix),
            Work::Overwrite => overwrite::measure(self),
            Work::Recover => recover::measure(self, row),
        }
    }

    /// Makes the store that a row reads, without measuring anything; nothing if it makes its own.
    ///
    /// # Errors
    /// The engine failed.
    pub(crate) fn prepare(&self, row: &Row) -> Result<()> {
        row.reads()
            .map_or(Ok(()), |dataset| stock::make(self, dataset))
    }

    /// Opens an empty store in a folder for rows that keep nothing.
    fn create_scratch(&self, budget: &Budget) -> Result<Box<dyn Engine>> {
        let folder = self.scratch();
        remove(&folder)?;
        self.open(&folder, budget)
    }

    /// Opens a store.
    fn open(&self, folder: &Path, budget: &Budget) -> Result<Box<dyn Engine>> {
        fs::create_dir_all(&self.folder)?;
        engines::opener(self.engine)?(folder, budget)
            .with_context(|| format!("{} does not open its store", self.engine))
    }

    /// Where a dataset's store is.
    fn dataset(&self, dataset: Dataset) -> PathBuf {
        self.folder.join(dataset.name())
    }

    /// Where rows that keep nothing have their store.
    fn scratch(&self) -> PathBuf {
        self.folder.join("scratch")
    }
}

/// Removes a folder if it is there.
fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}
