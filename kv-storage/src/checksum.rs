//! CRC-32C bound to the file it protects.

/// Computes checksums for one file of one store.
///
/// The store id and file id are part of every checksum without being stored beside it. So a block
/// or frame from another file fails its check (a misdirected write is noticed), and nobody who only
/// chooses keys and values can make bytes that look like a valid frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checksum {
    seed: u32,
}

impl Checksum {
    pub(crate) fn new(store: u64, file: u64) -> Self {
        Self {
            seed: crc32c::crc32c_append(crc32c::crc32c(&store.to_le_bytes()), &file.to_le_bytes()),
        }
    }

    /// For bytes that may lie in any file of the store, under a checksum that names the file.
    pub(crate) fn of_store(store: u64) -> Self {
        Self {
            seed: crc32c::crc32c(&store.to_le_bytes()),
        }
    }

    pub(crate) fn of(self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.seed, bytes)
    }

    /// Of several parts, as if they stood one behind the other.
    pub(crate) fn of_parts(self, parts: &[&[u8]]) -> u32 {
        let append = |sum, part: &&[u8]| crc32c::crc32c_append(sum, part);
        parts.iter().fold(self.seed, append)
    }
}
