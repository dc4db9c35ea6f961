//! The client's name for one write, the same over all its retries.

use core::fmt;

use serde::{Deserialize, Serialize};

/// 16 bytes: 48 bits of creation time (milliseconds since the Unix epoch), 80 random bits.
///
/// A replica that meets an id it knows does not apply the write anew, so a retry through any
/// coordinator makes no second sibling and brings nothing back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WriteId([u8; 16]);

impl WriteId {
    /// Makes an id from the time of creation and ten random bytes.
    #[must_use]
    pub fn new(created_ms: u64, random: [u8; 10]) -> Self {
        let mut id = [0; 16];
        let [_, _, time @ ..] = created_ms.to_be_bytes();
        id[..6].copy_from_slice(&time);
        id[6..].copy_from_slice(&random);
        Self(id)
    }

    /// When the client made it, in milliseconds since the Unix epoch by the client's clock.
    #[must_use]
    pub fn created_ms(self) -> u64 {
        let mut time = [0; 8];
        time[2..].copy_from_slice(&self.0[..6]);
        u64::from_be_bytes(time)
    }

    /// The 16 bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// An id from its 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteId({:032x})", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_creation_time_is_kept() {
        let id = WriteId::new(1_763_800_000_123, [9; 10]);
        assert_eq!(id.created_ms(), 1_763_800_000_123);
        assert_eq!(WriteId::from_bytes(id.to_bytes()), id);
    }
}
