//! The keyed hash of a cluster: where keys live, and how replicas compare what they hold.
//!
//! SipHash-1-3 (Aumasson and Bernstein, 2012) under the cluster's 128-bit secret, which is made at
//! genesis and travels only inside the topology. Whoever does not know it cannot aim keys at one
//! partition or make two different objects look equal to a Merkle tree.
//!
//! The hashed bytes begin with a prefix that names their domain, so that a value known in one use says nothing about
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
    /// Plans of membership.
    Plan = 4,
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
        KeyHash(self.hasher(HashDomain::Route, bucket.0).hash(partition_key))
    }

    /// The digest of an object's bytes, equal on every replica that holds the same bytes.
    #[must_use]
    pub fn digest(&self, bytes: &[u8]) -> u64 {
        self.hasher(HashDomain::Merkle, 0).hash(bytes)
    }

    /// What stands for a stored key and the digest of its object in a Merkle tree. Never 0, which stands for nothing.
    #[must_use]
    pub fn item(&self, stored_key: &[u8], digest: u64) -> u64 {
        let mut hasher = self.hasher(HashDomain::Merkle, 1);
        hasher.write(&digest.to_le_bytes());
        hasher.hash(stored_key).max(1)
    }

    /// What names a stored key where replicas compare the leaves of Merkle trees.
    #[must_use]
    pub fn key_id(&self, stored_key: &[u8]) -> u64 {
        self.hasher(HashDomain::Merkle, 2).hash(stored_key)
    }

    /// What stands for a plan of membership.
    #[must_use]
    pub fn plan_id(&self, bytes: &[u8]) -> u64 {
        self.hasher(HashDomain::Plan, 0).hash(bytes)
    }

    /// The key under which contexts are bound to their keys, the same on every node of the cluster.
    #[must_use]
    pub fn context_key(&self) -> [u8; 16] {
        let prefix = prefix(HashDomain::Context, 0);
        sip128::SipHasher13::new_with_key(&self.0)
            .hash(&prefix)
            .as_bytes()
    }

    /// A hasher that has read the prefix of a use.
    fn hasher(&self, domain: HashDomain, detail: u32) -> sip::SipHasher13 {
        let mut hasher = sip::SipHasher13::new_with_key(&self.0);
        hasher.write(&prefix(domain, detail));
        hasher
    }
}

/// What every use hashes first: the domain byte, three zeros, and a number where the use has one.
///
/// Eight bytes are one block of SipHash, so what follows is read in whole blocks too.
fn prefix(domain: HashDomain, detail: u32) -> [u8; 8] {
    let [a, b, c, d] = detail.to_le_bytes();
    [domain as u8, 0, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: HashSecret = HashSecret([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

    /// Computed by an implementation of SipHash of its own, checked against the published vector.
    #[test]
    fn hashes_are_golden() {
        let key_hash = |bucket, key: &str| SECRET.key_hash(BucketId(bucket), key.as_bytes()).0;
        assert_eq!(key_hash(1, "a"), 0x4785_8ed0_4234_4b36);
        assert_eq!(key_hash(1, "user:1024"), 0xb23e_cd23_ae1c_dfc4);
        assert_eq!(key_hash(2, "user:1024"), 0x73c5_bc49_a1cd_ceb5);
        assert_eq!(SECRET.digest(b""), 0x7f38_fb9f_024f_c6ec);
        assert_eq!(SECRET.digest(b"user:1024"), 0xd2ee_d0fe_daf3_b233);
        assert_eq!(SECRET.item(b"user:1024", 7), 0x3536_4562_df7a_5aa5);
        assert_eq!(SECRET.key_id(b"user:1024"), 0x8c83_a95c_6eb1_60b5);
        assert_eq!(
            hex::encode(SECRET.context_key()),
            "beccf47a945533af50bd469bd98ef00f"
        );
    }

    #[test]
    fn uses_do_not_share_hashes() {
        let routed = SECRET.key_hash(BucketId(0), b"x").0;
        assert_ne!(routed, SECRET.digest(b"x"));
        assert_ne!(routed, SECRET.key_hash(BucketId(1), b"x").0);
        assert_ne!(SECRET.digest(b"x"), SECRET.key_id(b"x"));
        assert_ne!(SECRET.item(b"x", 0), SECRET.key_id(b"x"));
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{SECRET:?}"), "HashSecret(..)");
    }
}
