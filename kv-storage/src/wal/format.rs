//! Headers and frames of log segments, format version 2.

use crate::batch::WriteBatch;
use crate::checksum::Checksum;
use crate::coding::Decoder;
use crate::key::Seq;
use std::ops::Range;

/// Encoded size of a [`SegmentHeader`].
pub(crate) const HEADER_BYTES: usize = 72;

/// Bytes in front of a frame's payload.
pub(crate) const FRAME_HEADER_BYTES: usize = 40;

/// Where a frame header has its file number, which the search for frames looks for.
pub(super) const FRAME_FILE_AT: usize = 16;

const MAGIC: [u8; 8] = *b"kvlsmlog";

/// Format version of log segments.
const VERSION: u32 = 2;

/// The first bytes of a used segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub id: u64,
    pub store: u64,
    /// Number of the segment before this one; 0 if none.
    pub previous: u64,
    /// How many bytes of that segment belong to the log.
    pub previous_length: u64,
    /// Number of the first write in this segment.
    pub first: Seq,
    /// Position of this header.
    pub start: u64,
    /// The promise: the log was synced up to this position when the segment was begun.
    pub promise: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        for field in [
            self.id,
            self.store,
            self.previous,
            self.previous_length,
            self.first.0,
            self.start,
            self.promise,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let checksum = Checksum::new(self.store, self.id).of(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.try_into()
            .expect("8 + 4 + 7 * 8 + 4 bytes were written")
    }

    /// Decodes the header of segment `id` of `store`; `None` if there is none at the front of these bytes.
    pub(super) fn decode(bytes: &[u8], store: u64, id: u64) -> Option<Self> {
        let covered = bytes.get(..HEADER_BYTES - 4)?;
        let mut decoder = Decoder::new(bytes);
        let (magic, version) = (decoder.array()?, decoder.u32()?);
        let header = Self {
            id: decoder.u64()?,
            store: decoder.u64()?,
            previous: decoder.number()?,
            previous_length: decoder.number()?,
            first: Seq(decoder.number()?),
            start: decoder.number()?,
            promise: decoder.number()?,
        };
        let whole = decoder.u32()? == Checksum::new(store, id).of(covered);
        let ours = magic == MAGIC && version == VERSION;
        (whole && ours && header.store == store && header.id == id).then_some(header)
    }
}

/// A batch with the checksum of its payload, which is made before the writer's lock is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Payload<'a> {
    pub bytes: &'a [u8],
    pub count: u32,
    checksum: u32,
}

impl<'a> Payload<'a> {
    pub(crate) fn of(store: u64, batch: &'a WriteBatch) -> Self {
        let count = u32::try_from(batch.len()).expect("a batch counts in 32 bits");
        Self::new(store, batch.payload(), count)
    }

    /// Encoded operations, `count` of them.
    pub(crate) fn new(store: u64, bytes: &'a [u8], count: u32) -> Self {
        Self {
            bytes,
            count,
            checksum: Checksum::of_store(store).of(bytes),
        }
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        (FRAME_HEADER_BYTES + self.bytes.len()) as u64
    }

    /// The header that goes in front of the payload.
    pub(super) fn frame_header(
        &self,
        checksum: Checksum,
        file: u64,
        first: Seq,
        promise: u64,
    ) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        let length = u32::try_from(self.bytes.len()).expect("batches are limited to 1 GiB");
        out[4..8].copy_from_slice(&self.checksum.to_le_bytes());
        out[8..12].copy_from_slice(&length.to_le_bytes());
        out[12..16].copy_from_slice(&self.count.to_le_bytes());
        out[16..24].copy_from_slice(&file.to_le_bytes());
        out[24..32].copy_from_slice(&first.0.to_le_bytes());
        out[32..40].copy_from_slice(&promise.to_le_bytes());
        let sum = checksum.of(&out[4..]);
        out[..4].copy_from_slice(&sum.to_le_bytes());
        out
    }
}

/// A frame found in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub offset: usize,
    pub first: Seq,
    pub count: u32,
    pub promise: u64,
    /// Where its payload is in the file.
    pub payload: Range<usize>,
}

/// Decodes the frame at `offset` of segment `file`, if there is a whole one.
pub(super) fn decode_frame(bytes: &[u8], offset: usize, store: u64, file: u64) -> Option<Frame> {
    let mut decoder = Decoder::at(bytes, offset);
    let (sum, payload_sum) = (decoder.u32()?, decoder.u32()?);
    let (length, count) = (decoder.u32()? as usize, decoder.u32()?);
    // Compared before the checksums: most places that are looked at hold no frame.
    if decoder.u64()? != file {
        return None;
    }
    let (first, promise) = (Seq(decoder.number()?), decoder.number()?);
    let start = decoder.position();
    let payload = decoder.take(length)?;
    let header = &bytes[offset + 4..start];
    let whole = Checksum::new(store, file).of(header) == sum
        && Checksum::of_store(store).of(payload) == payload_sum;
    whole.then_some(Frame {
        offset,
        first,
        count,
        promise,
        payload: start..start + length,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;

    const HEADER: SegmentHeader = SegmentHeader {
        id: 7,
        store: 0x1122,
        previous: 5,
        previous_length: 600,
        first: Seq(43),
        start: 5000,
        promise: 4800,
    };

    fn frame() -> Vec<u8> {
        let mut batch = WriteBatch::new();
        batch.put(b"a", b"1");
        batch.delete(b"bb");
        batch.put(b"", b"");
        let payload = Payload::of(0x1122, &batch);
        let header = payload.frame_header(Checksum::new(0x1122, 7), 7, Seq(43), 5072);
        [&header[..], payload.bytes].concat()
    }

    #[test]
    fn header_and_frame_have_the_documented_bytes() {
        assert_eq!(hex::encode(HEADER.encode()), golden("log.md", "header"));
        assert_eq!(hex::encode(frame()), golden("log.md", "frame"));
    }

    #[test]
    fn a_header_with_any_bit_flipped_or_of_another_file_is_none() {
        let good = HEADER.encode();
        assert_eq!(SegmentHeader::decode(&good, 0x1122, 7), Some(HEADER));
        assert_eq!(SegmentHeader::decode(&good, 0x1122, 8), None);
        assert_eq!(SegmentHeader::decode(&good, 0x1123, 7), None);
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bad, 0x1122, 7), None, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_with_any_bit_flipped_or_of_another_file_is_none() {
        let good = frame();
        let found = decode_frame(&good, 0, 0x1122, 7).unwrap();
        assert_eq!(
            (found.first, found.count, found.promise),
            (Seq(43), 3, 5072)
        );
        assert_eq!(decode_frame(&good, 0, 0x1122, 8), None);
        assert_eq!(decode_frame(&good, 0, 0x1123, 7), None);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_frame(&bad, 0, 0x1122, 7), None, "bit {bit}");
        }
    }
}
