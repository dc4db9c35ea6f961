//! Write ids whose values were superseded, kept for a while so that late retries are recognised.

use crate::clock::Dot;
use crate::write_id::WriteId;

/// The superseded writes of one key, and the floor below which they are forgotten.
///
/// Merging is union, then dropping what lies at or below the higher floor; the floor only rises, and
/// only over an id that is forgotten, so equal histories leave equal sets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retired {
    floor_ms: u64,
    /// Ascending, none twice; so also by the time of creation, which an id begins with.
    entries: Vec<(WriteId, Dot)>,
}

impl Retired {
    /// The most ids remembered; more push out the oldest, which raises the floor.
    pub const MAX_ENTRIES: usize = 64;

    /// One from its floor and ascending entries above it.
    pub(super) fn from_parts(floor_ms: u64, entries: Vec<(WriteId, Dot)>) -> Self {
        debug_assert!(entries.is_sorted_by(|one, next| one < next));
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
        self.entries
            .binary_search_by_key(&write_id, |(id, _)| *id)
            .is_ok()
    }

    pub(super) fn add(&mut self, superseded: impl IntoIterator<Item = (WriteId, Dot)>) {
        for entry in superseded {
            if entry.0.created_ms() > self.floor_ms
                && let Err(place) = self.entries.binary_search(&entry)
            {
                self.entries.insert(place, entry);
            }
        }
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        let floor_ms = self.floor_ms.max(other.floor_ms);
        let (mine, theirs) = (self.above(floor_ms), other.above(floor_ms));
        let mut entries = Vec::with_capacity(mine.len().max(theirs.len()));
        // Sorting finds the two ascending runs and merges them.
        entries.extend_from_slice(mine);
        if mine != theirs {
            entries.extend_from_slice(theirs);
            entries.sort();
            entries.dedup();
        }
        Self { floor_ms, entries }
    }

    /// Forgets what is older than the horizon or over the count, raising the floor over it.
    pub(super) fn forget(&mut self, now_ms: u64) {
        let horizon = now_ms.saturating_sub(WriteId::HORIZON_MS);
        let over = self.entries.len().saturating_sub(Self::MAX_ENTRIES);
        let old = self
            .entries
            .partition_point(|(id, _)| id.created_ms() < horizon);
        if let Some(last) = over.max(old).checked_sub(1) {
            self.floor_ms = self.floor_ms.max(self.entries[last].0.created_ms());
            let left = self.above(self.floor_ms).len();
            self.entries.drain(..self.entries.len() - left);
        }
    }

    fn above(&self, floor_ms: u64) -> &[(WriteId, Dot)] {
        let from = self
            .entries
            .partition_point(|(id, _)| id.created_ms() <= floor_ms);
        &self.entries[from..]
    }
}
