//! Log bytes that are encoded but not yet handed to the operating system. Memory only.

use super::frame::encode_frame;
use super::header::{HEADER_BYTES, Header, LogKind};
use crate::batch::WriteBatch;
use crate::checksum::Checksum;
use crate::key::Seq;

/// Work for the log file, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// Append these frames to the current segment.
    Frames(Vec<u8>),
    /// Sync the current segment and start the next one.
    Rotate(Header),
}

/// Encodes frames for the newest segment and remembers what the file does not have yet.
#[derive(Debug)]
pub(crate) struct LogQueue {
    store: u64,
    checksum: Checksum,
    segment: u64,
    /// Offset in the segment at which the next frame will begin.
    end: u64,
    /// Bytes of the segment known to be durable: the promise put into frames.
    synced: u64,
    chunks: Vec<Chunk>,
    bytes: usize,
    /// An empty buffer whose memory is used again.
    spare: Vec<u8>,
}

/// A buffer larger than this is given back to the allocator.
const SPARE_MOST: usize = 4 << 20;

impl LogQueue {
    /// A queue for a segment that has just been created with `start` synced bytes.
    pub(crate) fn new(store: u64, segment: u64, start: u64) -> Self {
        let checksum = Checksum::new(store, segment);
        Self {
            store,
            checksum,
            segment,
            end: start,
            synced: start,
            chunks: Vec::new(),
            bytes: 0,
            spare: Vec::new(),
        }
    }

    /// Adds one frame with a batch.
    pub(crate) fn push(&mut self, first: Seq, batch: &WriteBatch) {
        if !matches!(self.chunks.last(), Some(Chunk::Frames(_))) {
            let buffer = std::mem::take(&mut self.spare);
            self.chunks.push(Chunk::Frames(buffer));
        }
        if let Some(Chunk::Frames(frames)) = self.chunks.last_mut() {
            let size = encode_frame(
                frames,
                self.checksum,
                self.segment,
                first,
                self.synced,
                |out| batch.encode(out),
            );
            self.end += size as u64;
            self.bytes += size;
        }
    }

    /// Ends the present segment; later frames go to segment `id`.
    pub(crate) fn rotate(&mut self, id: u64, first: Seq) {
        self.chunks.push(Chunk::Rotate(Header {
            kind: LogKind::Wal,
            id,
            store: self.store,
            previous: self.segment,
            previous_length: self.end,
            first,
        }));
        self.segment = id;
        self.checksum = Checksum::new(self.store, id);
        self.end = HEADER_BYTES as u64;
        // The next file is created with its header synced.
        self.synced = HEADER_BYTES as u64;
    }

    /// Takes all waiting work.
    pub(crate) fn take(&mut self) -> Vec<Chunk> {
        self.bytes = 0;
        std::mem::take(&mut self.chunks)
    }

    /// Gives chunks back whose work was done.
    pub(crate) fn recycle(&mut self, chunks: Vec<Chunk>) {
        for chunk in chunks {
            if let Chunk::Frames(mut buffer) = chunk
                && (self.spare.capacity()..=SPARE_MOST).contains(&buffer.capacity())
            {
                buffer.clear();
                self.spare = buffer;
            }
        }
    }

    /// Notes that `length` bytes of `segment` are durable.
    pub(crate) fn note_synced(&mut self, segment: u64, length: u64) {
        if segment == self.segment {
            self.synced = self.synced.max(length);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Bytes waiting.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
