//! Compression of blocks. A stored block is one codec byte and the encoded bytes.

mod decode;
mod dictionary;
mod encode;

pub(crate) use decode::decode;
pub(crate) use dictionary::{Dictionary, Trained};
pub(crate) use encode::{Encoder, store_plain};

#[cfg(test)]
mod tests;

/// How the blocks of a table are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all: the fastest, and the right choice for data that is compressed or encrypted already.
    None,
    /// LZ4: decodes several times as fast as zstd and gains less.
    Lz4,
    /// Zstandard at a level from 1 to 19. Levels above 3 cost much time at compaction and gain little
    /// on blocks of a few KiB.
    Zstd(i32),
    /// Zstandard at a level, with a dictionary trained on the first blocks of each table if that makes
    /// them smaller by more than a tenth. Gains on small rows that resemble each other; training costs
    /// a compaction some time for each table.
    ZstdDictionary(i32),
}

/// How a stored block is encoded. The numbers are on disk: never change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Codec {
    None = 0,
    Lz4 = 1,
    Zstd = 2,
    ZstdDictionary = 3,
}

impl Codec {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            3 => Some(Self::ZstdDictionary),
            _ => None,
        }
    }
}
