//! A store that nobody has open, as its files show it.

use super::finding::Finding;
use super::{ToolError, log};
use crate::blob;
use crate::db::{holds_data, store_format, take_lock};
use crate::error::{Error, IoContext, OpenError};
use crate::files::{CURRENT, FORMAT, Numbered};
use crate::fs::{self, FileLock, Fs};
use crate::key::Seq;
use crate::table::{TableFiles, TableSummary, store_of, summary_of};
use crate::version::{Catalog, Manifest, read_current};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct ClosedStore {
    pub fs: Arc<dyn Fs>,
    pub dir: PathBuf,
    pub store: u64,
    /// Store format, if `FORMAT` could be read.
    pub format: Option<u32>,
    pub names: Vec<String>,
    /// What the manifest says, if one could be read.
    pub catalog: Option<Catalog>,
    /// Number of the manifest that was read.
    pub manifest: Option<u64>,
    /// What is wrong with `FORMAT`, `CURRENT` and the manifest.
    pub findings: Vec<Finding>,
    _lock: Box<dyn FileLock>,
}

impl ClosedStore {
    /// Takes the lock, and reads what says what the store is made of.
    pub(super) fn open(fs: Arc<dyn Fs>, dir: &Path) -> Result<Self, ToolError> {
        let no_store = || ToolError::NoStore {
            dir: dir.to_path_buf(),
        };
        let names = match fs.list(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(no_store()),
            outcome => outcome.context("list", dir)?,
        };
        let is_ours =
            |name: &String| name == FORMAT || name == CURRENT || Numbered::parse(name).is_some();
        if !names.iter().any(is_ours) {
            return Err(no_store());
        }
        let lock = take_lock(&*fs, dir)?;
        let mut findings = Vec::new();
        let (store, format) = match store_format::read(&*fs, dir) {
            Ok(Some(found)) => (found.store, Some(found.format)),
            Ok(None) => {
                let error = Error::corrupt(&dir.join(FORMAT), 0, "the file is missing");
                findings.push(Finding::of(&error));
                (identify(&*fs, dir, &names)?, None)
            }
            Err(OpenError::Storage(error)) if error.is_corrupt() => {
                findings.push(Finding::of(&error));
                (identify(&*fs, dir, &names)?, None)
            }
            Err(error) => return Err(error.into()),
        };
        let mut closed = Self {
            fs,
            dir: dir.to_path_buf(),
            store,
            format,
            names,
            catalog: None,
            manifest: None,
            findings,
            _lock: lock,
        };
        closed.read_catalog();
        Ok(closed)
    }

    /// Reads the current manifest; if `CURRENT` does not say which one that is, the newest. A manifest gets its
    /// name only when it holds the whole state, so the newest is never wrong, only perhaps not in use yet.
    fn read_catalog(&mut self) {
        let current = read_current(&*self.fs, &self.dir);
        let numbers = match current {
            Ok(Some(id)) => vec![id],
            Ok(None) if !self.numbered().any(|file| self.holds_data(file)) => {
                // The first open did not come far enough to store anything.
                self.catalog = Some(Catalog::empty());
                return;
            }
            Ok(None) => {
                let what = "the file is missing although the store has data";
                let error = Error::corrupt(&self.dir.join(CURRENT), 0, what);
                self.findings.push(Finding::of(&error));
                self.manifests()
            }
            Err(error) => {
                self.findings.push(Finding::of(&error));
                self.manifests()
            }
        };
        for id in numbers {
            let path = Numbered::Manifest(id).path(&self.dir);
            let read = Manifest::read(&*self.fs, &self.dir, self.store, id);
            let checked = read.and_then(|catalog| {
                catalog.check_tail(&path, &self.names)?;
                Ok(catalog)
            });
            match checked {
                Ok(catalog) => {
                    (self.catalog, self.manifest) = (Some(catalog), Some(id));
                    return;
                }
                Err(error) => self.findings.push(Finding::of(&error)),
            }
        }
    }

    /// A file that cannot be read may hold data.
    fn holds_data(&self, file: Numbered) -> bool {
        holds_data(&*self.fs, &self.dir, self.store, file).unwrap_or(true)
    }

    pub(super) fn numbered(&self) -> impl Iterator<Item = Numbered> + '_ {
        self.names.iter().filter_map(|name| Numbered::parse(name))
    }

    /// Numbers of all manifests, newest first.
    fn manifests(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self
            .numbered()
            .filter_map(|file| match file {
                Numbered::Manifest(id) => Some(id),
                Numbered::Log(_) | Numbered::Table(_) | Numbered::Blob(_) => None,
            })
            .collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids
    }

    /// All tables of the store: those that the manifest names, or, if it is lost, all that are there. Of these
    /// the ones that do not even say which keys they hold are findings.
    pub(super) fn tables(&self, findings: &mut Vec<Finding>) -> Vec<TableSummary> {
        if let Some(catalog) = &self.catalog {
            let tables = catalog.version.tables();
            return tables.map(|table| table.summary.clone()).collect();
        }
        let files = self.table_files();
        let mut tables = Vec::new();
        for file in self.numbered() {
            let Numbered::Table(id) = file else { continue };
            match summary_of(&files, &file.path(&self.dir), id) {
                Ok(summary) => tables.push(summary),
                Err(error) => findings.push(Finding::of(&error)),
            }
        }
        tables
    }

    pub(super) fn table_files(&self) -> Arc<TableFiles> {
        // Blocks are read once, so nothing is cached.
        Arc::new(TableFiles::new(Arc::clone(&self.fs), 0, self.store))
    }

    /// All writes that are only in the log, by number.
    pub(super) fn log_writes(&self, findings: &mut Vec<Finding>) -> BTreeMap<Seq, log::Logged> {
        log::writes(self, findings)
    }
}

/// Finds out which store this is without `FORMAT`.
fn identify(fs: &dyn Fs, dir: &Path, names: &[String]) -> Result<u64, ToolError> {
    let of_file = |name: &String| {
        let file = Numbered::parse(name)?;
        let path = file.path(dir);
        match file {
            Numbered::Table(_) => store_of(fs, &path),
            Numbered::Blob(_) => blob::store_of(fs, &path),
            Numbered::Manifest(id) => {
                let bytes = fs::read_all(fs, &path).ok()?;
                let store = u64::from_le_bytes(bytes.get(20..28)?.try_into().ok()?);
                let log = crate::log::LogBytes::new(&path, store, id, bytes.into());
                log.header(crate::log::LogKind::Manifest, store).ok()?;
                Some(store)
            }
            Numbered::Log(_) => None,
        }
    };
    let unknown = || ToolError::UnknownStore {
        dir: dir.to_path_buf(),
    };
    names.iter().find_map(of_file).ok_or_else(unknown)
}
