//! A batch of writes, kept in the form in which the log stores it.

use crate::coding::{Decoder, put_bytes, varint_len};
use crate::hooks::MAX_NOTE_BYTES;
use crate::key::Kind;
use crate::memtable::entry_bytes;

/// Set in an operation's kind if a note follows it. Bytes on disk: never change it.
const NOTED: u8 = 0x80;

/// Puts and deletes that are applied together or not at all.
///
/// Later operations win over earlier ones on the same key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// Operations: kind u8, key length varint, key, and for a put value length varint, value; then a note, if the
    /// kind says so.
    operations: Vec<u8>,
    count: u32,
    longest_key: usize,
    longest_note: usize,
    entry_bytes: usize,
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
        self.begin(Kind::Put, key, value.len(), note, size);
        put_bytes(&mut self.operations, value);
        self.end(note);
    }

    /// Deletes `key`, with a note like that of [`put_noted`](Self::put_noted).
    pub fn delete_noted(&mut self, key: &[u8], note: &[u8]) {
        let size = 1 + encoded_len(key) + encoded_len(note);
        self.begin(Kind::Delete, key, 0, note, size);
        self.end(note);
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
        (self.count, self.entry_bytes) = (0, 0);
        (self.longest_key, self.longest_note) = (0, 0);
    }

    fn begin(&mut self, kind: Kind, key: &[u8], value: usize, note: &[u8], size: usize) {
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

    /// The log payload: all operations.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.operations
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

/// One operation of a batch. A deleted key has an empty value; no note is an empty one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation<'a> {
    pub kind: Kind,
    pub key: &'a [u8],
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

    /// Memtable bytes that the operations take.
    pub(crate) fn entry_bytes(self) -> usize {
        self.map(|operation| entry_bytes(operation.key.len(), operation.value.len()))
            .sum()
    }

    fn step(&mut self) -> Option<Operation<'a>> {
        self.left = self.left.checked_sub(1)?;
        let mut decoder = Decoder::at(self.bytes, self.at);
        let byte = decoder.u8()?;
        let kind = Kind::from_byte(byte & !NOTED)?;
        let key = decoder.bytes()?;
        let value = match kind {
            Kind::Put => decoder.bytes()?,
            Kind::Delete => &[],
        };
        let note = if byte & NOTED == 0 {
            &[]
        } else {
            decoder.bytes()?
        };
        // Keys and notes come from writers, who were checked, or from bytes that were not.
        if key.len() > crate::options::MAX_KEY_BYTES || note.len() > MAX_NOTE_BYTES {
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
        let decoded = Operations::decode(batch.payload(), 3).unwrap();
        assert_eq!(decoded.collect::<Vec<_>>(), expected);
        assert_eq!(decoded.entry_bytes(), batch.entry_bytes());
        for wrong in [0, 2, 4] {
            assert!(Operations::decode(batch.payload(), wrong).is_none());
        }
        let old = hex::decode(golden("log.md", "batch-v1")).unwrap();
        let decoded = Operations::decode_v1(&old).unwrap();
        assert_eq!(decoded.collect::<Vec<_>>(), expected);
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
