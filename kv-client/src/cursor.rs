//! Where a scan is, as something that can be kept and continued from.

use core::fmt;
use core::str::FromStr;

use bytes::Bytes;
use kv_ring::KeyHash;
use kv_types::Key;

/// A place in the hash order of a bucket. As text (`Display`, `FromStr`) it is hexadecimal.
///
/// It stays valid when the topology changes. A scan continued from it lists every key that was there
/// all the time; keys written or deleted meanwhile may or may not be listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    pub(crate) place: CursorPlace,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CursorPlace {
    /// At the first key whose hash is at least this.
    At(KeyHash),
    /// After this key.
    After(Key),
    /// After the last key.
    End,
}

impl Default for CursorPlace {
    fn default() -> Self {
        Self::At(KeyHash(0))
    }
}

impl Cursor {
    /// Before the first key.
    #[must_use]
    pub fn start() -> Self {
        Self::default()
    }

    /// Whether nothing is left after it.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.place == CursorPlace::End
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            CursorPlace::At(hash) => write!(f, "h{:016x}", hash.0),
            CursorPlace::After(key) => {
                write!(f, "k{:04x}", key.partition_key().len())?;
                let parts = [key.partition_key(), key.sort_key()];
                parts
                    .into_iter()
                    .flatten()
                    .try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            CursorPlace::End => f.write_str("e"),
        }
    }
}

/// A text that is no cursor. Begin the scan anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text is not a cursor; begin the scan anew")]
pub struct CursorError;

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let place = match text.split_at_checked(1).ok_or(CursorError)? {
            ("h", digits) if digits.len() == 16 => {
                let hash = u64::from_str_radix(digits, 16).map_err(|_| CursorError)?;
                CursorPlace::At(KeyHash(hash))
            }
            ("k", digits) => CursorPlace::After(key(digits).ok_or(CursorError)?),
            ("e", "") => CursorPlace::End,
            _ => return Err(CursorError),
        };
        Ok(Self { place })
    }
}

fn key(digits: &str) -> Option<Key> {
    let (length, digits) = digits.split_at_checked(4)?;
    let length = usize::from_str_radix(length, 16).ok()?;
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        &[high, low] => {
            let digit = |letter: u8| char::from(letter).to_digit(16);
            u8::try_from(digit(high)? << 4 | digit(low)?).ok()
        }
        _ => None,
    };
    let bytes = Bytes::from(pairs.map(byte).collect::<Option<Vec<u8>>>()?);
    (length <= bytes.len())
        .then(|| bytes.slice(..length))
        .and_then(|partition| {
            let sort = bytes.slice(length..);
            Key::with_sort(partition, sort).ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_their_text() {
        let key = Key::with_sort("user:1", &b"\0\xff"[..]).expect("within the limits");
        for place in [
            CursorPlace::At(KeyHash(0)),
            CursorPlace::At(KeyHash(u64::MAX)),
            CursorPlace::After(key),
            CursorPlace::After(Key::new("a").expect("within the limits")),
            CursorPlace::End,
        ] {
            let cursor = Cursor { place };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "h",
            "h12",
            "x",
            "k",
            "k00",
            "k0001",
            "k0001a",
            "k000161zz",
            "k00006",
            "ee",
            "é",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text}");
        }
    }
}
