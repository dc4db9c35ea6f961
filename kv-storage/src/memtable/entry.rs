//! How one version lies in the arena.
//!
//! | offset | size | field |
//! |--:|--:|---|
//! | 0 | 4 | arena offset of the entry before it in its bucket's chain, 0 if none |
//! | 4 | 4 | low half of the key's hash |
//! | 8 | 8 | sequence number |
//! | 16 | 4 | value length |
//! | 20 | 2 | key length |
//! | 22 | 1 | what the operation does |
//! | 23 | 1 | unused |
//! | 24 | | key, value, anything up to a multiple of 8 |
//!
//! A deleted range has its first key as key and the first key behind it as value. It is in no chain.

use super::arena::Arena;
use crate::batch::Operation;
use crate::key::{KeyVersion, Kind, OperationKind, Seq};

const HEADER_BYTES: usize = 24;

/// Arena bytes that a version takes.
pub(crate) fn entry_bytes(key: usize, value: usize) -> usize {
    (HEADER_BYTES + key + value).next_multiple_of(8)
}

/// One version in an arena.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// The older entry of the same bucket.
    pub next: u32,
    pub hash: u32,
    pub seq: Seq,
    /// Of a deleted range it means nothing.
    pub kind: Kind,
    pub is_range: bool,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// What is known of an entry before it is published.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peeked {
    pub hash: u32,
    pub size: usize,
    pub is_range: bool,
}

impl<'a> Entry<'a> {
    /// Writes everything but the chain to the front of `into`. Returns the entry's size.
    pub(super) fn write(into: &mut [u8], hash: u32, seq: Seq, operation: &Operation<'_>) -> usize {
        let (key, value) = (operation.key, operation.value);
        into[4..8].copy_from_slice(&hash.to_le_bytes());
        into[8..16].copy_from_slice(&seq.0.to_le_bytes());
        let value_length = u32::try_from(value.len()).expect("batches are limited to 1 GiB");
        into[16..20].copy_from_slice(&value_length.to_le_bytes());
        let key_length = u16::try_from(key.len()).expect("keys are limited to 65535 bytes");
        into[20..22].copy_from_slice(&key_length.to_le_bytes());
        into[22] = operation.kind as u8;
        into[HEADER_BYTES..HEADER_BYTES + key.len()].copy_from_slice(key);
        let start = HEADER_BYTES + key.len();
        into[start..start + value.len()].copy_from_slice(value);
        entry_bytes(key.len(), value.len())
    }

    /// Chains the entry at the front of `into` to an older one.
    pub(super) fn write_next(into: &mut [u8], next: u32) {
        into[..4].copy_from_slice(&next.to_le_bytes());
    }

    /// Looks at the entry at the front of a slot's bytes.
    pub(super) fn peek(bytes: &[u8]) -> Peeked {
        let value = word(bytes, 16) as usize;
        let key = usize::from(u16::from_le_bytes([bytes[20], bytes[21]]));
        Peeked {
            hash: word(bytes, 4),
            size: entry_bytes(key, value),
            is_range: bytes[22] == OperationKind::DeleteRange as u8,
        }
    }

    /// The published entry at an offset.
    pub(super) fn read(arena: &'a Arena, at: u32) -> Self {
        let at = at as usize;
        let header = arena.bytes(at, HEADER_BYTES);
        let key_length = usize::from(u16::from_le_bytes([header[20], header[21]]));
        let value_length = word(header, 16) as usize;
        let content = arena.bytes(at + HEADER_BYTES, key_length + value_length);
        let (key, value) = content.split_at(key_length);
        let seq = u64::from(word(header, 8)) | u64::from(word(header, 12)) << 32;
        Self {
            next: word(header, 0),
            hash: word(header, 4),
            seq: Seq(seq),
            kind: if header[22] == OperationKind::Put as u8 {
                Kind::Put
            } else {
                Kind::Delete
            },
            is_range: header[22] == OperationKind::DeleteRange as u8,
            key,
            value,
        }
    }

    /// Arena bytes that it takes.
    pub(super) fn size(&self) -> usize {
        entry_bytes(self.key.len(), self.value.len())
    }

    pub(crate) fn version(&self) -> KeyVersion<'a> {
        KeyVersion::new(self.key, self.seq)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
