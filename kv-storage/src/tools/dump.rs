//! Shows what a store, or one of its files, holds.

use super::ToolError;
use super::closed::ClosedStore;
use super::finding::Finding;
use super::salvage::Salvage;
use crate::batch::Operation;
use crate::blob::{Pointer, Record, Walk};
use crate::error::IoContext;
use crate::files::Numbered;
use crate::fs::{self, Fs};
use crate::key::{Kind, OperationKind, Seq};
use crate::table::{Table, summary_of};
use crate::version::Manifest;
use crate::wal::{Content, SegmentFile, salvage};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Writes one line for each key with its newest value, in order; or, if `file` names a file of the store, for
/// each thing in it. `keys_only` leaves the values out. What cannot be read is a line that begins with
/// `# `. Returns the number of such lines. Blocks; changes nothing.
///
/// # Errors
/// See [`ToolError`].
pub fn dump(
    fs: Arc<dyn Fs>,
    dir: &Path,
    file: Option<&str>,
    keys_only: bool,
    out: &mut dyn Write,
) -> Result<u64, ToolError> {
    let closed = ClosedStore::open(fs, dir)?;
    let mut dump = Dump {
        closed: &closed,
        keys_only,
        out,
        damaged: 0,
    };
    match file {
        None => dump.keys()?,
        Some(name) => {
            let path = dir.join(name);
            let no_file = || ToolError::NoSuchFile { file: path.clone() };
            let file = Numbered::parse(name)
                .filter(|_| closed.names.iter().any(|known| known == name))
                .ok_or_else(no_file)?;
            match file {
                Numbered::Table(id) => dump.table(&path, id)?,
                Numbered::Blob(id) => dump.blob(&path, id)?,
                Numbered::Log(id) => dump.log(&path, id)?,
                Numbered::Manifest(id) => dump.manifest(id)?,
            }
        }
    }
    Ok(dump.damaged)
}

struct Dump<'a> {
    closed: &'a ClosedStore,
    keys_only: bool,
    out: &'a mut dyn Write,
    damaged: u64,
}

impl Dump<'_> {
    fn keys(&mut self) -> Result<(), ToolError> {
        let mut salvage = Salvage::new(self.closed)?;
        while let Some(version) = salvage.next() {
            self.entry("", &version.key, Kind::Put, &version.value)?;
        }
        for finding in &salvage.findings {
            self.finding(finding)?;
        }
        Ok(())
    }

    fn table(&mut self, path: &Path, id: u64) -> Result<(), ToolError> {
        let files = self.closed.table_files();
        let opened = summary_of(&files, path, id)
            .and_then(|summary| Table::open_damaged(&files, path, &summary));
        let table = match opened {
            Ok(table) => table,
            Err(error) => return self.finding(&Finding::of(&error)),
        };
        if let Some(error) = table.damaged().error() {
            self.finding(&Finding::of_filter(error))?;
        }
        for fragment in table.ranges().iter() {
            for seq in fragment.seqs {
                self.range(*seq, fragment.start, fragment.end)?;
            }
        }
        for block in 0..table.blocks() {
            match table.read_block(block) {
                Ok(versions) => {
                    for version in versions {
                        let number = format!("{} ", version.seq);
                        self.entry(&number, &version.key, version.kind, &version.value)?;
                    }
                }
                Err(error) => self.finding(&Finding::of(&error))?,
            }
        }
        Ok(())
    }

    /// One line for each value, which does not say its key.
    fn blob(&mut self, path: &Path, id: u64) -> Result<(), ToolError> {
        let closed = self.closed;
        let mut walk = match Walk::begin(&*closed.fs, path, closed.store, id) {
            Ok(walk) => walk,
            Err(error) => return self.finding(&Finding::of(&error)),
        };
        while let Some(record) = walk.next() {
            match record {
                Ok(Record { offset, value, .. }) if self.keys_only => {
                    writeln!(self.out, "{offset} {} bytes", value.len())?;
                }
                Ok(Record { offset, value, .. }) => {
                    writeln!(self.out, "{offset} \"{}\"", value.escape_ascii())?;
                }
                Err(error) => self.finding(&Finding::of(&error))?,
            }
        }
        Ok(())
    }

    fn log(&mut self, path: &Path, id: u64) -> Result<(), ToolError> {
        let bytes = fs::read_all(&*self.closed.fs, path).context("read", path)?;
        let file = SegmentFile {
            id,
            path: path.to_path_buf(),
            bytes: bytes.into(),
        };
        for frame in salvage(&file, self.closed.store) {
            match frame.content {
                Content::Batch(operations) => {
                    for (seq, operation) in (frame.first.0..).zip(operations) {
                        self.operation(Seq(seq), &operation)?;
                    }
                }
                Content::Ingest(ingested) => {
                    for table in &ingested.tables {
                        let name = Numbered::Table(table.file).name();
                        let range = table.key_range();
                        writeln!(self.out, "{} ingest {name}: {range}", frame.first)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn operation(&mut self, seq: Seq, operation: &Operation<'_>) -> Result<(), ToolError> {
        let number = format!("{seq} ");
        match operation.kind {
            OperationKind::Put => self.entry(&number, operation.key, Kind::Put, operation.value),
            OperationKind::Delete => self.entry(&number, operation.key, Kind::Delete, &[]),
            OperationKind::DeleteRange => self.range(seq, operation.key, operation.value),
        }
    }

    fn manifest(&mut self, id: u64) -> Result<(), ToolError> {
        let closed = self.closed;
        let catalog = match Manifest::read(&*closed.fs, &closed.dir, closed.store, id) {
            Ok(catalog) => catalog,
            Err(error) => return self.finding(&Finding::of(&error)),
        };
        super::summary::write_catalog(&catalog, true, self.out)
    }

    fn entry(
        &mut self,
        before: &str,
        key: &[u8],
        kind: Kind,
        value: &[u8],
    ) -> Result<(), ToolError> {
        let key = key.escape_ascii();
        match kind {
            _ if self.keys_only => writeln!(self.out, "{before}\"{key}\"")?,
            Kind::Put => {
                let value = value.escape_ascii();
                writeln!(self.out, "{before}\"{key}\" = \"{value}\"")?;
            }
            Kind::Blob => match Pointer::decode(value) {
                Some(pointer) => {
                    let (raw, offset) = (pointer.raw, pointer.offset);
                    let file = Numbered::Blob(pointer.file).name();
                    writeln!(
                        self.out,
                        "{before}\"{key}\" = {raw} bytes at {offset} of {file}"
                    )?;
                }
                None => writeln!(self.out, "{before}\"{key}\" = malformed pointer")?,
            },
            Kind::Delete => writeln!(self.out, "{before}\"{key}\" deleted")?,
        }
        Ok(())
    }

    fn range(&mut self, seq: Seq, start: &[u8], end: &[u8]) -> Result<(), ToolError> {
        let (start, end) = (start.escape_ascii(), end.escape_ascii());
        writeln!(self.out, "{seq} \"{start}\" up to \"{end}\" deleted")?;
        Ok(())
    }

    fn finding(&mut self, finding: &Finding) -> Result<(), ToolError> {
        self.damaged += 1;
        writeln!(self.out, "# {finding}")?;
        Ok(())
    }
}
