//! A batch of writes, kept in the form in which the log stores it.

use crate::coding::{Decoder, put_bytes, varint_len};
use crate::hash::key_hash;
use crate::hooks::MAX_NOTE_BYTES;
use crate::key::OperationKind;
use crate::memtable::{Need, entry_bytes};
use crate::options::MAX_KEY_BYTES;
use crate::ranges::{prefix_end, successor};
use std::ops::{Bound, RangeBounds};

/// Set in an operation's kind if a note follows it. Bytes on disk: never change it.
pub(crate) const NOTED: u8 = 0x80;

/// Puts and deletes that are applied together or not at all.
///
/// Later operations win over earlier ones on the same key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// Operations: kind u8, key length varint, key, and for a put value length varint, value; then a note, if the
    /// kind says so. The "key" and the "value" of a deleted range are its first key and the first key behind it.
    operations: Vec<u8>,
    count: u32,
    ranges: u32,
    longest_key: usize,
    longest_note: usize,
    entry_bytes: usize,
    uses_reserve: bool,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.put_noted(key, value, &[]);
    }

    /// Deletes `key`; deleting an absent key is allowed.
    pub fn delete(&mut self, key: &[u8]) {
        self.delete_noted(key, &[]);
    }

    /// Sets `key` to `value`, with a note of at most [`MAX_NOTE_BYTES`](crate::MAX_NOTE_BYTES) for the
    /// [`WriteObserver`](crate::WriteObserver). An empty note is none.
    pub fn put_noted(&mut self, key: &[u8], value: &[u8], note: &[u8]) {
        let size = 1 + encoded_len(key) + encoded_len(value) + encoded_len(note);
        self.begin(OperationKind::Put, key, value.len(), note, size);
        put_bytes(&mut self.operations, value);
        self.end(note);
    }

    /// Deletes `key`, with a note like that of [`put_noted`](Self::put_noted).
    pub fn delete_noted(&mut self, key: &[u8], note: &[u8]) {
        let size = 1 + encoded_len(key) + encoded_len(note);
        self.begin(OperationKind::Delete, key, 0, note, size);
        self.end(note);
    }

    /// Deletes all keys of a range, at the cost of one delete. A range without keys adds nothing.
    ///
    /// The space of what it deletes comes back bit by bit; that of tables that lie in it as a whole at
    /// once when the delete is flushed and no snapshot needs them. Readers skip what is deleted. All cached
    /// rows are looked up again afterwards, so do not use it for single keys.
    pub fn delete_range<K: AsRef<[u8]>>(&mut self, range: impl RangeBounds<K>) {
        self.delete_range_noted(range, &[]);
    }

    /// Deletes all keys of a range, with a note like that of [`put_noted`](Self::put_noted).
    pub fn delete_range_noted<K: AsRef<[u8]>>(&mut self, range: impl RangeBounds<K>, note: &[u8]) {
        let start = match range.start_bound() {
            Bound::Unbounded => Vec::new(),
            Bound::Included(key) => key.as_ref().to_vec(),
            Bound::Excluded(key) => successor(key.as_ref()),
        };
        let end = match range.end_bound() {
            Bound::Unbounded => behind_all_keys(),
            Bound::Included(key) => successor(key.as_ref()),
            Bound::Excluded(key) => key.as_ref().to_vec(),
        };
        self.delete_between(&start, &end, note);
    }

    /// Deletes all keys that begin with `prefix`; see [`delete_range`](Self::delete_range).
    pub fn delete_prefix(&mut self, prefix: &[u8]) {
        let end = prefix_end(prefix).unwrap_or_else(behind_all_keys);
        self.delete_between(prefix, &end, &[]);
    }

    fn delete_between(&mut self, start: &[u8], end: &[u8], note: &[u8]) {
        if start >= end {
            return;
        }
        let size = 1 + encoded_len(start) + encoded_len(end) + encoded_len(note);
        self.begin(OperationKind::DeleteRange, start, end.len(), note, size);
        put_bytes(&mut self.operations, end);
        self.end(note);
        // An end may be one byte longer than a key.
        self.longest_key = self.longest_key.max(end.len() - 1);
        self.ranges = self.ranges.saturating_add(1);
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// True if there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size in the log, in bytes, without the frame.
    pub fn size_bytes(&self) -> usize {
        self.operations.len()
    }

    /// Removes all operations and keeps the memory, so that a batch can be used again.
    pub fn clear(&mut self) {
        self.operations.clear();
        self.uses_reserve = false;
        (self.count, self.ranges, self.entry_bytes) = (0, 0, 0);
        (self.longest_key, self.longest_note) = (0, 0);
    }

    /// Lets the batch be taken although the disk is nearly full, from what is kept free of it: for the few bytes without
    /// which a program cannot go on. On a disk without any room it may still be refused.
    pub fn use_reserve(&mut self) {
        self.uses_reserve = true;
    }

    pub(crate) fn uses_reserve(&self) -> bool {
        self.uses_reserve
    }

    fn begin(&mut self, kind: OperationKind, key: &[u8], value: usize, note: &[u8], size: usize) {
        let noted = if note.is_empty() { 0 } else { NOTED };
        self.operations.reserve(size);
        self.operations.push(kind as u8 | noted);
        put_bytes(&mut self.operations, key);
        // A batch of 2^32 operations is far over the limit of bytes, and is refused by that.
        self.count = self.count.saturating_add(1);
        self.longest_key = self.longest_key.max(key.len());
        self.entry_bytes += entry_bytes(key.len(), value);
    }

    fn end(&mut self, note: &[u8]) {
        if !note.is_empty() {
            put_bytes(&mut self.operations, note);
            self.longest_note = self.longest_note.max(note.len());
        }
    }

    pub(crate) fn longest_note(&self) -> usize {
        self.longest_note
    }

    pub(crate) fn longest_key(&self) -> usize {
        self.longest_key
    }

    /// Memtable bytes that the batch takes.
    pub(crate) fn entry_bytes(&self) -> usize {
        self.entry_bytes
    }

    /// What it takes up in a memtable.
    pub(crate) fn need(&self) -> Need {
        Need {
            bytes: self.entry_bytes,
            ranges: self.ranges,
        }
    }

    /// The log payload: all operations.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.operations
    }

    /// Hash of the first operation's key.
    pub(crate) fn first_hash(&self) -> u64 {
        let first = self.operations().next();
        first.map_or(0, |operation| key_hash(operation.key))
    }

    pub(crate) fn operations(&self) -> Operations<'_> {
        Operations {
            bytes: &self.operations,
            at: 0,
            left: self.count,
        }
    }
}

