//! What to compact: the outcome of a pick.

use crate::table::TableSummary;
use crate::version::BOTTOM;
use std::cmp::Reverse;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub level: u8,
    pub run: u64,
}

impl Place {
    /// The one run of the last level.
    pub(crate) const BOTTOM: Self = Self {
        level: BOTTOM,
        run: 0,
    };

    /// Grows from newer to older runs.
    pub(crate) fn age(self) -> (u8, Reverse<u64>) {
        (self.level, Reverse(self.run))
    }
}

/// Why a compaction was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reason {
    /// Level 0 has too many runs.
    Level0,
    /// The middle has too many runs.
    Runs,
    /// Too many bytes lie above the bottom that may replace bytes in it.
    Space,
    /// A table consists of tombstones for a large part, or its deleted ranges hide much below.
    Tombstones,
    /// A table holds entries that have expired.
    Expiry,
    /// Blob files that its tables point into are garbage for a large part.
    Garbage,
    /// Readers looked into a run in vain more often than merging it away would cost.
    Reads,
    /// What is damaged is cut out of a table; never picked.
    Damage,
    /// A table goes, because newer deleted ranges cover it; never picked.
    Covered,
    /// Nothing else was to do, and fewer runs make reads cheaper.
    Idle,
}

/// Tables of one run, by file number, in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub place: Place,
    pub files: Vec<u64>,
}

/// A compaction that may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Newest first. The last one may be of the run `to`.
    pub inputs: Vec<Part>,
    /// The run that takes the result; it may not exist yet.
    pub to: Place,
    /// All keys of the inputs lie in this range.
    pub smallest: Vec<u8>,
    pub largest: Vec<u8>,
    /// Bytes of the inputs on disk.
    pub size_bytes: u64,
    /// True if no two inputs share a key, so that they only change their place.
    pub is_move: bool,
    pub reason: Reason,
}

impl Choice {
    /// One table, for something else than a merge.
    pub(crate) fn of_one(table: &TableSummary, place: Place, reason: Reason) -> Self {
        Self {
            inputs: vec![Part {
                place,
                files: vec![table.file],
            }],
            to: place,
            smallest: table.smallest.clone(),
            largest: table.largest.clone(),
            size_bytes: table.size_bytes,
            is_move: false,
            reason,
        }
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = u64> {
        self.inputs
            .iter()
            .flat_map(|part| part.files.iter().copied())
    }

    /// True if inputs come from level 0.
    pub(crate) fn relieves_level0(&self) -> bool {
        self.inputs.iter().any(|part| part.place.level == 0)
    }

    /// True if the two must not be under way at once: they meet in a run and in a key range.
    pub(crate) fn collides_with(&self, other: &Self) -> bool {
        let newest = |choice: &Self| choice.inputs.first().map_or(choice.to, |part| part.place);
        let apart_in_age =
            self.to.age() < newest(other).age() || other.to.age() < newest(self).age();
        let apart_in_keys = self.largest < other.smallest || other.largest < self.smallest;
        !apart_in_age && !apart_in_keys
    }
}
