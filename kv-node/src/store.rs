//! The bridge from callbacks of the storage engine to futures.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kv_storage::{
    Commit, CutReport, Db, Durability, Events, Found, Keeping, KeyRange, Options, ScanPage,
    ScanRequest, ScrubCursor, ScrubReport, Seq, Snapshot, WriteBatch, WriteError, WriteObserver,
};
use tokio::sync::oneshot;

use crate::env::Env;

/// The largest batch that the store must take, in bytes: the largest object that travels, and what is written with it.
pub const MAX_BATCH_BYTES: usize = kv_net::frame::MAX_PAYLOAD_BYTES + (12 << 20);

/// The engine could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The engine cannot keep up. Nothing was changed; try again later.
    #[error("the storage engine is behind with its work")]
    Busy,
    /// The disk is full. Nothing was changed; reads go on.
    #[error("the disk is full: {0}")]
    Full(String),
    /// Nothing was changed, and the engine takes no more writes.
    #[error("{0}")]
    Refused(String),
    /// A read, a sync or a write to the log failed. A write that was waited for may or may not survive a restart.
    #[error("{0}")]
    Failed(String),
}

/// An open engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    db: Db,
    env: Env,
    dir: PathBuf,
}

/// How much is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Entries in memtables and table files, older versions included: an estimate of the objects
    /// held.
    pub entries: u64,
    /// Bytes of table files and, roughly, of the log that is not yet in them.
    pub disk_bytes: u64,
    /// Bytes free on the disk.
    pub free_bytes: u64,
    /// 1 if the log ended in torn writes when the node was started.
    pub torn_tails: u64,
    /// Flushes since the start.
    pub flushes: u64,
    /// Compactions that ended since the start.
    pub compactions: u64,
    /// Places that were found to be damaged since the start.
    pub damaged_places: u64,
    /// Bytes of single rows that are kept in memory.
    pub row_cache_bytes: u64,
    /// Bytes of blocks of tables that are kept in memory.
    pub block_cache_bytes: u64,
    /// Lookups in blocks that found the block in memory, since the start.
    pub block_cache_hits: u64,
    /// Lookups in blocks that had to read them from the disk, since the start.
    pub block_cache_misses: u64,
    /// Tables that lookups passed by since the start, because a bloom filter knew that the key is not there.
    pub filter_skips: u64,
    /// The store takes no more writes until the node is restarted.
    pub poisoned: bool,
}

impl Store {
    /// How long a write of a request waits for an engine that is behind, before it is refused.
    pub const REQUEST_PATIENCE: Duration = Duration::from_millis(200);
    /// How often the engine may look for work that has become due.
    const TICK: Duration = Duration::from_secs(1);
    /// How long the start of a node waits for an engine that is behind after a crash.
    pub const START_PATIENCE: Duration = Duration::from_secs(60);

    /// Opens the engine in `dir`, whose writes an observer is told of, and damage somebody else. Blocks; called once, at the start of the node.
    ///
    /// # Errors
    /// Whatever [`Db::open`] says.
    pub fn open(
        dir: &Path,
        options: Options,
        env: &Env,
        observer: Arc<dyn WriteObserver>,
        events: Arc<dyn Events>,
    ) -> Result<Self, kv_storage::OpenError> {
        let mut surroundings = env.storage();
        surroundings.hooks.observer = Some(observer);
        surroundings.hooks.events = Some(events);
        let db = Db::open(dir, options, surroundings)?;
        // A node acts on what it finds in its store, so none of it may be lost any more.
        db.blocking().sync()?;
        Ok(Self {
            db,
            env: env.clone(),
            dir: dir.to_owned(),
        })
    }

