//! The client's name for one write, the same over all its retries.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::hlc::Hlc;

/// 16 bytes: 48 bits of creation time (milliseconds since the Unix epoch), 80 random bits.
///
/// A replica that meets an id it knows does not apply the write anew, so a retry through any
/// coordinator makes no second sibling and brings nothing back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WriteId([u8; 16]);

impl WriteId {
    /// For how long after its creation a write may be repeated, in milliseconds. Superseded ones are remembered as long.
    pub const HORIZON_MS: u64 = 60_000;

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

    /// What tells it from others of the same moment.
    pub(crate) fn random(self) -> [u8; 10] {
        let [_, _, _, _, _, _, random @ ..] = self.0;
        random
    }

    /// The latest moment at which a coordinator gives the write a dot: whoever repeats it later is refused.
    #[must_use]
    pub fn latest_dot(self) -> Hlc {
        let last = self.created_ms().saturating_add(Self::HORIZON_MS);
        Hlc(Hlc::from_millis(last.saturating_add(1)).0.saturating_sub(1))
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

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl core::str::FromStr for WriteId {
    type Err = WriteIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if text.len() != 32 || !is_hex {
            return Err(WriteIdError);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| WriteIdError)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// A text that is not the id of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteIdError;

impl fmt::Display for WriteIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the id of a write is 32 hexadecimal digits, as the client shows it")
    }
}

impl core::error::Error for WriteIdError {}

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

    #[test]
    fn an_id_survives_its_text_and_no_other_text_is_one() {
        let id = WriteId::new(1_763_800_000_123, [9; 10]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(WriteId::from_bytes([0; 16]).to_string().len(), 32);
        for wrong in [
            "",
            "12",
            "+0000000000000000000000000000001",
            "g0000000000000000000000000000001",
        ] {
            assert_eq!(wrong.parse::<WriteId>(), Err(WriteIdError), "{wrong}");
        }
    }

    #[test]
    fn the_latest_dot_is_the_last_point_of_the_horizon() {
        let id = WriteId::new(1_000, [9; 10]);
        assert_eq!(id.latest_dot().millis(), 61_000);
        assert_eq!(id.latest_dot().next().millis(), 61_001);
    }
}
