//! What deleted ranges hide from a merge that is read for answers.
//!
//! Each source that has deleted ranges (a memtable, a run) has a [`Cover`]. It remembers the stretch of keys
//! around the last one that was asked for, so asking for the next key is one comparison as a rule.
//!
//! Whatever an older source holds of a key that a newer one's range covers is older than that range, by the
//! invariants of [`Version`]: so a cursor of the older source may be moved to the far end of the range at once.

use super::Direction;
use super::run::Tables;
use crate::key::Seq;
use crate::ranges::{Fragments, Stretch, successor};
use std::sync::Arc;

/// Where deleted ranges come from.
#[derive(Debug)]
pub(super) enum Ranges {
    /// A part of those of a memtable.
    Part(Arc<Fragments>),
    /// Those of all tables of a run.
    Run(Tables),
}

/// The deleted ranges of one source.
#[derive(Debug)]
pub(super) struct Cover {
    ranges: Ranges,
    /// The source's age: those with a higher one hold only older data.
    pub age: usize,
    /// True of the keys of the present stretch.
    present: Present,
}

/// A stretch that was found last, seen in the direction of the merge: it begins at or before the key for which
/// it was looked up.
#[derive(Debug, Default)]
struct Present {
    is_known: bool,
    seq: Option<Seq>,
    /// Forward: the first key behind the stretch. Backward: its first key. `None`: it does not end.
    end: Option<Vec<u8>>,
}

/// A deleted range that covers a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Covered<'a> {
    pub seq: Seq,
    pub age: usize,
    /// Forward: the first key that is not covered. Backward: the first one that is.
    pub end: Option<&'a [u8]>,
}

impl Cover {
    pub(super) fn new(ranges: Ranges, age: usize) -> Self {
        Self {
            ranges,
            age,
            present: Present::default(),
        }
    }

    /// The newest delete of `key` numbered at most `at`. Keys must be asked about in the merge's direction.
    pub(super) fn covering(
        &mut self,
        key: &[u8],
        at: Seq,
        direction: Direction,
    ) -> Option<Covered<'_>> {
        let present = &self.present;
        let is_inside = present.is_known
            && present.end.as_deref().is_none_or(|end| match direction {
                Direction::Forward => *key < *end,
                Direction::Backward => *key >= *end,
            });
        if !is_inside {
            self.present = self.ranges.look_up(key, at, direction);
        }
        Some(Covered {
            seq: self.present.seq?,
            age: self.age,
            end: self.present.end.as_deref(),
        })
    }
}

impl Ranges {
    fn look_up(&self, key: &[u8], at: Seq, direction: Direction) -> Present {
        let tables = match self {
            Self::Part(fragments) => {
                let stretch = fragments.stretch(key, at);
                return Present::of(stretch.seq, far(stretch, direction).map(<[u8]>::to_vec));
            }
            Self::Run(tables) => tables.all(),
        };
        let number = tables.partition_point(|table| *table.summary.largest < *key);
        match tables.get(number) {
            Some(table) if *table.summary.smallest <= *key => {
                let stretch = table.reader.ranges().stretch(key, at);
                let (smallest, largest) = (&table.summary.smallest, &table.summary.largest);
                // A table knows nothing of the keys beside it.
                let end = match (far(stretch, direction), direction) {
                    (Some(until), Direction::Forward) if *until <= **largest => until.to_vec(),
                    (_, Direction::Forward) => successor(largest),
                    (Some(from), Direction::Backward) if *from > **smallest => from.to_vec(),
                    (_, Direction::Backward) => smallest.clone(),
                };
                Present::of(stretch.seq, Some(end))
            }
            after => {
                let end = match direction {
                    Direction::Forward => after.map(|table| table.summary.smallest.clone()),
                    Direction::Backward => number
                        .checked_sub(1)
                        .map(|before| successor(&tables[before].summary.largest)),
                };
                Present::of(None, end)
            }
        }
    }
}

impl Present {
    fn of(seq: Option<Seq>, end: Option<Vec<u8>>) -> Self {
        Self {
            is_known: true,
            seq,
            end,
        }
    }
}

fn far(stretch: Stretch<'_>, direction: Direction) -> Option<&[u8]> {
    match direction {
        Direction::Forward => stretch.until,
        Direction::Backward => stretch.from,
    }
}
