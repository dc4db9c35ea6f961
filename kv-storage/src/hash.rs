//! The one key hash of the engine, and a fixed-seed hasher for in-memory maps.

use std::hash::{BuildHasherDefault, Hasher};

/// Hash of a user key for filters (and later memtable and row cache). It is on disk in filters:
/// never change it.
pub(crate) fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// Builds [`FixedHasher`]s: no randomness, so that caches behave the same in every run.
pub(crate) type FixedState = BuildHasherDefault<FixedHasher>;

/// Mixes integers well and fast. Not for keys chosen by strangers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FixedHasher(u64);

impl Hasher for FixedHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.write_u64(xxhash_rust::xxh3::xxh3_64(bytes));
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = splitmix64(self.0 ^ value);
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): one step from a counter to a random-looking number.
pub(crate) fn splitmix64(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
