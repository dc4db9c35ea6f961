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
use crate::error::{Error, IoContext};
use crate::files::Numbered;
use crate::fs::{self, Fs};
use crate::hooks::Hooks;
use crate::key::Seq;
use crate::memtable::Memtable;
use crate::options::Options;
use crate::wal::{
    HEADER_BYTES, LiveSegment, LogFrame, LogSource, SegmentHeader, UsedSegment, WalWriter, read_log,
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
    pub wal: WalWriter,
    /// Numbers of the segments that the log consists of.
    pub segments: Vec<u64>,
}

/// Where and what to replay.
pub(super) struct Replay<'a> {
    pub fs: &'a dyn Fs,
    pub dir: &'a Path,
    pub store: u64,
    /// The oldest segment needed; 0 for a store that was never opened before.
    pub floor: u64,
    /// Writes up to here are in tables.
    pub flushed: Seq,
    pub options: &'a Options,
    pub hooks: &'a Hooks,
    /// Size of the segment that is started.
    pub segment_bytes: u64,
    /// Newest segment and its length, if the store was closed before.
    pub log_end: Option<(u64, u64)>,
}

/// Memtables being filled.
struct Filling<'a> {
    options: &'a Options,
    hooks: &'a Hooks,
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
#[derive(Default)]
struct Opened {
    /// Oldest first.
    all: Vec<LiveSegment>,
    /// Those that hold bytes which must be synced.
    unsynced: Vec<LiveSegment>,
}

impl Replay<'_> {
    /// Replays `logs` (ascending file numbers) and starts segment `next`. Blocks.
    pub(super) fn run(&self, logs: &[u64], next: u64) -> Result<Replayed, Error> {
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
            options: self.options,
            hooks: self.hooks,
            sealed: VecDeque::new(),
            active: Memtable::new(self.options.memtable_bytes),
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
        // Numbers run without gaps, so what is in front of the first write that is not promised is durable.
        let behind = |segment: &UsedSegment| segment.first_behind(log.promised);
        let durable = match log.segments.iter().find_map(behind) {
            Some(first) => Seq(first.0 - 1).max(self.flushed),
            None => filling.last,
        };
        let newest = log.segments.last();
        let mut wal = self.begin(next, newest, filling.last, log.promised)?;
        wal.adopt(opened.all, opened.unsynced);
        Ok(Replayed {
            sealed: filling.sealed,
            active: filling.active,
            last: filling.last,
            durable,
            promised: log.promised,
            wal,
            segments: log
                .segments
                .iter()
                .map(UsedSegment::id)
                .chain([next])
                .collect(),
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
        newest: Option<&UsedSegment>,
        last: Seq,
        promise: u64,
    ) -> Result<WalWriter, Error> {
        let header = SegmentHeader {
            id,
            store: self.store,
            previous: newest.map_or(0, UsedSegment::id),
            previous_length: newest.map_or(0, |segment| segment.length),
            first: last.next(),
            start: newest.map_or(0, |segment| segment.start() + segment.length),
            promise,
        };
        let path = Numbered::Log(id).path(self.dir);
        let size = self.segment_bytes;
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
                self.insert(segment, &batch);
                self.last = Seq(batch.first.0 + u64::from(batch.operations.len()) - 1);
            }
        }
        Ok(())
    }

    fn insert(&mut self, segment: &UsedSegment, batch: &LogFrame<'_>) {
        let need = batch.operations.need();
        let mut room = match self.active.reserve(need) {
            Some(room) => room,
            None => {
                let fresh = Memtable::new(self.options.memtable_bytes.max(need.bytes));
                self.sealed.push_back(Sealed {
                    table: Arc::new(std::mem::replace(&mut self.active, fresh)),
                    last: self.last,
                    floor: segment.id(),
                    position: segment.begin(),
                    attachment: self.hooks.attachment(self.last),
                });
                self.active
                    .reserve(need)
                    .expect("a fresh memtable was made large enough")
            }
        };
        // Nothing is cached yet, so no row has to be told.
        self.active
            .fill(&mut room, batch.first, batch.operations, |_, _, _| {});
        self.active.publish(room);
    }
}
