//! The open store: the only door to the engine.

mod ballast;
mod blocking;
pub(crate) mod checkpoint;
mod compact;
mod covered;
mod cut;
mod edits;
mod flush;
mod front;
mod group_commit;
mod ingest;
mod inner;
mod layer;
mod lock;
mod open;
mod pace;
mod publisher;
mod read;
mod recovery;
mod scan;
mod scrub;
mod segments;
mod state;
mod stats;
pub(crate) mod store_format;
mod sync;
mod sync_gate;
mod view;
mod write;

pub use blocking::{Blocking, BlockingError};
pub use cut::CutReport;
pub use ingest::{Ingest, IngestError};
pub(crate) use open::{holds_data, take_lock};
pub use read::{Found, Keeping, Read, ReadJob, Source};
pub use scan::{Entry, Iter, ScanPage, ScanRequest, Snapshot};
pub use scrub::{ScrubCursor, ScrubReport};
pub use state::Durability;
pub use stats::{LevelStats, Stats};
pub use write::Commit;

use crate::batch::WriteBatch;
use crate::env::Env;
use crate::error::{Error, OpenError, WriteError};
use crate::hooks::Attachment;
use crate::key::Seq;
use crate::options::Options;
use crate::range::KeyRange;
use inner::Inner;
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

/// An open store. Cheap to clone; all clones are the same store, usable from any thread.
///
/// Dropping the last clone is like killing the process: nothing acknowledged is lost, and the next
/// open replays the log. The directory stays locked until waiting jobs, snapshots and iterators are
/// gone too. [`close`](Self::close) first to make even unacknowledged writes durable.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
}

