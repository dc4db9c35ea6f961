//! The bytes of gossip messages, specified in `docs/formats/gossip.md`.
//!
//! A message is a version byte and a postcard value. Nothing in it grows with the cluster: rumors
//! fill what room is left. Messages are frozen: a change is a new version.

use bytes::Bytes;
use kv_types::{Epoch, NodeId};
use serde::{Deserialize, Serialize};

use crate::standing::{Incarnation, Standing, State};

/// The longest message that is sent or read, in bytes.
pub const MAX_MESSAGE_SIZE_BYTES: usize = 1200;

/// The longest message that is composed, in bytes: a datagram on the narrowest path that carries QUIC
/// (1200 bytes of UDP payload, less the packet's header and tag and the frame's header).
pub const COMPOSED_SIZE_BYTES: usize = 1120;

/// The longest address of a member, in bytes.
pub const MAX_ADDRESS_SIZE_BYTES: usize = 255;

/// How many hashes a view is compared by.
pub const BUCKETS: usize = 16;

/// The version this build speaks.
const VERSION: u8 = 1;

/// The most that a message takes beside its rumors: version, header, the largest body and the count
/// of rumors, each at its longest.
const ENVELOPE_MAX_SIZE_BYTES: usize = 1 + 10 + 10 + 10 + 8 + (1 + 1 + 8 * BUCKETS) + 2;

/// The room that rumors may fill in any message.
pub(crate) const RUMORS_SIZE_BYTES: usize = COMPOSED_SIZE_BYTES - ENVELOPE_MAX_SIZE_BYTES;

/// The longest rumor: two ids, a tag for the claim, the profile and its address, and six numbers.
const RUMOR_MAX_SIZE_BYTES: usize = 2 * 16 + 2 + 2 + MAX_ADDRESS_SIZE_BYTES + 7 * 10;

// Two rumors of any length lead a message at most: the sender's own and one about the recipient.
const _: () = assert!(COMPOSED_SIZE_BYTES <= MAX_MESSAGE_SIZE_BYTES);
const _: () = assert!(2 * RUMOR_MAX_SIZE_BYTES <= RUMORS_SIZE_BYTES);

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What every message says about its sender.
    pub header: Header,
    /// What the message is.
    pub body: Body,
    /// News about members, or in [`Body::State`] the sender's view of them.
    pub rumors: Vec<Rumor>,
}

/// What every message says about its sender, whose id the transport knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The sender's incarnation.
    pub incarnation: Incarnation,
    /// The sender's heartbeat.
    pub heartbeat: u64,
    /// The newest topology epoch the sender has.
    pub epoch: Epoch,
    /// The hash of the sender's topology chain.
    #[serde(with = "postcard::fixint::le")]
    pub chain_hash: u64,
}

/// What a message is; the order of the variants is part of the format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Are you there?
    Ping {
        /// Chosen by the sender, repeated in the ack.
        seq: u32,
    },
    /// The answer to a ping.
    Ack {
        /// That of the ping.
        seq: u32,
        /// Whether the answering node finds itself unfit: then this is no evidence of life.
        stalled: bool,
    },
    /// Ping that member for me.
    PingRequest {
        /// Chosen by the asking member, repeated in the answer.
        seq: u32,
        /// Whom to ping.
        #[serde(with = "id_bytes")]
        target: NodeId,
    },
    /// The answer to a ping request: the target's ack, passed on.
    RelayedAck {
        /// That of the request.
        seq: u32,
        /// The incarnation in the target's ack.
        incarnation: Incarnation,
        /// The heartbeat in the target's ack.
        heartbeat: u64,
        /// Whether the target finds itself unfit.
        stalled: bool,
    },
    /// The answer to a ping request: no ack so far, but the relay itself is well.
    Nack {
        /// That of the request.
        seq: u32,
    },
    /// Nothing but rumors.
    News,
    /// Hashes of the sender's view, to find out where views differ.
    Digest {
        /// Whether this answers a digest: an answer is not answered with another.
        answer: bool,
        /// One hash for each sixteenth of the id space.
        buckets: [ViewHash; BUCKETS],
    },
    /// A part of the sender's view, in the rumors: what it believes, not what has just happened.
    State,
}

/// A hash of a part of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ViewHash(#[serde(with = "postcard::fixint::le")] pub u64);

/// What is claimed about one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rumor {
    /// The member.
    #[serde(with = "id_bytes")]
    pub node: NodeId,
    /// Which incarnation of it.
    pub incarnation: Incarnation,
    /// What is claimed.
    pub claim: Claim,
    /// How to reach it; stated with claims of life and in [`Body::State`].
    pub profile: Option<Profile>,
}

/// What is claimed about a member; the order of the variants is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Claim {
    /// It answers.
    Alive {
        /// The latest heartbeat that disproved an accusation, else 0.
        cleared: u64,
    },
    /// It does not answer.
    Suspect {
        /// That of the belief it overrides.
        cleared: u64,
        /// Only acks with a later heartbeat disprove this.
        accused_at: u64,
        /// Who says so: suspicions shorten when independent members agree.
        #[serde(with = "id_bytes")]
        accuser: NodeId,
    },
    /// It has not answered for long.
    Dead {
        /// That of the belief it overrides.
        cleared: u64,
        /// Only acks with a later heartbeat disprove this.
        accused_at: u64,
    },
    /// It said goodbye.
    Left,
}