fn encoded_len(bytes: &[u8]) -> usize {
    varint_len(bytes.len() as u64) + bytes.len()
}

/// Behind every key.
fn behind_all_keys() -> Vec<u8> {
    vec![u8::MAX; MAX_KEY_BYTES + 1]
}

/// One operation of a batch. No note is an empty one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation<'a> {
    pub kind: OperationKind,
    /// The key, or the first key of a deleted range.
    pub key: &'a [u8],
    /// The value; empty for a deleted key; the first key behind a deleted range.
    pub value: &'a [u8],
    pub note: &'a [u8],
}

/// Walks the operations of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operations<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u32,
}

impl<'a> Operations<'a> {
    /// Reads and checks a whole log payload of `count` operations. `None` if it is malformed in any place.
    pub(crate) fn decode(payload: &'a [u8], count: u32) -> Option<Self> {
        let operations = Self {
            bytes: payload,
            at: 0,
            left: count,
        };
        let mut check = operations;
        while check.left > 0 {
            check.step()?;
        }
        (check.at == payload.len() && count > 0).then_some(operations)
    }

    /// The payload of format version 1, in which the count comes first.
    pub(crate) fn decode_v1(payload: &'a [u8]) -> Option<Self> {
        let mut decoder = Decoder::new(payload);
        let count = u32::try_from(decoder.varint()?).ok()?;
        Self::decode(payload.get(decoder.position()..)?, count)
    }

    pub(crate) fn len(&self) -> u32 {
        self.left
    }

    /// What the operations take up in a memtable.
    pub(crate) fn need(self) -> Need {
        let mut need = Need {
            bytes: 0,
            ranges: 0,
        };
        for operation in self {
            need.bytes += entry_bytes(operation.key.len(), operation.value.len());
            need.ranges += u32::from(operation.kind == OperationKind::DeleteRange);
        }
        need
    }

    fn step(&mut self) -> Option<Operation<'a>> {
        self.left = self.left.checked_sub(1)?;
        let mut decoder = Decoder::at(self.bytes, self.at);
        let byte = decoder.u8()?;
        let kind = OperationKind::from_byte(byte & !NOTED)?;
        let key = decoder.bytes()?;
        let value = match kind {
            OperationKind::Put | OperationKind::DeleteRange => decoder.bytes()?,
            OperationKind::Delete => &[],
        };
        let note = if byte & NOTED == 0 {
            &[]
        } else {
            decoder.bytes()?
        };
        // Keys and notes come from writers, who were checked, or from bytes that were not.
        let is_range = kind == OperationKind::DeleteRange;
        if key.len() > MAX_KEY_BYTES
            || note.len() > MAX_NOTE_BYTES
            || is_range && (value.len() > MAX_KEY_BYTES + 1 || key >= value)
        {
            return None;
        }
        self.at = decoder.position();
        Some(Operation {
            kind,
            key,
            value,
            note,
        })
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Operation<'a>;

