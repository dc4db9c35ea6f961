//! The blob files that tables have open.

use super::Blob;
use crate::error::Error;
use crate::files::Numbered;
use crate::table::TableFiles;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Each open blob file once, however many tables point into it.
#[derive(Debug, Default)]
pub(crate) struct OpenBlobs(Mutex<BTreeMap<u64, Weak<Blob>>>);

impl OpenBlobs {
    /// The blob file of a number, opened if it was not. May block.
    ///
    /// # Errors
    /// Only what may pass: see [`Blob::open`].
    pub(crate) fn open(
        files: &Arc<TableFiles>,
        dir: &Path,
        number: u64,
    ) -> Result<Arc<Blob>, Error> {
        if let Some(open) = files.blobs.get(number) {
            return Ok(open);
        }
        // Without the lock. Two at once open it twice, and the later one is used from then on; that is harmless
        // because a file is never retired while a table that points into it is being opened.
        let blob = Arc::new(Blob::open(
            files,
            &Numbered::Blob(number).path(dir),
            number,
        )?);
        files.blobs.lock().insert(number, Arc::downgrade(&blob));
        Ok(blob)
    }

    /// Lets a file go that no table of the newest version points to: at once, or when its last user does.
    pub(crate) fn retire(files: &TableFiles, dir: &Path, number: u64) {
        match files.blobs.get(number) {
            Some(blob) => blob.mark_obsolete(),
            None => files.discard(Numbered::Blob(number).path(dir)),
        }
    }

    /// Forgets a blob file that was dropped.
    pub(super) fn forget(&self, number: u64) {
        let mut open = self.lock();
        if open
            .get(&number)
            .is_some_and(|blob| blob.strong_count() == 0)
        {
            open.remove(&number);
        }
    }

    fn get(&self, number: u64) -> Option<Arc<Blob>> {
        // The lock ends before the blob may be dropped, which takes it again.
        let weak = self.lock().get(&number).cloned();
        weak?.upgrade()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Weak<Blob>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
