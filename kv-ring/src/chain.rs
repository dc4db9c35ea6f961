//! The chain of topologies: one entry for each epoch, in its byte format.
//!
//! An entry names the hash of the entry before it, so that two nodes with one chain hash have one
//! history. Its value is a whole topology; `docs/formats/topology.md` specifies it byte for byte and
//! leaves room for other kinds of values. Genesis is the entry of epoch 1.
//!
//! The chain hash is a 128-bit SipHash-2-4 under a public key. It shows divergence and damage; it is
//! no defence against a member that forges entries, which mutual TLS keeps to certified nodes.

mod snapshot;
mod wire;

#[cfg(test)]
mod tests;

use core::fmt;
use std::sync::Arc;

use bytes::Bytes;
use kv_types::Epoch;
use siphasher::sip128::SipHasher24;

use crate::topology::{Topology, TopologyError};
use wire::Reader;

/// The first bytes of every entry.
const MAGIC: [u8; 8] = *b"kv-chain";
/// The format that this release writes, and the newest that it reads.
const FORMAT_VERSION: u16 = 1;
/// The value is a whole topology.
const KIND_SNAPSHOT: u16 = 1;
/// The key of the chain hash; public, because the secret of the cluster is inside the entries.
const HASH_KEY: [u8; 16] = *b"kv-chain entry 1";
/// Bytes before the value: magic, version, kind, epoch, previous hash, length.
const HEADER_BYTES: usize = 8 + 2 + 2 + 8 + 16 + 4;
const HASH_BYTES: usize = 16;

/// The largest entry, in bytes. The largest topology is smaller.
pub const MAX_ENTRY_BYTES: usize = 16 << 20;

/// The hash of an entry, and through it of all entries before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainHash(pub [u8; 16]);

impl ChainHash {
    /// What stands for the entry before genesis.
    pub const BEFORE_GENESIS: Self = Self([0; 16]);

    /// The first 64 bits, for messages that have no room for all.
    #[must_use]
    pub fn short(self) -> u64 {
        (u128::from_be_bytes(self.0) >> 64) as u64
    }

    fn of(bytes: &[u8]) -> Self {
        Self(SipHasher24::new_with_key(&HASH_KEY).hash(bytes).as_bytes())
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainHash({self})")
    }
}

/// One entry: the decided value of an epoch, with its bytes.
#[derive(Clone)]
pub struct ChainEntry {
    previous: ChainHash,
    topology: Arc<Topology>,
    hash: ChainHash,
    bytes: Bytes,
}

impl ChainEntry {
    /// The first entry of a chain.
    ///
    /// # Errors
    /// [`ChainError`] when the topology's epoch is not 1.
    pub fn genesis(topology: Arc<Topology>) -> Result<Self, ChainError> {
        Self::snapshot(topology, ChainHash::BEFORE_GENESIS)
    }

    /// An entry that holds a whole topology, after the entry with the given hash.
    ///
    /// # Errors
    /// [`ChainError`] when only one of "epoch 1" and "nothing before it" is true.
    pub fn snapshot(topology: Arc<Topology>, previous: ChainHash) -> Result<Self, ChainError> {
        check_place(topology.epoch(), previous)?;
        let value = snapshot::encode(&topology);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + value.len() + HASH_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&KIND_SNAPSHOT.to_le_bytes());
        bytes.extend_from_slice(&topology.epoch().0.to_le_bytes());
        bytes.extend_from_slice(&previous.0);
        bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&value);
        let hash = ChainHash::of(&bytes);
        bytes.extend_from_slice(&hash.0);
        Ok(Self {
            previous,
            topology,
            hash,
            bytes: bytes.into(),
        })
    }

    /// Reads an entry. Bytes of any content give an entry or an error, never a panic.
    ///
    /// # Errors
    /// [`ChainError`] when the bytes are not exactly one entry that this release knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChainError> {
        let mut reader = Reader::new(bytes);
        let (kind, epoch, previous) = read_header(&mut reader)?;
        let length = reader.u32()? as usize;
        let value = reader.take(length)?;
        let stored = ChainHash(reader.array()?);
        reader.finish()?;

        let computed = ChainHash::of(&bytes[..bytes.len() - HASH_BYTES]);
        if stored != computed {
            return Err(ChainError::Damaged { stored, computed });
        }
        if kind != KIND_SNAPSHOT {
            return Err(ChainError::NewerKind { kind });
        }
        check_place(epoch, previous)?;
        let topology = Arc::new(snapshot::decode(value, epoch)?);
        Ok(Self {
            previous,
            topology,
            hash: computed,
            bytes: Bytes::copy_from_slice(bytes),
        })
    }

    /// The bytes of the entry, as they are stored and sent.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.bytes.clone()
    }

    /// The epoch whose value this is.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.topology.epoch()
    }

    /// The hash of the entry before.
    #[must_use]
    pub fn previous(&self) -> ChainHash {
        self.previous
    }

    /// The hash of this entry.
    #[must_use]
    pub fn chain_hash(&self) -> ChainHash {
        self.hash
    }

    /// The topology that the chain has reached with this entry.
    #[must_use]
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }
}

