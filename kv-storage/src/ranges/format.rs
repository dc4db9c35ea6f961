//! Fragments as bytes: the ranges block of a table, see `docs/formats/sstable.md`.

use super::Fragments;
use crate::coding::{Decoder, put_bytes, put_varint};
use crate::key::Seq;
use crate::options::MAX_KEY_BYTES;
use bytes::Bytes;

/// Count varint, then for each fragment: start, end, number of seqs, and the seqs.
pub(crate) fn encode(fragments: &Fragments) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, fragments.len() as u64);
    for fragment in fragments.iter() {
        put_bytes(&mut out, fragment.start);
        put_bytes(&mut out, fragment.end);
        put_varint(&mut out, fragment.seqs.len() as u64);
        for seq in fragment.seqs {
            put_varint(&mut out, seq.0);
        }
    }
    out
}

/// Reads what [`encode`] wrote. `None` if it is malformed, or breaks an invariant of fragments.
pub(crate) fn decode(bytes: &[u8]) -> Option<Fragments> {
    let mut decoder = Decoder::new(bytes);
    let count = decoder.length()?;
    let mut fragments = Fragments::default();
    let mut behind = Bytes::new();
    for number in 0..count {
        let start = Bytes::copy_from_slice(decoder.bytes()?);
        let end = Bytes::copy_from_slice(decoder.bytes()?);
        let mut seqs = Vec::new();
        for _ in 0..decoder.length()? {
            seqs.push(Seq(decoder.varint()?));
        }
        let is_sorted = start >= behind && start < end && end.len() <= MAX_KEY_BYTES + 1;
        if !is_sorted || seqs.is_empty() || !seqs.is_sorted_by(|a, b| a > b) {
            return None;
        }
        behind = end.clone();
        fragments.push(start, end, &seqs);
        if fragments.len() != number + 1 {
            return None;
        }
    }
    decoder.is_empty().then_some(fragments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;

    #[test]
    fn fragments_have_the_documented_bytes() {
        let fragments = Fragments::merge([
            &Fragments::one(b"b", b"d", Seq(4)),
            &Fragments::one(b"b", b"e", Seq(9)),
        ]);
        let bytes = encode(&fragments);
        assert_eq!(hex::encode(&bytes), golden("sstable.md", "ranges"));
        assert_eq!(decode(&bytes), Some(fragments));
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), None, "cut at {end}");
        }
        // Overlapping, touching with the same numbers, rising numbers, no numbers, no keys.
        for bad in [
            &b"\x02\x01a\x01c\x01\x09\x01b\x01d\x01\x08"[..],
            b"\x02\x01a\x01c\x01\x09\x01c\x01d\x01\x09",
            b"\x01\x01a\x01c\x02\x08\x09",
            b"\x01\x01a\x01c\x00",
            b"\x01\x01c\x01c\x01\x09",
        ] {
            assert_eq!(decode(bad), None);
        }
    }
}
