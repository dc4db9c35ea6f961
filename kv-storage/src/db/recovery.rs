//! Replays the log at open.
//!
//! What a log segment holds after the last promise may have been seen only by the page cache of the
//! operating system: the last sync may have failed, or never begun. So these frames are not trusted
//! where they are: they are carried over into the new segment, which is synced before it gets its
//! name, and whose header ends the old segment at its last promise.

use super::state::Sealed;
use crate::batch::Operations;
use crate::checksum::Checksum;
use crate::error::{Error, IoContext};
use crate::files::Numbered;
use crate::fs::{self, Fs};
use crate::hooks::Hooks;
use crate::key::Seq;
use crate::log::{Frame, HEADER_BYTES, Header, LogBytes, LogFile, LogKind, Tail, encode_frame};
use crate::memtable::Memtable;
use std::path::Path;
use std::sync::Arc;

/// What the log held.
pub(super) struct Replayed {
    /// Memtables that were filled, oldest first.
    pub sealed: Vec<Sealed>,
    /// The rest; it goes on taking writes.
    pub active: Memtable,
    /// The newest write.
    pub last: Seq,
    /// The new segment.
    pub file: LogFile,
    /// All segments from the floor on, the new one included.
    pub segments: Vec<u64>,
}

/// Where and what to replay.
pub(super) struct Replay<'a> {
    pub fs: &'a dyn Fs,
    pub dir: &'a Path,
    pub store: u64,
    /// The oldest segment needed; 0 for a store that was never opened before.
    pub floor: u64,
    /// Writes up to here are in tables.
    pub flushed: Seq,
    pub memtable_bytes: usize,
    pub hooks: &'a Hooks,
    /// Newest segment and its length, if the store was closed before.
    pub log_end: Option<(u64, u64)>,
}

/// One segment.
struct Segment {
    header: Header,
    log: LogBytes,
    frames: Vec<Frame>,
}

impl Replay<'_> {
    /// Replays `logs` (ascending file numbers) and starts segment `next`. Blocks.
    pub(super) fn run(&self, logs: &[u64], next: u64) -> Result<Replayed, Error> {
        let needed: Vec<u64> = logs
            .iter()
            .copied()
            .filter(|id| *id >= self.floor)
            .collect();
        if self.floor != 0 && needed.first() != Some(&self.floor) {
            let path = Numbered::Log(self.floor).path(self.dir);
            return Err(Error::corrupt(
                &path,
                0,
                "a log segment that the manifest needs is missing",
            ));
        }
        let segments = self.read_segments(&needed)?;
        let mut last = self.flushed;
        let mut active = Memtable::new();
        let mut sealed = Vec::new();
        for (segment, following) in segments.iter().zip(needed.iter().skip(1).chain([&next])) {
            last = self.apply(segment, last, &active)?;
            if active.size_bytes() >= self.memtable_bytes {
                let table = Arc::new(std::mem::take(&mut active));
                sealed.push(Sealed {
                    table,
                    last,
                    next_segment: *following,
                    attachment: self.hooks.attachment(last),
                });
            }
        }
        let file = self.start_segment(next, segments.last(), last)?;
        let segments = needed.into_iter().chain([next]).collect();
        Ok(Replayed {
            sealed,
            active,
            last,
            file,
            segments,
        })
    }

    /// Reads and checks all segments; each header says where the one before it ends.
    fn read_segments(&self, ids: &[u64]) -> Result<Vec<Segment>, Error> {
        let mut segments = Vec::new();
        for id in ids {
            let path = Numbered::Log(*id).path(self.dir);
            let bytes = fs::read_all(self.fs, &path).context("read", &path)?;
            let log = LogBytes::new(&path, self.store, *id, bytes.into());
            let header = log.header(LogKind::Wal, self.store)?;
            segments.push(Segment {
                header,
                log,
                frames: Vec::new(),
            });
        }
        let mut tail = match (self.log_end, ids.last()) {
            (Some((segment, length)), Some(newest)) if segment == *newest => Tail::At(length),
            _ => Tail::Open,
        };
        let mut follows = None;
        for segment in segments.iter_mut().rev() {
            if follows.is_some_and(|previous| previous != segment.header.id) {
                return Err(segment
                    .log
                    .corrupt(0, "the log segment after this one is missing"));
            }
            segment.frames = segment.log.frames(tail)?;
            tail = Tail::At(segment.header.previous_length);
            follows = Some(segment.header.previous);
        }
        Ok(segments)
    }

    /// Inserts what is not in tables yet. Returns the newest write so far.
    fn apply(&self, segment: &Segment, last: Seq, into: &Memtable) -> Result<Seq, Error> {
        let gap = |offset| {
            segment
                .log
                .corrupt(offset, "sequence numbers do not continue")
        };
        let mut next = segment.header.first;
        // Frames carried over from the segment before are met twice, or are in tables already.
        if next > last.next() {
            return Err(gap(0));
        }
        for frame in &segment.frames {
            if frame.sequence != next {
                return Err(gap(frame.offset));
            }
            let operations = Operations::decode(segment.log.payload(frame))
                .ok_or_else(|| segment.log.corrupt(frame.offset, "malformed batch"))?;
            next = Seq(next.0 + operations.len() as u64);
            if frame.sequence > last {
                into.insert(frame.sequence, operations);
            }
        }
        // `next` is the number after the last one of this segment.
        Ok(last.max(Seq(next.0 - 1)))
    }

    /// Starts segment `id` with all frames of the newest segment that were never promised.
    fn start_segment(
        &self,
        id: u64,
        newest: Option<&Segment>,
        last: Seq,
    ) -> Result<LogFile, Error> {
        let mut carried = Vec::new();
        let mut first = last.next();
        let (mut previous, mut previous_length) = (0, 0);
        if let Some(segment) = newest {
            let promised = self.promised(segment);
            for frame in segment
                .frames
                .iter()
                .filter(|frame| frame.offset as u64 >= promised)
            {
                first = first.min(frame.sequence);
                let payload = segment.log.payload(frame);
                let synced = HEADER_BYTES as u64;
                encode_frame(
                    &mut carried,
                    Checksum::new(self.store, id),
                    id,
                    frame.sequence,
                    synced,
                    |out| {
                        out.extend_from_slice(&payload);
                    },
                );
            }
            (previous, previous_length) = (segment.header.id, promised);
        }
        let header = Header {
            kind: LogKind::Wal,
            id,
            store: self.store,
            previous,
            previous_length,
            first,
        };
        LogFile::create(
            self.fs,
            &Numbered::Log(id).path(self.dir),
            &header,
            &carried,
        )
    }

    /// The length up to which the newest segment is known to be synced.
    fn promised(&self, segment: &Segment) -> u64 {
        let closed_at = self
            .log_end
            .filter(|(id, _)| *id == segment.header.id)
            .map(|(_, length)| length);
        let promises = segment.frames.iter().map(|frame| frame.synced);
        promises
            .chain(closed_at)
            .max()
            .unwrap_or(HEADER_BYTES as u64)
    }
}
