//! Verifies every byte of a store that means something.

use super::ToolError;
use super::closed::ClosedStore;
use super::finding::Finding;
use super::log;
use crate::blob::{Pointer, References, Walk};
use crate::error::Error;
use crate::files::{BALLAST, CURRENT, FORMAT, LOCK, Numbered};
use crate::fs::Fs;
use crate::key::Kind;
use crate::table::{Damaged, Table, TableFiles, TableSummary};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// What a verification read, and what it found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Verification {
    /// What is wrong; empty if all is well.
    pub findings: Vec<Finding>,
    /// Tables read.
    pub tables: u64,
    /// Data blocks read.
    pub blocks: u64,
    /// Bytes of those blocks on disk.
    pub bytes: u64,
    /// Versions of keys in tables.
    pub entries: u64,
    /// Files of large values read.
    pub blob_files: u64,
    /// Values in them, needed ones and garbage.
    pub blob_values: u64,
    /// Their bytes on disk.
    pub blob_bytes: u64,
    /// Writes that are only in the log.
    pub log_writes: u64,
    /// Files that nothing needs. The next open removes them.
    pub leftovers: Vec<String>,
}

/// Reads everything, and changes nothing. Blocks.
///
/// # Errors
/// The directory holds no store, somebody has it open, it was written by newer software, or the file system
/// failed before anything could be read. Damage is no error but a [`Finding`].
pub fn verify(fs: Arc<dyn Fs>, dir: &Path) -> Result<Verification, ToolError> {
    let mut closed = ClosedStore::open(fs, dir)?;
    let mut result = Verification {
        findings: std::mem::take(&mut closed.findings),
        ..Verification::default()
    };
    let logged = closed.log_writes(&mut result.findings);
    result.log_writes = logged.len() as u64;
    let mut tables = closed.tables(&mut result.findings);
    log::add_ingested(&closed, &logged, &mut tables, &mut result.findings);
    let files = closed.table_files();
    for summary in &tables {
        if let Err(error) = result.check_table(&files, dir, summary, closed.catalog.is_some()) {
            result.findings.push(Finding::of(&error));
        }
    }
    let blobs: BTreeSet<u64> = tables
        .iter()
        .flat_map(|table| table.references.iter())
        .map(|reference| reference.file)
        .collect();
    for file in blobs {
        result.check_blob(&closed, file);
    }
    result.leftovers = leftovers(&closed, &tables);
    Ok(result)
}

impl Verification {
    fn check_table(
        &mut self,
        files: &Arc<TableFiles>,
        dir: &Path,
        summary: &TableSummary,
        is_known: bool,
    ) -> Result<(), Error> {
        let path = Numbered::Table(summary.file).path(dir);
        let table = Table::open_damaged(files, &path, summary)?;
        self.tables += 1;
        match table.damaged() {
            Damaged::Nothing => {}
            Damaged::Filter(error) => self.findings.push(Finding::of_filter(error)),
            Damaged::Outline(error) => {
                self.findings.push(Finding::of(error));
                return Ok(());
            }
        }
        let (before, found) = (self.entries, self.findings.len());
        let mut references = References::default();
        for block in 0..table.blocks() {
            self.blocks += 1;
            self.bytes += table.block_bytes(block);
            match table.read_block(block) {
                Ok(versions) => {
                    self.entries += versions.len() as u64;
                    for mut version in versions {
                        if version.kind == Kind::Blob
                            && let Some(pointer) = Pointer::decode(&version.value)
                        {
                            references.note(&pointer);
                        }
                        if let Err(error) = table.resolve(&mut version) {
                            self.findings.push(Finding::of(&error));
                        }
                    }
                }
                Err(error) => self.findings.push(Finding::of(&error)),
            }
        }
        let entries = self.entries - before;
        let wrong = if entries != summary.entries {
            Some("the table has another number of entries than the manifest says")
        } else if references != summary.references {
            Some("the table points to other large values than the manifest says")
        } else {
            None
        };
        if is_known
            && self.findings.len() == found
            && let Some(what) = wrong
        {
            let error = Error::corrupt(&path, 0, what).touching(&summary.key_range());
            self.findings.push(Finding::of(&error));
        }
        Ok(())
    }
}

impl Verification {
    /// Reads all of a blob file. Damage of what tables point to was found with its key before, so what is new
    /// here is not needed by anyone.
    fn check_blob(&mut self, closed: &ClosedStore, file: u64) {
        let path = Numbered::Blob(file).path(&closed.dir);
        self.blob_files += 1;
        let mut walk = match Walk::begin(&*closed.fs, &path, closed.store, file) {
            Ok(walk) => walk,
            Err(error) => return self.find_unused(&error),
        };
        while let Some(record) = walk.next() {
            match record {
                Ok(record) => {
                    self.blob_values += 1;
                    self.blob_bytes += record.bytes;
                }
                Err(error) => self.find_unused(&error),
            }
        }
    }

    fn find_unused(&mut self, error: &Error) {
        let finding = Finding::of_unused(error);
        let is_same =
            |known: &Finding| known.file == finding.file && known.offset == finding.offset;
        if !self.findings.iter().any(is_same) {
            self.findings.push(finding);
        }
    }
}

fn leftovers(closed: &ClosedStore, tables: &[TableSummary]) -> Vec<String> {
    let Some(catalog) = &closed.catalog else {
        return Vec::new();
    };
    let is_needed = |name: &String| match Numbered::parse(name) {
        Some(Numbered::Table(id)) => tables.iter().any(|table| table.file == id),
        Some(Numbered::Blob(id)) => catalog.version.blobs.get(id).is_some(),
        Some(Numbered::Manifest(id)) => closed.manifest == Some(id),
        Some(Numbered::Log(id)) => id >= catalog.log_floor,
        None => [FORMAT, CURRENT, LOCK, BALLAST].contains(&name.as_str()),
    };
    let names = closed.names.iter().filter(|name| !is_needed(name));
    names.cloned().collect()
}
