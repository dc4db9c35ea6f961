//! The writes that are only in the log, as far as they can be read.

use super::closed::ClosedStore;
use super::finding::Finding;
use crate::error::{Error, IoContext};
use crate::files::Numbered;
use crate::fs;
use crate::key::{Kind, OperationKind, Seq};
use crate::range::KeyRange;
use crate::ranges::Fragments;
use crate::table::StoredVersion;
use crate::wal::{LoggedWrite, SegmentFile, UsedSegment, read_log, salvage};
use bytes::Bytes;
use std::collections::BTreeMap;

/// One write of the log.
#[derive(Debug)]
pub(super) enum Logged {
    Version(StoredVersion),
    Range(Fragments),
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
        for (seq, operation) in (batch.first.0..).zip(batch.operations) {
            let seq = Seq(seq);
            if seq > flushed {
                into.insert(seq, logged(&LoggedWrite { seq, operation }));
            }
        }
    }
    Ok(())
}

/// Of writes with the same number the one in the newest segment counts: the log was cut in front of the other.
fn all_whole(closed: &ClosedStore, files: &[SegmentFile], flushed: Seq) -> Writes {
    let all = files.iter().flat_map(|file| salvage(file, closed.store));
    all.filter(|write| write.seq > flushed)
        .map(|write| (write.seq, logged(&write)))
        .collect()
}

fn logged(write: &LoggedWrite<'_>) -> Logged {
    let (seq, operation) = (write.seq, write.operation);
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
