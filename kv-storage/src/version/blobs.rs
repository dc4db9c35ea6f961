//! What is live in the blob files of a version.

use crate::blob::{BlobSummary, References};
use std::collections::{BTreeMap, BTreeSet};

/// What is live in files that are collected at once is at most this part of all that is live.
const BATCH_PART: u64 = 8;

/// A blob file, and what tables point to in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobUse {
    pub summary: BlobSummary,
    pub live_values: u64,
    pub live_bytes: u64,
}

impl BlobUse {
    /// Bytes of values to which no table points. While a compaction is half installed, tables may point to a
    /// value twice.
    pub(crate) fn garbage_bytes(&self) -> u64 {
        self.summary.value_bytes.saturating_sub(self.live_bytes)
    }

    /// True if garbage is at least this share of the file.
    fn has_garbage(&self, percent: u32) -> bool {
        let garbage = self.garbage_bytes();
        garbage > 0 && is_share(garbage, self.summary.value_bytes, percent)
    }

    fn live_per_mille(&self) -> u64 {
        self.live_bytes.saturating_mul(1000) / self.summary.value_bytes.max(1)
    }
}

/// True if `part` is at least so many percent of `whole`.
fn is_share(part: u64, whole: u64, percent: u32) -> bool {
    u128::from(part) * 100 >= u128::from(whole) * u128::from(percent)
}

/// All blob files of a version, by number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct BlobUses(BTreeMap<u64, BlobUse>);

impl BlobUses {
    /// Adds files that nothing points into yet. One that is there stays as it is.
    pub(super) fn add(&mut self, blobs: &[BlobSummary]) {
        for summary in blobs {
            self.0.entry(summary.file).or_insert(BlobUse {
                summary: *summary,
                live_values: 0,
                live_bytes: 0,
            });
        }
    }

    /// Counts the pointers of a table that enters.
    pub(super) fn hold(&mut self, references: &References) {
        for reference in references.iter() {
            // An unknown file is damage, of which the reader of the manifest tells.
            if let Some(blob) = self.0.get_mut(&reference.file) {
                blob.live_values = blob.live_values.saturating_add(reference.values);
                blob.live_bytes = blob.live_bytes.saturating_add(reference.bytes);
            }
        }
    }

    /// Counts the pointers of a table that leaves no more.
    pub(super) fn release(&mut self, references: &References) {
        for reference in references.iter() {
            if let Some(blob) = self.0.get_mut(&reference.file) {
                blob.live_values = blob.live_values.saturating_sub(reference.values);
                blob.live_bytes = blob.live_bytes.saturating_sub(reference.bytes);
            }
        }
    }

    /// Lets files go that nothing points into.
    pub(super) fn drop_unused(&mut self) {
        self.0.retain(|_, blob| blob.live_values > 0);
    }

    pub(super) fn summaries(&self) -> Vec<BlobSummary> {
        self.iter().map(|blob| blob.summary).collect()
    }

    /// True if all files that are pointed into are here.
    pub(super) fn knows(&self, references: &References) -> bool {
        let mut files = references.iter().map(|reference| reference.file);
        files.all(|file| self.0.contains_key(&file))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &BlobUse> {
        self.0.values()
    }

    pub(crate) fn get(&self, file: u64) -> Option<&BlobUse> {
        self.0.get(&file)
    }

    /// Numbers of the files that are not among `later`.
    pub(crate) fn missing_in<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = u64> + 'a {
        let files = self.0.keys().copied();
        files.filter(|file| !later.0.contains_key(file))
    }

    /// Files whose values compactions write anew because so much of them is garbage, without `fenced` ones; none
    /// at 100.
    ///
    /// Files that were written together become garbage together. So, once half of `percent` of all files is
    /// garbage, files with that share count too, and of all that count only those with the most garbage are
    /// taken at once: as many as hold an eighth of what is live, which is what their copies take meanwhile.
    pub(crate) fn collectable(&self, percent: u32, fenced: &BTreeSet<u64>) -> BTreeSet<u64> {
        if percent >= 100 {
            return BTreeSet::new();
        }
        let sum = |of: fn(&BlobUse) -> u64| self.iter().map(of).sum::<u64>();
        let (all, live) = (
            sum(|blob| blob.summary.value_bytes),
            sum(|blob| blob.live_bytes),
        );
        let least = if is_share(sum(BlobUse::garbage_bytes), all, percent / 2) {
            percent / 2
        } else {
            percent
        };
        let mut files: Vec<&BlobUse> = self
            .iter()
            .filter(|blob| blob.has_garbage(least) && !fenced.contains(&blob.summary.file))
            .collect();
        files.sort_by_key(|blob| (blob.live_per_mille(), blob.summary.file));
        let mut taken = 0;
        let is_taken = |blob: &&BlobUse| {
            let goes_on = taken == 0 || taken + blob.live_bytes <= live / BATCH_PART;
            taken += blob.live_bytes;
            goes_on
        };
        let files = files.into_iter().take_while(is_taken);
        files.map(|blob| blob.summary.file).collect()
    }

