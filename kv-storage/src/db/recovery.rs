//! Replays the log at open.
//!
//! What lies behind the last promise may have been seen only by the page cache of the operating system:
//! the last sync may have failed, or never begun. It is shown, as any write is that was not synced yet,
//! but it is not trusted: its bytes are stored again, so that the first sync really writes them. What is stored
//! again is what was read and checked, from memory: a page that was only touched might be read anew before that.
//!
//! The log is read segment by segment through one piece of memory, and each segment is checked, put into the
//! memtable and stored again while it lies there: 184 MB open in half the time that it takes to hold all of it.

use super::front::Sealed;
use super::layer::Layer;
use crate::batch::Operations;
use crate::error::{Error, IoContext};
use crate::files::Numbered;
use crate::fs::{self, Fs};
use crate::hooks::Hooks;
use crate::ingested::Ingested;
use crate::key::Seq;
use crate::memtable::{MemoryPool, Memtable};
use crate::options::Options;
use crate::table::{Table, TableFiles, TableSummary};
use crate::version::{Placed, Run};
use crate::wal::{
    Content, HEADER_BYTES, LiveSegment, LogSource, SegmentHeader, UsedSegment, WalWriter, read_log,
};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the log held.
pub(super) struct Replayed {
    /// Memtables that were filled, oldest first.
    pub sealed: VecDeque<Sealed>,
    /// The rest; it goes on taking writes.
    pub active: Memtable,
    /// The newest write.
    pub last: Seq,
    /// The newest write that is known to survive power loss.
    pub durable: Seq,
    /// The log is synced up to this position.
    pub promised: u64,
    /// Writes at the end of the log were torn, and are gone.
    pub is_torn: bool,
    log: Vec<UsedSegment>,
    opened: Opened,
}

impl Replayed {
    /// Tables that came in by ingests and are in no level yet.
    pub(super) fn ingested(&self) -> impl Iterator<Item = &Arc<Placed<Arc<Table>>>> {
        let runs = self
            .sealed
            .iter()
            .filter_map(|sealed| sealed.layer.tables());
        runs.flat_map(|run| &run.tables)
    }
}

/// The log, ready to be written on.
pub(super) struct Continued {
    pub wal: WalWriter,
    /// Numbers of the segments that the log consists of.
    pub segments: Vec<u64>,
}

/// Where and what to replay.
pub(super) struct Replay<'a> {
    pub fs: &'a dyn Fs,
    pub dir: &'a Path,
    pub store: u64,
    /// What the tables of the store share.
    pub files: &'a Arc<TableFiles>,
    /// The oldest segment needed; 0 for a store that was never opened before.
    pub floor: u64,
    /// Writes up to here are in tables.
    pub flushed: Seq,
    pub options: &'a Options,
    pub hooks: &'a Hooks,
    /// Memory for memtables.
    pub pool: &'a Arc<MemoryPool>,
    /// Newest segment and its length, if the store was closed before.
    pub log_end: Option<(u64, u64)>,
}

/// Memtables being filled.
struct Filling<'a> {
    replay: &'a Replay<'a>,
    sealed: VecDeque<Sealed>,
    active: Memtable,
    last: Seq,
}

/// A log file that lies on disk.
struct FileOnDisk<'a> {
    fs: &'a dyn Fs,
    id: u64,
    path: PathBuf,
}

impl LogSource for FileOnDisk<'_> {
    fn id(&self) -> u64 {
        self.id
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self, most: usize, into: &mut Vec<u8>) -> Result<(), Error> {
        fs::read_front(self.fs, &self.path, most, into).context("read", &self.path)
    }
}

/// The segments of the log, open for stores and syncs.
#[derive(Clone, Default)]
struct Opened {
    /// Oldest first.
    all: Vec<LiveSegment>,
    /// Those that hold bytes which must be synced.
    unsynced: Vec<LiveSegment>,
}

