//! Where the output of a compaction is cut into tables.
//!
//! A table ends, once it has the usual size, where a table of the bottom ends: then partial
//! compactions find few tables that reach over the edge of their key range. It ends at twice the
//! usual size anyway.
//!
//! In the middle it also ends at a *guard*, which is the end of about every eighth table of the
//! bottom. Runs made at different times keep to the same guards, so the slices of the middle that go
//! to the bottom together stay narrow (after the guards of Raju et al., "PebblesDB", 2017).

use super::choice::Place;
use crate::table::TableSummary;

/// One in so many tables of the bottom is a guard, decided by its file number.
const GUARD_EVERY: u64 = 8;
/// Share of the usual size from which a table may end at a guard.
const GUARD_PERCENT: u64 = 25;

/// The end of a table of the bottom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Boundary {
    largest: Vec<u8>,
    is_guard: bool,
}

impl Boundary {
    pub(crate) fn of(table: &TableSummary) -> Self {
        Self {
            largest: table.largest.clone(),
            is_guard: table.file.is_multiple_of(GUARD_EVERY),
        }
    }
}

/// Decides for each new key whether a new table begins with it.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    table_bytes: u64,
    /// Ascending.
    boundaries: Vec<Boundary>,
    /// The first boundary that is not behind the present key.
    next: usize,
    uses_guards: bool,
}

impl Cuts {
    /// Cuts of a run at `to`; `boundaries` are those of the bottom in its key range.
    pub(crate) fn new(table_bytes: u64, boundaries: Vec<Boundary>, to: Place) -> Self {
        debug_assert!(boundaries.is_sorted());
        Self {
            table_bytes,
            boundaries,
            next: 0,
            uses_guards: to != Place::BOTTOM,
        }
    }

    /// One table, whatever its size.
    pub(crate) fn never() -> Self {
        Self {
            table_bytes: u64::MAX,
            ..Self::default()
        }
    }

    /// True if a table of `size_bytes` so far should end before `key`. Keys must be given in order.
    pub(crate) fn before(&mut self, key: &[u8], size_bytes: u64) -> bool {
        let mut least = self.table_bytes.saturating_mul(2);
        while let Some(passed) = self
            .boundaries
            .get(self.next)
            .filter(|end| *end.largest < *key)
        {
            let usual = if passed.is_guard && self.uses_guards {
                self.table_bytes / 100 * GUARD_PERCENT
            } else {
                self.table_bytes
            };
            least = least.min(usual);
            self.next += 1;
        }
        size_bytes >= least.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_end_at_boundaries_once_they_are_large_enough() {
        let boundary = |key: &[u8], is_guard| Boundary {
            largest: key.to_vec(),
            is_guard,
        };
        let boundaries = vec![
            boundary(b"b", false),
            boundary(b"d", false),
            boundary(b"f", false),
        ];
        let mut cuts = Cuts::new(10, boundaries, Place::BOTTOM);
        let cut = ["a", "b", "c", "d", "e", "f", "g", "h"]
            .into_iter()
            .zip([0, 5, 9, 10, 10, 15, 0, 20])
            .filter(|(key, size)| cuts.before(key.as_bytes(), *size));
        assert_eq!(cut.map(|(key, _)| key).collect::<String>(), "eh");
    }
}
