//! What the kernel keeps of files in memory: emptied, filled, and kept from reading ahead.

use anyhow::{Context, Result};
use rustix::fs::{Advice, fadvise, fdatasync};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Evicts all files under a folder from the page cache, after writing out what is dirty.
///
/// # Errors
/// A file cannot be opened or written out.
pub(crate) fn drop_from_page_cache(folder: &Path) -> Result<()> {
    for path in files(folder)? {
        let file = open(&path)?;
        fdatasync(&file)?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// Reads all files under a folder once, so that what follows finds them in the page cache.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn read_into_page_cache(folder: &Path) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    for path in files(folder)? {
        let mut file = open(&path)?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(())
}

/// Tells the kernel not to read ahead in any file under `folder` that this process has open now.
///
/// The advice belongs to the open file, not to its name, and most engines offer no option for it.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn forbid_read_ahead(folder: &Path) -> Result<()> {
    let folder = folder.canonicalize()?;
    let this_process = pidfd_open(getpid(), PidfdFlags::empty())?;
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let is_inside = fs::read_link(entry.path()).is_ok_and(|path| path.starts_with(&folder));
        let number = entry.file_name().to_string_lossy().parse();
        let (true, Ok(number)) = (is_inside, number) else {
            continue;
        };
        // A duplicate shares the open file with the engine's own descriptor. If the engine closes
        // that at this moment, nothing is left to advise.
        if let Ok(duplicate) = pidfd_getfd(&this_process, number, PidfdGetfdFlags::empty()) {
            fadvise(&duplicate, 0, None, Advice::Random)?;
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// All files under a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_can_be_dropped_read_and_advised() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, vec![7; 1 << 16]).unwrap();
        let _kept_open = open(&path).unwrap();
        forbid_read_ahead(folder.path()).unwrap();
        drop_from_page_cache(folder.path()).unwrap();
        read_into_page_cache(folder.path()).unwrap();
    }
}