impl Replay<'_> {
    /// Replays `logs` (ascending file numbers). Blocks. Call it once: the observer is told.
    pub(super) fn run(&self, logs: &[u64]) -> Result<Replayed, Error> {
        let needed: Vec<u64> = logs
            .iter()
            .copied()
            .filter(|id| *id >= self.floor)
            .collect();
        if self.floor != 0 && needed.first() != Some(&self.floor) {
            let path = Numbered::Log(self.floor).path(self.dir);
            let what = "a log segment that the manifest needs is missing";
            return Err(Error::corrupt(&path, 0, what));
        }
        let files: Vec<FileOnDisk<'_>> = needed
            .iter()
            .map(|id| FileOnDisk {
                fs: self.fs,
                id: *id,
                path: Numbered::Log(*id).path(self.dir),
            })
            .collect();
        let mut filling = Filling {
            replay: self,
            sealed: VecDeque::new(),
            active: Memtable::new(self.pool, self.options.memtable_bytes),
            last: self.flushed,
        };
        let mut opened = Opened::default();
        let (store, floor) = (self.store, self.floor);
        let log = read_log(
            &files,
            store,
            floor,
            self.log_end,
            |segment, bytes, promised| {
                filling.apply(segment, bytes)?;
                self.store_again(segment, bytes, promised, &mut opened)
            },
        )?;
        let is_used = |live: &LiveSegment| log.segments.iter().any(|used| used.id() == live.id);
        opened.all.retain(is_used);
        opened.unsynced.retain(is_used);
        // Numbers run without gaps, so what is in front of the first write that is not promised is durable.
        let behind = |segment: &UsedSegment| segment.first_behind(log.promised);
        let durable = match log.segments.iter().find_map(behind) {
            Some(first) => Seq(first.0 - 1).max(self.flushed),
            None => filling.last,
        };
        Ok(Replayed {
            sealed: filling.sealed,
            active: filling.active,
            last: filling.last,
            durable,
            promised: log.promised,
            is_torn: log.is_torn,
            log: log.segments,
            opened,
        })
    }

    /// Goes on with the log in segment `next`, of `segment_bytes`. Blocks. After a failure it may be called again
    /// with another number.
    pub(super) fn go_on(
        &self,
        replayed: &Replayed,
        next: u64,
        segment_bytes: u64,
    ) -> Result<Continued, Error> {
        let newest = replayed.log.last();
        let mut wal = self.begin(next, segment_bytes, newest, replayed)?;
        let Opened { all, unsynced } = replayed.opened.clone();
        wal.adopt(all, unsynced);
        let segments = replayed.log.iter().map(UsedSegment::id);
        Ok(Continued {
            wal,
            segments: segments.chain([next]).collect(),
        })
    }

    /// Stores what is not known to be durable again.
    fn store_again(
        &self,
        used: &UsedSegment,
        bytes: &[u8],
        promised: u64,
        opened: &mut Opened,
    ) -> Result<(), Error> {
        let segment = self
            .fs
            .open_segment(&used.path)
            .context("open", &used.path)?;
        let live = LiveSegment {
            id: used.id(),
            segment,
        };
        let from = promised.saturating_sub(used.start()).min(used.length);
        if from < used.length {
            let bytes = &bytes[from as usize..used.length as usize];
            live.segment
                .store_many(from, bytes)
                .context("store in", &used.path)?;
            opened.unsynced.push(live.clone());
        }
        opened.all.push(live);
        Ok(())
    }

    /// Starts segment `id` behind the newest one.
    fn begin(
        &self,
        id: u64,
        size: u64,
        newest: Option<&UsedSegment>,
        replayed: &Replayed,
    ) -> Result<WalWriter, Error> {
        let header = SegmentHeader {
            id,
            store: self.store,
            previous: newest.map_or(0, UsedSegment::id),
            previous_length: newest.map_or(0, |segment| segment.length),
            first: replayed.last.next(),
            start: newest.map_or(0, |segment| segment.start() + segment.length),
            promise: replayed.promised,
        };
        let path = Numbered::Log(id).path(self.dir);
        debug_assert!(size >= HEADER_BYTES as u64);
        let segment = self
            .fs
            .create_segment(&path, size)
            .context("create", &path)?;
        segment
            .store(0, &[&header.encode()])
            .context("store in", &path)?;
        // The manifest will name this segment, so it must be there, with its header.
        segment.sync().context("sync", &path)?;
        self.fs
            .sync_dir(self.dir)
            .context("sync directory", self.dir)?;
        let present = LiveSegment { id, segment };
        Ok(WalWriter::new(self.dir.to_path_buf(), &header, present))
    }
}

