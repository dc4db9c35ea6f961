//! Ranges of keys, for saying which part of a store is touched by something.

use std::fmt;
use std::sync::Arc;

/// Longest part of a key that is shown, in bytes.
const SHOWN_BYTES: usize = 40;

/// Keys from a first to a last one, both included, or all keys. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRange {
    /// Every key.
    All,
    /// The keys from `first` to `last`, both included.
    Between {
        /// The first key.
        first: Arc<[u8]>,
        /// The last key.
        last: Arc<[u8]>,
    },
}

impl KeyRange {
    /// The keys from `first` to `last`, both included.
    pub fn between(first: &[u8], last: &[u8]) -> Self {
        Self::Between {
            first: first.into(),
            last: last.into(),
        }
    }

    /// True if all keys of `other` lie in the range.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Between { .. }, Self::All) => false,
            (Self::Between { .. }, Self::Between { first, last }) => {
                self.contains(first) && self.contains(last)
            }
        }
    }

    /// True if `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Between { first, last } => **first <= *key && *key <= **last,
        }
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all keys"),
            Self::Between { first, last } if first == last => {
                write!(f, "the key {}", ShownKey(first))
            }
            Self::Between { first, last } => {
                write!(f, "the keys {} to {}", ShownKey(first), ShownKey(last))
            }
        }
    }
}

/// A key as a human may read it: text in quotes, other bytes as `\xNN`, the end of a long one left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShownKey<'a>(pub &'a [u8]);

impl fmt::Display for ShownKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(SHOWN_BYTES)];
        write!(f, "\"{}\"", shown.escape_ascii())?;
        if shown.len() < self.0.len() {
            write!(f, "... ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_shown_readably() {
        let range = KeyRange::between(b"a\0\xff", b"b\"c");
        assert_eq!(range.to_string(), r#"the keys "a\x00\xff" to "b\"c""#);
        assert_eq!(KeyRange::between(b"x", b"x").to_string(), "the key \"x\"");
        let long = KeyRange::between(&[b'k'; 100], b"z").to_string();
        assert!(
            long.contains("... (100 bytes)") && long.len() < 90,
            "{long}"
        );
        assert_eq!(KeyRange::All.to_string(), "all keys");
    }

    #[test]
    fn both_ends_belong_to_a_range() {
        let range = KeyRange::between(b"b", b"d");
        let inside = [&b"b"[..], b"c", b"cz", b"d"];
        assert!(inside.iter().all(|key| range.contains(key)));
        assert!(!range.contains(b"az") && !range.contains(b"d\0"));
        assert!(KeyRange::All.contains(b""));
    }
}
