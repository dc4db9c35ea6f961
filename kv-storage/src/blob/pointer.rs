//! What a table holds in the place of a value that lies in a blob file.

use super::format::HEAD_BYTES;
use crate::coding::{Decoder, put_varint};

/// Where a value lies, how long it is, and what its bytes must sum to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pointer {
    /// Number of the blob file.
    pub file: u64,
    /// Where its record begins.
    pub offset: u64,
    /// Bytes on disk, codec byte included, without the record's head.
    pub stored: u32,
    /// Bytes of the value.
    pub raw: u32,
    /// The same as in the record. Kept here, in the parent, so that a value written to the wrong place is
    /// noticed.
    pub checksum: u32,
}

impl Pointer {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.file);
        put_varint(out, self.offset);
        put_varint(out, u64::from(self.stored));
        put_varint(out, u64::from(self.raw));
        out.extend_from_slice(&self.checksum.to_le_bytes());
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        let pointer = Self {
            file: decoder.varint()?,
            offset: decoder.varint()?,
            stored: decoder.varint()?.try_into().ok()?,
            raw: decoder.varint()?.try_into().ok()?,
            checksum: decoder.u32()?,
        };
        decoder.is_empty().then_some(pointer)
    }

    /// Bytes that the value takes in its file.
    pub(crate) fn record_bytes(&self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.stored)
    }
}
