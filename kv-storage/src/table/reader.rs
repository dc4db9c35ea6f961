//! An open table file: point lookups, and blocks for cursors.

use super::block::{Block, BlockCursor, Malformed};
use super::filter::Filter;
use super::format::{FOOTER_BYTES, Footer, Handle};
use super::index::Index;
use crate::cache::BlockCache;
use crate::checksum::Checksum;
use crate::compress;
use crate::error::{Error, IoContext};
use crate::fs::{Fs, ReadFile};
use crate::key::{KeyVersion, Kind, Seq};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What all tables of a store share.
#[derive(Debug)]
pub(crate) struct TableFiles {
    pub fs: Arc<dyn Fs>,
    pub cache: BlockCache,
    pub store: u64,
    /// Files whose last user is gone. They are removed by the next job, because a reader that happens to be
    /// the last user must not block on the file system.
    trash: Mutex<Vec<PathBuf>>,
}

impl TableFiles {
    pub(crate) fn new(fs: Arc<dyn Fs>, cache: BlockCache, store: u64) -> Self {
        Self {
            fs,
            cache,
            store,
            trash: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn discard(&self, path: PathBuf) {
        self.trash
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(path);
    }

    /// Removes the files of dropped tables. May block. A failure only leaves an orphan for the next open.
    pub(crate) fn empty_trash(&self) {
        let trash = std::mem::take(&mut *self.trash.lock().unwrap_or_else(PoisonError::into_inner));
        for path in trash {
            if let Err(error) = self.fs.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "could not remove an obsolete file");
            }
        }
    }
}

/// Whether a lookup may read from disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetch {
    /// Only what is in memory; a needed block that is not there ends the lookup.
    CacheOnly,
    /// Read what is missing, and keep it in the cache.
    Blocking,
    /// Read what is missing without disturbing the cache: for compactions.
    Passing,
}

/// The outcome of a point lookup.
#[derive(Debug)]
pub(crate) enum Looked {
    Found {
        seq: Seq,
        kind: Kind,
        value: Bytes,
    },
    Absent,
    /// A block would have to be read from disk.
    NeedsIo,
}

/// An open table. Shared by versions; the file goes when the last user drops it after
/// [`mark_obsolete`](Self::mark_obsolete).
#[derive(Debug)]
pub(crate) struct Table {
    path: PathBuf,
    id: u64,
    file: Arc<dyn ReadFile>,
    files: Arc<TableFiles>,
    checksum: Checksum,
    filter: Filter,
    index: Index,
    obsolete: AtomicBool,
}

impl Table {
    /// Opens a table and checks its footer, filter, index and properties. May block.
    pub(crate) fn open(files: &Arc<TableFiles>, path: &Path, id: u64) -> Result<Self, Error> {
        let file = files.fs.open_table(path).context("open", path)?;
        let footer_at = file.len().checked_sub(FOOTER_BYTES as u64);
        let footer_at =
            footer_at.ok_or_else(|| Error::corrupt(path, 0, "file is shorter than a footer"))?;
        let mut footer = [0; FOOTER_BYTES];
        file.read_at(footer_at, &mut footer).context("read", path)?;
        let footer = Footer::decode(&footer, files.store, id)
            .map_err(|what| Error::corrupt(path, footer_at, what))?;

        let checksum = Checksum::new(files.store, id);
        let read = |handle: &Handle| read_block(&*file, path, handle, checksum, footer_at);
        let malformed = |handle: &Handle, what| Error::corrupt(path, handle.offset, what);
        let filter = Filter::decode(&read(&footer.filter)?);
        let filter = filter.ok_or_else(|| malformed(&footer.filter, "malformed filter"))?;
        let index = Index::parse(read(&footer.index)?);
        let index = index.map_err(|Malformed| malformed(&footer.index, "malformed index"))?;
        read(&footer.properties)?;
        Ok(Self {
            path: path.to_path_buf(),
            id,
            file,
            files: Arc::clone(files),
            checksum,
            filter,
            index,
            obsolete: AtomicBool::new(false),
        })
    }

