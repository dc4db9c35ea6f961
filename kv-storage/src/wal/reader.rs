//! Reads the log back: finds its segments, its end, and tells a torn tail from corruption.
//!
//! Segments of format version 1 are read too. There a header vouches for all of the segment before
//! it, and promises count from the start of their own file.

mod salvage;

pub(crate) use salvage::salvage;

use super::format::{self, FRAME_FILE_AT, Frame, HEADER_BYTES, SegmentHeader};
use crate::batch::Operations;
use crate::error::Error;
use crate::ingested::Ingested;
use crate::key::Seq;
use crate::log::{self, LogBytes, LogKind};
use bytes::Bytes;
use memchr::memmem;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A log file as it was found.
#[derive(Debug, Clone)]
pub(crate) struct SegmentFile {
    pub id: u64,
    pub path: PathBuf,
    pub bytes: Bytes,
}

impl SegmentFile {
    /// True if the file holds a whole frame of this number, in any format.
    pub(crate) fn holds_frames(&self, store: u64) -> bool {
        [1, 2]
            .iter()
            .any(|version| promises(self, *version, 0, 0, store).next().is_some())
    }
}

/// What the log holds, oldest segment first.
#[derive(Debug)]
pub(crate) struct WholeLog {
    pub segments: Vec<UsedSegment>,
    /// The log is known to be durable up to this position; what follows was only stored.
    pub promised: u64,
}

/// A segment with the part of it that belongs to the log.
#[derive(Debug)]
pub(crate) struct UsedSegment {
    pub file: SegmentFile,
    header: SegmentHeader,
    version: u32,
    frames: Vec<Frame>,
    /// Bytes of the file that belong to the log.
    pub length: u64,
}

/// One write of the log.
#[derive(Debug)]
pub(crate) struct LogFrame<'a> {
    pub first: Seq,
    pub content: Content<'a>,
    /// Position behind it.
    pub end: u64,
}

/// What a frame holds.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    Batch(Operations<'a>),
    Ingest(Ingested<'a>),
}

impl<'a> Content<'a> {
    /// Decodes a payload of `count` operations; `None` if it is malformed in any place.
    fn decode(payload: &'a [u8], version: u32, count: u32) -> Option<Self> {
        if version == 1 {
            return Operations::decode_v1(payload).map(Self::Batch);
        }
        if Ingested::is_in(payload) {
            let ingested = Ingested::decode(payload).filter(|_| count == 1);
            return ingested.map(Self::Ingest);
        }
        Operations::decode(payload, count).map(Self::Batch)
    }

    /// Numbers that it takes.
    fn len(&self) -> u32 {
        match self {
            Self::Batch(operations) => operations.len(),
            Self::Ingest(_) => 1,
        }
    }
}

impl LogFrame<'_> {
    /// Its last number.
    pub(crate) fn last(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.content.len()) - 1)
    }
}

/// Reads the log from segment `floor` on. `log_end` is the newest segment and its length, if the store
/// was closed.
///
/// # Errors
/// [`Error::Corrupt`] for damage that no crash explains.
pub(crate) fn read_log(
    files: Vec<SegmentFile>,
    store: u64,
    floor: u64,
    log_end: Option<(u64, u64)>,
) -> Result<WholeLog, Error> {
    let mut found: BTreeMap<u64, UsedSegment> = BTreeMap::new();
    let mut others = Vec::new();
    for file in files {
        match read_header(&file, store) {
            Some((header, version)) => {
                found.insert(
                    file.id,
                    UsedSegment {
                        file,
                        header,
                        version,
                        frames: Vec::new(),
                        length: 0,
                    },
                );
            }
            None if file.id == floor => {
                return Err(damage(&file, 0, "the header of a needed log segment"));
            }
            None => others.push(file),
        }
    }
    let mut chain = link(&mut found, floor);
    others.extend(found.into_values().map(|segment| segment.file));
    set_positions(&mut chain);
    let promised = cut(&mut chain, &others, store, log_end)?;
    Ok(WholeLog {
        segments: chain,
        promised,
    })
}

