//! Values that compress to about half, and how one is told from another.

use super::random::{Random, mix};

/// Size of the text that values are cut from: much more than any block, so that no codec finds a value twice,
/// and little enough to stay in the processor's cache, so that making a value costs next to nothing.
const TEXT_BYTES: usize = 8 << 20;
/// Random bytes that are followed by themselves: what makes the text compressible.
const FRAGMENT_BYTES: usize = 50;
/// Text between the pieces of consecutive numbers. It shares no factor with the fragments, so that pieces begin
/// anywhere in them.
const GAP_BYTES: u64 = 37;

/// Makes values. It keeps 8 MiB in memory, so rows that only read do not make one.
#[derive(Debug)]
pub(crate) struct Values {
    text: Vec<u8>,
}

impl Values {
    /// Prepares the text that values are cut from.
    pub(crate) fn new() -> Self {
        let mut random = Random::new(42);
        let mut text = Vec::with_capacity(TEXT_BYTES + 2 * FRAGMENT_BYTES);
        while text.len() < TEXT_BYTES {
            let fragment: [u8; FRAGMENT_BYTES + 6] = {
                let words: [u64; 7] = std::array::from_fn(|_| random.bits());
                let mut bytes = [0; FRAGMENT_BYTES + 6];
                for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
                    chunk.copy_from_slice(&word.to_le_bytes());
                }
                bytes
            };
            text.extend_from_slice(&fragment[..FRAGMENT_BYTES]);
            text.extend_from_slice(&fragment[..FRAGMENT_BYTES]);
        }
        Self { text }
    }

    /// Replaces `into` by the value of a number. Another version is another value of the same number.
    #[inline]
    pub(crate) fn fill(&self, into: &mut Vec<u8>, number: u64, version: u64, value_bytes: usize) {
        // Pieces of consecutive numbers follow one another, so the processor sees them coming.
        let stride = value_bytes as u64 + GAP_BYTES;
        let place = number.wrapping_mul(stride).wrapping_add(mix(version));
        let start = (place % (self.text.len() - value_bytes) as u64) as usize;
        into.clear();
        into.extend_from_slice(&self.text[start..start + value_bytes]);
        into[..8].copy_from_slice(&number.to_le_bytes());
    }

    /// The text itself, for measuring codecs and copies.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }
}

/// True if these bytes can be a value of this number and length.
#[inline]
pub(crate) fn is_value_of(value: &[u8], number: u64, value_bytes: usize) -> bool {
    value.len() == value_bytes && value.first_chunk() == Some(&number.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_recognised_by_number_and_length() {
        let values = Values::new();
        let mut value = Vec::new();
        values.fill(&mut value, 9, 0, 100);
        assert!(is_value_of(&value, 9, 100));
        assert!(!is_value_of(&value, 8, 100));
        assert!(!is_value_of(&value, 9, 101));
        assert!(!is_value_of(&[], 0, 0), "too short to hold a number");
    }

    #[test]
    fn versions_differ_and_compress_to_about_half() {
        let values = Values::new();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        values.fill(&mut first, 3, 0, 16_384);
        values.fill(&mut second, 3, 1, 16_384);
        assert_ne!(first, second);
        let compressed = zstd::bulk::compress(&first, 1).unwrap().len();
        assert!((7_000..10_000).contains(&compressed), "{compressed}");
    }
}
