//! Reads the log back: finds its segments, its end, and tells a torn tail from corruption.
//!
//! Each segment is read once, into memory that all of them share, and handed on before the next one is read: a
//! log may be larger than the memory that a restart should take. So whoever takes its batches does so before
//! the end of the log is known, and must give everything up if reading fails later.
//!
//! Segments of format version 1 are read too. There a header vouches for all of the segment before
//! it, and promises count from the start of their own file.

mod salvage;

pub(crate) use salvage::salvage;

use super::format::{self, FRAME_FILE_AT, Frame, HEADER_BYTES, SegmentHeader};
use crate::batch::Operations;
use crate::checksum::Checksum;
use crate::error::Error;
use crate::ingested::Ingested;
use crate::key::Seq;
use crate::log::{self, LogKind};
use bytes::Bytes;
use memchr::memmem;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A log file whose bytes can be had.
pub(crate) trait LogSource {
    fn id(&self) -> u64;

    fn path(&self) -> &Path;

    /// Reads the file, or its first `most` bytes, into memory that is used again and again.
    fn read(&self, most: usize, into: &mut Vec<u8>) -> Result<(), Error>;
}

/// A log file as it was found, in memory.
#[derive(Debug, Clone)]
pub(crate) struct SegmentFile {
    pub id: u64,
    pub path: PathBuf,
    pub bytes: Bytes,
}

impl SegmentFile {
    /// True if the file holds a whole frame of this number, in any format.
    pub(crate) fn holds_frames(&self, store: u64) -> bool {
        let place = self.place(store);
        [1, 2]
            .iter()
            .any(|version| place.promises(&self.bytes, *version, 0, 0).next().is_some())
    }

    fn place(&self, store: u64) -> Place {
        Place { id: self.id, store }
    }
}

impl LogSource for SegmentFile {
    fn id(&self) -> u64 {
        self.id
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self, most: usize, into: &mut Vec<u8>) -> Result<(), Error> {
        into.clear();
        into.extend_from_slice(&self.bytes[..self.bytes.len().min(most)]);
        Ok(())
    }
}

/// What the log holds, oldest segment first.
#[derive(Debug)]
pub(crate) struct WholeLog {
    pub segments: Vec<UsedSegment>,
    /// The log is known to be durable up to this position; what follows was only stored.
    pub promised: u64,
    /// Behind the end a frame begins that is not whole.
    pub is_torn: bool,
}

/// A segment with the part of it that belongs to the log.
#[derive(Debug)]
pub(crate) struct UsedSegment {
    pub path: PathBuf,
    place: Place,
    header: SegmentHeader,
    version: u32,
    frames: Vec<Frame>,
    /// Bytes of the file that belong to the log.
    pub length: u64,
    /// The largest promise in it, its header's included.
    pub promise: u64,
    /// Behind its frames one begins that is not whole.
    is_torn: bool,
    /// There is no whole frame in the file, at any place.
    is_bare: bool,
}

/// Which file of which store it is: checksums depend on it.
#[derive(Debug, Clone, Copy)]
struct Place {
    id: u64,
    store: u64,
}

/// How often a segment is read where the answers differ.
const MOST_READS: usize = 3;

