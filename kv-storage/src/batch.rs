//! A batch of writes, kept in the form in which the log stores it.

use crate::coding::{Decoder, put_bytes, put_varint, varint_len};
use crate::key::Kind;
use bytes::Bytes;

/// Puts and deletes that are applied together or not at all.
///
/// Later operations win over earlier ones on the same key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// Operations: kind u8, key length varint, key, and for a put value length varint, value.
    operations: Vec<u8>,
    count: usize,
    longest_key: usize,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        let size = 1 + encoded_len(key) + encoded_len(value);
        self.begin(Kind::Put, key, size);
        put_bytes(&mut self.operations, value);
    }

    /// Deletes `key`; deleting an absent key is allowed.
    pub fn delete(&mut self, key: &[u8]) {
        self.begin(Kind::Delete, key, 1 + encoded_len(key));
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size in the log, in bytes, without the frame.
    pub fn size_bytes(&self) -> usize {
        varint_len(self.count as u64) + self.operations.len()
    }

    fn begin(&mut self, kind: Kind, key: &[u8], size: usize) {
        self.operations.reserve(size);
        self.operations.push(kind as u8);
        put_bytes(&mut self.operations, key);
        self.count += 1;
        self.longest_key = self.longest_key.max(key.len());
    }

    pub(crate) fn longest_key(&self) -> usize {
        self.longest_key
    }

    /// Appends the log payload: the count, then the operations.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.count as u64);
        out.extend_from_slice(&self.operations);
    }

    /// The operations, sharing the batch's memory.
    pub(crate) fn into_operations(self) -> Operations {
        Operations {
            bytes: self.operations.into(),
            at: 0,
            left: self.count,
        }
    }
}

fn encoded_len(bytes: &[u8]) -> usize {
    varint_len(bytes.len() as u64) + bytes.len()
}

/// One operation of a batch. A deleted key has an empty value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    pub kind: Kind,
    pub key: Bytes,
    pub value: Bytes,
}

/// Walks the operations of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Operations {
    bytes: Bytes,
    at: usize,
    left: usize,
}

impl Operations {
    /// Reads and checks a whole log payload. `None` if it is malformed in any place.
    pub(crate) fn decode(payload: Bytes) -> Option<Self> {
        let mut decoder = Decoder::new(&payload);
        let left = decoder.length()?;
        let at = decoder.position();
        let operations = Self {
            bytes: payload,
            at,
            left,
        };
        let mut check = operations.clone();
        while check.left > 0 {
            check.step()?;
        }
        (check.at == check.bytes.len() && left > 0).then_some(operations)
    }

    pub(crate) fn len(&self) -> usize {
        self.left
    }

    fn step(&mut self) -> Option<Operation> {
        self.left = self.left.checked_sub(1)?;
        let mut decoder = Decoder::at(&self.bytes, self.at);
        let kind = Kind::from_byte(decoder.u8()?)?;
        let key = self.bytes.slice_ref(decoder.bytes()?);
        let value = match kind {
            Kind::Put => self.bytes.slice_ref(decoder.bytes()?),
            Kind::Delete => Bytes::new(),
        };
        self.at = decoder.position();
        Some(Operation { kind, key, value })
    }
}

impl Iterator for Operations {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
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
        let mut payload = Vec::new();
        sample().encode(&mut payload);
        assert_eq!(hex::encode(&payload), golden("log.md", "batch"));
        assert_eq!(sample().size_bytes(), payload.len());
    }

    #[test]
    fn a_decoded_payload_has_the_same_operations() {
        let mut payload = Vec::new();
        sample().encode(&mut payload);
        let decoded: Vec<_> = Operations::decode(payload.into()).unwrap().collect();
        assert_eq!(decoded, sample().into_operations().collect::<Vec<_>>());
        assert_eq!(decoded.len(), 3);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_operations_or_nothing(payload: Vec<u8>) {
            if let Some(operations) = Operations::decode(payload.into()) {
                let count = operations.len();
                prop_assert_eq!(operations.count(), count);
            }
        }
    }
}
