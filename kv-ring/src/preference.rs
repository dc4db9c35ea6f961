//! Preference lists: a key's replicas, then who stands in for them, in one agreed order.
//!
//! Quorums, sloppy quorums and hints all read this one list. Dynamo (2007), section 4.4: the list has
//! more nodes than replicas, and skips positions so that it names distinct machines.

use kv_types::NodeId;

/// The most fallbacks that a list names.
pub const MAX_FALLBACKS: usize = 32;

/// What a node is to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The owner of a replica slot, counted from 0.
    Primary {
        /// The slot.
        slot: u8,
    },
    /// The coming owner of a slot, in a transition. It takes writes, answers reads, and does not
    /// coordinate before it is synced.
    Joining {
        /// The slot it will own.
        slot: u8,
    },
    /// It holds no slot; it may stand in for one in a sloppy quorum.
    Fallback,
}

/// One line of a preference list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreferenceEntry {
    /// The node.
    pub node: NodeId,
    /// What it is to the key.
    pub role: Role,
}

/// The replicas of a partition in slot order, joining ones after them, then fallbacks.
///
/// Each node stands in it once. It depends on the topology alone, so every node computes the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreferenceList {
    entries: Vec<PreferenceEntry>,
}

impl PreferenceList {
    pub(crate) fn new(entries: Vec<PreferenceEntry>) -> Self {
        Self { entries }
    }

    /// All entries in order.
    #[must_use]
    pub fn entries(&self) -> &[PreferenceEntry] {
        &self.entries
    }

    /// The owners of slots, in slot order.
    pub fn primaries(&self) -> impl Iterator<Item = NodeId> {
        self.with_role(|role| matches!(role, Role::Primary { .. }))
    }

    /// Those that may stand in, best first.
    pub fn fallbacks(&self) -> impl Iterator<Item = NodeId> {
        self.with_role(|role| matches!(role, Role::Fallback))
    }

    fn with_role(&self, wanted: impl Fn(Role) -> bool) -> impl Iterator<Item = NodeId> {
        self.entries
            .iter()
            .filter(move |entry| wanted(entry.role))
            .map(|entry| entry.node)
    }
}
