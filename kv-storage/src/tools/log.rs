//! The writes that are only in the log, as far as they can be read.

use super::closed::ClosedStore;
use super::finding::Finding;
use crate::batch::Operation;
use crate::error::{Error, IoContext};
use crate::files::Numbered;
use crate::fs;
use crate::key::{Kind, OperationKind, Seq};
use crate::range::KeyRange;
use crate::ranges::Fragments;
use crate::table::{LOST_NUMBER, StoredVersion, TableSummary};
use crate::wal::{Content, LogFrame, SegmentFile, UsedSegment, read_log, salvage};
use bytes::Bytes;
use std::collections::BTreeMap;

/// One write of the log.
#[derive(Debug)]
pub(super) enum Logged {
    Version(StoredVersion),
    Range(Fragments),
    /// The tables of an ingest.
    Tables(Vec<TableSummary>),
}

/// Adds the tables that are known from the log only, or whose numbers are.
pub(super) fn add_ingested(
    closed: &ClosedStore,
    writes: &BTreeMap<Seq, Logged>,
    tables: &mut Vec<TableSummary>,
    findings: &mut Vec<Finding>,
) {
    for write in writes.values() {
        if let Logged::Tables(ingested) = write {
            tables.retain(|table| ingested.iter().all(|new| new.file != table.file));
            tables.extend_from_slice(ingested);
        }
    }
    for table in tables
        .iter()
        .filter(|table| table.number == Some(LOST_NUMBER))
    {
        let path = Numbered::Table(table.file).path(&closed.dir);
        let what = "the number of an ingest was lost with the manifest; its rows count as older than all others";
        findings.push(Finding::new(&path, table.key_range(), what.to_owned()));
    }
}

/// All writes above what is in tables, by number. If the log is damaged, every whole frame counts, and what
/// is missing between them is a finding.
pub(super) fn writes(closed: &ClosedStore, findings: &mut Vec<Finding>) -> BTreeMap<Seq, Logged> {
    let Some(catalog) = &closed.catalog else {
        let files = read_files(closed, 0, findings);
        return all_whole(closed, &files, Seq::ZERO);
    };
    if catalog.log_floor == 0 {
        // A store that was never opened, or a checkpoint.
        return Writes::new();
    }
    let files = read_files(closed, catalog.log_floor, findings);
    let path = Numbered::Log(catalog.log_floor).path(&closed.dir);
    let mut logged = BTreeMap::new();
    let outcome = if files.first().map(|file| file.id) == Some(catalog.log_floor) {
        let (floor, end) = (catalog.log_floor, catalog.log_end);
        read_log(&files, closed.store, floor, end, |segment, bytes, _| {
            take(segment, bytes, catalog.flushed, &mut logged)
        })
    } else {
        let what = "a log segment that the manifest needs is missing";
        Err(Error::corrupt(&path, 0, what))
    };
    match outcome.map(|_| logged) {
        Ok(writes) => writes,
        Err(error) => {
            findings.push(Finding::of(&error));
            let writes = all_whole(closed, &files, catalog.flushed);
            name_gaps(closed, catalog.flushed, &writes, findings);
            writes
        }
    }
}

fn read_files(closed: &ClosedStore, floor: u64, findings: &mut Vec<Finding>) -> Vec<SegmentFile> {
    let mut files = Vec::new();
    for file in closed.numbered() {
        let Numbered::Log(id) = file else { continue };
        let path = file.path(&closed.dir);
        if id < floor {
            continue;
        }
        match fs::read_all(&*closed.fs, &path).context("read", &path) {
            Ok(bytes) => files.push(SegmentFile {
                id,
                path,
                bytes: bytes.into(),
            }),
            Err(error) => findings.push(Finding::of(&error)),
        }
    }
    files.sort_unstable_by_key(|file| file.id);
    files
}

type Writes = BTreeMap<Seq, Logged>;

fn take(segment: &UsedSegment, bytes: &[u8], flushed: Seq, into: &mut Writes) -> Result<(), Error> {
    for batch in segment.batches(bytes) {
        let batch = batch?;
        into.extend(logged(&batch).into_iter().filter(|(seq, _)| *seq > flushed));
    }
    Ok(())
}

/// Of writes with the same number the one in the newest segment counts: the log was cut in front of the other.
fn all_whole(closed: &ClosedStore, files: &[SegmentFile], flushed: Seq) -> Writes {
    let frames = files.iter().flat_map(|file| salvage(file, closed.store));
    let all = frames.flat_map(|frame| logged(&frame));
    all.filter(|(seq, _)| *seq > flushed).collect()
}

/// The writes of a frame, with their numbers.
fn logged(frame: &LogFrame<'_>) -> Vec<(Seq, Logged)> {
    match &frame.content {
        Content::Batch(operations) => (frame.first.0..)
            .zip(*operations)
            .map(|(seq, operation)| (Seq(seq), logged_operation(Seq(seq), &operation)))
            .collect(),
        Content::Ingest(ingested) => {
            let tables = ingested.clone().numbered(frame.first);
            vec![(frame.first, Logged::Tables(tables))]
        }
    }
}

fn logged_operation(seq: Seq, operation: &Operation<'_>) -> Logged {
    let version = |kind| {
        Logged::Version(StoredVersion {
            key: operation.key.to_vec(),
            seq,
            kind,
            value: Bytes::copy_from_slice(operation.value),
        })
    };
    match operation.kind {
        OperationKind::Put => version(Kind::Put),
        OperationKind::Delete => version(Kind::Delete),
        OperationKind::DeleteRange => {
            Logged::Range(Fragments::one(operation.key, operation.value, seq))
        }
    }
}

/// Numbers run without gaps, so a gap is a loss. What is lost behind the last one leaves no trace.
fn name_gaps(closed: &ClosedStore, flushed: Seq, writes: &Writes, findings: &mut Vec<Finding>) {
    let mut next = flushed.next();
    for seq in writes.keys() {
        if *seq > next {
            let what = format!(
                "the writes numbered {next} to {} are lost, whatever their keys were",
                seq.0 - 1
            );
            findings.push(Finding::new(&closed.dir, KeyRange::All, what));
        }
        next = seq.next();
    }
}