fn read_header(file: &SegmentFile, store: u64) -> Option<(SegmentHeader, u32)> {
    if let Some(header) = SegmentHeader::decode(&file.bytes, store, file.id) {
        return Some((header, 2));
    }
    let old = log_bytes(file, store).header(LogKind::Wal, store).ok()?;
    let header = SegmentHeader {
        id: old.id,
        store,
        previous: old.previous,
        previous_length: old.previous_length,
        first: old.first,
        start: 0,
        promise: 0,
    };
    Some((header, 1))
}

fn log_bytes(file: &SegmentFile, store: u64) -> LogBytes {
    LogBytes::new(&file.path, store, file.id, file.bytes.clone())
}

/// Follows the log from its oldest segment. Of several segments after one, the newest counts: the others
/// were given up when the log was cut in front of them.
fn link(found: &mut BTreeMap<u64, UsedSegment>, floor: u64) -> Vec<UsedSegment> {
    let mut chain: Vec<UsedSegment> = found.remove(&floor).into_iter().collect();
    while let Some(last) = chain.last() {
        let after = found
            .range(last.header.id..)
            .rev()
            .find(|(_, next)| next.header.previous == last.header.id)
            .map(|(id, _)| *id);
        match after.and_then(|id| found.remove(&id)) {
            Some(next) => chain.push(next),
            None => break,
        }
    }
    chain
}

/// Segments of version 1 do not know their positions: they follow from those of later segments, or from 0.
fn set_positions(chain: &mut [UsedSegment]) {
    let oldest = chain.first().map_or(0, |segment| segment.header.id);
    if let Some(newest) = chain.last()
        && newest.version == 1
    {
        let mut at: u64 = 0;
        for segment in chain {
            // The oldest one follows a segment that is no longer there.
            if segment.header.id != oldest {
                at += segment.header.previous_length;
            }
            (segment.header.start, segment.header.promise) = (at, at);
        }
        return;
    }
    for index in (1..chain.len()).rev() {
        let next = chain[index].header;
        if chain[index - 1].version == 1 {
            let start = next.start.wrapping_sub(next.previous_length);
            let header = &mut chain[index - 1].header;
            (header.start, header.promise) = (start, start);
        }
    }
}

/// Reads the frames up to the first damage, and gives up what lies behind it, unless something there
/// promises that it was synced. Returns the position that is promised.
fn cut(
    chain: &mut Vec<UsedSegment>,
    others: &[SegmentFile],
    store: u64,
    log_end: Option<(u64, u64)>,
) -> Result<u64, Error> {
    let mut kept = 0;
    let mut whole = true;
    while whole && kept < chain.len() {
        let limit = chain.get(kept + 1).map(|next| next.header.previous_length);
        let segment = &mut chain[kept];
        segment.read_frames(store, limit);
        whole = limit == Some(segment.length);
        kept += 1;
    }
    let given_up = chain.split_off(kept);
    let Some(last) = chain.last() else {
        return Ok(0);
    };
    let end = last.header.start + last.length;
    let torn = |what| damage(&last.file, last.length, what);
    // A start that did not come far may have begun a segment behind the place where the store was closed.
    let closed = chain
        .iter()
        .find(|segment| Some((segment.header.id, segment.length)) == log_end)
        .map(|segment| segment.header.start + segment.length);
    if log_end.is_some() && closed.is_none() {
        return Err(torn(
            "the log ends before the place where the store was closed",
        ));
    }
    let behind = last.promise_behind(store);
    let later = given_up.iter().map(|segment| {
        let start = segment.header.start;
        segment
            .header
            .promise
            .max(promise_in(&segment.file, segment.version, start, store))
    });
    // Segments of version 1 had whole headers before they had their names.
    let headless = others.iter().map(|file| {
        let old = promises(file, 1, 0, 0, store).map(|_| u64::MAX).max();
        promise_in(file, 2, 0, store).max(old.unwrap_or(0))
    });
    if later
        .chain(headless)
        .chain(behind)
        .any(|promise| promise > end)
    {
        return Err(torn("damaged frame in front of later synced ones"));
    }
    let promises = chain.iter().flat_map(|segment| {
        let frames = segment.frames.iter().map(|frame| frame.promise);
        frames.chain([segment.header.promise])
    });
    let promised = promises.chain(closed).max().unwrap_or_default();
    if promised > end {
        return Err(torn("the log ends before a place that was synced"));
    }
    Ok(promised)
}