impl Filling<'_> {
    /// Inserts what is not in tables yet.
    fn apply(&mut self, segment: &UsedSegment, bytes: &[u8]) -> Result<(), Error> {
        // Writes at the front of the oldest segment may be in tables already. In format version 1 some are
        // met twice, because they were copied into the next segment.
        if segment.first() > self.last.next() {
            let what = "sequence numbers do not continue";
            return Err(Error::corrupt(&segment.path, 0, what));
        }
        for batch in segment.batches(bytes) {
            let batch = batch?;
            if batch.first > self.last {
                let last = batch.last();
                match &batch.content {
                    Content::Batch(operations) => {
                        self.insert(segment, batch.first, *operations);
                        self.last = last;
                        self.replay.hooks.observe(batch.first, *operations);
                    }
                    Content::Ingest(ingested) => self.ingest(segment, last, ingested)?,
                }
            }
        }
        Ok(())
    }

    fn insert(&mut self, segment: &UsedSegment, first: Seq, operations: Operations<'_>) {
        let need = operations.need();
        let mut room = match self.active.reserve(need) {
            Some(room) => room,
            None => {
                self.seal(segment, need.bytes);
                self.active
                    .reserve(need)
                    .expect("a fresh memtable was made large enough")
            }
        };
        // Nothing is cached yet, so no row has to be told.
        self.active.fill(&mut room, first, operations, |_, _, _| {});
        self.active.publish(room);
    }

    /// Puts the tables of an ingest back into their place among the memtables. Damaged ones fence their keys.
    fn ingest(
        &mut self,
        segment: &UsedSegment,
        seq: Seq,
        ingested: &Ingested<'_>,
    ) -> Result<(), Error> {
        let replay = self.replay;
        if !self.active.is_empty() {
            self.seal(segment, 0);
        }
        let open = |summary: TableSummary| {
            let path = Numbered::Table(summary.file).path(replay.dir);
            let reader = Arc::new(Table::open_damaged(replay.files, &path, &summary)?);
            Ok(Placed::new(summary, reader))
        };
        let tables = ingested.clone().numbered(seq);
        let tables = tables.into_iter().map(open).collect::<Result<_, Error>>()?;
        self.last = seq;
        replay.hooks.observe_ingest(seq, ingested.note);
        self.queue(segment, Layer::Tables(Arc::new(Run::new(0, tables))));
        Ok(())
    }

    fn seal(&mut self, segment: &UsedSegment, bytes: usize) {
        let size = self.replay.options.memtable_bytes.max(bytes);
        let fresh = Memtable::new(self.replay.pool, size);
        let table = std::mem::replace(&mut self.active, fresh);
        self.queue(segment, Layer::Memtable(Arc::new(table)));
    }

    /// Adds what ends with the last write to what waits for a flush; later writes begin in this segment.
    fn queue(&mut self, segment: &UsedSegment, layer: Layer) {
        self.sealed.push_back(Sealed {
            layer,
            last: self.last,
            floor: segment.id(),
            position: segment.begin(),
            attachment: self.replay.hooks.attachment(self.last),
        });
    }
}
