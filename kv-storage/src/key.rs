//! Sequence numbers, and the order of key versions that every part of the engine shares.

use std::cmp::Ordering;
use std::fmt;

/// The number of a write in the store's total order, counted from 1 over single puts and deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// Larger than the number of every write.
    pub(crate) const MAX: Self = Self(u64::MAX);
    /// Before the first write.
    pub(crate) const ZERO: Self = Self(0);

    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a stored version says about its key. The numbers are on disk: never change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The key was deleted.
    Delete = 0,
    /// The key was given a value.
    Put = 1,
    /// The key was given a value that lies in a blob file. In tables only.
    Blob = 3,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Delete),
            1 => Some(Self::Put),
            3 => Some(Self::Blob),
            _ => None,
        }
    }
}

/// What an operation of a batch does. The numbers are in the log: never change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum OperationKind {
    Delete = 0,
    Put = 1,
    DeleteRange = 2,
}

impl OperationKind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Delete),
            1 => Some(Self::Put),
            2 => Some(Self::DeleteRange),
            _ => None,
        }
    }
}

/// One version of a key. Ordered by key, then newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyVersion<'a> {
    pub key: &'a [u8],
    pub seq: Seq,
}

impl<'a> KeyVersion<'a> {
    pub(crate) fn new(key: &'a [u8], seq: Seq) -> Self {
        Self { key, seq }
    }

    /// Sorts before every stored version of `key`.
    pub(crate) fn before_all(key: &'a [u8]) -> Self {
        Self::new(key, Seq::MAX)
    }

    /// Sorts after every stored version of `key`, because no write has number 0.
    pub(crate) fn after_all(key: &'a [u8]) -> Self {
        Self::new(key, Seq::ZERO)
    }
}

/// The first eight bytes as a number that sorts as they do; shorter keys are filled up with zeros.
#[inline]
pub(crate) fn head(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(bytes)
        }
    }
}

impl Ord for KeyVersion<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key
            .cmp(other.key)
            .then_with(|| other.seq.cmp(&self.seq))
    }
}

impl PartialOrd for KeyVersion<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
