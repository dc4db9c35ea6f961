//! The engine's background state, and which background work is due.
//!
//! One mutex guards [`State`]; what writers share is in [`Front`](super::front::Front). Both are held for
//! memory operations only: never across file calls, `jobs.submit` or callbacks. The manifest, which needs
//! file calls, is taken out while it is used and put back afterwards.

use super::front::Front;
use super::scrub::ScrubCursor;
use super::view::View;
use crate::compaction::{Debt, Roster};
use crate::error::Error;
use crate::files::Numbered;
use crate::key::Seq;
use crate::options::Options;
use crate::version::{Edit, Manifest, Version};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// When a write is finished for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// It survives power loss: the log was synced.
    Sync,
    /// It survives the death of the process at once, and power loss after this delay at the latest, if
    /// [`Jobs::submit_after`](crate::Jobs::submit_after) keeps its time. Power loss before that takes it
    /// together with everything written after it, never with a gap.
    Interval(Duration),
    /// It survives the death of the process at once, and power loss when a later write is synced or the
    /// memtable is flushed. Power loss before that takes it together with everything written after it,
    /// never with a gap.
    Process,
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
    Segment,
    Flush,
    Compaction,
}

/// Plain counts for [`Stats`](crate::Stats).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub torn_tails: u64,
    pub flushes: u64,
    pub compactions: u64,
    pub compaction_read_bytes: u64,
    pub compaction_written_bytes: u64,
    pub compaction_moved_bytes: u64,
    pub compaction_releases: u64,
    pub covered_tables: u64,
    pub covered_bytes: u64,
    pub flush_written_bytes: u64,
    pub table_written_bytes: u64,
    pub blob_written_bytes: u64,
    pub blob_relocated_bytes: u64,
    pub background_failures: u64,
    pub scrubbed_bytes: u64,
    pub scrubs: u64,
}

/// Snapshots at one number.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub count: usize,
    /// What they look at, once a compaction filter has changed what they would see in newer views.
    pub pinned: Arc<OnceLock<Arc<View>>>,
}

pub(super) struct State {
    pub version: Arc<Version>,
    /// `None` while an edit is installed, and for ever after a failed one.
    pub manifest: Option<Manifest>,
    /// Tables and blob files named by edits in doubt; see [`edits`](super::edits).
    pub doubtful: Vec<Numbered>,
    pub next_file: u64,
    /// The oldest log segment whose writes are not all in tables.
    pub log_floor: u64,
    /// All writes up to this one are in tables.
    pub flushed: Seq,
    pub flush_task: Task,
    pub roster: Roster,
    /// After a failure, background work waits until then.
    pub retry_at: Duration,

    /// Snapshots in use at each number.
    pub snapshots: BTreeMap<Seq, Held>,
    /// Bytes that belong to the flushed state.
    pub attachment: Option<Vec<u8>>,
    /// Entries that the compaction filter dropped, by its reason.
    pub filter_drops: BTreeMap<u32, u64>,
    pub poison: Option<Arc<str>>,
    pub closed: bool,
    /// Ingests that write to files at this moment.
    pub ingests_at_work: usize,
    pub counts: Counts,
    /// How far the scrub under way is.
    pub scrub_at: Option<ScrubCursor>,
}

impl State {
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

    /// Makes snapshots that can see the write `changed` look at `view` from now on. Call before a newer
    /// view is published.
    pub(super) fn pin_snapshots(&self, changed: Seq, view: &Arc<View>) {
        for held in self.snapshots.range(changed..).map(|(_, held)| held) {
            held.pinned.get_or_init(|| Arc::clone(view));
        }
    }

    pub(super) fn set_version(&mut self, version: Arc<Version>) {
        self.roster.note_change();
        self.version = version;
    }

    /// How far compactions are behind.
    pub(super) fn table_debt(&self, options: &Options) -> Debt {
        let (relieved, fenced) = (self.roster.relieved(), self.roster.fenced());
        Debt::of_tables(&self.version, relieved, fenced, options)
    }

    /// Keeps the files that an edit would have added that is perhaps in doubt.
    pub(super) fn note_doubt(&mut self, edit: &Edit) {
        let tables = edit.added.iter().map(|new| new.table.file);
        let blobs = edit.blobs.iter().map(|blob| blob.file);
        self.doubtful.extend(tables.map(Numbered::Table));
        self.doubtful.extend(blobs.map(Numbered::Blob));
    }

    /// A manifest without doubts is current. Returns the files that only edits in doubt named.
    pub(super) fn end_doubt(&mut self, version: &Version, front: &Front) -> Vec<Numbered> {
        let versions = [&*self.version, version];
        // Ingested tables go on waiting for an edit that is made.
        let queued = || {
            let layers = front.sealed.iter();
            let runs = layers.filter_map(|sealed| sealed.layer.tables());
            runs.flat_map(|run| &run.tables)
        };
        let is_used = |file: &Numbered| match *file {
            Numbered::Blob(number) => versions
                .iter()
                .any(|version| version.blobs.get(number).is_some()),
            Numbered::Table(number) => {
                let tables = versions.iter().flat_map(|version| version.tables());
                let mut tables = tables.chain(queued());
                tables.any(|table| table.summary.file == number)
            }
            Numbered::Log(_) | Numbered::Manifest(_) => false,
        };
        let mut unused = std::mem::take(&mut self.doubtful);
        unused.retain(|file| !is_used(file));
        unused
    }

    /// Background work that should be submitted now; it is marked as scheduled.
    pub(super) fn take_due(
        &mut self,
        front: &mut Front,
        options: &Options,
        now: impl FnOnce() -> Duration,
    ) -> Vec<Due> {
        let mut due = Vec::new();
        if self.halted().is_some() {
            return due;
        }
        let segment = front.segment_task == Task::Idle && front.wants_segment();
        let flush = self.flush_task == Task::Idle && !front.sealed.is_empty();
        let compact = self.roster.is_due(options);
        let any = segment || flush || compact;
        if !any || (!self.retry_at.is_zero() && now() < self.retry_at) {
            return due;
        }
        if segment {
            front.segment_task = Task::Scheduled;
            due.push(Due::Segment);
        }
        if flush {
            self.flush_task = Task::Scheduled;
            due.push(Due::Flush);
        }
        if compact {
            self.roster.set_scheduled(true);
            due.push(Due::Compaction);
        }
        due
    }
}
