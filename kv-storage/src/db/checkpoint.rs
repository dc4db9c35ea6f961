//! Checkpoints: a second store that shares its tables with this one by hard links.
//!
//! Everything in memtables is written to tables first, so the copy needs no log: it is the tables of one
//! version, `FORMAT`, and a manifest that names no log segment.
//!
//! Invariants:
//! 1. The tables and blob files are linked, and their names are durable, before there is anything that would make the
//!    directory a store: an interrupted checkpoint does not open, because tables without `CURRENT` are
//!    damage.
//! 2. `CURRENT` is written last, and removed first.
//! 3. The version is held until the end, so none of its files is removed meanwhile.

use super::inner::Inner;
use super::{flush, read, store_format};
use crate::error::{Error, IoContext};
use crate::files::{CURRENT, Numbered};
use crate::fs::Fs;
use crate::key::Seq;
use crate::version::{Edit, Manifest, Version};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// What a checkpoint holds.
struct Contents {
    version: Arc<Version>,
    flushed: Seq,
    next_file: u64,
    attachment: Option<Vec<u8>>,
}

/// Makes a checkpoint, and returns the newest write in it.
pub(super) fn make(inner: &Arc<Inner>, target: &Path) -> Result<Seq, Error> {
    read::check_open(inner)?;
    let fs = &*inner.env.fs;
    fs.create_dir(target).context("create directory", target)?;
    let names = fs.list(target).context("list", target)?;
    if !names.is_empty() {
        let error = std::io::Error::from(ErrorKind::DirectoryNotEmpty);
        return Err(error).context("make a checkpoint in", target);
    }
    flush::flush_all(inner)?;
    let contents = {
        let mut state = inner.state();
        Contents {
            version: Arc::clone(&state.version),
            flushed: state.flushed,
            // Taken from this store, so that the number is above those of all its tables.
            next_file: state.allocate_file(),
            attachment: state.attachment.clone(),
        }
    };
    let outcome = copy(inner, target, &contents);
    if outcome.is_err() {
        clean(fs, target);
    }
    let flushed = contents.flushed;
    drop(contents);
    // Compactions may have let tables go that only the checkpoint held.
    inner.files.empty_trash();
    outcome.map(|()| flushed)
}

fn copy(inner: &Inner, target: &Path, contents: &Contents) -> Result<(), Error> {
    let fs = &*inner.env.fs;
    let version = &contents.version;
    let tables = version
        .tables()
        .map(|table| Numbered::Table(table.summary.file));
    let blobs = version
        .blobs
        .iter()
        .map(|blob| Numbered::Blob(blob.summary.file));
    for file in tables.chain(blobs) {
        fs.link(&file.path(&inner.dir), &file.path(target))
            .context("link a file of this store to", &file.path(target))?;
    }
    fs.sync_dir(target).context("sync directory", target)?;
    store_format::write(fs, target, inner.store)?;
    let manifest = contents.next_file;
    let state = Edit {
        flushed: Some(contents.flushed),
        next_file: Some(manifest + 1),
        attachment: contents.attachment.clone(),
        ..contents.version.snapshot()
    };
    Manifest::create(fs, target, inner.store, manifest, &state).map(drop)
}

/// Removes all files of a store that was not finished. What cannot be removed stays, and does not open.
pub(crate) fn clean(fs: &dyn Fs, target: &Path) {
    let _ = fs.remove(&target.join(CURRENT));
    // A power cut must not bring CURRENT back when the tables are gone; it would only be damage then.
    let _ = fs.sync_dir(target);
    for name in fs.list(target).unwrap_or_default() {
        let path = target.join(name);
        if let Err(error) = fs.remove(&path) {
            tracing::warn!(path = %path.display(), %error, "could not remove a part of an unfinished store");
        }
    }
    let _ = fs.sync_dir(target);
}
