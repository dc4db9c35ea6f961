//! Frames: a fixed header of 16 bytes, then the payload. Pure: bytes in, frames out.
//!
//! ```text
//! 0        4      5         6        8    12            16
//! | len u32 | kind | version | method | id | deadline_ms | payload: len bytes |
//! ```
//! All numbers are little-endian. `docs/formats/wire.md` has the meaning of every field.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Length of a header in bytes.
pub const HEADER_BYTES: usize = 16;

/// The longest payload of a frame that shares a stream with others; longer ones go on a stream of
/// their own, so that a small request never waits behind a large value.
pub const MAX_LANE_PAYLOAD_BYTES: usize = 64 << 10;

/// The longest payload of any frame: an object, and what stands around it. A coordinator lets the values of a key grow to
/// 16 MiB together; five that did so apart from each other make an object of 80 MiB when theirs are merged.
pub const MAX_PAYLOAD_BYTES: usize = 84 << 20;

/// The longest payload of a request of a client or an admin: a value of 4 MiB, and what stands around it.
pub const MAX_CLIENT_PAYLOAD_BYTES: usize = 20 << 20;

/// The version of the message structures that this build speaks.
pub const VERSION: u8 = 1;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The first frame in each direction of a lane; `method` is the lane's class.
    Hello = 1,
    /// Asks for something; `id` will be in the response.
    Request = 2,
    /// Answers the request with the same `id`.
    Response = 3,
    /// The caller no longer waits for the response with this `id`.
    Cancel = 4,
    /// Bytes of the gossip protocol; nobody answers.
    Gossip = 5,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Hello,
        Self::Request,
        Self::Response,
        Self::Cancel,
        Self::Gossip,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// What stands before every payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the payload that follows.
    pub len: u32,
    /// What the frame is.
    pub kind: Kind,
    /// The version of the payload's structure.
    pub version: u8,
    /// A method's number in requests and responses (0: the response is an error), a class's in
    /// hellos, else 0.
    pub method: u16,
    /// Ties a response or a cancel to its request; else 0.
    pub id: u32,
    /// In requests, the milliseconds that are left for an answer; else 0.
    pub deadline_ms: u32,
}

impl Header {
    /// The header's 16 bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_u32_le(self.len);
        out.put_u8(self.kind as u8);
        out.put_u8(self.version);
        out.put_u16_le(self.method);
        out.put_u32_le(self.id);
        out.put_u32_le(self.deadline_ms);
        bytes
    }

    /// Reads a header and checks its length against `limit`, before anything is reserved for it.
    ///
    /// # Errors
    /// [`FrameError`]; the stream cannot be read on.
    pub fn parse(bytes: &[u8; HEADER_BYTES], limit: usize) -> Result<Self, FrameError> {
        let mut input = &bytes[..];
        let len = input.get_u32_le();
        let kind = input.get_u8();
        let header = Self {
            len,
            kind: Kind::from_number(kind).ok_or(FrameError::UnknownKind { kind })?,
            version: input.get_u8(),
            method: input.get_u16_le(),
            id: input.get_u32_le(),
            deadline_ms: input.get_u32_le(),
        };
        let fits = usize::try_from(len).is_ok_and(|len| len <= limit);
        if fits {
            Ok(header)
        } else {
            Err(FrameError::TooLong { len, limit })
        }
    }

    /// The payload's length.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.len as usize
    }
}

/// A header with its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The header.
    pub header: Header,
    /// The payload, `header.len` bytes.
    pub payload: Bytes,
}

impl Frame {
    /// Reads the one frame that `bytes` must be, nothing more and nothing less.
    ///
    /// # Errors
    /// [`FrameError`] when it is not.
    pub fn parse_only(mut bytes: Bytes, limit: usize) -> Result<Self, FrameError> {
        let Some(head) = bytes.first_chunk() else {
            return Err(FrameError::Length {
                have: bytes.len(),
                want: HEADER_BYTES,
            });
        };
        let header = Header::parse(head, limit)?;
        bytes.advance(HEADER_BYTES);
        if bytes.len() != header.payload_bytes() {
            return Err(FrameError::Length {
                have: bytes.len(),
                want: header.payload_bytes(),
            });
        }
        Ok(Self {
            header,
            payload: bytes,
        })
    }
}

/// Cuts the bytes of a lane into frames.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: BytesMut,
}

