//! Saves what is left of a damaged store.

use super::ToolError;
use super::closed::ClosedStore;
use super::finding::Finding;
use super::salvage::Salvage;
use crate::db::{checkpoint, store_format};
use crate::error::{Error, IoContext};
use crate::files::Numbered;
use crate::fs::Fs;
use crate::key::Seq;
use crate::options::Options;
use crate::table::{TableBuilder, TableSpec, TableSummary};
use crate::version::{BOTTOM, Edit, Manifest, NewTable};
use std::path::Path;
use std::sync::Arc;

/// What a repair saved, and what it could not.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Keys in the new store.
    pub keys: u64,
    /// Tables in the new store.
    pub tables: u64,
    /// The highest number of a write that was found. The new store counts on from it.
    pub newest: Seq,
    /// What was lost: of the keys that are touched, the newest value may be missing, and an older one or none
    /// be in its place.
    pub losses: Vec<Finding>,
    /// The manifest was lost, so tables that were replaced long ago may have been taken for new: deleted keys
    /// may be back, with values that are right but old.
    pub deleted_keys_may_be_back: bool,
}

/// Copies the newest version of every key that can be verified into a new store in `target`, which must be
/// empty or absent. The store in `dir` is not changed. Blocks.
///
/// The new store keeps the id and the numbers of the old one; bytes attached to flushes are left behind,
/// because they may say more than is true of it.
///
/// # Errors
/// See [`ToolError`]. What was made in `target` is removed.
pub fn repair(
    fs: Arc<dyn Fs>,
    dir: &Path,
    target: &Path,
    options: &Options,
) -> Result<RepairReport, ToolError> {
    let closed = ClosedStore::open(Arc::clone(&fs), dir)?;
    fs.create_dir(target).context("create directory", target)?;
    if !fs.list(target).context("list", target)?.is_empty() {
        return Err(ToolError::TargetNotEmpty {
            dir: target.to_path_buf(),
        });
    }
    let mut salvage = Salvage::new(&closed)?;
    let mut output = Output {
        fs: &*fs,
        target,
        store: closed.store,
        options,
        builder: None,
        finished: Vec::new(),
        keys: 0,
    };
    let outcome = output.fill(&mut salvage);
    if let Err(error) = outcome {
        checkpoint::clean(&*fs, target);
        return Err(error.into());
    }
    Ok(RepairReport {
        keys: output.keys,
        tables: output.finished.len() as u64,
        newest: salvage.newest,
        losses: salvage.findings,
        deleted_keys_may_be_back: closed.catalog.is_none(),
    })
}

/// The store being made.
struct Output<'a> {
    fs: &'a dyn Fs,
    target: &'a Path,
    store: u64,
    options: &'a Options,
    builder: Option<TableBuilder>,
    finished: Vec<TableSummary>,
    keys: u64,
}

impl Output<'_> {
    fn fill(&mut self, salvage: &mut Salvage) -> Result<(), Error> {
        while let Some(version) = salvage.next() {
            let size = self.builder.as_ref().map_or(0, TableBuilder::size_bytes);
            if size >= self.options.table_bytes {
                self.finish_table()?;
            }
            let builder = match &mut self.builder {
                Some(builder) => builder,
                None => self.builder.insert(begin_table(
                    self.fs,
                    self.target,
                    self.store,
                    self.finished.len() as u64 + 1,
                    self.options,
                )?),
            };
            builder.push(version.version(), version.kind, &version.value)?;
            self.keys += 1;
        }
        self.finish_table()?;
        self.install(salvage.newest)
    }

    fn finish_table(&mut self) -> Result<(), Error> {
        if let Some(builder) = self.builder.take() {
            self.finished.push(builder.finish()?);
        }
        Ok(())
    }

    /// In the order of a checkpoint: what makes the directory a store comes last.
    fn install(&self, newest: Seq) -> Result<(), Error> {
        let sync = self.fs.sync_dir(self.target);
        sync.context("sync directory", self.target)?;
        store_format::write(self.fs, self.target, self.store)?;
        let manifest = self.finished.len() as u64 + 1;
        let added = self.finished.iter().map(|table| NewTable {
            level: BOTTOM,
            run: 0,
            table: table.clone(),
        });
        let state = Edit {
            added: added.collect(),
            flushed: Some(newest),
            next_file: Some(manifest + 1),
            ..Edit::default()
        };
        Manifest::create(self.fs, self.target, self.store, manifest, &state).map(drop)
    }
}

fn begin_table(
    fs: &dyn Fs,
    target: &Path,
    store: u64,
    file: u64,
    options: &Options,
) -> Result<TableBuilder, Error> {
    let path = Numbered::Table(file).path(target);
    TableBuilder::create(fs, &path, store, file, TableSpec::bottom(options))
}
