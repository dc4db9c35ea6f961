//! Which versions of a key must be kept.

use super::below::Below;
use crate::key::{KeyVersion, Seq};
use crate::ranges::Fragments;

/// Sees versions in order (by key, newest first) and says for each whether a reader may still need
/// it.
///
/// Readers look at the newest state or at a snapshot, each a sequence number. Of the versions
/// between two neighbouring such numbers (a *gap*) only the newest can be seen, and none that is older than
/// a deleted range of the same gap.
#[derive(Debug)]
pub(crate) struct Retention {
    /// Snapshots in use, ascending. Later ones will be newer than every version seen here.
    snapshots: Vec<Seq>,
    /// Deleted ranges, with the newest number of each gap.
    ranges: Fragments,
    /// The first fragment that does not end in front of the present key.
    next_range: usize,
    key: Option<Vec<u8>>,
    /// Which gap between snapshots the last kept version of `key` lies in.
    gap: usize,
}

impl Retention {
    /// `ranges` are the deleted ranges of everything whose versions will be seen.
    pub(crate) fn new(snapshots: Vec<Seq>, ranges: &Fragments) -> Self {
        debug_assert!(snapshots.is_sorted());
        let ranges = ranges.choose(|fragment| {
            let mut newest = fragment.seqs.to_vec();
            newest.dedup_by_key(|seq| gap(&snapshots, *seq));
            newest
        });
        Self {
            snapshots,
            ranges,
            next_range: 0,
            key: None,
            gap: 0,
        }
    }

    /// The deleted ranges that hide something that may lie elsewhere: all that a snapshot does not see yet, and
    /// of the others those with older data below.
    pub(crate) fn ranges_needed(&self, below: Option<&Below>) -> Fragments {
        self.ranges.choose(|fragment| {
            let holds_older = below.is_none_or(|it| it.overlaps(fragment.start, fragment.end));
            let is_needed = |seq: &Seq| holds_older || gap(&self.snapshots, *seq) > 0;
            fragment.seqs.iter().copied().filter(is_needed).collect()
        })
    }

    /// Who may need the version.
    pub(crate) fn need(&mut self, version: KeyVersion<'_>) -> Need {
        let gap = gap(&self.snapshots, version.seq);
        if self.key.as_deref() == Some(version.key) && self.gap == gap {
            return Need::Nobody;
        }
        if !self.ranges.is_empty() && self.is_deleted(version, gap) {
            return Need::Nobody;
        }
        if self.key.as_deref() != Some(version.key) {
            let key = self.key.get_or_insert_default();
            key.clear();
            key.extend_from_slice(version.key);
        }
        self.gap = gap;
        Need::Somebody {
            snapshots_see_it: gap < self.snapshots.len(),
            // Only in the oldest gap are all older versions dropped too; otherwise one of them would
            // come back to life if a tombstone went.
            is_last: gap == 0,
        }
    }

    /// True if a deleted range of the same gap hides the version.
    fn is_deleted(&mut self, version: KeyVersion<'_>, its_gap: usize) -> bool {
        while let Some(fragment) = self.ranges.get(self.next_range)
            && *fragment.end <= *version.key
        {
            self.next_range += 1;
        }
        let fragment = self.ranges.get(self.next_range);
        fragment.is_some_and(|fragment| {
            let hides = |seq: &Seq| *seq > version.seq && gap(&self.snapshots, *seq) == its_gap;
            *fragment.start <= *version.key && fragment.seqs.iter().any(hides)
        })
    }
}

/// Number of snapshots that cannot see the write `seq`.
fn gap(snapshots: &[Seq], seq: Seq) -> usize {
    snapshots.partition_point(|snapshot| *snapshot < seq)
}

