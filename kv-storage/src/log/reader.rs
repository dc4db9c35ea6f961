//! Reads a log file back, and tells a torn tail from corruption.

use super::frame::{Frame, decode_frame};
use super::header::{HEADER_BYTES, Header, LogKind};
use crate::checksum::Checksum;
use crate::error::Error;
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// The bytes of a log file.
#[derive(Debug, Clone)]
pub(crate) struct LogBytes {
    path: PathBuf,
    id: u64,
    checksum: Checksum,
    bytes: Bytes,
}

impl LogBytes {
    pub(crate) fn new(path: &Path, store: u64, id: u64, bytes: Bytes) -> Self {
        Self {
            path: path.to_path_buf(),
            id,
            checksum: Checksum::new(store, id),
            bytes,
        }
    }

    pub(crate) fn payload(&self, frame: &Frame) -> Bytes {
        self.bytes.slice(frame.payload.clone())
    }

    pub(crate) fn corrupt(&self, offset: usize, what: &'static str) -> Error {
        Error::corrupt(&self.path, offset as u64, what)
    }

    /// The header. Files get their names after their headers are synced, so a damaged one is corruption.
    pub(crate) fn header(&self, kind: LogKind, store: u64) -> Result<Header, Error> {
        Header::decode(&self.bytes, kind, store, self.id).map_err(|what| self.corrupt(0, what))
    }

    /// All whole frames from the start; a crash may have torn what follows the last promise.
    ///
    /// # Errors
    /// [`Error::Corrupt`] at the first damaged frame, unless it is part of a torn tail.
    pub(crate) fn frames(&self) -> Result<Vec<Frame>, Error> {
        let mut frames = Vec::new();
        let mut at = HEADER_BYTES;
        while let Some(frame) = self.frame_at(at) {
            at = frame.payload.end;
            frames.push(frame);
        }
        if self.frames_after(at).any(|later| later.synced > at as u64) {
            return Err(self.corrupt(at, "damaged frame in front of later synced ones"));
        }
        Ok(frames)
    }

    /// Where the whole frames end, if more bytes follow them.
    pub(crate) fn tail(&self, frames: &[Frame]) -> Option<usize> {
        let end = frames
            .last()
            .map_or(HEADER_BYTES, |frame| frame.payload.end);
        (end < self.bytes.len()).then_some(end)
    }

    /// The whole frame at an offset.
    pub(crate) fn frame_at(&self, offset: usize) -> Option<Frame> {
        decode_frame(&self.bytes, offset, self.checksum, self.id)
    }

    fn frames_after(&self, offset: usize) -> impl Iterator<Item = Frame> + '_ {
        (offset + 1..self.bytes.len()).filter_map(|at| self.frame_at(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Seq;
    use crate::log::encode_frame;

    const STORE: u64 = 3;
    const ID: u64 = 9;

    /// Three frames; the third promises that the first was synced.
    fn sample() -> (Vec<u8>, Vec<usize>) {
        let header = Header {
            kind: LogKind::Wal,
            id: ID,
            store: STORE,
            previous: 0,
            previous_length: 0,
            first: Seq(1),
        };
        let mut bytes = header.encode().to_vec();
        let mut starts = Vec::new();
        for (sequence, synced) in [(1, 56), (2, 56), (3, 56 + 42)] {
            starts.push(bytes.len());
            encode_frame(
                &mut bytes,
                Checksum::new(STORE, ID),
                ID,
                Seq(sequence),
                synced,
                |out| {
                    out.extend_from_slice(&[sequence as u8; 10]);
                },
            );
        }
        starts.push(bytes.len());
        (bytes, starts)
    }

    fn read(bytes: &[u8]) -> Result<usize, Error> {
        let log = LogBytes::new(Path::new("l"), STORE, ID, Bytes::copy_from_slice(bytes));
        log.frames().map(|frames| frames.len())
    }

    #[test]
    fn a_file_cut_anywhere_yields_the_whole_frames_before_the_cut() {
        let (bytes, starts) = sample();
        for end in 56..=bytes.len() {
            let whole = starts.iter().filter(|start| **start <= end).count() - 1;
            assert_eq!(read(&bytes[..end]).unwrap(), whole, "cut at {end}");
        }
    }

    #[test]
    fn damage_before_a_promise_is_corruption_and_after_it_a_torn_tail() {
        let (bytes, starts) = sample();
        for (at, start) in
            (56..bytes.len()).map(|at| (at, starts.iter().rposition(|start| *start <= at).unwrap()))
        {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            match read(&bad) {
                Err(Error::Corrupt { offset, .. }) => {
                    assert_eq!((start, offset), (0, starts[0] as u64));
                }
                Ok(count) => assert!(start > 0 && count == start, "byte {at}"),
                Err(other) => panic!("{other}"),
            }
        }
    }
}
