//! Which versions of a key must be kept.

use crate::key::{KeyVersion, Seq};

/// Sees versions in order (by key, newest first) and says for each whether a reader may still need
/// it.
///
/// Readers look at the newest state or at a snapshot, each a sequence number. Of the versions
/// between two neighbouring such numbers only the newest can be seen.
#[derive(Debug)]
pub(crate) struct Retention {
    /// Snapshots in use, ascending. Later ones will be newer than every version seen here.
    snapshots: Vec<Seq>,
    key: Option<Vec<u8>>,
    /// Which gap between snapshots the last kept version of `key` lies in.
    gap: usize,
}

impl Retention {
    pub(crate) fn new(snapshots: Vec<Seq>) -> Self {
        debug_assert!(snapshots.is_sorted());
        Self {
            snapshots,
            key: None,
            gap: 0,
        }
    }

    /// Who may need the version.
    pub(crate) fn need(&mut self, version: KeyVersion<'_>) -> Need {
        // Number of snapshots that cannot see this version.
        let gap = self
            .snapshots
            .partition_point(|snapshot| *snapshot < version.seq);
        if self.key.as_deref() == Some(version.key) && self.gap == gap {
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
        let mut retention = Retention::new(snapshots.iter().copied().map(Seq).collect());
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
        let mut retention = Retention::new(vec![Seq(4), Seq(8)]);
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
    fn a_tombstone_goes_only_at_the_bottom_and_takes_older_versions_along() {
        use Kind::{Delete, Put};
        assert_eq!(kept(&[], &[(2, Delete), (1, Put)], true), []);
        assert_eq!(kept(&[], &[(2, Delete), (1, Put)], false), [2]);
        assert_eq!(kept(&[1], &[(2, Delete), (1, Put)], true), [2, 1]);
    }
}
