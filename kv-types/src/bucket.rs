//! Buckets: named sets of keys with properties of their own.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::durability::Durability;
use crate::quorum::{Level, Quorum, QuorumError};

/// The name of a bucket: 1 to 64 of `a-z`, `0-9`, `-`, `_` and `.`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BucketName(String);

impl BucketName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// The bucket that requests use when they name none; genesis makes it.
    #[must_use]
    pub fn default_bucket() -> Self {
        Self("default".to_owned())
    }

    /// Checks a name.
    ///
    /// # Errors
    /// [`BucketNameError`] when a character or the length is not allowed.
    pub fn new(name: impl Into<String>) -> Result<Self, BucketNameError> {
        let name = name.into();
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.');
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if name.len() <= Self::MAX_BYTES && starts_well && name.chars().all(allowed) {
            Ok(Self(name))
        } else {
            Err(BucketNameError {
                name: name.chars().take(Self::MAX_BYTES).collect(),
            })
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BucketName({})", self.0)
    }
}

impl TryFrom<String> for BucketName {
    type Error = BucketNameError;

    fn try_from(name: String) -> Result<Self, BucketNameError> {
        Self::new(name)
    }
}

impl TryFrom<&str> for BucketName {
    type Error = BucketNameError;

    fn try_from(name: &str) -> Result<Self, BucketNameError> {
        Self::new(name)
    }
}

impl From<BucketName> for String {
    fn from(name: BucketName) -> Self {
        name.0
    }
}

/// A text that cannot name a bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` cannot name a bucket; a name is 1 to 64 of a-z, 0-9, `-`, `_` and `.`, and begins with a letter or digit"
)]
pub struct BucketNameError {
    name: String,
}

/// How a bucket treats concurrent writes; fixed at its creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum BucketMode {
    /// Concurrent writes are all kept until a later write, which has read them, replaces them.
    Siblings = 0,
    /// Readers see one value: that of the write which was coordinated last, by the hybrid clocks of the nodes. Of writes
    /// made at the same time all but one are lost, and a node whose clock is ahead wins for as long as it is.
    Lww = 1,
}

/// What a put without a context means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum BlindPut {
    /// It replaces what its coordinator holds: siblings come only from truly concurrent coordinators.
    Overwrite = 0,
    /// It stands beside what is there as a sibling (Dynamo's `allow_mult`).
    Sibling = 1,
}

/// Which rows of a bucket the nodes keep in memory one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum RowCache {
    /// Those that are read often.
    On = 0,
    /// None, so that those of other buckets have the room: for what is read once, in order, or in large values. The blocks
    /// in which rows lie are kept nevertheless.
    Off = 1,
}

/// What a bucket promises. Every topology lists the properties of all buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketProperties {
    /// Replicas of a key, and the strict defaults of read and write quorums.
    pub quorum: Quorum,
    /// How concurrent writes are treated.
    pub mode: BucketMode,
    /// What a put without a context means.
    pub blind_put: BlindPut,
    /// After how many seconds values expire whose writers say nothing of it; 0 is never.
    pub ttl_s: u32,
    /// Which rows stay in memory.
    pub row_cache: RowCache,
    /// What must survive a loss of power when a write is acknowledged whose writer says nothing of it.
    pub durability: Durability,
    /// What requests get that name neither a level nor a number; [`Level::Usual`] leaves it to the cluster's mode.
    pub level: Level,
}

impl BucketProperties {
    /// The properties of a bucket nobody configured: a majority of `n` for reads and for writes.
    ///
    /// # Errors
    /// [`QuorumError`] when `n` is not 1 to 16.
    pub fn majority_of(n: u8) -> Result<Self, QuorumError> {
        let majority = n / 2 + 1;
        Ok(Self {
            quorum: Quorum::new(n, majority, majority)?,
            mode: BucketMode::Siblings,
            blind_put: BlindPut::Overwrite,
            ttl_s: 0,
            row_cache: RowCache::On,
            durability: Durability::Quorum,
            level: Level::Usual,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["default", "a", "0", "user-profiles.v2_x", &"a".repeat(64)] {
            assert!(BucketName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a b", "ü", &"a".repeat(65)] {
            assert!(BucketName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn majorities_overlap() {
        for n in 1..=16 {
            let quorum = BucketProperties::majority_of(n)
                .expect("n is in range")
                .quorum;
            assert!(quorum.is_strict());
        }
    }
}