/// What is known of a member beside its standing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Where it is reached.
    pub address: String,
    /// How often it has been started.
    pub boot: u64,
    /// The newest heartbeat heard of, for people to read; no evidence.
    pub heartbeat: u64,
    /// How many heartbeats ago it started, by its own clock; says nothing about life.
    pub age: u64,
    /// The newest topology epoch it was heard to have.
    pub epoch: Epoch,
}

impl Message {
    /// The bytes of this message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let encoded = postcard::to_extend(self, vec![VERSION]);
        Bytes::from(encoded.expect("messages hold nothing that postcard cannot encode"))
    }

    /// Reads one message.
    ///
    /// # Errors
    ///
    /// See [`DecodeError`]; nothing is read in part.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_MESSAGE_SIZE_BYTES {
            return Err(DecodeError::TooLong {
                size_bytes: bytes.len(),
            });
        }
        let (&version, rest) = bytes.split_first().ok_or(DecodeError::Empty)?;
        if version != VERSION {
            return Err(DecodeError::Version { found: version });
        }
        let (message, trailing): (Self, _) = postcard::take_from_bytes(rest)?;
        if !trailing.is_empty() {
            return Err(DecodeError::Trailing {
                size_bytes: trailing.len(),
            });
        }
        message.check()?;
        Ok(message)
    }

    fn check(&self) -> Result<(), DecodeError> {
        let relayed = match self.body {
            Body::RelayedAck { incarnation, .. } => Some(incarnation),
            Body::Ping { .. }
            | Body::Ack { .. }
            | Body::PingRequest { .. }
            | Body::Nack { .. }
            | Body::News
            | Body::Digest { .. }
            | Body::State => None,
        };
        let stated = self.rumors.iter().map(|rumor| rumor.incarnation);
        for incarnation in stated.chain([self.header.incarnation]).chain(relayed) {
            if incarnation > Incarnation::MAX {
                return Err(DecodeError::Incarnation { found: incarnation });
            }
        }
        for profile in self
            .rumors
            .iter()
            .filter_map(|rumor| rumor.profile.as_ref())
        {
            if profile.address.len() > MAX_ADDRESS_SIZE_BYTES {
                return Err(DecodeError::Address {
                    size_bytes: profile.address.len(),
                });
            }
        }
        Ok(())
    }
}

impl Rumor {
    /// The belief that this rumor states.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let (cleared, state) = match self.claim {
            Claim::Alive { cleared } => (cleared, State::Alive),
            Claim::Suspect { cleared, .. } => (cleared, State::Suspect),
            Claim::Dead { cleared, .. } => (cleared, State::Dead),
            Claim::Left => return Standing::left(self.incarnation),
        };
        Standing {
            incarnation: self.incarnation,
            cleared,
            state,
        }
    }

    /// Its length in a message.
    pub(crate) fn size_bytes(&self) -> usize {
        postcard::experimental::serialized_size(self)
            .expect("rumors hold nothing that postcard cannot encode")
    }
}

impl Claim {
    /// The heartbeat that an ack must exceed to disprove this claim; 0 if it is no accusation.
    #[must_use]
    pub fn accused_at(&self) -> u64 {
        match *self {
            Self::Suspect { accused_at, .. } | Self::Dead { accused_at, .. } => accused_at,
            Self::Alive { .. } | Self::Left => 0,
        }
    }
}

/// Bytes that are no message of this version. Nothing has changed; the sender is broken or newer, and
/// the message should be counted and dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No bytes at all.
    #[error("an empty gossip message")]
    Empty,
    /// The message exceeds [`MAX_MESSAGE_SIZE_BYTES`].
    #[error("a gossip message of {size_bytes} bytes, at most {MAX_MESSAGE_SIZE_BYTES} are allowed")]
    TooLong {
        /// Its length.
        size_bytes: usize,
    },
    /// The message has a version this build does not speak.
    #[error("a gossip message of version {found}, this node speaks {VERSION}")]
    Version {
        /// Its version byte.
        found: u8,
    },
    /// The message ends early or holds an unknown tag.
    #[error("a malformed gossip message: {0}")]
    Malformed(#[from] postcard::Error),
    /// The message is followed by further bytes.
    #[error("{size_bytes} bytes after the end of a gossip message")]
    Trailing {
        /// How many.
        size_bytes: usize,
    },
    /// An address exceeds [`MAX_ADDRESS_SIZE_BYTES`].
    #[error("an address of {size_bytes} bytes, at most {MAX_ADDRESS_SIZE_BYTES} are allowed")]
    Address {
        /// Its length.
        size_bytes: usize,
    },
    /// An incarnation exceeds [`Incarnation::MAX`]: no process gets there by refuting.
    #[error(
        "incarnation {found} is out of range, the highest is {}",
        Incarnation::MAX
    )]
    Incarnation {
        /// The incarnation stated.
        found: Incarnation,
    },
}

/// Node ids as 16 bytes, most significant first: a varint would take up to 19.
mod id_bytes {
    use kv_types::NodeId;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &NodeId, serializer: S) -> Result<S::Ok, S::Error> {
        id.0.to_be_bytes().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<NodeId, D::Error> {
        <[u8; 16]>::deserialize(deserializer).map(|bytes| NodeId(u128::from_be_bytes(bytes)))
    }
}