    fn next(&mut self) -> Option<Operation<'a>> {
        self.step()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;
    use proptest::prelude::*;

    fn sample() -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put(b"a", b"1");
        batch.delete(b"bb");
        batch.put(b"", b"");
        batch.delete_range("c".."dd");
        batch
    }

    #[test]
    fn the_payload_has_the_documented_bytes() {
        assert_eq!(hex::encode(sample().payload()), golden("log.md", "batch"));
        assert_eq!(sample().size_bytes(), sample().payload().len());
        let mut cleared = sample();
        cleared.clear();
        assert_eq!(cleared, WriteBatch::new());
    }

    #[test]
    fn notes_have_the_documented_bytes_and_come_back() {
        let mut batch = WriteBatch::new();
        batch.put_noted(b"a", b"1", b"old new");
        batch.delete_noted(b"bb", &[0xff]);
        batch.put_noted(b"c", b"2", b"");
        assert_eq!(hex::encode(batch.payload()), golden("log.md", "noted"));
        assert_eq!((batch.longest_note(), batch.longest_key()), (7, 2));
        let decoded = Operations::decode(batch.payload(), 3).unwrap();
        let notes: Vec<_> = decoded.map(|operation| operation.note).collect();
        assert_eq!(notes, [&b"old new"[..], &[0xff], b""]);
        let mut unnoted = WriteBatch::new();
        unnoted.put(b"a", b"1");
        unnoted.delete(b"bb");
        unnoted.put(b"c", b"2");
        assert_eq!(batch.entry_bytes(), unnoted.entry_bytes());
        assert_eq!(batch.size_bytes(), unnoted.size_bytes() + 8 + 2);
    }

    #[test]
    fn a_note_over_its_limit_is_malformed() {
        let batch = |length| {
            let mut batch = WriteBatch::new();
            batch.put_noted(b"a", b"1", &vec![7; length]);
            batch
        };
        assert!(Operations::decode(batch(MAX_NOTE_BYTES).payload(), 1).is_some());
        assert!(Operations::decode(batch(MAX_NOTE_BYTES + 1).payload(), 1).is_none());
    }

    #[test]
    fn a_decoded_payload_has_the_same_operations_in_both_formats() {
        let batch = sample();
        let expected: Vec<_> = batch.operations().collect();
        let decoded = Operations::decode(batch.payload(), 4).unwrap();
        assert_eq!(decoded.collect::<Vec<_>>(), expected);
        assert_eq!(decoded.need(), batch.need());
        assert_eq!(batch.need().ranges, 1);
        for wrong in [0, 3, 5] {
            assert!(Operations::decode(batch.payload(), wrong).is_none());
        }
        let old = hex::decode(golden("log.md", "batch-v1")).unwrap();
        let decoded = Operations::decode_v1(&old).unwrap();
        assert_eq!(decoded.collect::<Vec<_>>(), expected[..3]);
    }

    #[test]
    fn ranges_become_a_first_key_and_one_behind_the_last() {
        let last = [u8::MAX; 2];
        let mut batch = WriteBatch::new();
        batch.delete_range::<&[u8]>(..);
        batch.delete_range::<[u8; 1]>((Bound::Excluded(b"a"), Bound::Included(b"b")));
        batch.delete_range("b".."b");
        batch.delete_range("c".."b");
        batch.delete_prefix(b"k\xff");
        batch.delete_prefix(&last);
        let ranges: Vec<_> = batch.operations().map(|it| (it.key, it.value)).collect();
        let end = vec![u8::MAX; MAX_KEY_BYTES + 1];
        assert_eq!(
            ranges,
            [
                (&b""[..], &end[..]),
                (b"a\0", b"b\0"),
                (b"k\xff", b"l"),
                (&last[..], &end[..]),
            ]
        );
        assert_eq!((batch.len(), batch.need().ranges), (4, 4));
        assert_eq!(batch.longest_key(), MAX_KEY_BYTES);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_operations_or_nothing(payload: Vec<u8>, count in 0u32..5) {
            let decoded = [Operations::decode(&payload, count), Operations::decode_v1(&payload)];
            for operations in decoded.into_iter().flatten() {
                prop_assert_eq!(operations.count(), operations.len() as usize);
            }
        }
    }
}