impl fmt::Debug for ChainEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainEntry")
            .field("epoch", &self.epoch())
            .field("hash", &self.hash)
            .field("previous", &self.previous)
            .finish_non_exhaustive()
    }
}

impl PartialEq for ChainEntry {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for ChainEntry {}

/// Reads what stands before the length of the value.
fn read_header(reader: &mut Reader<'_>) -> Result<(u16, Epoch, ChainHash), ChainError> {
    if reader.size() > MAX_ENTRY_BYTES {
        return Err(ChainError::TooLarge {
            size: reader.size(),
        });
    }
    if reader.array().ok() != Some(MAGIC) {
        return Err(ChainError::NotAnEntry);
    }
    let version = reader.u16()?;
    if version > FORMAT_VERSION {
        return Err(ChainError::NewerVersion { version });
    }
    if version == 0 {
        return Err(ChainError::Malformed {
            what: "format version",
            value: 0,
        });
    }
    let kind = reader.u16()?;
    let epoch = Epoch(reader.u64()?);
    Ok((kind, epoch, ChainHash(reader.array()?)))
}

/// Epoch 1 has nothing before it, and every later one has something.
fn check_place(epoch: Epoch, previous: ChainHash) -> Result<(), ChainError> {
    let is_first = previous == ChainHash::BEFORE_GENESIS;
    if epoch < Epoch::GENESIS || is_first != (epoch == Epoch::GENESIS) {
        return Err(ChainError::Misplaced { epoch, previous });
    }
    Ok(())
}

/// Bytes that are not an entry of the chain. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The bytes are something else; the caller has the wrong file or a broken peer.
    #[error("this is not a kv topology: it does not begin with `kv-chain`")]
    NotAnEntry,
    /// A newer release wrote it; upgrade this node.
    #[error(
        "the topology has format version {version}, this release reads up to {FORMAT_VERSION}; upgrade kv-node"
    )]
    NewerVersion {
        /// The version it names.
        version: u16,
    },
    /// A newer release wrote it; upgrade this node.
    #[error(
        "the topology entry is of kind {kind}, which this release does not know; upgrade kv-node"
    )]
    NewerKind {
        /// The kind it names.
        kind: u16,
    },
    /// The bytes end too early; fetch or copy them again.
    #[error(
        "the topology is cut off: {needed} more bytes are needed at offset {offset}, {left} are left"
    )]
    Truncated {
        /// Where.
        offset: usize,
        /// The bytes needed there.
        needed: usize,
        /// The bytes there.
        left: usize,
    },
    /// Something follows the entry; fetch or copy it again.
    #[error("{count} bytes follow the topology")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// It is larger than any topology; the caller has the wrong file or a broken peer.
    #[error("{size} bytes are too many for a topology; the limit is {MAX_ENTRY_BYTES}")]
    TooLarge {
        /// How many.
        size: usize,
    },
    /// The bytes have changed since they were written; copy the topology from another node.
    #[error("the topology is damaged: its hash is {computed}, and {stored} is stored")]
    Damaged {
        /// The hash in the entry.
        stored: ChainHash,
        /// The hash of its bytes.
        computed: ChainHash,
    },
    /// Its epoch and the hash before it do not go together.
    #[error("epoch {epoch} cannot stand after the entry {previous}")]
    Misplaced {
        /// The epoch.
        epoch: Epoch,
        /// The hash of the entry before.
        previous: ChainHash,
    },
    /// A field has a value that it cannot have.
    #[error("the topology has {value} as its {what}")]
    Malformed {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// The fields do not make a topology.
    #[error("the topology is not well formed: {0}")]
    Topology(#[from] TopologyError),
}
