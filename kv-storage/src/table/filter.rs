//! Bloom filters: answer "surely absent" for most keys that a table does not hold.

use crate::coding::Decoder;
use crate::prefetch::prefetch;
use fastbloom::BloomFilter;

/// How the bits are laid out. On disk: never change. 1 = fastbloom 0.17, words of 64 bits.
const ALGORITHM_FASTBLOOM_17: u8 = 1;

/// Stored in the filter and given to the library. Key hashes come from outside, so it changes nothing, but a
/// reader must use the stored one should that ever change.
const SEED: u128 = 0;

/// Encodes a filter over key hashes, or nothing if there are no bits to spend.
pub(super) fn encode(hashes: &[u64], bits_per_key: u32) -> Vec<u8> {
    if bits_per_key == 0 || hashes.is_empty() {
        return Vec::new();
    }
    let bits = hashes.len() * bits_per_key as usize;
    // False positives are fewest at bits per key x ln 2 probes. With a few less they are hardly more, for example
    // 0.94 % instead of 0.82 % with 10 bits, and fewer bits are set: absent keys are told from one cache line in 61 %
    // of all cases instead of 50 %, and present ones need two lines less.
    let probes = bits_per_key.div_ceil(2);
    let mut bloom = BloomFilter::with_num_bits(bits).seed(&SEED).hashes(probes);
    for hash in hashes {
        bloom.insert_hash(*hash);
    }
    let words = bloom.as_slice();
    let mut out = Vec::with_capacity(29 + words.len() * 8);
    out.push(ALGORITHM_FASTBLOOM_17);
    out.extend_from_slice(&bloom.num_hashes().to_le_bytes());
    out.extend_from_slice(&SEED.to_le_bytes());
    out.extend_from_slice(&(words.len() as u64).to_le_bytes());
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out
}

/// A filter in memory.
#[derive(Debug)]
pub(super) enum Filter {
    Bloom(BloomFilter),
    /// No filter, or one of an unknown algorithm: every key may be present.
    Maybe,
}

impl Filter {
    /// One that lets every key pass.
    pub(super) fn all() -> Self {
        Self::Maybe
    }

    /// Decodes a filter block. `None` if it is malformed.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        if decoder.is_empty() || decoder.u8()? != ALGORITHM_FASTBLOOM_17 {
            return Some(Self::Maybe);
        }
        let probes = decoder.u32()?;
        let seed = u128::from_le_bytes(decoder.array()?);
        let count = usize::try_from(decoder.u64()?).ok()?;
        let bytes = decoder.take(count.checked_mul(8)?)?;
        // The library panics on an empty vector, and takes 0 probes for 1.
        if count == 0 || !(1..=64).contains(&probes) || !decoder.is_empty() {
            return None;
        }
        let (chunks, _) = bytes.as_chunks::<8>();
        let words = chunks
            .iter()
            .map(|chunk| u64::from_le_bytes(*chunk))
            .collect();
        Some(Self::Bloom(
            BloomFilter::from_vec(words).seed(&seed).hashes(probes),
        ))
    }

    pub(super) fn size_bytes(&self) -> u64 {
        match self {
            Self::Bloom(bloom) => bloom.num_bits() as u64 / 8,
            Self::Maybe => 0,
        }
    }

    /// Begins to load what [`may_contain`](Self::may_contain) looks at first.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        if let Self::Bloom(bloom) = self {
            // As the library finds the first bit of a hash. If it did not, this would only be of no use.
            let bit = (u128::from(hash) * bloom.num_bits() as u128) >> 64;
            if let Some(word) = bloom.as_slice().get(bit as usize / 64) {
                prefetch(word);
            }
        }
    }

    pub(super) fn may_contain(&self, hash: u64) -> bool {
        match self {
            Self::Bloom(bloom) => bloom.contains_hash(hash),
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
    fn members_are_found_and_about_one_percent_of_others() {
        let encoded = encode(&hashes(0..20_000), 10);
        let filter = Filter::decode(&encoded).unwrap();
        assert!(
            hashes(0..20_000)
                .into_iter()
                .all(|hash| filter.may_contain(hash))
        );
        let wrong = hashes(20_000..120_000)
            .into_iter()
            .filter(|hash| filter.may_contain(*hash))
            .count();
        assert!(wrong < 1_300, "{wrong} of 100000 false positives");
    }

    #[test]
    fn the_filter_has_the_documented_bytes() {
        assert_eq!(
            hex::encode(encode(&hashes(0..3), 10)),
            golden("sstable.md", "filter")
        );
    }

    #[test]
    fn unknown_algorithms_admit_every_key_and_broken_filters_are_refused() {
        assert!(Filter::decode(&[9, 1, 2]).unwrap().may_contain(1));
        assert!(Filter::decode(&[]).unwrap().may_contain(1));
        let good = encode(&hashes(0..100), 10);
        for end in 1..good.len() {
            assert!(Filter::decode(&good[..end]).is_none(), "cut at {end}");
        }
        let mut no_probes = good.clone();
        no_probes[1] = 0;
        assert!(Filter::decode(&no_probes).is_none());
    }
}