/// One write of the log.
#[derive(Debug)]
pub(crate) struct LogFrame<'a> {
    pub first: Seq,
    pub content: Content<'a>,
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
/// was closed. `take` is given each segment of the log, oldest first, with its bytes and a position up to which
/// the log is known to be durable so far; in the end it may be known further.
///
/// # Errors
/// [`Error::Corrupt`] for damage that no crash explains; whatever a file or `take` says.
pub(crate) fn read_log<S: LogSource>(
    files: &[S],
    store: u64,
    floor: u64,
    log_end: Option<(u64, u64)>,
    mut take: impl FnMut(&UsedSegment, &[u8], u64) -> Result<(), Error>,
) -> Result<WholeLog, Error> {
    let mut bytes = Vec::new();
    let mut found: BTreeMap<u64, UsedSegment> = BTreeMap::new();
    for file in files {
        file.read(HEADER_BYTES, &mut bytes)?;
        let mut header = UsedSegment::of_header(file, store, &bytes);
        if header.is_none() {
            // Most often it is a spare.
            file.read(HEADER_BYTES, &mut bytes)?;
            header = UsedSegment::of_header(file, store, &bytes);
        }
        match header {
            Some(segment) => {
                found.insert(file.id(), segment);
            }
            None if file.id() == floor => {
                return Err(Error::corrupt(
                    file.path(),
                    0,
                    "the header of a needed log segment",
                ));
            }
            None => {}
        }
    }
    let mut chain = link(&mut found, floor, log_end.map(|(newest, _)| newest));
    set_positions(&mut chain);
    let source = |id: u64| {
        let at = files.iter().position(|file| file.id() == id);
        &files[at.expect("segments are made of these files")]
    };

    let headers = chain.iter().map(|segment| segment.header.promise);
    let mut promised = headers.max().unwrap_or(0);
    // Up to the first damage.
    let mut kept = 0;
    let mut behind = None;
    while behind.is_none() && kept < chain.len() {
        let limit = chain.get(kept + 1).map(|next| next.header.previous_length);
        let segment = &mut chain[kept];
        segment.read(source(segment.place.id), limit, &mut bytes)?;
        segment.is_bare = segment.frames.is_empty() && segment.holds_no_frame(&bytes);
        if limit != Some(segment.length) {
            behind = Some(segment.promise_behind(&bytes));
        }
        promised = promised.max(segment.promise);
        if let Some((id, length)) = log_end
            && segment.place.id <= id
        {
            // If this is wrong, the log ends before the place where it was closed, which is refused below.
            let whole = if segment.place.id == id {
                length
            } else {
                segment.length
            };
            promised = promised.max(segment.header.start + whole);
        }
        take(segment, &bytes, promised)?;
        kept += 1;
    }
    let mut later = behind.flatten().unwrap_or(0);
    let given_up = chain.split_off(kept);
    for segment in &given_up {
        source(segment.place.id).read(usize::MAX, &mut bytes)?;
        later = later
            .max(segment.header.promise)
            .max(segment.promise_in(&bytes));
    }
    let known = |id: u64| {
        chain
            .iter()
            .chain(&given_up)
            .any(|segment| segment.place.id == id)
    };
    for file in files.iter().filter(|file| !known(file.id())) {
        file.read(usize::MAX, &mut bytes)?;
        let place = Place {
            id: file.id(),
            store,
        };
        let promise = place.promises(&bytes, 2, 0, 0).max();
        // Segments of version 1 had whole headers before they had their names.
        let old = place.promises(&bytes, 1, 0, 0).map(|_| u64::MAX).max();
        later = later.max(promise.max(old).unwrap_or(0));
    }
    let promised = end(&chain, later, log_end)?;
    let is_torn = chain.last().is_some_and(|last| last.is_torn);
    give_up_bare(&mut chain);
    let end = chain.last().map_or(0, UsedSegment::end);
    Ok(WholeLog {
        is_torn,
        segments: chain,
        promised: promised.min(end),
    })
}

/// Gives up segments at the end in which no frame was ever stored: whether their names are durable is not known. A
/// start, or a writer, that had one of them made and failed to sync the directory has ended since, and no later sync
/// makes up for that. Whoever goes on names the last other segment as the one before, whose name was synced before a
/// frame was stored in it. The oldest one stays, for the manifest names it; so does one that was torn or cut, whose
/// whole frames would count as damage if its file outlived its place in the log.
fn give_up_bare(chain: &mut Vec<UsedSegment>) {
    while chain.len() > 1 && chain.last().is_some_and(|last| last.is_bare) {
        chain.pop();
    }
}

