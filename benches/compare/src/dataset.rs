//! What is stored: keys and values made from a number, so that whatever is read back can be checked.
//!
//! Invariants:
//! 1. The same number, order, version and length always give the same bytes.
//! 2. The last eight bytes of a key and the first eight of its value are the number it was made from.
//! 3. An [`absent_key`] sorts among the stored keys and is never stored.

mod census;
mod keys;
mod random;
mod values;
mod zipf;

pub(crate) use census::Census;
pub(crate) use keys::{KEY_BYTES, Key, Order, absent_key, key};
pub(crate) use random::Random;
pub(crate) use values::{Values, is_value_of};
pub(crate) use zipf::Zipf;

use std::fmt;

/// A store that one row fills and later rows read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dataset {
    /// Values of 100 bytes, which fit into the caches nearly whole.
    Small,
    /// Values of 1 KiB, several times as large as the caches.
    Large,
}

impl Dataset {
    /// Length of its values in bytes.
    pub(crate) fn value_bytes(self) -> usize {
        match self {
            Self::Small => 100,
            Self::Large => 1024,
        }
    }

    /// Its name in file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
        }
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