impl FrameBuffer {
    /// Adds bytes in the order in which they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the next whole frame, if there is one.
    ///
    /// # Errors
    /// [`FrameError`]; the stream cannot be read on.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(head) = self.bytes.first_chunk() else {
            return Ok(None);
        };
        let header = Header::parse(head, MAX_LANE_PAYLOAD_BYTES)?;
        if self.bytes.len() < HEADER_BYTES + header.payload_bytes() {
            return Ok(None);
        }
        self.bytes.advance(HEADER_BYTES);
        let payload = self.bytes.split_to(header.payload_bytes()).freeze();
        Ok(Some(Frame { header, payload }))
    }

    /// Whether a frame has begun and not ended.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.bytes.is_empty()
    }
}

/// Why bytes are not a frame. The stream they came on, and its connection, are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Nobody sends this kind of frame.
    #[error("a frame of unknown kind {kind}")]
    UnknownKind {
        /// The kind's number.
        kind: u8,
    },
    /// The frame is longer than its place allows.
    #[error("a frame of {len} bytes where the limit is {limit}")]
    TooLong {
        /// Its payload's length.
        len: u32,
        /// The limit.
        limit: usize,
    },
    /// A frame that must fill its datagram does not.
    #[error("a frame with {have} bytes that should have {want}")]
    Length {
        /// The bytes there are.
        have: usize,
        /// The bytes there should be.
        want: usize,
    },
    /// The kind of frame may not stand here.
    #[error("a frame of kind {kind:?} where none may stand")]
    OutOfPlace {
        /// The kind.
        kind: Kind,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: Header = Header {
        len: 5,
        kind: Kind::Request,
        version: VERSION,
        method: 0x0102,
        id: 0x0a0b_0c0d,
        deadline_ms: 1500,
    };

    #[test]
    fn a_header_has_its_golden_bytes() {
        let bytes = SAMPLE.to_bytes();
        assert_eq!(hex::encode(bytes), "05000000020102010d0c0b0adc050000");
        assert_eq!(Header::parse(&bytes, 5), Ok(SAMPLE));
    }

    #[test]
    fn every_kind_has_its_golden_number() {
        assert_eq!(Kind::ALL.map(|kind| kind as u8), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_length_above_the_limit_and_an_unknown_kind_are_refused() {
        let bytes = SAMPLE.to_bytes();
        assert_eq!(
            Header::parse(&bytes, 4),
            Err(FrameError::TooLong { len: 5, limit: 4 })
        );
        let mut bytes = bytes;
        bytes[4] = 99;
        assert_eq!(
            Header::parse(&bytes, 5),
            Err(FrameError::UnknownKind { kind: 99 })
        );
    }

    #[test]
    fn a_datagram_is_one_frame_and_nothing_else() {
        let mut whole = SAMPLE.to_bytes().to_vec();
        whole.extend_from_slice(b"hello");
        let frame = Frame::parse_only(whole.clone().into(), 100).expect("one frame");
        assert_eq!(&frame.payload[..], b"hello");
        for len in 0..whole.len() {
            assert!(Frame::parse_only(Bytes::copy_from_slice(&whole[..len]), 100).is_err());
        }
        whole.push(0);
        assert!(Frame::parse_only(whole.into(), 100).is_err());
    }

    proptest! {
        #[test]
        fn frames_survive_being_cut_anywhere(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
            cut in 1_usize..64,
        ) {
            let mut stream = Vec::new();
            for (id, payload) in (0..).zip(&payloads) {
                let len = u32::try_from(payload.len()).expect("short");
                stream.extend_from_slice(&Header { len, id, ..SAMPLE }.to_bytes());
                stream.extend_from_slice(payload);
            }
            let mut buffer = FrameBuffer::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(cut) {
                buffer.push(piece);
                while let Some(frame) = buffer.next_frame().expect("well-formed") {
                    prop_assert_eq!(frame.header.id as usize, seen.len());
                    seen.push(frame.payload.to_vec());
                }
            }
            prop_assert_eq!(seen, payloads);
            prop_assert!(!buffer.is_partial());
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = FrameBuffer::default();
            buffer.push(&bytes);
            while let Ok(Some(frame)) = buffer.next_frame() {
                prop_assert_eq!(frame.payload.len(), frame.header.payload_bytes());
            }
            let _ = Frame::parse_only(bytes.into(), 100);
        }
    }
}