impl Db {
    /// Opens the store in `dir`, creating it if the directory has none, and replays its log.
    /// Blocks; call it at start-up.
    ///
    /// Writes that had not been synced may not survive power loss yet when it returns; the first sync covers
    /// them. [`Blocking::sync`] makes sure of it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: &Path, options: Options, env: Env) -> Result<Self, OpenError> {
        let inner = open::open(dir, options, env)?;
        inner.schedule();
        Ok(Self { inner })
    }

    /// Reads a key without blocking: from memory, or by telling that a job must read from disk.
    pub fn get(&self, key: &[u8]) -> Read {
        read::get(&self.inner, key, Keeping::Rows)
    }

    /// Reads a key and calls `done` with the outcome: before this returns if memory holds the
    /// answer, otherwise from a job.
    pub fn get_with(
        &self,
        key: &[u8],
        done: impl FnOnce(Result<Option<Found>, Error>) + Send + 'static,
    ) {
        self.get_keeping(key, Keeping::Rows, done);
    }

    /// As [`get_with`](Self::get_with), and says what may stay in memory.
    pub fn get_keeping(
        &self,
        key: &[u8],
        keeping: Keeping,
        done: impl FnOnce(Result<Option<Found>, Error>) + Send + 'static,
    ) {
        read::get_with(&self.inner, key, keeping, done);
    }

    /// Applies a batch: visible to readers when this returns, durable when its ticket says so. Waits for no disk, only
    /// for writers that came before, who copy into memory.
    ///
    /// The ticket may be dropped; the write goes on.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing was changed.
    pub fn write(&self, batch: WriteBatch, durability: Durability) -> Result<Commit, WriteError> {
        write::write(&self.inner, &batch, durability)
    }

    /// Begins to take in many sorted rows at once, past log and memtable: the cheapest way to load a range. The
    /// rows are one write, numbered when it is [committed](Ingest::commit); they replace what older writes stored under their
    /// keys, and nothing else.
    ///
    /// ```
    /// # use kv_storage::{Db, Durability, Env, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Db::open(dir.path(), Options::default(), Env::embedded(42))?;
    /// let mut ingest = db.ingest()?;
    /// for number in 0..1000u32 {
    ///     ingest.push(&number.to_be_bytes(), b"row")?; // in the order of the keys
    /// }
    /// ingest.commit(Durability::Sync)?.wait()?; // all of them, or after an error none
    /// assert!(db.blocking().get(&7u32.to_be_bytes())?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The store was poisoned or closed, the disk is nearly full, or compactions are far behind: see [`WriteError`].
    pub fn ingest(&self) -> Result<Ingest, WriteError> {
        Ingest::begin(&self.inner)
    }

    /// Calls `done` once the write numbered `seq`, and so all before it, survives power loss; at
    /// once if it does already.
    ///
    /// It asks for the log sync that this needs. A number above the newest write counts as the
    /// newest write.
    pub fn on_durable(&self, seq: Seq, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        sync::notify(&self.inner, seq, Box::new(done));
    }

    /// A fixed view of the present contents. Old versions are kept on disk until it is dropped.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.inner)
    }

    /// Reads one page of a range on a job, and calls `done` with it.
    pub fn scan_with(
        &self,
        snapshot: &Snapshot,
        request: ScanRequest,
        done: impl FnOnce(Result<ScanPage, Error>) + Send + 'static,
    ) {
        scan::scan_with(&self.inner, snapshot, request, done);
    }

    /// The bytes stored with the newest flush, and the write up to which that flush had brought the tables;
    /// `None` if it had none. See [`FlushAttachment`](crate::FlushAttachment).
    pub fn attachment(&self) -> Option<Attachment> {
        let state = self.inner.state();
        Some(Attachment {
            seq: state.flushed,
            bytes: state.attachment.clone()?,
        })
    }

    /// Blocking calls, for embedded use and tests. Do not use them on a thread that must not block.
    pub fn blocking(&self) -> Blocking<'_> {
        Blocking::new(self)
    }

    /// Writes everything that is in memtables now to tables. Blocks.
    ///
    /// # Errors
    /// The store's failure if it was poisoned or closed, or the flush's own, after which it may be tried again.
    pub fn flush(&self) -> Result<(), Error> {
        flush::flush_all(&self.inner)
    }

    /// Begins background work whose time has come: what failed and waits to be tried again, and
    /// compactions that use idle time. Never blocks. Call it about once a second, since the engine has no
    /// clock that would wake it.
    pub fn tick(&self) {
        let mut front = self.inner.front();
        front.tick();
        let pool = Arc::clone(&front.pool);
        drop(front);
        pool.tick();
        self.inner.state().roster.note_change();
        self.inner.schedule();
    }

    /// Makes a store of its own in `target`, an empty or absent directory on the same file system, that holds
    /// everything visible now. Blocks; reads, writes and compactions go on meanwhile. Returns the newest
    /// write in it.
    ///
    /// Tables are shared by hard links, so it costs a flush and little space, until compaction has
    /// replaced them here. On return the copy survives power loss, and opens like any store. It keeps this
    /// store's id and numbers: it is the same data at an earlier moment, so do not let both stand for
    /// different members of anything that tells stores apart by their ids.
    ///
    /// # Errors
    /// The store's failure if it was poisoned or closed; `DirectoryNotEmpty`; `CrossesDevices`; and whatever
    /// the file system says. What was made is removed then; an empty directory may stay. After a crash,
    /// remove the directory: if it is not a whole copy, it does not open.
    pub fn checkpoint(&self, target: &Path) -> Result<Seq, Error> {
        checkpoint::make(&self.inner, target)
    }

    /// Reads all tables and the values that they point to (not the log, which the next open checks), in jobs of [`JobClass::Compaction`](crate::JobClass::Compaction) of about
    /// 256 KiB, and calls `done` with what was found. Damage goes to
    /// [`Events::damaged`](crate::Events::damaged) as soon as it is met.
    ///
    /// `rate` limits it to so many bytes per second if [`Jobs::submit_after`](crate::Jobs::submit_after) keeps its
    /// time; 0 is no limit. Blocks are read from the disk, past the caches. A scrub that ended early goes on
    /// from [`ScrubReport::rest`]; [`Stats`] tell how far one is. Run one at a time. If the store is
    /// dropped before the end, `done` is never called.
    pub fn scrub(
        &self,
        rate: u64,
        from: ScrubCursor,
        done: impl FnOnce(ScrubReport) + Send + 'static,
    ) {
        scrub::begin(&self.inner, rate, from, Box::new(done));
    }

    /// Gives up what cannot be read of tables and large values in which damage was met, as far as it touches no other keys
    /// than those that may be lost, and calls `done` from a job of [`JobClass::Compaction`](crate::JobClass::Compaction):
    /// the tables are written anew without it. Afterwards those keys have an older value or none, so mark them as
    /// incomplete before, durably, and fetch them again from elsewhere.
    ///
    /// `done` gets an error if the store takes no more writes; what was cut out before stays so. If the store is dropped before
    /// the end, it is never called.
    pub fn cut_out(
        &self,
        may_be_lost: Vec<KeyRange>,
        done: impl FnOnce(Result<CutReport, Error>) + Send + 'static,
    ) {
        cut::begin(&self.inner, may_be_lost, Box::new(done));
    }

    /// Syncs the log, waits for running jobs to end their step, and gives the directory free.
    /// Blocks.
    ///
    /// Calls on the closed store that read, write or flush fail with `Closed`. Closing twice is allowed. Do not call it from
    /// a job or callback.
    ///
    /// # Errors
    /// The log could not be synced; what was acknowledged before is durable nevertheless.
    pub fn close(&self) -> Result<(), Error> {
        open::close(&self.inner)
    }

    /// About how many bytes on disk a range of keys takes, older versions and tombstones included; memtables
    /// do not count. Needs memory only, and is exact to about a block for each table.
    pub fn approximate_size<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> u64 {
        let bound = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        let (start, end) = (bound(range.start_bound()), bound(range.end_bound()));
        let version = Arc::clone(&self.inner.state().version);
        version.approximate_size(
            start.as_ref().map(Vec::as_slice),
            end.as_ref().map(Vec::as_slice),
        )
    }

    /// Counters and sizes, for metrics. Takes a lock for a moment.
    pub fn stats(&self) -> Stats {
        stats::collect(&self.inner)
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db")
            .field("dir", &self.inner.dir)
            .finish_non_exhaustive()
    }
}
