//! Where the output of a compaction is cut into tables.
//!
//! A table ends, once it has about the usual size, where a table of the bottom ends: then a large
//! compaction can give up its inputs as it goes, and a partial one finds few tables that reach over the
//! edge of its key range. Where the next such end would come too late, what lies before it is divided.
//!
//! In the middle a table also ends at a *guard*, which is the end of about every eighth table of the
//! bottom. Runs made at different times keep to the same guards, so the slices of the middle that go
//! to the bottom together stay narrow (after the guards of Raju et al., "PebblesDB", 2017).

use super::choice::Place;
use crate::table::TableSummary;

/// One in so many tables of the bottom is a guard, decided by its file number.
const GUARD_EVERY: u64 = 8;
/// Share of the usual size from which a table may end at a guard.
const GUARD_PERCENT: u64 = 25;
/// Share of the usual size from which it may end at any boundary.
const LEAST_PERCENT: u64 = 75;
/// Share of the usual size up to which what lies before the next boundary stays together.
const WHOLE_PERCENT: u64 = 175;
/// Share of the usual size that no table exceeds by more than a block.
const MOST_PERCENT: u64 = 200;

/// The end of a table of the bottom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Boundary {
    largest: Vec<u8>,
    is_guard: bool,
    size_bytes: u64,
}

impl Boundary {
    pub(crate) fn of(table: &TableSummary) -> Self {
        Self {
            largest: table.largest.clone(),
            is_guard: table.file.is_multiple_of(GUARD_EVERY),
            size_bytes: table.size_bytes,
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
    /// Bytes of output for a thousand bytes of the bottom in the same key range, about.
    growth: u64,
    /// Size at which a table ends before the next boundary.
    most: u64,
}

impl Cuts {
    /// Cuts of a compaction of `input_bytes` into a run at `to`; `boundaries` are those of the bottom in its
    /// key range.
    pub(crate) fn new(
        table_bytes: u64,
        boundaries: Vec<Boundary>,
        to: Place,
        input_bytes: u64,
    ) -> Self {
        debug_assert!(boundaries.is_sorted());
        let bottom: u64 = boundaries.iter().map(|boundary| boundary.size_bytes).sum();
        let mut cuts = Self {
            table_bytes,
            boundaries,
            next: 0,
            uses_guards: to != Place::BOTTOM,
            growth: input_bytes.saturating_mul(1000) / bottom.max(1),
            most: 0,
        };
        cuts.plan(0);
        cuts
    }

    /// One table, whatever its size.
    pub(crate) fn never() -> Self {
        Self {
            most: u64::MAX,
            ..Self::default()
        }
    }

    /// True if a table of `size_bytes` so far should end before `key`. Keys must be given in order.
    pub(crate) fn before(&mut self, key: &[u8], size_bytes: u64) -> bool {
        let (mut least, before) = (self.most, self.next);
        while let Some(passed) = self
            .boundaries
            .get(self.next)
            .filter(|end| *end.largest < *key)
        {
            least = least.min(self.percent(if passed.is_guard && self.uses_guards {
                GUARD_PERCENT
            } else {
                LEAST_PERCENT
            }));
            self.next += 1;
        }
        let ends = size_bytes >= least.max(1);
        if self.next > before {
            self.plan(if ends { 0 } else { size_bytes });
        }
        ends
    }

    /// Decides how much may come together before the next boundary, when `carried` bytes are there already.
    fn plan(&mut self, carried: u64) {
        let expected = self.boundaries.get(self.next).map(|boundary| {
            let growing = u128::from(boundary.size_bytes) * u128::from(self.growth) / 1000;
            carried.saturating_add(u64::try_from(growing).unwrap_or(u64::MAX))
        });
        let is_divided = expected.is_some_and(|bytes| bytes > self.percent(WHOLE_PERCENT));
        self.most = self.percent(if is_divided { 100 } else { MOST_PERCENT });
    }

    fn percent(&self, percent: u64) -> u64 {
        self.table_bytes.saturating_mul(percent) / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where tables end, for one unit of output for each of the keys 0 to 199.
    fn ends(boundaries: &[(u8, u64)], to: Place, input_bytes: u64) -> Vec<u8> {
        let boundaries = boundaries.iter().map(|(key, file)| Boundary {
            largest: vec![*key],
            is_guard: file.is_multiple_of(GUARD_EVERY),
            size_bytes: 20,
        });
        let mut cuts = Cuts::new(20, boundaries.collect(), to, input_bytes);
        let (mut ends, mut size) = (Vec::new(), 0);
        for key in 0..200u8 {
            if cuts.before(&[key], size) {
                ends.push(key - 1);
                size = 0;
            }
            size += 1;
        }
        ends
    }

    #[test]
    fn tables_end_where_those_of_the_bottom_end_and_large_ones_are_divided_before() {
        // Tables of the bottom end at these keys; each stands for 10, 15, 15, 30, 20 and 110 units.
        let bottom = [(9, 1), (24, 2), (39, 3), (69, 4), (89, 5), (199, 6)];
        assert_eq!(
            ends(&bottom, Place::BOTTOM, 120),
            [24, 39, 69, 89, 129, 169]
        );
        // Expected to be twice as large, all is divided early.
        assert_eq!(
            ends(&bottom, Place::BOTTOM, 240),
            [19, 39, 59, 79, 99, 119, 139, 159, 179]
        );
        assert_eq!(ends(&[], Place::BOTTOM, 200), [39, 79, 119, 159]);
    }

    #[test]
    fn a_run_of_the_middle_ends_its_tables_at_guards() {
        let middle = Place { level: 1, run: 9 };
        let bottom = [(4, 1), (9, 8), (12, 16), (50, 3), (60, 24), (199, 5)];
        assert_eq!(ends(&bottom, middle, 20), [9, 49, 60, 100, 140, 180]);
    }
}
