//! Tables of version 1, which are read and never written: their blocks are translated into the form
//! of version 2 when they are loaded.
//!
//! A block of version 1 is a list of entries whose keys share bytes with the entry before, followed
//! by the restart points of a search that is not needed here.

use super::block::{Block, Malformed, SharedBlock};
use super::block_builder::BlockBuilder;
use super::format::Handle;
use super::index::{Index, SeparatorParts};
use crate::coding::Decoder;
use crate::hash::key_hash;
use crate::key::{KeyVersion, Kind, Seq};
use crate::options::MAX_KEY_BYTES;

/// Translates a data block.
pub(super) fn data_block(raw: &[u8]) -> Result<SharedBlock, Malformed> {
    let mut builder = BlockBuilder::default();
    entries(raw, |version, kind, value| {
        builder.push(version, key_hash(version.key), kind, value);
        Some(())
    })?;
    let mut translated = Vec::with_capacity(raw.len() * 2);
    builder.finish(&mut translated);
    Block::share(&translated, Seq::ZERO)
}

/// Reads an index block: its entries are the last versions of data blocks, with handles as values.
pub(super) fn index(raw: &[u8]) -> Result<Index, Malformed> {
    let mut blocks = Vec::new();
    entries(raw, |last, _, value| {
        let separator = SeparatorParts {
            key: last.key.to_vec(),
            seq: last.seq,
        };
        blocks.push((separator, Handle::decode_compact(value)?));
        Some(())
    })?;
    Index::new(&blocks)
}

/// Calls `each` for every entry, of which there is at least one.
fn entries(
    raw: &[u8],
    each: impl FnMut(KeyVersion<'_>, Kind, &[u8]) -> Option<()>,
) -> Result<(), Malformed> {
    decode(raw, each).ok_or(Malformed)
}

fn decode(
    raw: &[u8],
    mut each: impl FnMut(KeyVersion<'_>, Kind, &[u8]) -> Option<()>,
) -> Option<()> {
    let count_at = raw.len().checked_sub(4)?;
    let restarts = Decoder::at(raw, count_at).u32()? as usize;
    let end = count_at.checked_sub(restarts.checked_mul(4)?)?;
    let mut decoder = Decoder::new(&raw[..end]);
    let mut key = Vec::new();
    let mut before: Option<(Vec<u8>, Seq)> = None;
    if decoder.is_empty() {
        return None;
    }
    while !decoder.is_empty() {
        let shared = decoder.length()?;
        let rest_len = decoder.length()?;
        let value_len = decoder.length()?;
        let seq = Seq(decoder.varint()?);
        let kind = Kind::from_byte(decoder.u8()?)?;
        if shared > key.len() {
            return None;
        }
        key.truncate(shared);
        key.extend_from_slice(decoder.take(rest_len)?);
        let version = KeyVersion::new(&key, seq);
        // The builder relies on sorted keys of a length that can be written.
        let in_order = before
            .as_ref()
            .is_none_or(|(key, seq)| KeyVersion::new(key, *seq) < version);
        if key.len() > MAX_KEY_BYTES || !in_order {
            return None;
        }
        each(version, kind, decoder.take(value_len)?)?;
        before = Some((key.clone(), seq));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_blocks_do_not_panic() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut translated = 0;
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..random.usize(0..60)).map(|_| random.u8(..8)).collect();
            bytes.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
            translated += usize::from(data_block(&bytes).is_ok());
            let _ = index(&bytes);
        }
        assert!(translated > 0);
    }
}
