//! Collects entries and encodes them as a data block.

use super::block::{HEADER_BYTES, fingerprint};
use crate::coding::{put_varint, shared_prefix, varint_len};
use crate::key::{KeyVersion, Kind, Seq};

/// Most bytes in front of an entry's key suffix: sequence number, kind, length.
const ENTRY_HEAD_MOST: usize = 10 + 1 + 3;

/// Collects entries in order and encodes them. The memory is used again for the next block.
#[derive(Debug, Default)]
pub(super) struct BlockBuilder {
    rows: Vec<Row>,
    /// Whole keys, one after the other.
    keys: Vec<u8>,
    values: Vec<u8>,
    /// Bytes of all entries, as if no key shared anything with others.
    entry_bytes: usize,
}

#[derive(Debug)]
struct Row {
    seq: Seq,
    kind: Kind,
    fingerprint: u8,
    key_end: usize,
    value_end: usize,
}

impl BlockBuilder {
    pub(super) fn push(&mut self, version: KeyVersion<'_>, hash: u64, kind: Kind, value: &[u8]) {
        self.entry_bytes += entry_bytes(version, value);
        self.keys.extend_from_slice(version.key);
        self.values.extend_from_slice(value);
        self.rows.push(Row {
            seq: version.seq,
            kind,
            fingerprint: fingerprint(hash),
            key_end: self.keys.len(),
            value_end: self.values.len(),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Key of the first entry; empty if there is none.
    pub(super) fn first_key(&self) -> &[u8] {
        self.rows
            .first()
            .map_or(&[], |row| &self.keys[..row.key_end])
    }

    /// The size that the block would have with one more entry, behind the others. It is exact below 64 KiB while no
    /// key is longer than 127 bytes.
    pub(super) fn size_with(&self, version: KeyVersion<'_>, value: &[u8]) -> usize {
        let entries = self.entry_bytes + entry_bytes(version, value);
        let shared = match self.rows.first() {
            Some(first) => shared_prefix(&self.keys[..first.key_end], version.key),
            None => version.key.len(),
        };
        // It is stored once, and left out of all the keys. Longer keys may take a byte less each, for their lengths.
        HEADER_BYTES + shared + entries - (self.rows.len() + 1) * shared
    }

    /// Appends the encoded block; the builder is empty again afterwards. It must not be empty before.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let prefix_len = self.prefix_len();
        let most = self.keys.len() + self.values.len() + self.rows.len() * ENTRY_HEAD_MOST;
        let width = if most <= usize::from(u16::MAX) { 2 } else { 4 };
        let count = u32::try_from(self.rows.len()).expect("a block has fewer entries than bytes");
        let start = out.len();
        out.extend_from_slice(&count.to_le_bytes());
        let prefix_bytes = u16::try_from(prefix_len).expect("a key is shorter than 64 KiB");
        out.extend_from_slice(&prefix_bytes.to_le_bytes());
        out.extend_from_slice(&[width, 0]);
        out.extend(self.rows.iter().map(|row| row.fingerprint));
        let offsets_at = start + HEADER_BYTES + self.rows.len();
        out.resize(offsets_at + self.rows.len() * usize::from(width), 0);
        out.extend_from_slice(&self.keys[..prefix_len]);

        let entries_at = out.len();
        let (mut key_at, mut value_at) = (0, 0);
        for (number, row) in self.rows.iter().enumerate() {
            let offset = u32::try_from(out.len() - entries_at).expect("blocks are below 4 GiB");
            let width = usize::from(width);
            let place = offsets_at + number * width;
            out[place..place + width].copy_from_slice(&offset.to_le_bytes()[..width]);
            let suffix = &self.keys[key_at + prefix_len..row.key_end];
            put_varint(out, row.seq.0);
            out.push(row.kind as u8);
            put_varint(out, suffix.len() as u64);
            out.extend_from_slice(suffix);
            out.extend_from_slice(&self.values[value_at..row.value_end]);
            (key_at, value_at) = (row.key_end, row.value_end);
        }
        self.rows.clear();
        self.keys.clear();
        self.values.clear();
        self.entry_bytes = 0;
    }

    /// Keys are sorted, so what the first and the last share, all do.
    fn prefix_len(&self) -> usize {
        let (Some(first), Some(last)) = (self.rows.first(), self.rows.len().checked_sub(1)) else {
            return 0;
        };
        let last_at = last
            .checked_sub(1)
            .map_or(0, |before| self.rows[before].key_end);
        shared_prefix(&self.keys[..first.key_end], &self.keys[last_at..])
    }
}

/// Bytes that an entry takes with its whole key: fingerprint, offset, number, kind, length, key, value.
fn entry_bytes(version: KeyVersion<'_>, value: &[u8]) -> usize {
    let key = version.key.len();
    3 + varint_len(version.seq.0) + 1 + varint_len(key as u64) + key + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_block_has_the_size_that_was_foretold(
            keys in prop::collection::btree_set(prop::collection::vec(0u8..3, 1..40), 1..60),
            values in prop::collection::vec(0usize..300, 60),
        ) {
            let mut block = BlockBuilder::default();
            let mut foretold = 0;
            for (number, (key, value)) in keys.iter().zip(&values).enumerate() {
                let (version, value) = (KeyVersion::new(key, Seq(number as u64 * 100)), vec![7; *value]);
                foretold = block.size_with(version, &value);
                block.push(version, 1, Kind::Put, &value);
            }
            let mut bytes = Vec::new();
            block.finish(&mut bytes);
            prop_assert_eq!(bytes.len(), foretold);
        }
    }
}
