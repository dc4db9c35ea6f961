//! Bloom filters: answer "surely absent" for most keys that a table does not hold.
//!
//! The bits of a key lie in one cache line, so asking costs one read of memory (Putze, Sanders and
//! Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007). That costs a few more false
//! positives than spreading them: about 1 % at 10 bits a key.

use crate::coding::Decoder;

/// How the bits are laid out. On disk: never change. 1 was a layout that is no longer read; tables that
/// have it are asked for every key.
const ALGORITHM_LINES: u8 = 2;

/// Words of a line.
const WORDS: usize = 8;
/// Makes the next probe of the one before: odd, and with its bits well mixed (the golden ratio).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// One cache line of bits.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct Line([u64; WORDS]);

impl Line {
    /// Numbers of word and bit for each probe.
    fn probes(hash: u64, count: u32) -> impl Iterator<Item = (usize, u32)> {
        // The line was chosen by the upper bits; multiplying lets the lower ones decide here.
        let first = hash.wrapping_mul(STEP);
        std::iter::successors(Some(first), |probe| Some(probe.wrapping_mul(STEP)))
            .take(count as usize)
            .map(|probe| ((probe >> 61) as usize, (probe >> 55) as u32 & 63))
    }
}

/// Encodes a filter over key hashes, or nothing if there are no bits to spend.
pub(super) fn encode(hashes: &[u64], bits_per_key: u32) -> Vec<u8> {
    if bits_per_key == 0 || hashes.is_empty() {
        return Vec::new();
    }
    let bits = hashes.len() * bits_per_key as usize;
    let mut lines = vec![Line::default(); bits.div_ceil(WORDS * 64)];
    let probes = probes(bits_per_key);
    for hash in hashes {
        let at = line_of(*hash, lines.len());
        let line = &mut lines[at];
        for (word, bit) in Line::probes(*hash, probes) {
            line.0[word] |= 1 << bit;
        }
    }
    let mut out = Vec::with_capacity(2 + lines.len() * WORDS * 8);
    out.push(ALGORITHM_LINES);
    out.push(probes as u8);
    for word in lines.iter().flat_map(|line| line.0) {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out
}

/// The number of probes that minimises false positives is bits per key times ln 2; one less costs
/// nearly nothing in a line that is a little uneven.
fn probes(bits_per_key: u32) -> u32 {
    (f64::from(bits_per_key) * 0.65).round().clamp(1.0, 16.0) as u32
}

fn line_of(hash: u64, lines: usize) -> usize {
    ((u128::from(hash) * lines as u128) >> 64) as usize
}

/// A filter in memory.
#[derive(Debug)]
pub(super) enum Filter {
    Lines {
        lines: Box<[Line]>,
        probes: u32,
    },
    /// No filter, or one of an unknown algorithm: every key may be present.
    Maybe,
}

impl Filter {
    /// Decodes a filter block. `None` if it is malformed.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        if decoder.is_empty() || decoder.u8()? != ALGORITHM_LINES {
            return Some(Self::Maybe);
        }
        let probes = u32::from(decoder.u8()?);
        let (words, rest) = bytes[decoder.position()..].as_chunks::<8>();
        let (lines, words_over) = words.as_chunks::<WORDS>();
        if lines.is_empty() || !words_over.is_empty() || !rest.is_empty() || probes == 0 {
            return None;
        }
        let line = |words: &[[u8; 8]; WORDS]| Line(words.map(u64::from_le_bytes));
        Some(Self::Lines {
            lines: lines.iter().map(line).collect(),
            probes,
        })
    }

    /// False only if no key with this hash was added.
    #[inline]
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        match self {
            Self::Lines { lines, probes } => {
                let line = &lines[line_of(hash, lines.len())];
                Line::probes(hash, *probes).all(|(word, bit)| line.0[word] >> bit & 1 != 0)
            }
            Self::Maybe => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;
    use crate::hash::key_hash;

    fn hashes(range: std::ops::Range<u32>) -> Vec<u64> {
        range
            .map(|number| key_hash(&number.to_be_bytes()))
            .collect()
    }

    #[test]
    fn added_keys_are_found_and_few_others() {
        for (bits, most_false) in [(6, 900), (10, 130), (14, 40), (20, 10)] {
            let filter = Filter::decode(&encode(&hashes(0..10_000), bits)).unwrap();
            assert!(
                hashes(0..10_000)
                    .iter()
                    .all(|hash| filter.may_contain(*hash))
            );
            let others = hashes(10_000..20_000);
            let wrong = others.iter().filter(|hash| filter.may_contain(**hash));
            let wrong = wrong.count();
            assert!(wrong < most_false, "{wrong} of 10000 at {bits} bits");
        }
    }

    #[test]
    fn a_filter_has_the_documented_bytes() {
        assert_eq!(
            hex::encode(encode(&hashes(0..3), 10)),
            golden("sstable.md", "filter")
        );
    }

    #[test]
    fn unknown_algorithms_admit_every_key_and_broken_filters_are_refused() {
        assert!(Filter::decode(&[9, 1, 2]).unwrap().may_contain(1));
        assert!(Filter::decode(&[]).unwrap().may_contain(1));
        let good = encode(&hashes(0..40), 10);
        for end in 1..good.len() {
            assert!(Filter::decode(&good[..end]).is_none(), "cut at {end}");
        }
        let mut no_probes = good.clone();
        no_probes[1] = 0;
        assert!(Filter::decode(&no_probes).is_none());
    }
}
