//! Log files that grow by appending: the manifest, and log segments of format version 1, which are only
//! read. Bytes in `docs/formats/log.md`.
//!
//! Invariants:
//! 1. A log file gets its name when its [`Header`], and the frames it begins with, are synced.
//! 2. A header names the previous segment and its valid length, and that segment was synced up to there before.
//!    So only the newest segment can have a torn tail.
//! 3. Each frame carries a promise: the length of its file that was synced when the frame was made.
//!    Damage in front of a promise is corruption; damage after the last one is a torn tail, and is cut.
//! 4. Sequence numbers run without gaps through all segments.

mod frame;
mod header;
mod reader;
mod writer;

pub(crate) use frame::{decode_frame, encode_frame};
pub(crate) use header::{HEADER_BYTES, Header, LogKind};
pub(crate) use reader::LogBytes;
pub(crate) use writer::LogFile;
