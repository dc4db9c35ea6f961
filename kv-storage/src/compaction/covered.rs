//! Tables that deleted ranges have made superfluous as a whole: they can go without being read.
//!
//! A table may go if one range of a newer run covers all its keys, if the delete is newer than everything in
//! it, and if no snapshot lies between the two. What the table itself hides lies in its key range, so the
//! same delete hides it too, and stays in the store as long as something older lies below.

use crate::key::Seq;
use crate::ranges::Fragments;
use crate::version::{Placed, Version};

/// File numbers of the tables that may go. `ranges` gives the deleted ranges of a table.
pub(crate) fn covered<R>(
    version: &Version<R>,
    ranges: impl Fn(&R) -> &Fragments,
    oldest_snapshot: Option<Seq>,
) -> Vec<u64> {
    let mut newer: Vec<&Fragments> = Vec::new();
    let mut covered = Vec::new();
    for run in version.runs() {
        if !newer.is_empty() {
            let is_covered = |table: &Placed<R>| {
                let hides = |seqs: &[Seq]| hides(seqs, table.summary.newest, oldest_snapshot);
                let (smallest, largest) = (&table.summary.smallest, &table.summary.largest);
                newer
                    .iter()
                    .any(|it| it.cover_all(smallest, largest, hides))
            };
            let tables = run.tables.iter().filter(|table| is_covered(table));
            covered.extend(tables.map(|table| table.summary.file));
        }
        if run.has_ranges {
            let with_ranges = run.tables.iter().filter(|table| table.summary.ranges > 0);
            newer.extend(with_ranges.map(|table| ranges(&table.reader)));
        }
    }
    covered
}

/// True if one of the deletes is newer than all of a table, and seen by every snapshot.
fn hides(deletes: &[Seq], newest: Seq, oldest_snapshot: Option<Seq>) -> bool {
    let is_seen = |seq: Seq| oldest_snapshot.is_none_or(|oldest| seq <= oldest);
    deletes.iter().any(|seq| *seq > newest && is_seen(*seq))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TableSummary;
    use crate::version::{BOTTOM, Edit, NewTable};

    #[test]
    fn a_table_goes_if_a_newer_range_covers_it_and_no_snapshot_needs_it() {
        let new = |level, file, (first, last): (u8, u8), newest, ranges| NewTable {
            level,
            run: if level == BOTTOM { 0 } else { file },
            table: TableSummary {
                file,
                smallest: vec![first],
                largest: vec![last],
                newest: Seq(newest),
                ranges,
                ..TableSummary::default()
            },
        };
        let edit = Edit {
            added: vec![
                new(0, 12, (1, 9), 30, 0),
                new(0, 11, (0, 60), 25, 3),
                new(1, 5, (10, 20), 12, 0),
                new(1, 6, (30, 40), 13, 0),
                new(BOTTOM, 1, (5, 9), 3, 0),
                new(BOTTOM, 2, (10, 15), 4, 0),
                new(BOTTOM, 3, (16, 44), 5, 0),
                new(BOTTOM, 4, (45, 60), 6, 0),
            ],
            ..Edit::default()
        };
        // Keys 8 to 24 deleted by write 21, 20 to 49 by write 25.
        let deleted = Fragments::merge([
            &Fragments::one(&[8], &[25], Seq(21)),
            &Fragments::one(&[20], &[50], Seq(25)),
        ]);
        let version = Version::empty()
            .apply(&edit, |_| Ok::<_, ()>(deleted.clone()))
            .unwrap();
        for (oldest_snapshot, expected) in [
            (None, &[6, 5, 2, 3][..]),
            (Some(25), &[6, 5, 2, 3]),
            (Some(24), &[5, 2]),
            (Some(20), &[]),
        ] {
            let found = covered(&version, |ranges| ranges, oldest_snapshot.map(Seq));
            assert_eq!(found, expected, "{oldest_snapshot:?}");
        }
    }
}
