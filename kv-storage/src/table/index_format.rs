//! The index block of version 2: separators without what they share, and handles without offsets.

use super::block::Malformed;
use super::format::Handle;
use super::index::{Index, SeparatorParts};
use crate::coding::{Decoder, put_bytes, put_varint, shared_prefix};
use crate::key::{KeyVersion, Seq};

/// Collects the blocks of a table that is being written.
#[derive(Debug, Default)]
pub(super) struct IndexBuilder {
    blocks: Vec<(SeparatorParts, Handle)>,
    /// The last version of the block whose separator is not known yet.
    open: Option<(Vec<u8>, Seq, Handle)>,
}

impl IndexBuilder {
    /// Adds a block that ends with `last`.
    pub(super) fn push(&mut self, last: KeyVersion<'_>, handle: Handle) {
        debug_assert!(self.open.is_none(), "the next key closes the block before");
        self.open = Some((last.key.to_vec(), last.seq, handle));
    }

    /// Tells the first key of the next block.
    pub(super) fn next_key(&mut self, next: &[u8]) {
        if let Some((last, seq, handle)) = self.open.take() {
            let separator = if last == next {
                SeparatorParts { key: last, seq }
            } else {
                SeparatorParts::between(&last, next)
            };
            self.blocks.push((separator, handle));
        }
    }

    /// The encoded index.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if let Some((key, _, handle)) = self.open.take() {
            let seq = Seq::ZERO;
            self.blocks.push((SeparatorParts { key, seq }, handle));
        }
        let mut out = Vec::new();
        let (Some((first, _)), Some((last, _))) = (self.blocks.first(), self.blocks.last()) else {
            return out;
        };
        let prefix = &first.key[..shared_prefix(&first.key, &last.key)];
        put_varint(&mut out, self.blocks.len() as u64);
        put_bytes(&mut out, prefix);
        for (separator, handle) in &self.blocks {
            put_bytes(&mut out, &separator.key[prefix.len()..]);
            put_varint(&mut out, separator.seq.0);
            put_varint(&mut out, u64::from(handle.stored));
            put_varint(&mut out, u64::from(handle.raw));
            out.extend_from_slice(&handle.checksum.to_le_bytes());
        }
        out
    }
}

/// Decodes an index block. Data blocks lie one after the other from the start of the file.
pub(super) fn decode(raw: &[u8]) -> Result<Index, Malformed> {
    let blocks = decode_blocks(raw).ok_or(Malformed)?;
    Index::new(&blocks)
}

fn decode_blocks(raw: &[u8]) -> Option<Vec<(SeparatorParts, Handle)>> {
    let mut decoder = Decoder::new(raw);
    let count = decoder.length()?;
    let prefix = decoder.bytes()?;
    let mut offset = 0u64;
    let mut blocks = Vec::new();
    for _ in 0..count {
        let tail = decoder.bytes()?;
        let seq = Seq(decoder.varint()?);
        let handle = Handle {
            offset,
            stored: decoder.varint()?.try_into().ok()?,
            raw: decoder.varint()?.try_into().ok()?,
            checksum: decoder.u32()?,
        };
        offset = offset.checked_add(u64::from(handle.stored))?;
        let key = [prefix, tail].concat();
        blocks.push((SeparatorParts { key, seq }, handle));
    }
    decoder.is_empty().then_some(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_decode_to_an_index_or_an_error(bytes in prop::collection::vec(0u8..8, 0..80)) {
            let _ = decode(&bytes);
        }
    }
}
