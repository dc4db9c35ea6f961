//! An open table file: point lookups, and blocks for cursors.

mod check;
mod damage;

pub(crate) use check::{LOST_NUMBER, StoredVersion, store_of, summary_of};
pub(crate) use damage::Damaged;

use super::block::{self, Block, Malformed, SharedBlock};
use super::builder::TableSummary;
use super::files::TableFiles;
use super::filter::Filter;
use super::format::{FOOTER_BYTES, Footer, Handle, Version};
use super::index::Index;
use super::properties::Properties;
use super::{index_format, v1};
use crate::blob::{Blob, OpenBlobs, Pointer, References, StoredValue, Stretch};
use crate::cache::BlockSlots;
use crate::checksum::Checksum;
use crate::compress::{self, Dictionary};
use crate::error::{Error, IoContext, read_part, twice};
use crate::fs::ReadFile;
use crate::key::{KeyVersion, Kind, Seq};
use crate::planted::planted;
use crate::range::KeyRange;
use crate::ranges::{self, Fragments};
use arc_swap::Guard;
use bytes::Bytes;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    filter: Filter,
    index: Index,
    /// Blocks in memory.
    slots: Arc<BlockSlots>,
    files: Arc<TableFiles>,
    source: Source,
    ranges: Arc<Fragments>,
    /// Smallest and largest key.
    bounds: Box<(Vec<u8>, Vec<u8>)>,
    /// The blob files that it points into, by number.
    blobs: Vec<Arc<Blob>>,
    damaged: Damaged,
    obsolete: AtomicBool,
    /// The number of all entries, in the place of those that are stored; 0 leaves them.
    number: AtomicU64,
}

/// What is read of a table when it is opened.
struct Outline {
    source: Source,
    index: Index,
    filter: Handle,
    ranges: Fragments,
    /// The entries have their number from elsewhere.
    is_numbered: bool,
    /// The properties block.
    properties: Vec<u8>,
}

impl Outline {
    fn read(files: &TableFiles, path: &Path, id: u64) -> Result<Self, Error> {
        let file = files.fs.open_table(path).context("open", path)?;
        let footer_at = file.len().checked_sub(FOOTER_BYTES as u64);
        let footer_at =
            footer_at.ok_or_else(|| Error::corrupt(path, 0, "file is shorter than a footer"))?;
        let mut footer = [0; FOOTER_BYTES];
        read_part(&*file, path, footer_at, &mut footer)?;
        let footer = Footer::decode(&footer, files.store, id)
            .map_err(|what| Error::corrupt(path, footer_at, what))?;
        let mut source = Source {
            path: path.to_path_buf(),
            file,
            checksum: Checksum::new(files.store, id),
            version: footer.version,
            dictionary: None,
        };
        let malformed = |handle: &Handle, what| Error::corrupt(path, handle.offset, what);
        let raw_properties = source.read(&footer.properties)?;
        let properties = Properties::decode(&raw_properties)
            .map_err(|what| malformed(&footer.properties, what))?;
        if let Some(handle) = &properties.dictionary {
            let dictionary = Dictionary::load(&source.read(handle)?)
                .ok_or_else(|| malformed(handle, "malformed dictionary"))?;
            source.dictionary = Some(dictionary);
        }
        let ranges = match &properties.ranges {
            Some(handle) => ranges::decode(&source.read(handle)?)
                .ok_or_else(|| malformed(handle, "malformed deleted ranges"))?,
            None => Fragments::default(),
        };
        let index = source.read(&footer.index)?;
        let index = match footer.version {
            Version::V1 => v1::index(&index),
            Version::V2 => index_format::decode(&index),
        };
        let index = index.map_err(|Malformed| malformed(&footer.index, "malformed index"))?;
        Ok(Self {
            source,
            index,
            filter: footer.filter,
            ranges,
            is_numbered: properties.is_numbered,
            properties: raw_properties,
        })
    }

    /// Checks that the number of the entries is known from elsewhere exactly if the table needs it.
    fn check_number(&self, summary: &TableSummary) -> Result<(), Error> {
        let corrupt = |what| Err(Error::corrupt(&self.source.path, 0, what));
        match (self.is_numbered, summary.number) {
            (true, None) => corrupt("nothing says which number the entries have"),
            (false, Some(_)) => corrupt("the entries have numbers of their own"),
            (true, Some(_)) | (false, None) => Ok(()),
        }
    }

