//! Typed keys as bytes whose order is the order of the values.
//!
//! A single value is the partition key. Of a tuple, the first element is the partition key: it
//! decides where the row lives; the others are the sort key, and rows of one partition key are
//! stored and listed in their order.
//!
//! | element | bytes |
//! |---|---|
//! | unsigned integers | big-endian |
//! | signed integers | big-endian, sign bit flipped |
//! | `bool` | 0 or 1 |
//! | strings, bytes: last element | as they are |
//! | strings, bytes: elsewhere | `00` as `00 ff`, then `00 01` as the end |
//!
//! So a `String` key of a collection is the same key as the string itself in [`crate::Bucket::get`].

use bytes::Bytes;
use kv_types::{Key, KeyError};

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xff;
const END: u8 = 0x01;

/// Bytes that are no key of the wanted type. Nothing was changed; the collection's key type is not
/// the one that wrote the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key `{key}` is not of the collection's key type; it was written with another one")]
pub struct KeyMismatch {
    key: String,
}

/// A type that can be the key of a [`crate::Collection`].
pub trait KeyCodec: Sized {
    /// The key of this value.
    ///
    /// # Errors
    /// [`KeyError`] when a part is too long, or the partition key would be empty.
    fn to_key(&self) -> Result<Key, KeyError>;

    /// The value of a key.
    ///
    /// # Errors
    /// [`KeyMismatch`] when the key was not made from this type.
    fn from_key(key: &Key) -> Result<Self, KeyMismatch>;
}

/// A type that can be an element of a key. The byte order of encodings is the order of values, also
/// when further elements follow.
pub trait KeyPart: Sized {
    /// Appends the value such that it shows its own end.
    fn encode(&self, bytes: &mut Vec<u8>);

    /// Takes a value off the front; `None` when there is none.
    fn decode(bytes: &mut &[u8]) -> Option<Self>;

    /// Appends the value as the last element.
    fn encode_last(&self, bytes: &mut Vec<u8>) {
        self.encode(bytes);
    }

    /// Takes the last element.
    fn decode_last(mut bytes: &[u8]) -> Option<Self> {
        let value = Self::decode(&mut bytes)?;
        bytes.is_empty().then_some(value)
    }
}

macro_rules! unsigned_parts {
    ($($type:ty),*) => {$(
        impl KeyPart for $type {
            fn encode(&self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_be_bytes());
            }

            fn decode(bytes: &mut &[u8]) -> Option<Self> {
                let (value, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(Self::from_be_bytes(*value))
            }
        }
    )*};
}

macro_rules! signed_parts {
    ($($type:ty as $unsigned:ty),*) => {$(
        impl KeyPart for $type {
            fn encode(&self, bytes: &mut Vec<u8>) {
                (self.cast_unsigned() ^ (1 << (<$unsigned>::BITS - 1))).encode(bytes);
            }

            fn decode(bytes: &mut &[u8]) -> Option<Self> {
                let flipped = <$unsigned>::decode(bytes)?;
                Some((flipped ^ (1 << (<$unsigned>::BITS - 1))).cast_signed())
            }
        }
    )*};
}

unsigned_parts!(u8, u16, u32, u64, u128);
signed_parts!(i8 as u8, i16 as u16, i32 as u32, i64 as u64, i128 as u128);

impl KeyPart for bool {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(*self));
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        match u8::decode(bytes)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl KeyPart for Vec<u8> {
    fn encode(&self, bytes: &mut Vec<u8>) {
        encode_escaped(self, bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        decode_escaped(bytes)
    }

    fn encode_last(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self);
    }

    fn decode_last(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

impl KeyPart for Bytes {
    fn encode(&self, bytes: &mut Vec<u8>) {
        encode_escaped(self, bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        decode_escaped(bytes).map(Self::from)
    }

    fn encode_last(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self);
    }

    fn decode_last(bytes: &[u8]) -> Option<Self> {
        Some(Self::copy_from_slice(bytes))
    }
}

impl KeyPart for String {
    fn encode(&self, bytes: &mut Vec<u8>) {
        encode_escaped(self.as_bytes(), bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Self::from_utf8(decode_escaped(bytes)?).ok()
    }

    fn encode_last(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_bytes());
    }

    fn decode_last(bytes: &[u8]) -> Option<Self> {
        Self::from_utf8(bytes.to_vec()).ok()
    }
}

/// `a` < `a\0` < `a\x01` holds in the encoding: `61 00 01`, `61 00 ff 00 01`, `61 01 00 01`.
fn encode_escaped(value: &[u8], bytes: &mut Vec<u8>) {
    for &byte in value {
        bytes.push(byte);
        if byte == ESCAPE {
            bytes.push(ESCAPED_ZERO);
        }
    }
    bytes.extend_from_slice(&[ESCAPE, END]);
}

fn decode_escaped(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if byte != ESCAPE {
            value.push(byte);
            continue;
        }
        let (&second, rest) = bytes.split_first()?;
        *bytes = rest;
        match second {
            END => return Some(value),
            ESCAPED_ZERO => value.push(ESCAPE),
            _ => return None,
        }
    }
}

macro_rules! single_keys {
    ($($type:ty),*) => {$(
        impl KeyCodec for $type {
            fn to_key(&self) -> Result<Key, KeyError> {
                let mut partition = Vec::new();
                self.encode_last(&mut partition);
                Key::new(partition)
            }

            fn from_key(key: &Key) -> Result<Self, KeyMismatch> {
                let value = Self::decode_last(key.partition_key());
                value.filter(|_| key.sort_key().is_empty()).ok_or_else(|| mismatch(key))
            }
        }
    )*};
}

single_keys!(
    u8,
    u16,
    u32,
    u64,
    u128,
    i8,
    i16,
    i32,
    i64,
    i128,
    bool,
    String,
    Vec<u8>,
    Bytes
);

macro_rules! tuple_keys {
    ($(($first:ident $(, $middle:ident)* ; $last:ident))*) => {$(
        impl<$first: KeyPart, $($middle: KeyPart,)* $last: KeyPart> KeyCodec
            for ($first, $($middle,)* $last)
        {
            #[expect(non_snake_case, reason = "the elements are named by their types")]
            fn to_key(&self) -> Result<Key, KeyError> {
                let ($first, $($middle,)* $last) = self;
                let (mut partition, mut sort) = (Vec::new(), Vec::new());
                $first.encode_last(&mut partition);
                $($middle.encode(&mut sort);)*
                $last.encode_last(&mut sort);
                Key::with_sort(partition, sort)
            }

            #[expect(non_snake_case, reason = "the elements are named by their types")]
            fn from_key(key: &Key) -> Result<Self, KeyMismatch> {
                let parse = || {
                    let sort = &mut key.sort_key();
                    let $first = $first::decode_last(key.partition_key())?;
                    $(let $middle = $middle::decode(sort)?;)*
                    let $last = $last::decode_last(sort)?;
                    Some(($first, $($middle,)* $last))
                };
                parse().ok_or_else(|| mismatch(key))
            }
        }
    )*};
}

tuple_keys!((A; B) (A, B; C) (A, B, C; D));

fn mismatch(key: &Key) -> KeyMismatch {
    KeyMismatch {
        key: key.to_string(),
    }
}

#[cfg(test)]
mod tests;
