//! Keys: a partition key, which decides where the key lives, and a sort key, which orders its rows.

use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A key: partition key (1 to 1024 bytes) and sort key (0 to 1024 bytes).
///
/// Keys with one partition key live on the same replicas, in order of their sort keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawKey", into = "RawKey")]
pub struct Key {
    partition: Bytes,
    sort: Bytes,
}

/// The form of a key on the wire, before its limits are checked.
#[derive(Serialize, Deserialize)]
struct RawKey(Bytes, Bytes);

impl Key {
    /// The longest partition key, in bytes.
    pub const MAX_PARTITION_BYTES: usize = 1024;
    /// The longest sort key, in bytes.
    pub const MAX_SORT_BYTES: usize = 1024;

    /// A key without a sort key.
    ///
    /// # Errors
    /// [`KeyError`] when the partition key is empty or longer than 1024 bytes.
    pub fn new(partition: impl Into<Bytes>) -> Result<Self, KeyError> {
        Self::with_sort(partition, Bytes::new())
    }

    /// A key with a sort key.
    ///
    /// # Errors
    /// [`KeyError`] when the partition key is empty, or either part is longer than 1024 bytes.
    pub fn with_sort(
        partition: impl Into<Bytes>,
        sort: impl Into<Bytes>,
    ) -> Result<Self, KeyError> {
        let (partition, sort) = (partition.into(), sort.into());
        if partition.is_empty() {
            return Err(KeyError::Empty);
        }
        if partition.len() > Self::MAX_PARTITION_BYTES {
            return Err(KeyError::PartitionTooLong {
                size: partition.len(),
            });
        }
        if sort.len() > Self::MAX_SORT_BYTES {
            return Err(KeyError::SortTooLong { size: sort.len() });
        }
        Ok(Self { partition, sort })
    }

    /// The part that is hashed to find the replicas.
    #[must_use]
    pub fn partition_key(&self) -> &[u8] {
        &self.partition
    }

    /// The part that orders keys of one partition key.
    #[must_use]
    pub fn sort_key(&self) -> &[u8] {
        &self.sort
    }
}

/// Why bytes are not a key. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The partition key has no bytes; give it at least one.
    #[error(
        "the key is empty; a partition key has 1 to {} bytes",
        Key::MAX_PARTITION_BYTES
    )]
    Empty,
    /// The partition key is too long; shorten it or move a part into the sort key or the value.
    #[error(
        "the partition key has {size} bytes; the limit is {}",
        Key::MAX_PARTITION_BYTES
    )]
    PartitionTooLong {
        /// Its length in bytes.
        size: usize,
    },
    /// The sort key is too long; shorten it.
    #[error("the sort key has {size} bytes; the limit is {}", Key::MAX_SORT_BYTES)]
    SortTooLong {
        /// Its length in bytes.
        size: usize,
    },
}

impl TryFrom<RawKey> for Key {
    type Error = KeyError;

    fn try_from(RawKey(partition, sort): RawKey) -> Result<Self, KeyError> {
        Self::with_sort(partition, sort)
    }
}

impl From<Key> for RawKey {
    fn from(key: Key) -> Self {
        Self(key.partition, key.sort)
    }
}

/// Shows printable bytes as they are and the rest escaped; a `/` stands before the sort key.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.partition.escape_ascii())?;
        if !self.sort.is_empty() {
            write!(f, "/{}", self.sort.escape_ascii())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_at_the_limit_and_refused_above_it() {
        let at = vec![7; Key::MAX_PARTITION_BYTES];
        let above = vec![7; Key::MAX_PARTITION_BYTES + 1];
        assert!(Key::with_sort(at.clone(), at.clone()).is_ok());
        assert_eq!(
            Key::new(above.clone()),
            Err(KeyError::PartitionTooLong { size: 1025 })
        );
        assert_eq!(
            Key::with_sort(at, above),
            Err(KeyError::SortTooLong { size: 1025 })
        );
        assert_eq!(Key::new(""), Err(KeyError::Empty));
    }

    #[test]
    fn a_key_with_bytes_that_do_not_print_is_shown_escaped() {
        let key = Key::with_sort("user\n1", &b"\xff"[..]).expect("within the limits");
        assert_eq!(key.to_string(), "user\\n1/\\xff");
    }
}
