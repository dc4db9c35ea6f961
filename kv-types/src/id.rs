//! Who and where: identifiers of nodes, clusters, actors, buckets and topology epochs.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// Defines a 128-bit random identifier shown as 32 hexadecimal digits.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u128);

        impl $name {
            /// The first eight hexadecimal digits: enough for a person to tell ids apart in a table.
            #[must_use]
            pub fn short(self) -> String {
                format!("{:08x}", self.0 >> 96)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let digits_ok = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
                match u128::from_str_radix(text, 16) {
                    Ok(id) if digits_ok => Ok(Self(id)),
                    _ => Err(IdError { text: text.chars().take(40).collect() }),
                }
            }
        }
    };
}

hex_id! {
    /// One data directory of one node, for ever: random, made by `kv-node init`, never reused.
    NodeId
}

hex_id! {
    /// One cluster, random, made at genesis; certificates and data directories name it.
    ClusterId
}

/// A text that is not a 128-bit identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of 32 hexadecimal digits")]
pub struct IdError {
    text: String,
}

/// One minter of dots: a node during one unbroken memory of what it minted.
///
/// Actor ids are granted in the topology chain and never used twice. A node whose disk was lost,
/// rolled back or copied gets a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActorId(pub u32);

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a{}", self.0)
    }
}

/// The number of a bucket, fixed at its creation and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BucketId(pub u32);

/// The number of a topology: 1 at genesis, one more with every change that was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the genesis document.
    pub const GENESIS: Self = Self(1);

    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        let id = NodeId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short(), "01234567");
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in [
            "",
            "12",
            "+0000000000000000000000000000001",
            &"g".repeat(32),
            &"0".repeat(33),
        ] {
            assert!(text.parse::<NodeId>().is_err(), "{text}");
        }
    }
}
