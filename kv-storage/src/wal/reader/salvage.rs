//! Finds what is left of a damaged log: every whole frame counts, wherever it is.

use super::super::format::{FRAME_FILE_AT, Frame};
use super::{Content, LogFrame, SegmentFile};
use memchr::memmem;

/// All whole frames of a file that hold something, in the order in which they lie there.
pub(crate) fn salvage(file: &SegmentFile, store: u64) -> Vec<LogFrame<'_>> {
    let mut writes = Vec::new();
    for version in [1, 2] {
        for frame in whole_frames(file, version, store) {
            let payload = &file.bytes[frame.payload.clone()];
            let content = Content::decode(payload, version, frame.count);
            writes.extend(content.map(|content| LogFrame {
                first: frame.first,
                content,
            }));
        }
    }
    writes
}

/// Whole frames at any offset that do not overlap.
fn whole_frames(file: &SegmentFile, version: u32, store: u64) -> Vec<Frame> {
    let file_at = if version == 1 { 8 } else { FRAME_FILE_AT };
    let number = file.id.to_le_bytes();
    let mut frames: Vec<Frame> = Vec::new();
    for place in memmem::find_iter(&file.bytes, &number) {
        let Some(at) = place.checked_sub(file_at) else {
            continue;
        };
        // Values may hold bytes that look like a frame's number.
        if frames.last().is_some_and(|last| at < last.payload.end) {
            continue;
        }
        let place = file.place(store);
        frames.extend(place.frame_at(&file.bytes, version, 0, at));
    }
    frames
}
