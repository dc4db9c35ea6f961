//! Which versions of a key must be kept.

use crate::key::{KeyVersion, Kind, Seq};

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

    /// True if the version must be kept. `nothing_below` says whether no older data can hold the key.
    pub(crate) fn keeps(
        &mut self,
        version: KeyVersion<'_>,
        kind: Kind,
        nothing_below: impl FnOnce() -> bool,
    ) -> bool {
        // Number of snapshots that cannot see this version.
        let gap = self
            .snapshots
            .partition_point(|snapshot| *snapshot < version.seq);
        if self.key.as_deref() == Some(version.key) && self.gap == gap {
            return false;
        }
        if self.key.as_deref() != Some(version.key) {
            let key = self.key.get_or_insert_default();
            key.clear();
            key.extend_from_slice(version.key);
        }
        self.gap = gap;
        // Only in the oldest gap are all older versions dropped too; otherwise one of them would
        // come back to life.
        !(kind == Kind::Delete && gap == 0 && nothing_below())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Versions of one key as (number, kind), newest first, and the numbers that are kept.
    fn kept(snapshots: &[u64], versions: &[(u64, Kind)], bottom: bool) -> Vec<u64> {
        let mut retention = Retention::new(snapshots.iter().copied().map(Seq).collect());
        let keep = |(seq, kind): &&(u64, Kind)| {
            retention.keeps(KeyVersion::new(b"k", Seq(*seq)), *kind, || bottom)
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
    fn a_tombstone_goes_only_at_the_bottom_and_takes_older_versions_along() {
        use Kind::{Delete, Put};
        assert_eq!(kept(&[], &[(2, Delete), (1, Put)], true), []);
        assert_eq!(kept(&[], &[(2, Delete), (1, Put)], false), [2]);
        assert_eq!(kept(&[1], &[(2, Delete), (1, Put)], true), [2, 1]);
    }
}
