//! Reading and writing the byte forms of this crate's values: bounded, and never panicking.

use crate::hlc::Hlc;

/// Bytes that are not what they should be. Nothing was taken from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("the bytes end at {at}, in the middle of a value")]
    Truncated {
        /// Offset of the value that was cut.
        at: usize,
    },
    /// Bytes are left over behind the value.
    #[error("{count} bytes are left over")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// A number, order or flag that the format does not allow.
    #[error("{what} at offset {at} is not valid")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// Its offset.
        at: usize,
    },
    /// Written by a newer version of kv; upgrade this node.
    #[error("format version {version} is newer than this program, which knows {known}")]
    Version {
        /// The version found.
        version: u8,
        /// The newest version this program reads.
        known: u8,
    },
}

/// A cursor over bytes that came from a disk or a wire.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.at..];
        let taken = rest
            .get(..count)
            .ok_or(DecodeError::Truncated { at: self.at })?;
        self.at += count;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let at = self.at;
        self.take(N)?
            .try_into()
            .map_err(|_| DecodeError::Truncated { at })
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A LEB128 number in its shortest form; other forms are refused, so that equal values have
    /// equal bytes.
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let start = self.at;
        let invalid = DecodeError::Invalid {
            what: "number",
            at: start,
        };
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(invalid);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                let shortest = byte != 0 || shift == 0;
                return if shortest { Ok(value) } else { Err(invalid) };
            }
        }
        Err(invalid)
    }

    /// A number that [`put_near`] wrote.
    pub(crate) fn near(&mut self, base: u64) -> Result<u64, DecodeError> {
        let folded = self.varint()?;
        let below = (folded >> 1) ^ (folded & 1).wrapping_neg();
        Ok(base.wrapping_sub(below))
    }

    /// A point in time that [`put_point`] wrote.
    pub(crate) fn point(&mut self) -> Result<Hlc, DecodeError> {
        let mut millis = [0; 8];
        millis[..6].copy_from_slice(self.take(6)?);
        let counter = self.counter()?;
        Ok(Hlc::new(u64::from_le_bytes(millis), counter))
    }

    /// The counter of a point in time.
    pub(crate) fn counter(&mut self) -> Result<u16, DecodeError> {
        let invalid = DecodeError::Invalid {
            what: "counter",
            at: self.at,
        };
        u16::try_from(self.varint()?).map_err(|_| invalid)
    }

    /// A count of items that take at least `item_bytes` each: checked against what is left, so
    /// that a lying count reserves no memory.
    pub(crate) fn count(&mut self, item_bytes: usize) -> Result<usize, DecodeError> {
        let at = self.at;
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count > self.remaining() / item_bytes.max(1) {
            return Err(DecodeError::Truncated { at });
        }
        Ok(count)
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            count => Err(DecodeError::Trailing { count }),
        }
    }
}

/// Appends a LEB128 number in its shortest form.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends a number that lies near another one, and most often below it, by the distance between them.
pub(crate) fn put_near(out: &mut Vec<u8>, base: u64, value: u64) {
    let below = base.wrapping_sub(value);
    let sign = below >> 63;
    put_varint(out, (below << 1) ^ sign.wrapping_neg());
}

/// Appends a point in time: six bytes of milliseconds, and the counter.
pub(crate) fn put_point(out: &mut Vec<u8>, point: Hlc) {
    out.extend_from_slice(&point.millis().to_le_bytes()[..6]);
    put_varint(out, u64::from(point.counter()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_survives_beside_any_other(base in any::<u64>(), value in any::<u64>(), close in 0_u64..100) {
            for value in [value, base.wrapping_sub(close), base.wrapping_add(close)] {
                let mut bytes = Vec::new();
                put_near(&mut bytes, base, value);
                prop_assert_eq!(Reader::new(&bytes).near(base), Ok(value));
            }
            let mut bytes = Vec::new();
            put_near(&mut bytes, base, base.wrapping_sub(close.min(63)));
            prop_assert_eq!(bytes.len(), 1);
        }

        #[test]
        fn a_point_survives_its_bytes(point in any::<u64>()) {
            let mut bytes = Vec::new();
            put_point(&mut bytes, Hlc(point));
            prop_assert_eq!(Reader::new(&bytes).point(), Ok(Hlc(point)));
        }

        #[test]
        fn a_number_survives_its_bytes(value in any::<u64>(), shift in 0_u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_accepted_number_has_one_form(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(value) = reader.varint() {
                let mut again = Vec::new();
                put_varint(&mut again, value);
                prop_assert_eq!(&bytes[..reader.at()], &again[..]);
            }
        }
    }

    #[test]
    fn a_lying_count_is_refused() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, u64::MAX);
        assert!(Reader::new(&bytes).count(1).is_err());
    }
}