/// Follows the log from its oldest segment. Of several segments after one, the newest counts: the others
/// were given up when the log was cut in front of them. A closed store has none above `newest`: what a start
/// made that did not come far does not belong to the log.
fn link(
    found: &mut BTreeMap<u64, UsedSegment>,
    floor: u64,
    newest: Option<u64>,
) -> Vec<UsedSegment> {
    let newest = newest.unwrap_or(u64::MAX);
    let mut chain: Vec<UsedSegment> = found.remove(&floor).into_iter().collect();
    while let Some(last) = chain.last() {
        let after = found
            .range(last.header.id..=newest.max(last.header.id))
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

/// The position that is promised, unless the log ends before it. `later` is what was promised behind its end.
fn end(chain: &[UsedSegment], later: u64, log_end: Option<(u64, u64)>) -> Result<u64, Error> {
    let Some(last) = chain.last() else {
        return Ok(0);
    };
    let end = last.end();
    let torn = |what| Error::corrupt(&last.path, last.length, what);
    let closed = chain
        .iter()
        .find(|segment| Some((segment.header.id, segment.length)) == log_end)
        .map(UsedSegment::end);
    if log_end.is_some() && closed.is_none() {
        return Err(torn(
            "the log ends before the place where the store was closed",
        ));
    }
    if later > end {
        return Err(torn("damaged frame in front of later synced ones"));
    }
    let promises = chain.iter().map(|segment| segment.promise);
    let promised = promises.chain(closed).max().unwrap_or_default();
    if promised > end {
        return Err(torn("the log ends before a place that was synced"));
    }
    Ok(promised)
}

impl UsedSegment {
    /// The segment that has this header at the front of its bytes, if it is whole.
    fn of_header(file: &impl LogSource, store: u64, bytes: &[u8]) -> Option<Self> {
        let place = Place {
            id: file.id(),
            store,
        };
        let (header, version) = place.header(bytes)?;
        Some(Self {
            path: file.path().to_path_buf(),
            place,
            header,
            version,
            frames: Vec::new(),
            length: 0,
            promise: 0,
            is_torn: false,
            is_bare: false,
        })
    }

    fn header_bytes(&self) -> usize {
        if self.version == 1 {
            log::HEADER_BYTES
        } else {
            HEADER_BYTES
        }
    }

    /// Reads all bytes and the frames in them. Where the log seems to end the disk is asked until two answers agree: a
    /// bit that flips on its way must neither cut the log, nor be stored again with what is not known to be durable.
    fn read(
        &mut self,
        source: &impl LogSource,
        limit: Option<u64>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let mut before = None;
        for _ in 0..MOST_READS {
            source.read(usize::MAX, bytes)?;
            self.read_frames(bytes, limit);
            let length = self.place.header(bytes).map(|_| self.length);
            if length.is_some() && (length == limit || length == before) {
                return Ok(());
            }
            before = length;
        }
        match before {
            Some(_) => Ok(()),
            None => Err(Error::corrupt(
                &self.path,
                0,
                "the header of a needed log segment",
            )),
        }
    }

    /// Reads frames until the first one that is not whole, or the limit.
    fn read_frames(&mut self, bytes: &[u8], limit: Option<u64>) {
        self.frames.clear();
        let limit = limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        let start = self.header.start;
        let mut at = self.header_bytes();
        self.promise = self.header.promise;
        while at < limit
            && let Some(frame) = self.place.frame_at(bytes, self.version, start, at)
        {
            at = frame.payload.end;
            self.promise = self.promise.max(frame.promise);
            self.frames.push(frame);
        }
        self.length = at as u64;
        self.is_torn = at < limit && self.place.begins_frame(bytes, self.version, at);
    }

    /// The largest promise of a whole frame behind the damage, if there is one.
    fn promise_behind(&self, bytes: &[u8]) -> Option<u64> {
        let from = usize::try_from(self.length).ok()? + 1;
        let start = self.header.start;
        let promises = self.place.promises(bytes, self.version, start, from);
        promises.max()
    }

    fn holds_no_frame(&self, bytes: &[u8]) -> bool {
        let mut promises = self.place.promises(bytes, self.version, 0, 0);
        promises.next().is_none()
    }

    /// The largest promise of its frames, whole or not.
    fn promise_in(&self, bytes: &[u8]) -> u64 {
        let start = self.header.start;
        let promises = self.place.promises(bytes, self.version, start, 0);
        promises.max().unwrap_or(0)
    }

    /// All batches, in order, out of the segment's bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a whole frame holds no batch, or numbers do not continue.
    pub(crate) fn batches<'a>(
        &'a self,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = Result<LogFrame<'a>, Error>> {
        let mut next = self.header.first;
        self.frames.iter().map(move |frame| {
            let damaged = |what| Error::corrupt(&self.path, frame.offset as u64, what);
            let payload = &bytes[frame.payload.clone()];
            let content = Content::decode(payload, self.version, frame.count)
                .ok_or_else(|| damaged("malformed batch"))?;
            if frame.first != next {
                return Err(damaged("sequence numbers do not continue"));
            }
            next = Seq(next.0 + u64::from(content.len()));
            Ok(LogFrame {
                first: frame.first,
                content,
            })
        })
    }

    /// Number of the segment.
    pub(crate) fn id(&self) -> u64 {
        self.place.id
    }

    /// The number of the first write in this segment.
    pub(crate) fn first(&self) -> Seq {
        self.header.first
    }

    /// The number of the first write that ends behind a position, if there is one.
    pub(crate) fn first_behind(&self, position: u64) -> Option<Seq> {
        let is_before = |frame: &Frame| self.header.start + frame.payload.end as u64 <= position;
        let at = self.frames.partition_point(is_before);
        self.frames.get(at).map(|frame| frame.first)
    }

    /// Position of its first byte.
    pub(crate) fn start(&self) -> u64 {
        self.header.start
    }

    /// Position behind its header.
    pub(crate) fn begin(&self) -> u64 {
        self.header.start + self.header_bytes() as u64
    }

    /// Position behind its last frame.
    fn end(&self) -> u64 {
        self.header.start + self.length
    }
}

impl Place {
    /// The header at the front of these bytes, and its format version.
    fn header(self, bytes: &[u8]) -> Option<(SegmentHeader, u32)> {
        let Self { id, store } = self;
        if let Some(header) = SegmentHeader::decode(bytes, store, id) {
            return Some((header, 2));
        }
        let old = log::Header::decode(bytes, LogKind::Wal, store, id).ok()?;
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

    /// Whether a frame of this segment begins at an offset, whole or not.
    fn begins_frame(self, bytes: &[u8], version: u32, at: usize) -> bool {
        let file_at = at + Self::file_at(version);
        bytes.get(file_at..file_at + 8) == Some(&self.id.to_le_bytes()[..])
    }

    /// Where a frame names its file.
    fn file_at(version: u32) -> usize {
        if version == 1 { 8 } else { FRAME_FILE_AT }
    }

    /// The whole frame at an offset of a segment that begins at position `start`.
    fn frame_at(self, bytes: &[u8], version: u32, start: u64, at: usize) -> Option<Frame> {
        let Self { id, store } = self;
        if version != 1 {
            return format::decode_frame(bytes, at, store, id);
        }
        let old = log::decode_frame(bytes, at, Checksum::new(store, id), id)?;
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
        self,
        bytes: &[u8],
        version: u32,
        start: u64,
        from: usize,
    ) -> impl Iterator<Item = u64> + '_ {
        let file_at = Self::file_at(version);
        let number = self.id.to_le_bytes();
        let rest = bytes.get(from + file_at..).unwrap_or_default();
        let places: Vec<usize> = memmem::find_iter(rest, &number).collect();
        places
            .into_iter()
            .filter_map(move |place| self.frame_at(bytes, version, start, from + place))
            .map(|frame| frame.promise)
    }
}

#[cfg(test)]
mod tests;
