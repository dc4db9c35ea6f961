//! Data blocks: sorted entries that are searched as they lie, without decoding.
//!
//! A block is a header, one fingerprint byte and one offset for each entry, the prefix that all keys
//! share, and the entries (docs/formats/sstable.md). A point lookup compares fingerprints, so it
//! touches the header with the fingerprints, one offset, and one entry: about three cache lines.

use crate::coding::Decoder;
use crate::key::{KeyVersion, Kind, Seq};
use bytes::Bytes;
use std::cmp::Ordering;
use std::ops::Range;
use triomphe::ThinArc;

/// Number of entries u32, length of the shared prefix u16, width of an offset u8, zero u8.
pub(super) const HEADER_BYTES: usize = 8;

/// Says that a block's inner structure is broken although its checksum was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The fingerprint of a key with this hash.
pub(super) fn fingerprint(hash: u64) -> u8 {
    hash as u8
}

/// A data block with its reference count, in one piece of memory: reading it follows one pointer.
pub(crate) type SharedBlock = ThinArc<Layout, u8>;

/// Where the parts of a block lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    count: u32,
    /// With [`WIDE`] if offsets take four bytes instead of two.
    entries_at: u32,
    /// The number of all entries, in the place of those that are stored; 0 leaves them.
    number: Seq,
}

/// A bit that no place in a block needs.
const WIDE: u32 = 1 << 31;

// With more, blocks of the usual size would not fit into the memory that allocators give for it.
const _: () = assert!(size_of::<Layout>() == 16);

/// A data block that is being read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a> {
    layout: Layout,
    bytes: &'a [u8],
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

impl Layout {
    fn parse(bytes: &[u8], number: Seq) -> Option<Self> {
        let mut header = Decoder::new(bytes);
        let count = header.u32()?;
        let prefix_len = u16::from_le_bytes(header.array()?);
        let width = match header.array()? {
            [2, 0] => 2,
            [4, 0] => 4,
            _ => return None,
        };
        let prefix_at = (HEADER_BYTES as u32).checked_add(count.checked_mul(1 + width)?)?;
        let entries_at = prefix_at.checked_add(u32::from(prefix_len))?;
        let fits = count > 0 && entries_at as usize <= bytes.len() && entries_at < WIDE;
        let wide = if width == 4 { WIDE } else { 0 };
        fits.then_some(Self {
            count,
            entries_at: entries_at | wide,
            number,
        })
    }

    fn is_wide(self) -> bool {
        self.entries_at & WIDE != 0
    }

    fn prefix_at(self) -> usize {
        let offset = if self.is_wide() { 4 } else { 2 };
        HEADER_BYTES + self.count as usize * (1 + offset)
    }

    fn entries_at(self) -> usize {
        (self.entries_at & !WIDE) as usize
    }
}

impl<'a> Block<'a> {
    /// Checks the outline of a block and takes a copy of it. A `number` other than 0 takes the place of all numbers
    /// that are stored in it.
    pub(crate) fn share(bytes: &[u8], number: Seq) -> Result<SharedBlock, Malformed> {
        let layout = Layout::parse(bytes, number).ok_or(Malformed)?;
        Ok(ThinArc::from_header_and_slice(layout, bytes))
    }

    #[inline]
    pub(crate) fn of(shared: &'a SharedBlock) -> Self {
        Self {
            layout: shared.header.header,
            bytes: &shared.slice,
        }
    }

    pub(crate) fn size_bytes(self) -> usize {
        self.bytes.len()
    }

    /// Number of entries, at least 1.
    pub(super) fn len(self) -> usize {
        self.layout.count as usize
    }

    /// What all keys begin with.
    pub(super) fn prefix(self) -> &'a [u8] {
        &self.bytes[self.layout.prefix_at()..self.layout.entries_at()]
    }

    pub(super) fn value(self, range: Range<usize>) -> &'a [u8] {
        &self.bytes[range]
    }

    /// The newest version of a key numbered at most `at`.
    pub(super) fn get(
        self,
        key: &[u8],
        hash: u64,
        at: Seq,
    ) -> Result<Option<Entry<'a>>, Malformed> {
        let fingerprints = &self.bytes[HEADER_BYTES..HEADER_BYTES + self.len()];
        for number in memchr::memchr_iter(fingerprint(hash), fingerprints) {
            let entry = self.entry(number)?;
            if entry.seq <= at && self.strip(key) == Some(entry.suffix) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn strip(self, key: &[u8]) -> Option<&[u8]> {
        key.strip_prefix(self.prefix())
    }

    /// Number of the first entry at or after `target`; `len()` if none is.
    pub(super) fn find(self, target: KeyVersion<'_>) -> Result<usize, Malformed> {
        let Some(suffix) = self.strip(target.key) else {
            // No key of this block has the target between itself and another.
            return Ok(match target.key.cmp(self.prefix()) {
                Ordering::Less => 0,
                Ordering::Equal | Ordering::Greater => self.len(),
            });
        };
        let target = KeyVersion::new(suffix, target.seq);
        let (mut low, mut high) = (0, self.len());
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
    pub(super) fn entry(self, number: usize) -> Result<Entry<'a>, Malformed> {
        self.decode(number).ok_or(Malformed)
    }

    fn decode(self, number: usize) -> Option<Entry<'a>> {
        let start = self.offset(number)?;
        let end = if number + 1 < self.len() {
            self.offset(number + 1)?
        } else {
            self.bytes.len()
        };
        let mut decoder = Decoder::at(self.bytes.get(..end)?, start);
        let stored = Seq(decoder.varint()?);
        // All readers come by here, so none of them meets the stored number of an ingested row.
        let seq = match self.layout.number {
            Seq::ZERO => stored,
            number => number,
        };
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
    fn offset(self, number: usize) -> Option<usize> {
        let offsets = self.bytes.get(HEADER_BYTES + self.len()..)?;
        let offset = if self.layout.is_wide() {
            u32::from_le_bytes(*offsets.get(number * 4..)?.first_chunk()?)
        } else {
            u32::from(u16::from_le_bytes(
                *offsets.get(number * 2..)?.first_chunk()?,
            ))
        };
        self.layout.entries_at().checked_add(offset as usize)
    }
}

/// A value of a block, for keeping. A small one is copied, so that it does not hold the whole block in
/// memory.
pub(super) fn value_bytes(block: &SharedBlock, range: Range<usize>) -> Bytes {
    if range.len() <= block.slice.len() / 2 {
        Bytes::copy_from_slice(&block.slice[range])
    } else {
        Bytes::from_owner(Owner(block.clone())).slice(range)
    }
}

/// Lets bytes share a block.
struct Owner(SharedBlock);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0.slice
    }
}
