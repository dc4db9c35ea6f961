//! The write-ahead log; bytes in `docs/formats/log.md`.
//!
//! The log is one sequence of bytes, cut into segments of fixed size that are zero-filled or recycled
//! before they are used. A *position* counts the bytes of the whole log, so it orders places in
//! different segments.
//!
//! Invariants:
//! 1. A segment has its number and name, durably, before the first frame is stored in it. It is used once
//!    under that number; frames of an earlier use name another number, and are nothing to readers.
//! 2. A header names the segment before it and the length up to which that one was used.
//! 3. Headers and frames carry a promise: the position up to which the log was synced when they were
//!    made. Segments are synced in order. So damage in front of a promise is corruption; damage behind
//!    all promises is a torn tail, and the log is cut there.
//! 4. Sequence numbers run without gaps.

mod format;
mod reader;
mod writer;

pub(crate) use format::{HEADER_BYTES, Payload, SegmentHeader};
pub(crate) use reader::{
    Content, LogFrame, LogSource, SegmentFile, UsedSegment, read_log, salvage,
};
pub(crate) use writer::{LiveSegment, Spare, StoreError, WalWriter};
