//! Stores frames in segments. Owned by the writer's lock; never waits for the disk.

use super::format::{HEADER_BYTES, Payload, SegmentHeader};
use crate::checksum::Checksum;
use crate::error::{Error, IoContext};
use crate::files::Numbered;
use crate::fs::LogSegment;
use crate::key::Seq;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

/// A segment with a durable name that waits to be used.
#[derive(Debug)]
pub(crate) struct Spare {
    pub id: u64,
    pub segment: Arc<dyn LogSegment>,
}

/// A segment that holds a part of the log.
#[derive(Debug, Clone)]
pub(crate) struct LiveSegment {
    pub id: u64,
    pub segment: Arc<dyn LogSegment>,
}

/// A frame could not be stored.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// No segment with that much room is ready. Nothing was changed.
    NoSpare {
        /// Size of a segment that would do, in bytes.
        needed: u64,
    },
    /// The segment failed; it is unknown what it holds.
    Failed(Error),
}

#[derive(Debug)]
pub(crate) struct WalWriter {
    dir: PathBuf,
    store: u64,
    /// Oldest first; the last one is being written.
    live: VecDeque<LiveSegment>,
    checksum: Checksum,
    /// Position of the present segment's header.
    start: u64,
    /// Where in the segment the next frame will begin.
    offset: u64,
    /// Segments that may hold unsynced bytes, oldest first, without the present one.
    unsynced: Vec<LiveSegment>,
    spares: VecDeque<Spare>,
}

impl WalWriter {
    /// Goes on in `present`, whose header was stored and synced.
    pub(crate) fn new(dir: PathBuf, header: &SegmentHeader, present: LiveSegment) -> Self {
        Self {
            dir,
            store: header.store,
            checksum: Checksum::new(header.store, header.id),
            live: VecDeque::from([present]),
            start: header.start,
            offset: HEADER_BYTES as u64,
            unsynced: Vec::new(),
            spares: VecDeque::new(),
        }
    }

    /// Adds older segments, oldest first, and says which of them are not known to be synced.
    pub(crate) fn adopt(&mut self, older: Vec<LiveSegment>, unsynced: Vec<LiveSegment>) {
        for segment in older.into_iter().rev() {
            self.live.push_front(segment);
        }
        self.unsynced = unsynced;
    }

    /// Stores a frame. It survives the death of the process when this returns.
    pub(crate) fn store(
        &mut self,
        payload: &Payload<'_>,
        first: Seq,
        promise: u64,
    ) -> Result<(), StoreError> {
        let length = payload.frame_bytes();
        if self.offset + length > self.present().segment.size() {
            self.begin_next(length, first, promise)?;
        }
        let id = self.present().id;
        let header = payload.frame_header(self.checksum, id, first, promise);
        self.present()
            .segment
            .store(self.offset, &[&header, payload.bytes])
            .context("store in", &Numbered::Log(id).path(&self.dir))
            .map_err(StoreError::Failed)?;
        self.offset += length;
        Ok(())
    }

    /// Goes on in the next spare, if it has room for a frame of `length` bytes.
    fn begin_next(&mut self, length: u64, first: Seq, promise: u64) -> Result<(), StoreError> {
        let needed = HEADER_BYTES as u64 + length;
        let fits = |spare: &mut Spare| spare.segment.size() >= needed;
        let Some(spare) = self.spares.pop_front_if(fits) else {
            return Err(StoreError::NoSpare { needed });
        };
        let header = SegmentHeader {
            id: spare.id,
            store: self.store,
            previous: self.present().id,
            previous_length: self.offset,
            first,
            start: self.start + self.offset,
            promise,
        };
        spare
            .segment
            .store(0, &[&header.encode()])
            .context("store in", &Numbered::Log(spare.id).path(&self.dir))
            .map_err(StoreError::Failed)?;
        self.present().segment.rest();
        self.unsynced.push(self.present().clone());
        self.live.push_back(LiveSegment {
            id: spare.id,
            segment: spare.segment,
        });
        self.checksum = Checksum::new(self.store, spare.id);
        (self.start, self.offset) = (header.start, HEADER_BYTES as u64);
        Ok(())
    }

    fn present(&self) -> &LiveSegment {
        self.live
            .back()
            .expect("a log always has a present segment")
    }

    /// A segment that holds a part of the log.
    pub(crate) fn segment(&self, id: u64) -> Option<LiveSegment> {
        let mut live = self.live.iter();
        live.find(|segment| segment.id == id).cloned()
    }

    /// Number of the present segment, and how much of it is used.
    pub(crate) fn end(&self) -> (u64, u64) {
        (self.present().id, self.offset)
    }

    /// Position behind the header of the present segment.
    pub(crate) fn begin(&self) -> u64 {
        self.start + HEADER_BYTES as u64
    }

    /// Position behind the last frame.
    pub(crate) fn position(&self) -> u64 {
        self.start + self.offset
    }

    /// The segments that a sync of everything stored so far must cover, oldest first.
    pub(crate) fn to_sync(&self) -> Vec<LiveSegment> {
        let mut segments = self.unsynced.clone();
        segments.push(self.present().clone());
        segments
    }

    /// Notes that these segments were synced, as they were when [`to_sync`](Self::to_sync) named them.
    pub(crate) fn note_synced(&mut self, synced: &[LiveSegment]) {
        // The last one was the present segment then; it may have grown since.
        let whole = &synced[..synced.len() - 1];
        self.unsynced
            .retain(|segment| !whole.iter().any(|synced| synced.id == segment.id));
    }

    /// Gives up the segments numbered below `floor`.
    pub(crate) fn release_below(&mut self, floor: u64) -> Vec<LiveSegment> {
        let mut released = Vec::new();
        while self.live.len() > 1
            && let Some(segment) = self.live.pop_front_if(|segment| segment.id < floor)
        {
            released.push(segment);
        }
        self.unsynced.retain(|segment| segment.id >= floor);
        released
    }

    /// Keeps a spare for later. One that is numbered below the present segment came too late, and is
    /// given back: segments are used in the order of their numbers.
    pub(crate) fn add_spare(&mut self, spare: Spare) -> Option<Spare> {
        if spare.id < self.present().id {
            return Some(spare);
        }
        let at = self.spares.partition_point(|other| other.id < spare.id);
        self.spares.insert(at, spare);
        None
    }

    /// Spares at the front that are too small for a frame that is waiting.
    pub(crate) fn take_small_spares(&mut self, needed: u64) -> Vec<Spare> {
        let mut small = Vec::new();
        while let Some(spare) = self
            .spares
            .pop_front_if(|spare| spare.segment.size() < needed)
        {
            small.push(spare);
        }
        small
    }

    /// Gives up all spares but the first `kept`.
    pub(crate) fn take_surplus(&mut self, kept: usize) -> Vec<Spare> {
        let kept = kept.min(self.spares.len());
        self.spares.split_off(kept).into()
    }

    pub(crate) fn spares(&self) -> usize {
        self.spares.len()
    }

    pub(crate) fn segments(&self) -> usize {
        self.live.len()
    }

    /// True if at least half of the present segment is used.
    pub(crate) fn is_half_used(&self) -> bool {
        self.offset * 2 >= self.present().segment.size()
    }
}