    /// The value of a key, with the sequence number of the write that stored it.
    ///
    /// It may not be durable yet: wait for [`Self::durable`] before telling anyone.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when its bytes cannot be read.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Found>, StoreError> {
        self.get_keeping(key, Keeping::Rows).await
    }

    /// As [`Self::get`], and says what may stay in memory.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_keeping(
        &self,
        key: &[u8],
        keeping: Keeping,
    ) -> Result<Option<Found>, StoreError> {
        let (done, result) = oneshot::channel();
        self.db
            .get_keeping(key, keeping, move |found| drop(done.send(found)));
        answered(result.await)?.map_err(failed)
    }

    /// Appends a batch to the log order and makes it visible; the ticket says when it is durable.
    /// Waits up to `patience` for an engine that is behind.
    ///
    /// # Errors
    /// Every error but [`StoreError::Failed`]; nothing was changed.
    pub async fn write(&self, batch: WriteBatch, patience: Duration) -> Result<Commit, StoreError> {
        let mut waited = Duration::ZERO;
        loop {
            match self.db.write(batch.clone(), Durability::Sync) {
                Ok(commit) => return Ok(commit),
                Err(WriteError::Busy(delay)) if waited < patience => {
                    self.env.sleep(delay).await;
                    waited += delay;
                }
                Err(refused) => return Err(refusal(&refused)),
            }
        }
    }

    /// As [`Self::write`], without waiting for an engine that is behind: for critical sections.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn try_write(
        &self,
        batch: WriteBatch,
        durability: Durability,
    ) -> Result<Commit, StoreError> {
        self.db
            .write(batch, durability)
            .map_err(|refused| refusal(&refused))
    }

    /// Waits until everything up to `seq` survives power loss.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the log could not be synced.
    pub async fn durable(&self, seq: Seq) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        self.db
            .on_durable(seq, move |synced| drop(done.send(synced)));
        answered(result.await)?.map_err(failed)
    }

    /// A page of the keys from `start` up to `end`. It may be empty although there are more, see [`ScanPage`].
    ///
    /// # Errors
    /// [`StoreError::Failed`] when bytes cannot be read.
    pub async fn scan(
        &self,
        start: Bytes,
        end: Bound<Bytes>,
        max_items: usize,
        max_bytes: usize,
    ) -> Result<ScanPage, StoreError> {
        let request = ScanRequest {
            start,
            end,
            reverse: false,
            max_items,
            max_bytes,
            max_visited: ScanRequest::DEFAULT_MAX_VISITED,
        };
        self.page(request).await
    }

    /// A page of what is stored now.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub async fn page(&self, request: ScanRequest) -> Result<ScanPage, StoreError> {
        self.scan_at(&self.db.snapshot(), request).await
    }

    /// As [`Self::page`], of a snapshot.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub async fn scan_at(
        &self,
        snapshot: &Snapshot,
        request: ScanRequest,
    ) -> Result<ScanPage, StoreError> {
        let (done, result) = oneshot::channel();
        self.db
            .scan_with(snapshot, request, move |page| drop(done.send(page)));
        answered(result.await)?.map_err(failed)
    }

    /// How much is stored.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let stats = self.db.stats();
        let in_tables: u64 = stats.levels.iter().map(|level| level.entries).sum();
        let in_files: u64 = stats.levels.iter().map(|level| level.size_bytes).sum();
        // What is in memtables is on the disk in the log.
        let in_log = stats.memtable_bytes as u64;
        Usage {
            entries: stats.memtable_entries + in_tables,
            disk_bytes: in_log + in_files + stats.blob_bytes,
            free_bytes: self.env.fs.free_space(&self.dir).unwrap_or_default(),
            torn_tails: stats.torn_tails,
            flushes: stats.flushes,
            compactions: stats.compactions,
            damaged_places: stats.damaged_places as u64,
            row_cache_bytes: stats.row_cache_bytes,
            block_cache_bytes: stats.cache_bytes,
            block_cache_hits: stats.cache_hits,
            block_cache_misses: stats.cache_misses,
            filter_skips: stats.filter_skips,
            poisoned: stats.poisoned,
        }
    }

    /// Reads all tables once, so many bytes a second. What is damaged is told like any damage that is met.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the engine was stopped.
    pub async fn scrub(&self, bytes_per_s: u64) -> Result<ScrubReport, StoreError> {
        let (done, report) = oneshot::channel();
        let from = ScrubCursor::default();
        self.db
            .scrub(bytes_per_s, from, move |scrubbed| drop(done.send(scrubbed)));
        answered(report.await)
    }

    /// Gives up what cannot be read in some ranges.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the disk failed; what was cut out before stays so.
    pub async fn cut_out(&self, ranges: Vec<KeyRange>) -> Result<CutReport, StoreError> {
        let (done, report) = oneshot::channel();
        self.db.cut_out(ranges, move |cut| drop(done.send(cut)));
        answered(report.await)?.map_err(failed)
    }

    /// Lets the engine begin background work whose time has come. It ends with the task.
    pub async fn keep_time(self) {
        loop {
            self.env.sleep(Self::TICK).await;
            self.db.tick();
        }
    }

    /// The engine itself, for statistics and closing.
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.db
    }
}

/// Waits for a commit to survive power loss.
///
/// # Errors
/// [`StoreError::Failed`] when the log could not be synced.
pub async fn committed(commit: Commit) -> Result<(), StoreError> {
    let (done, result) = oneshot::channel();
    commit.on_durable(move |synced| drop(done.send(synced)));
    answered(result.await)?.map_err(failed)
}

/// A callback that is never called means that the engine was torn down with the job unrun.
fn answered<T>(received: Result<T, oneshot::error::RecvError>) -> Result<T, StoreError> {
    received.map_err(|_| StoreError::Failed("the storage engine was stopped".to_owned()))
}

fn failed(error: kv_storage::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}

fn refusal(error: &WriteError) -> StoreError {
    match error {
        WriteError::Busy(_) => StoreError::Busy,
        WriteError::Full { .. } => StoreError::Full(error.to_string()),
        WriteError::LogFailed { .. } => StoreError::Failed(error.to_string()),
        _ => StoreError::Refused(error.to_string()),
    }
}
