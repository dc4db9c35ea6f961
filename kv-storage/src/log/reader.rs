//! Reads a log file back, and tells a torn tail from corruption.

use super::frame::{Frame, decode_frame};
use super::header::{HEADER_BYTES, Header, LogKind};
use crate::checksum::Checksum;
use crate::error::Error;
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// Where a log file is known to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// The next segment's header says that this many bytes were synced: all of them must be whole.
    At(u64),
    /// It is the newest file: a crash may have torn what follows the last promise.
    Open,
}

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

    /// All whole frames from the start.
    ///
    /// # Errors
    /// [`Error::Corrupt`] at the first damaged frame, unless it is part of a torn tail.
    pub(crate) fn frames(&self, tail: Tail) -> Result<Vec<Frame>, Error> {
        let limit = match tail {
            Tail::At(end) => usize::try_from(end).unwrap_or(usize::MAX),
            Tail::Open => self.bytes.len(),
        };
        let mut frames = Vec::new();
        let mut at = HEADER_BYTES;
        while at < limit {
            let Some(frame) = decode_frame(&self.bytes, at, self.checksum, self.id) else {
                break;
            };
            at = frame.payload.end;
            frames.push(frame);
        }
        if at == limit {
            return Ok(frames);
        }
        if tail != Tail::Open {
            return Err(self.corrupt(at, "damaged frame in a segment that was synced whole"));
        }
        if self.frames_after(at).any(|later| later.synced > at as u64) {
            return Err(self.corrupt(at, "damaged frame in front of later synced ones"));
        }
        Ok(frames)
    }

    /// Whole frames at any offset behind `offset`.
    fn frames_after(&self, offset: usize) -> impl Iterator<Item = Frame> + '_ {
        (offset + 1..self.bytes.len())
            .filter_map(|at| decode_frame(&self.bytes, at, self.checksum, self.id))
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

    fn read(bytes: &[u8], tail: Tail) -> Result<usize, Error> {
        let log = LogBytes::new(Path::new("l"), STORE, ID, Bytes::copy_from_slice(bytes));
        log.frames(tail).map(|frames| frames.len())
    }

    #[test]
    fn a_file_cut_anywhere_yields_the_whole_frames_before_the_cut() {
        let (bytes, starts) = sample();
        for end in 56..=bytes.len() {
            let whole = starts.iter().filter(|start| **start <= end).count() - 1;
            assert_eq!(
                read(&bytes[..end], Tail::Open).unwrap(),
                whole,
                "cut at {end}"
            );
            assert_eq!(
                read(&bytes[..end], Tail::At(bytes.len() as u64)).is_ok(),
                end == bytes.len()
            );
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
            match read(&bad, Tail::Open) {
                Err(Error::Corrupt { offset, .. }) => {
                    assert_eq!((start, offset), (0, starts[0] as u64));
                }
                Ok(count) => assert!(start > 0 && count == start, "byte {at}"),
                Err(other) => panic!("{other}"),
            }
            assert!(read(&bad, Tail::At(bytes.len() as u64)).is_err());
        }
    }
}