    fn filter(&self) -> Result<Filter, Error> {
        let malformed = || {
            let what = "malformed filter";
            Error::corrupt(&self.source.path, self.filter.offset, what)
        };
        Filter::decode(&self.source.read(&self.filter)?).ok_or_else(malformed)
    }
}

impl Table {
    /// Opens a table and checks its footer, filter, index, properties and dictionary. May block.
    ///
    /// # Errors
    /// Any damage, with the file and the offset of the damaged block; see also
    /// [`open_damaged`](Self::open_damaged).
    pub(crate) fn open(
        files: &Arc<TableFiles>,
        path: &Path,
        summary: &TableSummary,
    ) -> Result<Self, Error> {
        let outline = Outline::read(files, path, summary.file)
            .and_then(|outline| outline.check_number(summary).map(|()| outline))
            .and_then(|outline| Ok((outline.filter()?, outline)));
        let (filter, outline) = outline.map_err(|error| error.touching(&summary.key_range()))?;
        Self::new(files, summary, outline, filter, Damaged::Nothing)
    }

    fn new(
        files: &Arc<TableFiles>,
        summary: &TableSummary,
        outline: Outline,
        filter: Filter,
        damaged: Damaged,
    ) -> Result<Self, Error> {
        let Outline {
            source,
            index,
            ranges,
            ..
        } = outline;
        let blobs = open_blobs(files, &source.path, &summary.references)?;
        files.budget.pin(filter.size_bytes() + index.size_bytes());
        Ok(Self {
            filter,
            blobs,
            slots: BlockSlots::new(index.len()),
            index,
            files: Arc::clone(files),
            source,
            ranges: Arc::new(ranges),
            bounds: Box::new((summary.smallest.clone(), summary.largest.clone())),
            damaged,
            obsolete: AtomicBool::new(false),
            number: AtomicU64::new(summary.number.unwrap_or_default().0),
        })
    }

