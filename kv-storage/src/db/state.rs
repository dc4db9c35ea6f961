//! The engine's shared state, and which background work is due.
//!
//! One mutex guards [`State`]. It is held for memory operations only: never across file calls,
//! `jobs.submit` or callbacks. Parts that need file calls (log file, manifest) are taken out while
//! they are used and put back afterwards.

use super::pace::Pacer;
use super::view::View;
use crate::compaction::{Debt, Roster};
use crate::error::Error;
use crate::hooks::Hooks;
use crate::key::Seq;
use crate::log::{LogFile, LogQueue};
use crate::memtable::Memtable;
use crate::options::Options;
use crate::version::{Manifest, Version};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// When a write is finished for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// It survives power loss: the log was synced.
    Sync,
    /// It survives the death of the process: the operating system has it, soon after the write.
    /// Power loss may take it, together with everything written after it, never with a gap.
    Process,
}

/// Someone who wants to know that the log has reached a number.
pub(super) struct Waiter {
    pub seq: Seq,
    pub need: Durability,
    pub call: Box<dyn FnOnce(Result<(), Error>) + Send>,
}

/// A memtable that takes no more writes and waits for its flush.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    pub table: Arc<Memtable>,
    /// Its newest write.
    pub last: Seq,
    /// The first log segment that holds nothing of it.
    pub next_segment: u64,
    /// What the caller wants to be stored with its flush.
    pub attachment: Option<Vec<u8>>,
}

/// Whether one kind of background work is under way. At most one of a kind is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Idle,
    /// A job was submitted and has not begun.
    Scheduled,
    Running,
}

/// Background work that should begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Log,
    Flush,
    Compaction,
}

/// What is known about free disk space.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Space {
    /// Free bytes, if they were below the reserve when last looked.
    pub short: Option<u64>,
    /// Log bytes that may be written before the next look.
    pub credit_bytes: u64,
    /// The next log job should look.
    pub look: bool,
}

impl Space {
    /// Most log bytes between two looks: others use up the disk too.
    const CREDIT_MOST: u64 = 64 << 20;

    /// Notes what a look found. Until the next one, the log takes at most half of what is left
    /// above the reserve, or a quarter of the reserve itself.
    pub(super) fn note(&mut self, free: u64, reserve: u64) {
        self.short = (free < reserve).then_some(free);
        self.credit_bytes = (free.saturating_sub(reserve) / 2)
            .max(reserve / 4)
            .min(Self::CREDIT_MOST);
    }

    /// Notes that the log grew.
    pub(super) fn spend(&mut self, bytes: u64, reserve: u64) {
        self.credit_bytes = self.credit_bytes.saturating_sub(bytes);
        self.look |= reserve > 0 && self.credit_bytes == 0;
    }
}

/// Plain counts for [`Stats`](crate::Stats).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub log_appends: u64,
    pub log_bytes: u64,
    pub log_syncs: u64,
    pub flushes: u64,
    pub compactions: u64,
    pub compaction_read_bytes: u64,
    pub compaction_written_bytes: u64,
    pub compaction_moved_bytes: u64,
    pub compaction_releases: u64,
    pub flush_written_bytes: u64,
    pub table_written_bytes: u64,
    pub background_failures: u64,
    pub busy: u64,
}

/// Snapshots at one number.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub count: usize,
    /// What they look at, once a compaction filter has changed what they would see in newer views.
    pub pinned: Arc<OnceLock<Arc<View>>>,
}

pub(super) struct State {
    pub log: LogQueue,
    /// `None` while a log round uses it, and for ever after a failed one.
    pub log_file: Option<LogFile>,
    pub log_task: Task,
    /// The newest number given to a write.
    pub last: Seq,
    /// The operating system has the log up to here.
    pub written: Seq,
    /// The log is synced up to here.
    pub durable: Seq,
    /// Somebody waits for the log to be synced up to here.
    pub sync_wanted: Seq,
    pub waiters: Vec<Waiter>,

    pub active: Arc<Memtable>,
    /// Oldest first.
    pub sealed: VecDeque<Sealed>,
    /// The newest log segment that exists as a file.
    pub created_segment: u64,
    /// Log segments that exist as files, ascending.
    pub segments: VecDeque<u64>,

    pub version: Arc<Version>,
    /// `None` while an edit is installed, and for ever after a failed one.
    pub manifest: Option<Manifest>,
    pub next_file: u64,
    /// The oldest log segment whose writes are not all in tables.
    pub log_floor: u64,
    /// All writes up to this one are in tables.
    pub flushed: Seq,
    pub flush_task: Task,
    pub roster: Roster,
    /// Kept here, because writers ask for it each time.
    pub table_debt: Debt,
    /// After a failure, background work waits until then.
    pub retry_at: Duration,

