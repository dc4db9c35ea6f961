//! The one key hash of the engine.

/// Hash of a user key, computed once for each read or write: for row cache, memtable, filters and
/// fingerprints. It is on disk in the last two: never change it.
pub(crate) fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): one step from a counter to a random-looking number.
pub(crate) fn splitmix64(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
