//! Reading and writing the fields of an entry: little-endian integers, and texts with their length.

use super::ChainError;

/// Reads fields from the front of a byte slice.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// All bytes, those read and those left.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], ChainError> {
        let left = &self.bytes[self.offset..];
        let Some((taken, _)) = left.split_at_checked(count) else {
            let (offset, left) = (self.offset, left.len());
            return Err(ChainError::Truncated {
                offset,
                needed: count,
                left,
            });
        };
        self.offset += count;
        Ok(taken)
    }

    pub(super) fn array<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], ChainError> {
        let mut array = [0; SIZE];
        array.copy_from_slice(self.take(SIZE)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ChainError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ChainError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ChainError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ChainError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A 128-bit id, its bytes in the order in which its digits are shown.
    pub(super) fn id(&mut self) -> Result<u128, ChainError> {
        self.array().map(u128::from_be_bytes)
    }

    pub(super) fn text(&mut self, what: &'static str) -> Result<String, ChainError> {
        let length = self.u8()?;
        let bytes = self.take(length.into())?.to_vec();
        let malformed = |_| ChainError::Malformed {
            what,
            value: length.into(),
        };
        String::from_utf8(bytes).map_err(malformed)
    }

    /// As many items as a count in front of them says; `item_bytes` is the least that one takes.
    ///
    /// A count that the remaining bytes cannot hold is refused before anything is allocated.
    pub(super) fn list<T>(
        &mut self,
        item_bytes: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, ChainError>,
    ) -> Result<Vec<T>, ChainError> {
        let count = self.u32()? as usize;
        let (offset, left) = (self.offset, self.bytes.len() - self.offset);
        let needed = count.saturating_mul(item_bytes);
        if needed > left {
            return Err(ChainError::Truncated {
                offset,
                needed,
                left,
            });
        }
        (0..count).map(|_| item(self)).collect()
    }

    pub(super) fn finish(self) -> Result<(), ChainError> {
        match self.bytes.len() - self.offset {
            0 => Ok(()),
            count => Err(ChainError::TrailingBytes { count }),
        }
    }
}

/// Appends fields to a vector of bytes.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn id(&mut self, id: u128) {
        self.put(&id.to_be_bytes());
    }

    /// A text of at most 255 bytes; every topology has been checked for that.
    pub(super) fn text(&mut self, text: &str) {
        let length =
            u8::try_from(text.len()).expect("texts of a checked topology have ≤ 255 bytes");
        self.put(&[length]);
        self.put(text.as_bytes());
    }

    pub(super) fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut item: impl FnMut(&mut Self, T),
    ) {
        self.put(&(items.len() as u32).to_le_bytes());
        items.for_each(|next| item(self, next));
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