    /// Snapshots in use at each number.
    pub snapshots: BTreeMap<Seq, Held>,
    /// Bytes that belong to the flushed state.
    pub attachment: Option<Vec<u8>>,
    /// Entries that the compaction filter dropped, by its reason.
    pub filter_drops: BTreeMap<u32, u64>,
    pub space: Space,
    pub pacer: Pacer,
    pub poison: Option<Arc<str>>,
    pub closed: bool,
    pub counts: Counts,
}

impl State {
    pub(super) fn view(&self) -> View {
        View {
            active: Arc::clone(&self.active),
            sealed: self
                .sealed
                .iter()
                .rev()
                .map(|sealed| Arc::clone(&sealed.table))
                .collect(),
            version: Arc::clone(&self.version),
        }
    }

    /// A number for a new file.
    pub(super) fn allocate_file(&mut self) -> u64 {
        let number = self.next_file;
        self.next_file += 1;
        number
    }

    /// Why no more work may begin, if so.
    pub(super) fn halted(&self) -> Option<Error> {
        if let Some(cause) = &self.poison {
            return Some(Error::Poisoned {
                cause: Arc::clone(cause),
            });
        }
        self.closed.then_some(Error::Closed)
    }

    pub(super) fn reached(&self, need: Durability) -> Seq {
        match need {
            Durability::Sync => self.durable,
            Durability::Process => self.written,
        }
    }

    /// Seals the active memtable and sends later writes to a new segment. The caller publishes the new view.
    pub(super) fn seal(&mut self, hooks: &Hooks) {
        let attachment = hooks.attachment(self.last);
        let segment = self.allocate_file();
        self.log.rotate(segment, self.last.next());
        let table = std::mem::replace(&mut self.active, Arc::new(Memtable::new()));
        self.sealed.push_back(Sealed {
            table,
            last: self.last,
            next_segment: segment,
            attachment,
        });
    }

    /// The oldest sealed memtable, if the segment after it exists. Before that, a manifest that
    /// names that segment as the oldest needed one would promise a file that is not there. It also
    /// means that the memtable's own log is synced.
    pub(super) fn flushable(&self) -> Option<&Sealed> {
        self.sealed
            .front()
            .filter(|sealed| sealed.next_segment <= self.created_segment)
    }

    /// True if a log round has something to do.
    pub(super) fn log_is_behind(&self) -> bool {
        !self.log.is_empty() || self.sync_wanted > self.durable || self.space.look
    }

    /// Makes snapshots that can see the write `changed` look at `view` from now on. Call before a newer
    /// view is published.
    pub(super) fn pin_snapshots(&self, changed: Seq, view: &Arc<View>) {
        for held in self.snapshots.range(changed..).map(|(_, held)| held) {
            held.pinned.get_or_init(|| Arc::clone(view));
        }
    }

    pub(super) fn set_version(&mut self, version: Arc<Version>, options: &Options) {
        self.roster.note_change();
        self.version = version;
        self.note_table_debt(options);
    }

    /// The version, or how far compaction has come, has changed.
    pub(super) fn note_table_debt(&mut self, options: &Options) {
        self.table_debt = Debt::of_tables(&self.version, self.roster.relieved(), options);
    }

    /// How far flushes and compactions are behind.
    pub(super) fn debt(&self, options: &Options) -> Debt {
        let sealed = self.sealed.iter().map(|sealed| sealed.table.size_bytes());
        let bytes = sealed.sum::<usize>() + self.active.size_bytes();
        self.table_debt.max(Debt::of_memory(bytes, options))
    }

    /// Background work that should be submitted now; it is marked as scheduled.
    pub(super) fn take_due(
        &mut self,
        options: &Options,
        now: impl FnOnce() -> Duration,
    ) -> Vec<Due> {
        let mut due = Vec::new();
        if self.halted().is_some() {
            return due;
        }
        if self.log_task == Task::Idle && self.log_is_behind() {
            self.log_task = Task::Scheduled;
            due.push(Due::Log);
        }
        let flush = self.flush_task == Task::Idle && self.flushable().is_some();
        let compact = self.roster.is_due(options);
        if (flush || compact) && (self.retry_at.is_zero() || now() >= self.retry_at) {
            if flush {
                self.flush_task = Task::Scheduled;
                due.push(Due::Flush);
            }
            if compact {
                self.roster.set_scheduled(true);
                due.push(Due::Compaction);
            }
        }
        due
    }
}
