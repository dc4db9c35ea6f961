//! Write ids whose values were superseded, kept for a while so that late retries are recognised.

use std::collections::BTreeSet;

use crate::clock::Dot;
use crate::write_id::WriteId;

/// The superseded writes of one key, and the floor below which they are forgotten.
///
/// Merging is union, then dropping what lies at or below the higher floor; the floor only rises, and
/// only over an id that is forgotten, so equal histories leave equal sets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retired {
    floor_ms: u64,
    entries: BTreeSet<(WriteId, Dot)>,
}

impl Retired {
    /// The most ids remembered; more push out the oldest, which raises the floor.
    pub const MAX_ENTRIES: usize = 64;

    pub(super) fn from_parts(floor_ms: u64, entries: BTreeSet<(WriteId, Dot)>) -> Self {
        Self { floor_ms, entries }
    }

    /// Creation time of the youngest id that was ever forgotten, in milliseconds since the Unix
    /// epoch. A write at or below it may have been applied before.
    #[must_use]
    pub fn floor_ms(&self) -> u64 {
        self.floor_ms
    }

    /// The remembered ids, each with a dot under which it was superseded.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &(WriteId, Dot)> {
        self.entries.iter()
    }

    /// Whether this write is remembered.
    #[must_use]
    pub fn contains(&self, write_id: WriteId) -> bool {
        let first = (write_id, Dot::new(crate::ActorId(0), crate::Hlc::ZERO));
        self.entries
            .range(first..)
            .next()
            .is_some_and(|(id, _)| *id == write_id)
    }

    pub(super) fn add(&mut self, superseded: impl IntoIterator<Item = (WriteId, Dot)>) {
        let floor = self.floor_ms;
        self.entries.extend(
            superseded
                .into_iter()
                .filter(|(id, _)| id.created_ms() > floor),
        );
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        let floor_ms = self.floor_ms.max(other.floor_ms);
        let mut union = Self {
            floor_ms,
            entries: BTreeSet::new(),
        };
        union.add(self.entries.iter().chain(&other.entries).copied());
        union
    }

    /// Forgets what is older than the horizon or over the count, raising the floor over it.
    pub(super) fn forget(&mut self, now_ms: u64) {
        let horizon = now_ms.saturating_sub(WriteId::HORIZON_MS);
        let mut created: Vec<u64> = self.entries.iter().map(|(id, _)| id.created_ms()).collect();
        created.sort_unstable();
        let over = created.len().saturating_sub(Self::MAX_ENTRIES);
        let old = created.partition_point(|ms| *ms < horizon);
        let forgotten = over.max(old);
        if let Some(youngest) = forgotten.checked_sub(1).and_then(|last| created.get(last)) {
            self.floor_ms = self.floor_ms.max(*youngest);
            let floor = self.floor_ms;
            self.entries.retain(|(id, _)| id.created_ms() > floor);
        }
    }
}
