//! Space on disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Unit of `st_blocks`, whatever the file system's own block is.
const STAT_BLOCK_BYTES: u64 = 512;

/// Bytes that all files under a folder take on disk; holes take none, preallocated space does.
///
/// Files that vanish meanwhile, as those of a compaction do, count as nothing.
pub(crate) fn disk_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some(if metadata.is_dir() {
                disk_bytes(&entry.path())
            } else {
                metadata.blocks() * STAT_BLOCK_BYTES
            })
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_folders_count_and_what_is_missing_does_not() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        fs::write(folder.path().join("deep/file"), vec![1; 100_000]).unwrap();
        fs::write(folder.path().join("other"), vec![1; 100_000]).unwrap();
        assert!(disk_bytes(folder.path()) >= 200_000);
        assert_eq!(disk_bytes(&folder.path().join("missing")), 0);
    }
}