    /// Bytes of all files, and how many of these are garbage.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let sizes = self.iter().map(|blob| blob.summary.size_bytes).sum();
        (sizes, self.iter().map(BlobUse::garbage_bytes).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Edit, NewTable, Version};
    use super::*;
    use crate::table::TableSummary;
    use std::convert::Infallible;

    fn blob(file: u64) -> BlobSummary {
        BlobSummary {
            file,
            size_bytes: 160,
            values: 5,
            value_bytes: 100,
        }
    }

    /// A table of the bottom for one key, and what it points to: file, values, bytes.
    fn table(file: u64, references: &[u8]) -> NewTable {
        NewTable {
            level: super::super::BOTTOM,
            run: 0,
            table: TableSummary {
                file,
                smallest: vec![file as u8],
                largest: vec![file as u8],
                references: References::decode(references).unwrap(),
                ..TableSummary::default()
            },
        }
    }

    fn apply(version: &Version<()>, edit: Edit) -> Version<()> {
        let Ok(next) = version.apply(&edit, |_| Ok::<(), Infallible>(()));
        assert!(next.counts_blobs_right());
        next
    }

    fn live(version: &Version<()>) -> Vec<(u64, u64)> {
        let blobs = version.blobs.iter();
        blobs
            .map(|blob| (blob.summary.file, blob.live_bytes))
            .collect()
    }

    #[test]
    fn live_bytes_follow_the_tables_and_a_file_goes_with_the_last_one() {
        let first = apply(
            &Version::empty(),
            Edit {
                added: vec![table(1, &[50, 5, 100]), table(2, &[50, 1, 20, 51, 4, 80])],
                // Nothing points into the last one.
                blobs: vec![blob(50), blob(51), blob(52)],
                ..Edit::default()
            },
        );
        // A value may be pointed to twice for a while.
        assert_eq!(live(&first), [(50, 120), (51, 80)]);
        assert_eq!(first.blobs.get(50).unwrap().garbage_bytes(), 0);
        let moved = apply(
            &first,
            Edit {
                added: vec![table(2, &[50, 1, 20, 51, 4, 80])],
                removed: vec![2],
                ..Edit::default()
            },
        );
        assert_eq!(live(&moved), live(&first));
        let replaced = apply(
            &moved,
            Edit {
                added: vec![table(3, &[50, 2, 40])],
                removed: vec![1, 2],
                ..Edit::default()
            },
        );
        assert_eq!(live(&replaced), [(50, 40)]);
        assert_eq!(
            moved.blobs.missing_in(&replaced.blobs).collect::<Vec<_>>(),
            [51]
        );
        assert_eq!(replaced.blobs.bytes(), (160, 60));
        let collectable = |percent| {
            let fenced = BTreeSet::new();
            replaced.blobs.collectable(percent, &fenced).len()
        };
        // From half the percentage on, because that is the share of garbage in all files.
        assert_eq!([60, 99, 100].map(collectable), [1, 1, 0]);
        assert_eq!(
            live(&apply(&Version::empty(), replaced.snapshot())),
            [(50, 40)]
        );
    }

    #[test]
    fn files_with_most_garbage_are_collected_first_and_not_all_at_once() {
        // Sixteen files of 100 bytes of which `live` bytes are live.
        let version = |live: fn(u64) -> u8| {
            let mut blobs = Vec::new();
            let mut references = Vec::new();
            for file in 1..=16 {
                blobs.push(blob(file));
                references.extend([file as u8, 1, live(file)]);
            }
            let edit = Edit {
                added: vec![table(100, &references)],
                blobs,
                ..Edit::default()
            };
            apply(&Version::empty(), edit)
        };
        let taken = |version: &Version<()>, fenced: &[u64]| -> Vec<u64> {
            let fenced = fenced.iter().copied().collect();
            version.blobs.collectable(50, &fenced).into_iter().collect()
        };
        let few = version(|file| if file < 4 { 50 } else { 90 });
        assert_eq!(taken(&few, &[]), [1, 2, 3]);
        assert_eq!(taken(&few, &[2]), [1, 3]);
        assert_eq!(taken(&version(|_| 76), &[]), []);
        // All have a quarter of garbage: two hold an eighth of what is live.
        assert_eq!(taken(&version(|_| 75), &[]), [1, 2]);
        assert_eq!(taken(&version(|file| 70 - file as u8), &[]), [15, 16]);
    }
}