    /// The newest version of `key` numbered at most `at`.
    pub(crate) fn get(
        &self,
        key: &[u8],
        hash: u64,
        at: Seq,
        fetch: Fetch,
    ) -> Result<Looked, Error> {
        if !self.filter.may_contain(hash) {
            return Ok(Looked::Absent);
        }
        let target = KeyVersion::new(key, at);
        let number = self.index.find(target);
        if number == self.index.len() {
            return Ok(Looked::Absent);
        }
        let Some(block) = self.block(number, fetch)? else {
            return Ok(Looked::NeedsIo);
        };
        let mut cursor = BlockCursor::new(block);
        cursor
            .seek(target)
            .map_err(|Malformed| self.malformed(number))?;
        Ok(match cursor.version() {
            Some(found) if found.key == key => Looked::Found {
                seq: found.seq,
                kind: cursor.kind(),
                value: cursor.value_bytes(),
            },
            _ => Looked::Absent,
        })
    }

    /// About how many bytes of data lie before `key`.
    pub(crate) fn bytes_before(&self, key: &[u8]) -> u64 {
        let block = self.index.find(KeyVersion::before_all(key));
        let last = self.index.len().wrapping_sub(1);
        match (self.index.handle(block), self.index.handle(last)) {
            (Some(handle), _) => handle.offset,
            (None, Some(last)) => last.offset + u64::from(last.stored),
            (None, None) => 0,
        }
    }

    pub(super) fn block_count(&self) -> usize {
        self.index.len()
    }

    pub(super) fn find_block(&self, target: KeyVersion<'_>) -> usize {
        self.index.find(target)
    }

    /// A data block; `None` if it would have to be read although only the cache is allowed.
    pub(super) fn block(&self, number: usize, fetch: Fetch) -> Result<Option<Arc<Block>>, Error> {
        let handle = self
            .index
            .handle(number)
            .ok_or_else(|| self.malformed(number))?;
        if let Some(block) = self.files.cache.get(self.id, handle.offset) {
            return Ok(Some(block));
        }
        if fetch == Fetch::CacheOnly {
            return Ok(None);
        }
        let raw = read_block(
            &*self.file,
            &self.path,
            handle,
            self.checksum,
            self.file.len(),
        )?;
        let block = Block::parse(Bytes::from(raw)).map_err(|Malformed| self.malformed(number))?;
        let block = Arc::new(block);
        if fetch == Fetch::Blocking {
            self.files
                .cache
                .insert(self.id, handle.offset, Arc::clone(&block));
        }
        Ok(Some(block))
    }

    pub(super) fn malformed(&self, number: usize) -> Error {
        let offset = self.index.handle(number).map_or(0, |handle| handle.offset);
        Error::corrupt(&self.path, offset, "malformed block")
    }

    /// Lets the file be removed once nobody uses it.
    pub(crate) fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            self.files.discard(std::mem::take(&mut self.path));
        }
    }
}

/// Reads, checks and decodes the block of a handle. `limit` is where blocks must end.
fn read_block(
    file: &dyn ReadFile,
    path: &Path,
    handle: &Handle,
    checksum: Checksum,
    limit: u64,
) -> Result<Vec<u8>, Error> {
    let corrupt = |what| Error::corrupt(path, handle.offset, what);
    // Checked before the allocation, so that a damaged length cannot ask for much memory.
    if handle
        .offset
        .checked_add(u64::from(handle.stored))
        .is_none_or(|end| end > limit)
    {
        return Err(corrupt("block lies outside of the file"));
    }
    let mut stored = vec![0; handle.stored as usize];
    file.read_at(handle.offset, &mut stored)
        .context("read", path)?;
    if checksum.of(&stored) != handle.checksum {
        return Err(corrupt("block checksum does not match"));
    }
    compress::decode(&stored, handle.raw as usize).map_err(corrupt)
}