impl UsedSegment {
    fn header_bytes(&self) -> usize {
        if self.version == 1 {
            log::HEADER_BYTES
        } else {
            HEADER_BYTES
        }
    }

    fn frame_at(&self, at: usize, store: u64) -> Option<Frame> {
        frame_at(&self.file, self.version, self.header.start, at, store)
    }

    /// Reads frames until the first one that is not whole, or the limit.
    fn read_frames(&mut self, store: u64, limit: Option<u64>) {
        let limit = limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        let mut at = self.header_bytes();
        while at < limit
            && let Some(frame) = self.frame_at(at, store)
        {
            at = frame.payload.end;
            self.frames.push(frame);
        }
        self.length = at as u64;
    }

    /// The largest promise of a whole frame behind the damage, if there is one.
    fn promise_behind(&self, store: u64) -> Option<u64> {
        let start = usize::try_from(self.length).ok()? + 1;
        promises(&self.file, self.version, self.header.start, start, store).max()
    }

    /// All batches, in order.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a whole frame holds no batch, or numbers do not continue.
    pub(crate) fn batches(&self) -> impl Iterator<Item = Result<LogFrame<'_>, Error>> {
        let mut next = self.header.first;
        self.frames.iter().map(move |frame| {
            let damaged = |what| damage(&self.file, frame.offset as u64, what);
            let payload = &self.file.bytes[frame.payload.clone()];
            let content = Content::decode(payload, self.version, frame.count)
                .ok_or_else(|| damaged("malformed batch"))?;
            if frame.first != next {
                return Err(damaged("sequence numbers do not continue"));
            }
            next = Seq(next.0 + u64::from(content.len()));
            Ok(LogFrame {
                first: frame.first,
                content,
                end: self.header.start + frame.payload.end as u64,
            })
        })
    }

    /// The number of the first write in this segment.
    pub(crate) fn first(&self) -> Seq {
        self.header.first
    }

    /// Position of its first byte.
    pub(crate) fn start(&self) -> u64 {
        self.header.start
    }

    /// Position behind its header.
    pub(crate) fn begin(&self) -> u64 {
        self.header.start + self.header_bytes() as u64
    }
}

fn frame_at(file: &SegmentFile, version: u32, start: u64, at: usize, store: u64) -> Option<Frame> {
    if version != 1 {
        return format::decode_frame(&file.bytes, at, store, file.id);
    }
    let old = log_bytes(file, store).frame_at(at)?;
    Some(Frame {
        offset: at,
        first: old.sequence,
        count: 0,
        promise: start.wrapping_add(old.synced),
        payload: old.payload,
    })
}

/// Promises of all whole frames at or behind `from`, at any offset.
fn promises(
    file: &SegmentFile,
    version: u32,
    start: u64,
    from: usize,
    store: u64,
) -> impl Iterator<Item = u64> + '_ {
    let file_at = if version == 1 { 8 } else { FRAME_FILE_AT };
    let number = file.id.to_le_bytes();
    let rest = file.bytes.get(from + file_at..).unwrap_or_default();
    let places: Vec<usize> = memmem::find_iter(rest, &number).collect();
    places
        .into_iter()
        .filter_map(move |place| frame_at(file, version, start, from + place, store))
        .map(|frame| frame.promise)
}

fn promise_in(file: &SegmentFile, version: u32, start: u64, store: u64) -> u64 {
    promises(file, version, start, 0, store).max().unwrap_or(0)
}

fn damage(file: &SegmentFile, offset: u64, what: &'static str) -> Error {
    Error::corrupt(&file.path, offset, what)
}

#[cfg(test)]
mod tests;
