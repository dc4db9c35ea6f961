//! The ballast: a file that only takes up space, to be given back when the disk is full.
//!
//! A log-structured store needs space to free space: a flush writes a table before it can let log segments
//! go, and each change of the set of tables appends to the manifest. With the space of the ballast they can.
//!
//! Invariants:
//! 1. From the moment it is given back until it is there again, writes are refused.
//! 2. It is made again only when twice its size is free above the reserve, so that making it does not take
//!    back the space that it was given back for.

use super::front::Short;
use super::inner::Inner;
use crate::error::{Error, IoContext};
use crate::files::{BALLAST, Numbered};
use crate::fs::Fs;
use crate::options::Options;
use std::path::Path;
use std::sync::atomic::Ordering;

/// Looks for the ballast at open. One of another size than is wanted now, or unfinished, is removed.
pub(super) fn find(fs: &dyn Fs, dir: &Path, names: &[String], options: &Options) -> bool {
    if !names.iter().any(|name| name == BALLAST) {
        return false;
    }
    let path = dir.join(BALLAST);
    let wanted = options.ballast_bytes;
    if wanted > 0 && fs.open(&path).is_ok_and(|file| file.len() == wanted) {
        return true;
    }
    remove(fs, dir);
    false
}

/// Removes the file. True if that gave space free.
pub(super) fn remove(fs: &dyn Fs, dir: &Path) -> bool {
    let path = dir.join(BALLAST);
    match fs.remove(&path) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "could not give the ballast back");
            false
        }
    }
}

/// Free bytes without which the ballast is not made again, above the reserve; 0 if it is there, or not wanted.
pub(super) fn missing_bytes(inner: &Inner) -> u64 {
    if inner.has_ballast.load(Ordering::Acquire) {
        0
    } else {
        inner.options.ballast_bytes.saturating_mul(2)
    }
}

/// Gives the ballast back, with all that is only kept ready, because the disk is full. False if it is gone
/// already. Writes are refused from now on. Call without a lock; blocks.
pub(super) fn give_back(inner: &Inner) -> bool {
    if !inner.has_ballast.swap(false, Ordering::AcqRel) {
        return false;
    }
    let spares = {
        let mut front = inner.front();
        front.gate.short = Some(Short {
            free: 0,
            needed: inner.options.min_free_bytes + missing_bytes(inner),
        });
        front.wal.take_small_spares(u64::MAX)
    };
    for spare in spares {
        inner
            .files
            .discard(Numbered::Log(spare.id).path(&inner.dir));
    }
    inner.files.empty_trash();
    let freed = remove(&*inner.env.fs, &inner.dir);
    // Some file systems give blocks free only when the removal is on disk.
    let _ = inner.sync_dir();
    tracing::warn!(
        dir = %inner.dir.display(),
        bytes = inner.options.ballast_bytes,
        "the disk is full: gave the ballast back, and takes no writes until there is room"
    );
    freed
}

/// Makes the ballast if it is missing. The caller has found room for it.
pub(super) fn restore(inner: &Inner) -> Result<(), Error> {
    if missing_bytes(inner) == 0 {
        return Ok(());
    }
    let path = inner.dir.join(BALLAST);
    let fs = &*inner.env.fs;
    // What an earlier try left behind.
    let _ = fs.remove(&path);
    let made = fs
        .create_segment(&path, inner.options.ballast_bytes)
        .and_then(|file| file.sync());
    if let Err(error) = made {
        let _ = fs.remove(&path);
        return Err(error).context("create", &path);
    }
    inner.sync_dir()?;
    inner.has_ballast.store(true, Ordering::Release);
    Ok(())
}
