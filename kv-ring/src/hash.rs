//! The keyed hash of a cluster: where keys live, and how replicas compare what they hold.
//!
//! SipHash-1-3 (Aumasson and Bernstein, 2012) under the cluster's 128-bit secret, which is made at
//! genesis and travels only inside the topology. Whoever does not know it cannot aim keys at one
//! partition or make two different objects look equal to a Merkle tree.
//!
//! The hashed bytes begin with one domain byte, so that a value known in one use says nothing about
//! another. These hashes are on disk and on the wire; they change only with a new format.

use core::fmt;
use core::hash::Hasher;

use kv_types::BucketId;
use siphasher::{sip, sip128};

/// What a hash is for; its first hashed byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum HashDomain {
    /// Key to partition.
    Route = 1,
    /// Digests of objects and the nodes of Merkle trees.
    Merkle = 2,
    /// The key of the codes that bind contexts to their keys.
    Context = 3,
}

/// The place of a key on the ring: its keyed hash, whose top bits name the partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub u64);

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({:016x})", self.0)
    }
}

/// The 128-bit secret that keys every hash of one cluster. Its `Debug` form does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashSecret(pub [u8; 16]);

impl fmt::Debug for HashSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashSecret(..)")
    }
}

impl HashSecret {
    /// Where the keys of one partition key live, in one bucket.
    #[must_use]
    pub fn key_hash(&self, bucket: BucketId, partition_key: &[u8]) -> KeyHash {
        let [a, b, c, d] = bucket.0.to_le_bytes();
        let mut hasher = sip::SipHasher13::new_with_key(&self.0);
        // One write for the fixed part: the hasher pays per call, not per byte.
        hasher.write(&[HashDomain::Route as u8, a, b, c, d]);
        hasher.write(partition_key);
        KeyHash(hasher.finish())
    }

    /// The digest of an object's bytes, equal on every replica that holds the same bytes.
    #[must_use]
    pub fn digest(&self, bytes: &[u8]) -> u64 {
        let mut hasher = sip::SipHasher13::new_with_key(&self.0);
        hasher.write(&[HashDomain::Merkle as u8]);
        hasher.write(bytes);
        hasher.finish()
    }

    /// The key under which contexts are bound to their keys, the same on every node of the cluster.
    #[must_use]
    pub fn context_key(&self) -> [u8; 16] {
        sip128::SipHasher13::new_with_key(&self.0)
            .hash(&[HashDomain::Context as u8])
            .as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: HashSecret = HashSecret([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

    /// Computed by an implementation of SipHash of its own, checked against the published vector.
    #[test]
    fn hashes_are_golden() {
        let key_hash = |bucket, key: &str| SECRET.key_hash(BucketId(bucket), key.as_bytes()).0;
        assert_eq!(key_hash(1, "a"), 0x775c_5fae_9320_e636);
        assert_eq!(key_hash(1, "user:1024"), 0xc814_aab2_11d1_ef34);
        assert_eq!(key_hash(2, "user:1024"), 0xdca4_38e8_de77_170d);
        assert_eq!(SECRET.digest(b""), 0x36fb_2544_7ce4_b5de);
        assert_eq!(SECRET.digest(b"user:1024"), 0x3205_cb03_7c4f_ee05);
        assert_eq!(
            hex::encode(SECRET.context_key()),
            "53ba4d6a3c126c28aeb29dfaab104508"
        );
    }

    #[test]
    fn uses_do_not_share_hashes() {
        let routed = SECRET.key_hash(BucketId(0), b"x").0;
        assert_ne!(routed, SECRET.digest(b"\0\0\0\0x"));
        assert_ne!(routed, SECRET.key_hash(BucketId(1), b"x").0);
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{SECRET:?}"), "HashSecret(..)");
    }
}
