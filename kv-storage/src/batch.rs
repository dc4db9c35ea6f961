//! A batch of writes, kept in the form in which the log stores it.

use crate::coding::{Decoder, put_bytes, varint_len};
use crate::key::Kind;
use crate::memtable::entry_bytes;

/// Puts and deletes that are applied together or not at all.
///
/// Later operations win over earlier ones on the same key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// Operations: kind u8, key length varint, key, and for a put value length varint, value.
    operations: Vec<u8>,
    count: u32,
    longest_key: usize,
    entry_bytes: usize,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        let size = 1 + encoded_len(key) + encoded_len(value);
        self.begin(Kind::Put, key, value.len(), size);
        put_bytes(&mut self.operations, value);
    }

    /// Deletes `key`; deleting an absent key is allowed.
    pub fn delete(&mut self, key: &[u8]) {
        self.begin(Kind::Delete, key, 0, 1 + encoded_len(key));
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
        (self.count, self.longest_key, self.entry_bytes) = (0, 0, 0);
    }

    fn begin(&mut self, kind: Kind, key: &[u8], value: usize, size: usize) {
        self.operations.reserve(size);
        self.operations.push(kind as u8);
        put_bytes(&mut self.operations, key);
        // A batch of 2^32 operations is far over the limit of bytes, and is refused by that.
        self.count = self.count.saturating_add(1);
        self.longest_key = self.longest_key.max(key.len());
        self.entry_bytes += entry_bytes(key.len(), value);
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

/// One operation of a batch. A deleted key has an empty value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation<'a> {
    pub kind: Kind,
    pub key: &'a [u8],
    pub value: &'a [u8],
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
        let kind = Kind::from_byte(decoder.u8()?)?;
        let key = decoder.bytes()?;
        let value = match kind {
            Kind::Put => decoder.bytes()?,
            Kind::Delete => &[],
            // Only tables have pointers.
            Kind::Blob => return None,
        };
        // Keys come from writers, who were checked, or from bytes that were not.
        if key.len() > crate::options::MAX_KEY_BYTES {
            return None;
        }
        self.at = decoder.position();
        Some(Operation { kind, key, value })
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
