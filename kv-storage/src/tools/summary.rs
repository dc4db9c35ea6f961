//! The sizes of a store, from its manifest and the names of its files.

use super::ToolError;
use super::closed::ClosedStore;
use crate::files::Numbered;
use crate::fs::Fs;
use crate::version::{BlobUses, Catalog, Level};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Writes what a store consists of, for humans. Blocks; changes nothing. Returns the number of damaged files
/// that kept it from knowing better.
///
/// # Errors
/// See [`ToolError`].
pub fn summarize(fs: Arc<dyn Fs>, dir: &Path, out: &mut dyn Write) -> Result<u64, ToolError> {
    let closed = ClosedStore::open(fs, dir)?;
    writeln!(out, "store    {:016x} in {}", closed.store, dir.display())?;
    match closed.format {
        Some(format) => writeln!(out, "format   {format}")?,
        None => writeln!(out, "format   unknown")?,
    }
    let count = |is: fn(&Numbered) -> bool| closed.numbered().filter(is).count();
    writeln!(
        out,
        "files    {} tables, {} blob files, {} log segments, {} manifests",
        count(|file| matches!(file, Numbered::Table(_))),
        count(|file| matches!(file, Numbered::Blob(_))),
        count(|file| matches!(file, Numbered::Log(_))),
        count(|file| matches!(file, Numbered::Manifest(_))),
    )?;
    if let Some(catalog) = &closed.catalog {
        write_catalog(catalog, false, out)?;
    }
    for finding in &closed.findings {
        writeln!(out, "# {finding}")?;
    }
    Ok(closed.findings.len() as u64)
}

/// Writes what a manifest says.
pub(super) fn write_catalog(
    catalog: &Catalog,
    each_table: bool,
    out: &mut dyn Write,
) -> Result<(), ToolError> {
    writeln!(out, "flushed  up to write {}", catalog.flushed)?;
    match catalog.log_end {
        Some((segment, length)) => writeln!(
            out,
            "log      from segment {} to byte {length} of segment {segment}, where the store was closed",
            catalog.log_floor
        )?,
        None => writeln!(out, "log      from segment {}", catalog.log_floor)?,
    }
    for (number, level) in catalog.version.levels.iter().enumerate() {
        if level.runs.is_empty() {
            continue;
        }
        let (entries, deletes, ranges) = sums(level);
        let ranges = match ranges {
            0 => String::new(),
            _ => format!(", {ranges} deleted ranges"),
        };
        writeln!(
            out,
            "level {number}  {} runs, {} tables, {} bytes, {entries} entries of which {deletes} are deletions{ranges}",
            level.runs.len(),
            level.tables().count(),
            level.size_bytes(),
        )?;
        for (run, table) in level
            .runs
            .iter()
            .flat_map(|run| run.tables.iter().map(move |table| (run.id, table)))
            .filter(|_| each_table)
        {
            let summary = &table.summary;
            writeln!(
                out,
                "  run {run}: {}, {} bytes, {}",
                Numbered::Table(summary.file).name(),
                summary.size_bytes,
                summary.key_range(),
            )?;
        }
    }
    write_blobs(&catalog.version.blobs, each_table, out)
}

fn write_blobs(blobs: &BlobUses, each: bool, out: &mut dyn Write) -> Result<(), ToolError> {
    let files = blobs.iter().count();
    if files == 0 {
        return Ok(());
    }
    let (bytes, garbage) = blobs.bytes();
    writeln!(
        out,
        "values   {files} blob files, {bytes} bytes of which {garbage} are garbage"
    )?;
    for blob in blobs.iter().filter(|_| each) {
        let summary = &blob.summary;
        writeln!(
            out,
            "  {}, {} bytes, {} values of which {} are in use",
            Numbered::Blob(summary.file).name(),
            summary.size_bytes,
            summary.values,
            blob.live_values,
        )?;
    }
    Ok(())
}

fn sums(level: &Level<()>) -> (u64, u64, u64) {
    let summaries = || level.tables().map(|table| &table.summary);
    (
        summaries().map(|table| table.entries).sum(),
        summaries().map(|table| table.deletes).sum(),
        summaries().map(|table| table.ranges).sum(),
    )
}
