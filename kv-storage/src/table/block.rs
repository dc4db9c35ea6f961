//! Data blocks: sorted entries that are searched as they lie, without decoding.
//!
//! A block is a header, one fingerprint byte and one offset for each entry, the prefix that all keys
//! share, and the entries (docs/formats/sstable.md). A point lookup compares fingerprints, so it
//! touches the header with the fingerprints, one offset, and one entry: three or four cache lines.

use crate::coding::Decoder;
use crate::key::{KeyVersion, Kind, Seq};
use bytes::Bytes;
use std::cmp::Ordering;
use std::ops::Range;

/// Number of entries u32, length of the shared prefix u16, width of an offset u8, zero u8.
pub(super) const HEADER_BYTES: usize = 8;

/// Says that a block's inner structure is broken although its checksum was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The fingerprint of a key with this hash.
pub(super) fn fingerprint(hash: u64) -> u8 {
    hash as u8
}

/// A data block in memory.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Bytes,
    count: usize,
    /// Offsets take four bytes instead of two.
    wide: bool,
    offsets_at: usize,
    prefix_at: usize,
    entries_at: usize,
}

/// One entry. Its key is the block's prefix and the suffix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub seq: Seq,
    pub kind: Kind,
    pub suffix: &'a [u8],
    /// Where the value lies in the block.
    pub value: Range<usize>,
}

impl Block {
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        let mut header = Decoder::new(&bytes);
        let count = header.u32().ok_or(Malformed)? as usize;
        let prefix_len = header.array().map(u16::from_le_bytes).ok_or(Malformed)?;
        let width = match header.array().ok_or(Malformed)? {
            [2, 0] => 2,
            [4, 0] => 4,
            _ => return Err(Malformed),
        };
        let offsets_at = HEADER_BYTES + count;
        let prefix_at = count
            .checked_mul(width)
            .and_then(|size| offsets_at.checked_add(size))
            .ok_or(Malformed)?;
        let entries_at = prefix_at + usize::from(prefix_len);
        if count == 0 || entries_at > bytes.len() {
            return Err(Malformed);
        }
        Ok(Self {
            bytes,
            count,
            wide: width == 4,
            offsets_at,
            prefix_at,
            entries_at,
        })
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Number of entries, at least 1.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// What all keys begin with.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.bytes[self.prefix_at..self.entries_at]
    }

    pub(super) fn value(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// A value for keeping. A small one is copied, so that it does not hold the whole block in memory.
    pub(super) fn value_bytes(&self, range: Range<usize>) -> Bytes {
        if range.len() <= self.bytes.len() / 2 {
            Bytes::copy_from_slice(&self.bytes[range])
        } else {
            self.bytes.slice(range)
        }
    }

    /// The newest version of a key numbered at most `at`.
    pub(super) fn get(
        &self,
        key: &[u8],
        hash: u64,
        at: Seq,
    ) -> Result<Option<Entry<'_>>, Malformed> {
        let fingerprints = &self.bytes[HEADER_BYTES..self.offsets_at];
        for number in memchr::memchr_iter(fingerprint(hash), fingerprints) {
            let entry = self.entry(number)?;
            if entry.seq <= at && self.strip(key) == Some(entry.suffix) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn strip<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        key.strip_prefix(self.prefix())
    }

    /// Number of the first entry at or after `target`; `len()` if none is.
    pub(super) fn find(&self, target: KeyVersion<'_>) -> Result<usize, Malformed> {
        let Some(suffix) = self.strip(target.key) else {
            // No key of this block has the target between itself and another.
            return Ok(match target.key.cmp(self.prefix()) {
                Ordering::Less => 0,
                Ordering::Equal | Ordering::Greater => self.count,
            });
        };
        let target = KeyVersion::new(suffix, target.seq);
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            let entry = self.entry(middle)?;
            if KeyVersion::new(entry.suffix, entry.seq) < target {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The entry of a number below `len()`.
    pub(super) fn entry(&self, number: usize) -> Result<Entry<'_>, Malformed> {
        self.decode(number).ok_or(Malformed)
    }

    fn decode(&self, number: usize) -> Option<Entry<'_>> {
        let start = self.offset(number)?;
        let end = if number + 1 < self.count {
            self.offset(number + 1)?
        } else {
            self.bytes.len()
        };
        let mut decoder = Decoder::at(self.bytes.get(..end)?, start);
        let seq = Seq(decoder.varint()?);
        let kind = Kind::from_byte(decoder.u8()?)?;
        let suffix = decoder.bytes()?;
        Some(Entry {
            seq,
            kind,
            suffix,
            value: decoder.position()..end,
        })
    }

    /// Where an entry begins in the block.
    fn offset(&self, number: usize) -> Option<usize> {
        let offset = if self.wide {
            let at = self.offsets_at + number * 4;
            u32::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?) as usize
        } else {
            let at = self.offsets_at + number * 2;
            usize::from(u16::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?))
        };
        self.entries_at.checked_add(offset)
    }
}
