//! What a topology lists: members, buckets, and the states of partitions.

use core::fmt;
use std::collections::BTreeSet;

use kv_types::{BucketId, BucketName, BucketProperties, Epoch, NodeId, Quorum};

/// A node of the cluster, as everyone knows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id, for ever.
    pub node: NodeId,
    /// Its name, for people: `n1`. Unique in the cluster.
    pub name: String,
    /// The zone that it shares its failures with: a rack, a room, a data centre.
    pub zone: String,
    /// Its capacity relative to the other members; at least 1.
    pub weight: u32,
    /// Where it listens: `127.0.0.1:7401`. Unique in the cluster.
    pub address: String,
    /// The fingerprint of its certificate.
    pub fingerprint: [u8; 32],
    /// Whether it stays.
    pub state: MemberState,
}

/// Whether a member stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum MemberState {
    /// It does.
    #[default]
    Active = 0,
    /// It gives away all that it owns, and is no member then.
    Leaving = 1,
    /// It will never be back: nobody waits for it, and what only it had is lost.
    Lost = 2,
}

/// How a member ceased to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// The epoch in which it did.
    pub epoch: Epoch,
    /// It was given up: writes that only it had acknowledged may be lost.
    pub may_lose: bool,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            name,
            zone,
            weight,
            address,
            ..
        } = self;
        write!(
            f,
            "{name}({}, {zone}, weight {weight}, {address})",
            node.short()
        )
    }
}

/// How many zones there are.
pub(crate) fn count_zones(members: &[Member]) -> usize {
    members
        .iter()
        .map(|member| member.zone.as_str())
        .collect::<BTreeSet<_>>()
        .len()
}

/// A bucket and what it promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its number, never reused.
    pub id: BucketId,
    /// Its name, unique in the cluster.
    pub name: BucketName,
    /// Its properties.
    pub properties: BucketProperties,
    /// Under which numbers it was read and written before.
    pub past: Past,
}

impl Bucket {
    /// A bucket that nobody has used yet, made in an epoch.
    #[must_use]
    pub fn new(id: BucketId, name: BucketName, properties: BucketProperties, epoch: Epoch) -> Self {
        Self {
            id,
            name,
            properties,
            past: Past::of(properties.quorum, epoch),
        }
    }
}

/// The least numbers of replicas under which a bucket may have been read and written since all its replicas last held the
/// same, and under which nodes that are behind may go on.
///
/// What a read has shown, later ones see with any numbers: reads that promise it ask max(r, n − r + 1) replicas, and any two
/// such numbers are more than n together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// Answers that a read waited for.
    pub read: u8,
    /// Acknowledgements that a write waited for.
    pub written: u8,
    /// The epoch in which the present numbers came.
    pub since: Epoch,
}

impl Past {
    /// That of a bucket that has these numbers since an epoch, and whose replicas were equal after that.
    #[must_use]
    pub fn of(quorum: Quorum, since: Epoch) -> Self {
        Self {
            read: quorum.r(),
            written: quorum.w(),
            since,
        }
    }

    /// That of a bucket that has other numbers from an epoch on.
    #[must_use]
    pub fn and(self, quorum: Quorum, since: Epoch) -> Self {
        Self {
            read: self.read.min(quorum.r()),
            written: self.written.min(quorum.w()),
            since,
        }
    }

    /// Whether every read with these numbers meets everything that was written before, and every read of a node that is
    /// behind everything that is written with them.
    #[must_use]
    pub fn meets(self, now: Quorum) -> bool {
        let meet = |one: u8, other: u8| u16::from(one) + u16::from(other) > u16::from(now.n());
        meet(now.r(), self.written) && meet(self.read, now.w())
    }
}

/// What requests get that ask for no level of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum ClusterMode {
    /// Always writable: availability before consistency.
    #[default]
    Ap = 0,
    /// Strict: a request without its quorum is refused.
    Cp = 1,
}

impl fmt::Display for ClusterMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ap => "ap",
            Self::Cp => "cp",
        })
    }
}

/// Who owns a partition: the holders of its slots, in slot order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionState {
    /// At rest.
    Stable(Vec<NodeId>),
    /// Moving from `old` to `new`: every quorum is needed among both.
    Joint {
        /// The owners before.
        old: Vec<NodeId>,
        /// The owners after, if the change is not aborted.
        new: Vec<NodeId>,
    },
}