    /// Begins to load what a lookup looks at first.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        self.filter.prefetch(hash);
    }

    /// The newest version of `key` numbered at most `at`. A key in a deleted range counts as deleted.
    pub(crate) fn get(
        &self,
        key: &[u8],
        hash: u64,
        at: Seq,
        fetch: Fetch,
    ) -> Result<Looked, Error> {
        let looked = self.get_version(key, hash, at, fetch)?;
        match (looked, self.ranges.covering(key, at)) {
            (Looked::NeedsIo, _) => Ok(Looked::NeedsIo),
            (Looked::Found { seq, .. }, Some(deleted)) if seq <= deleted => Ok(removed(deleted)),
            (Looked::Absent, Some(deleted)) => Ok(removed(deleted)),
            (
                Looked::Found {
                    seq,
                    kind: Kind::Blob,
                    value,
                    ..
                },
                _,
            ) => match fetch {
                Fetch::CacheOnly => Ok(Looked::NeedsIo),
                Fetch::Blocking | Fetch::Passing => {
                    let value = self.value(key, &value)?;
                    self.files.note_read();
                    Ok(Looked::Found {
                        seq,
                        kind: Kind::Put,
                        value,
                    })
                }
            },
            (looked, _) => Ok(looked),
        }
    }

    /// Like [`get`](Self::get), without a look at deleted ranges and blob files.
    fn get_version(&self, key: &[u8], hash: u64, at: Seq, fetch: Fetch) -> Result<Looked, Error> {
        if !self.filter.may_contain(hash) {
            self.files.filter_skips.add(hash as usize);
            return Ok(Looked::Absent);
        }
        let number = self.index.find(KeyVersion::new(key, at));
        if number == self.index.len() {
            return Ok(Looked::Absent);
        }
        let cached = self.files.cache.get(&self.slots, number);
        let loaded;
        let block = match &*cached {
            Some(block) => block,
            None if fetch == Fetch::CacheOnly => return Ok(Looked::NeedsIo),
            None => {
                loaded = self.load(number)?;
                if fetch == Fetch::Blocking {
                    self.keep(number, &loaded);
                }
                &loaded
            }
        };
        let found = Block::of(block)
            .get(key, hash, at)
            .map_err(|Malformed| self.malformed(number))?;
        Ok(match found {
            Some(entry) => Looked::Found {
                seq: entry.seq,
                kind: entry.kind,
                value: block::value_bytes(block, entry.value),
            },
            None => Looked::Absent,
        })
    }

    /// The value of `key` that an encoded pointer of this table points to. May block.
    ///
    /// # Errors
    /// Damage, which touches this key alone, and failures of the file system.
    pub(crate) fn value(&self, key: &[u8], pointer: &[u8]) -> Result<Bytes, Error> {
        let (blob, pointer) = self.blob(key, pointer)?;
        blob.read(key, &pointer)
    }

    /// Like [`value`](Self::value), but as the value is stored, for those who read in order; `stretch` is what
    /// they read last of the same blob file. With `decoded`, the value comes too.
    ///
    /// # Errors
    /// As for [`value`](Self::value).
    pub(crate) fn stored_value(
        &self,
        key: &[u8],
        pointer: &[u8],
        stretch: &mut Stretch,
        decoded: bool,
    ) -> Result<(StoredValue, Option<Bytes>), Error> {
        let (blob, pointer) = self.blob(key, pointer)?;
        let stored = blob.read_stored(key, &pointer, stretch)?;
        let value = if decoded {
            Some(blob.decode_stored(key, &pointer, &stored)?)
        } else {
            None
        };
        Ok((stored, value))
    }

    /// An encoded pointer of this table, decoded.
    ///
    /// # Errors
    /// The table is damaged: the pointer is malformed, or leads to a file that the table does not name.
    pub(crate) fn pointer(&self, key: &[u8], pointer: &[u8]) -> Result<Pointer, Error> {
        self.blob(key, pointer).map(|(_, pointer)| pointer)
    }

    fn blob(&self, key: &[u8], pointer: &[u8]) -> Result<(&Blob, Pointer), Error> {
        let found = Pointer::decode(pointer).and_then(|pointer| {
            let at = self
                .blobs
                .binary_search_by_key(&pointer.file, |blob| blob.number())
                .ok()?;
            Some((&*self.blobs[at], pointer))
        });
        found.ok_or_else(|| {
            let what = "a value points to a file that the table does not name";
            let error = Error::corrupt(&self.source.path, 0, what);
            error.touching(&KeyRange::between(key, key))
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

    /// Its deleted ranges. They do not reach beyond its smallest and largest key.
    pub(crate) fn ranges(&self) -> &Arc<Fragments> {
        &self.ranges
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// A data block if it is in the cache.
    pub(super) fn cached(&self, number: usize) -> Option<SharedBlock> {
        Guard::into_inner(self.files.cache.get(&self.slots, number))
    }

    /// Puts a data block into the cache.
    pub(super) fn keep(&self, number: usize, block: &SharedBlock) {
        self.files.keep_block(&self.slots, number, block.clone());
    }

    /// Reads a data block from the file. What seems to be damaged is read once more, because a bit may have
    /// flipped on its way.
    pub(super) fn load(&self, number: usize) -> Result<SharedBlock, Error> {
        let handle = self.handle(number)?;
        let read = || {
            with_memory(|memory| {
                let Memory { stored, raw } = memory;
                let length = handle.stored as usize;
                self.source.read_stored(handle.offset, length, stored)?;
                self.share(number, self.source.decode(handle, stored, raw)?)
            })
        };
        twice(read).map_err(|error| self.touching(number, error))
    }

    /// Reads the bytes of neighbouring blocks into `into`, as they are stored.
    pub(super) fn read_stored(
        &self,
        first: &Handle,
        length: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.source.read_stored(first.offset, length, into)
    }

    /// Makes a data block of stored bytes, which are checked.
    pub(super) fn decode(&self, number: usize, stored: &[u8]) -> Result<SharedBlock, Error> {
        let handle = self.handle(number)?;
        with_memory(|memory| {
            let raw = self.source.decode(handle, stored, &mut memory.raw)?;
            self.share(number, raw)
        })
        .map_err(|error| self.touching(number, error))
    }

    fn share(&self, number: usize, raw: &[u8]) -> Result<SharedBlock, Error> {
        let block = match self.source.version {
            Version::V1 => v1::data_block(raw),
            Version::V2 => Block::share(raw, self.number()),
        };
        block.map_err(|Malformed| self.malformed(number))
    }

    fn handle(&self, number: usize) -> Result<&Handle, Error> {
        if let Damaged::Outline(error) = &self.damaged {
            return Err(error.clone());
        }
        self.index
            .handle(number)
            .ok_or_else(|| self.malformed(number))
    }

    pub(super) fn malformed(&self, number: usize) -> Error {
        let offset = self.index.handle(number).map_or(0, |handle| handle.offset);
        let error = Error::corrupt(&self.source.path, offset, "malformed block");
        self.touching(number, error)
    }

    fn number(&self) -> Seq {
        // Relaxed is enough: it is set before readers are given the table.
        Seq(self.number.load(Ordering::Relaxed))
    }

    /// Gives all entries their number. Call it before anybody reads the table.
    pub(crate) fn set_number(&self, number: Seq) {
        self.number.store(number.0, Ordering::Relaxed);
    }

    /// Lets the file be removed once nobody uses it.
    pub(crate) fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

/// The outcome of a lookup of a key in a deleted range.
fn removed(deleted: Seq) -> Looked {
    Looked::Found {
        seq: deleted,
        kind: Kind::Delete,
        value: Bytes::new(),
    }
}

/// Opens the blob files that lie beside a table.
fn open_blobs(
    files: &Arc<TableFiles>,
    table: &Path,
    references: &References,
) -> Result<Vec<Arc<Blob>>, Error> {
    let dir = table.parent().unwrap_or(Path::new(""));
    references
        .iter()
        .map(|reference| OpenBlobs::open(files, dir, reference.file))
        .collect()
}

impl Drop for Table {
    fn drop(&mut self) {
        self.files.cache.forget(&self.slots);
        let pinned = self.filter.size_bytes() + self.index.size_bytes();
        self.files.budget.unpin(pinned);
        if self.obsolete.load(Ordering::Acquire) {
            self.files.discard(std::mem::take(&mut self.source.path));
        }
    }
}

/// The file, and what it takes to read a block of it.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    file: Arc<dyn ReadFile>,
    checksum: Checksum,
    version: Version,
    dictionary: Option<Dictionary>,
}

impl Source {
    /// Reads, checks and decodes a block that is no data block.
    fn read(&self, handle: &Handle) -> Result<Vec<u8>, Error> {
        let mut memory = Memory::default();
        let Memory { stored, raw } = &mut memory;
        self.read_stored(handle.offset, handle.stored as usize, stored)?;
        self.decode(handle, stored, raw).map(<[u8]>::to_vec)
    }

    fn read_stored(&self, offset: u64, length: usize, into: &mut Vec<u8>) -> Result<(), Error> {
        let end = offset.checked_add(length as u64);
        // Checked before the allocation, so that a damaged length cannot ask for much memory.
        if end.is_none_or(|end| end > self.file.len()) {
            let what = "block lies outside of the file";
            return Err(Error::corrupt(&self.path, offset, what));
        }
        into.resize(length, 0);
        read_part(&*self.file, &self.path, offset, into)
    }

    fn decode<'a>(
        &self,
        handle: &Handle,
        stored: &'a [u8],
        memory: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], Error> {
        let corrupt = |what| Error::corrupt(&self.path, handle.offset, what);
        if self.checksum.of(stored) != handle.checksum && !planted!("ignore a block's checksum") {
            return Err(corrupt("block checksum does not match"));
        }
        let dictionary = self.dictionary.as_ref();
        compress::decode(stored, handle.raw as usize, dictionary, memory).map_err(corrupt)
    }
}

/// What reading a block needs for a moment.
#[derive(Default)]
struct Memory {
    stored: Vec<u8>,
    raw: Vec<u8>,
}

/// Larger memory is given back after use.
const MEMORY_MOST: usize = 256 << 10;

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// Lends this thread's memory.
fn with_memory<T>(run: impl FnOnce(&mut Memory) -> T) -> T {
    MEMORY.with_borrow_mut(|memory| {
        let outcome = run(memory);
        for bytes in [&mut memory.stored, &mut memory.raw] {
            if bytes.capacity() > MEMORY_MOST {
                *bytes = Vec::new();
            }
        }
        outcome
    })
}