/// Who may need a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A newer version hides it from everybody.
    Nobody,
    Somebody {
        /// False if only readers of the newest state can see it.
        snapshots_see_it: bool,
        /// True if no older version of the key is needed.
        is_last: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Kind;

    /// Versions of one key as (number, kind), newest first, and the numbers that are kept.
    fn kept(snapshots: &[u64], versions: &[(u64, Kind)], bottom: bool) -> Vec<u64> {
        let snapshots = snapshots.iter().copied().map(Seq).collect();
        let mut retention = Retention::new(snapshots, &Fragments::default());
        let keep = |(seq, kind): &&(u64, Kind)| {
            let need = retention.need(KeyVersion::new(b"k", Seq(*seq)));
            match need {
                Need::Nobody => false,
                Need::Somebody { is_last, .. } => !(*kind == Kind::Delete && is_last && bottom),
            }
        };
        versions.iter().filter(keep).map(|(seq, _)| *seq).collect()
    }

    #[test]
    fn versions_are_kept_for_the_newest_state_and_each_snapshot() {
        use Kind::{Delete, Put};
        let history = [(9, Put), (7, Delete), (5, Put), (3, Put), (1, Delete)];
        for (snapshots, bottom, expected) in [
            (&[][..], false, &[9][..]),
            (&[8], false, &[9, 7]),
            (&[6], true, &[9, 5]),
            (&[2], true, &[9]),
            (&[2], false, &[9, 1]),
            (&[4, 8], true, &[9, 7, 3]),
            (&[9], true, &[9]),
            (&[1, 3, 5, 7, 9], true, &[9, 7, 5, 3]),
        ] {
            assert_eq!(
                kept(snapshots, &history, bottom),
                expected,
                "snapshots {snapshots:?}, bottom {bottom}"
            );
        }
    }

    #[test]
    fn a_version_that_a_snapshot_sees_is_told_from_one_that_only_new_readers_see() {
        let mut retention = Retention::new(vec![Seq(4), Seq(8)], &Fragments::default());
        let sees =
            [9, 8, 7, 5, 4, 3].map(
                |seq| match retention.need(KeyVersion::new(b"k", Seq(seq))) {
                    Need::Nobody => None,
                    Need::Somebody {
                        snapshots_see_it, ..
                    } => Some(snapshots_see_it),
                },
            );
        assert_eq!(
            sees,
            [Some(false), Some(true), None, None, Some(true), None]
        );
    }

    #[test]
    fn a_deleted_range_drops_what_it_hides_from_the_same_readers() {
        let ranges = Fragments::merge([
            &Fragments::one(b"b", b"e", Seq(3)),
            &Fragments::one(b"b", b"e", Seq(5)),
            &Fragments::one(b"d", b"g", Seq(9)),
        ]);
        let mut retention = Retention::new(vec![Seq(4)], &ranges);
        let versions = [
            (b"a", 1, true),
            // Seen by the snapshot, which sees the delete 3 too.
            (b"b", 4, true),
            (b"b", 2, false),
            (b"c", 6, true),
            (b"c", 5, false),
            (b"d", 8, false),
            (b"d", 1, false),
            (b"e", 2, true),
            (b"f", 10, true),
            (b"g", 2, true),
        ];
        for (key, seq, is_needed) in versions {
            let need = retention.need(KeyVersion::new(key, Seq(seq)));
            assert_eq!(need != Need::Nobody, is_needed, "{} {seq}", key[0]);
        }
        // Number 3 hides nothing but what lies below.
        let kept = |below: Option<&Below>| {
            let ranges = retention.ranges_needed(below);
            let seqs = ranges.iter().map(|it| (it.start[0], it.seqs.to_vec()));
            seqs.collect::<Vec<_>>()
        };
        let all = [
            (b'b', vec![Seq(5), Seq(3)]),
            (b'd', vec![Seq(9), Seq(3)]),
            (b'e', vec![Seq(9)]),
        ];
        assert_eq!(kept(None), all);
        let elsewhere = Below::new(vec![(b"x".to_vec(), b"z".to_vec())]);
        assert_eq!(
            kept(Some(&elsewhere)),
            [(b'b', vec![Seq(5)]), (b'd', vec![Seq(9)])]
        );
        let here = Below::new(vec![(b"a".to_vec(), b"b".to_vec())]);
        assert_eq!(
            kept(Some(&here)),
            [(b'b', vec![Seq(5), Seq(3)]), (b'd', vec![Seq(9)])]
        );
    }

    #[test]
    fn a_tombstone_goes_only_at_the_bottom_and_takes_older_versions_along() {
        use Kind::{Delete, Put};
        assert_eq!(kept(&[], &[(2, Delete), (1, Put)], true), []);
        assert_eq!(kept(&[], &[(2, Delete), (1, Put)], false), [2]);
        assert_eq!(kept(&[1], &[(2, Delete), (1, Put)], true), [2, 1]);
    }
}
