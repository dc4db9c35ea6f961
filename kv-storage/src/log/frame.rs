//! One frame: a checksummed record with its place and a promise about durability.

use crate::checksum::Checksum;
use crate::coding::Decoder;
use crate::key::Seq;
use std::ops::Range;

/// Bytes in front of the payload.
pub(crate) const FRAME_HEADER_BYTES: usize = 32;

/// A frame found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Where it begins in its file.
    pub offset: usize,
    pub sequence: Seq,
    /// The promise: this much of the file was synced when the frame was made.
    pub synced: u64,
    /// Where its payload is in its file.
    pub payload: Range<usize>,
}

/// Appends a frame whose payload is written by `payload`, and returns its size in bytes.
pub(crate) fn encode_frame(
    out: &mut Vec<u8>,
    checksum: Checksum,
    file: u64,
    sequence: Seq,
    synced: u64,
    payload: impl FnOnce(&mut Vec<u8>),
) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    for field in [file, sequence.0, synced] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    payload(out);
    let length = u32::try_from(out.len() - start - FRAME_HEADER_BYTES)
        .expect("payloads are limited to 1 GiB");
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    let sum = checksum.of(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&sum.to_le_bytes());
    out.len() - start
}

/// Decodes the frame at `offset` of a file's bytes, if there is an undamaged one.
pub(crate) fn decode_frame(
    bytes: &[u8],
    offset: usize,
    checksum: Checksum,
    file: u64,
) -> Option<Frame> {
    let mut decoder = Decoder::at(bytes, offset);
    let sum = decoder.u32()?;
    let length = decoder.u32()? as usize;
    // Compared before the checksum, because the search for later frames tries every offset.
    if decoder.u64()? != file {
        return None;
    }
    let sequence = Seq(decoder.number()?);
    let synced = decoder.number()?;
    let start = decoder.position();
    decoder.take(length)?;
    let end = decoder.position();
    (checksum.of(&bytes[offset + 4..end]) == sum).then_some(Frame {
        offset,
        sequence,
        synced,
        payload: start..end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;

    #[test]
    fn a_frame_has_the_documented_bytes() {
        let checksum = Checksum::new(0x1122, 7);
        let mut out = Vec::new();
        assert_eq!(
            encode_frame(&mut out, checksum, 7, Seq(43), 56, |out| out
                .extend_from_slice(b"hello")),
            37
        );
        assert_eq!(hex::encode(&out), golden("log.md", "frame-v1"));
        let frame = decode_frame(&out, 0, checksum, 7).unwrap();
        assert_eq!(
            frame,
            Frame {
                offset: 0,
                sequence: Seq(43),
                synced: 56,
                payload: 32..37
            }
        );
    }

    #[test]
    fn a_frame_is_bound_to_its_store_and_file() {
        let mut out = Vec::new();
        encode_frame(&mut out, Checksum::new(1, 7), 7, Seq(1), 0, |out| {
            out.push(1);
        });
        assert!(decode_frame(&out, 0, Checksum::new(1, 7), 7).is_some());
        assert!(decode_frame(&out, 0, Checksum::new(2, 7), 7).is_none());
        assert!(decode_frame(&out, 0, Checksum::new(1, 8), 8).is_none());
    }
}
