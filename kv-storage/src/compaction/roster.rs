//! The compactions under way, and whether another one should be looked for.

use super::choice::{Choice, Reason};
use super::pick::{Situation, pick};
use crate::files::Numbered;
use crate::key::Seq;
use crate::options::Options;
use crate::version::Version;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long nothing must have been written before compactions are made only for readers' sake.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// A file that compactions failed to read so often is left alone until the next open.
const MOST_FAILED_READS: u32 = 3;

/// What decides about the next compaction besides the version. Part of the engine's state.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    in_flight: Vec<Arc<Choice>>,
    /// Steps that run at this moment.
    running: usize,
    /// Thousandths of runs of level 0 that the compaction under way has dealt with.
    relieved: u64,
    /// A job that will look for a compaction was submitted.
    scheduled: bool,
    /// Something changed since the last look.
    changed: bool,
    fenced: BTreeSet<u64>,
    fenced_blobs: BTreeSet<u64>,
    /// How often compactions failed because they could not read a file.
    unreadable: BTreeMap<Numbered, u32>,
    /// Bytes that may be rewritten for readers' sake: as many as were flushed and what that made garbage of, at
    /// most what the store holds.
    idle_bytes: u64,
    /// The newest write at the last look, and when it was first seen to be the newest.
    quiet_since: (Seq, Duration),
}

/// The roster at one moment, to pick by without holding a lock.
#[derive(Debug)]
pub(crate) struct Look {
    in_flight: Vec<Arc<Choice>>,
    fenced: BTreeSet<u64>,
    fenced_blobs: BTreeSet<u64>,
    oldest_snapshot: Option<Seq>,
    idle_bytes: u64,
    expired: Option<u64>,
    level0_only: bool,
}

impl Look {
    pub(crate) fn pick<R>(&self, version: &Version<R>, options: &Options) -> Option<Choice> {
        let situation = Situation {
            in_flight: &self.in_flight,
            fenced: &self.fenced,
            fenced_blobs: &self.fenced_blobs,
            oldest_snapshot: self.oldest_snapshot,
            idle_bytes: self.idle_bytes.min(version.size_bytes()),
            expired: self.expired,
        };
        pick(version, options, &situation, self.level0_only)
    }
}

impl Roster {
    /// Asks for a look: the version, the snapshots, or the time changed.
    pub(crate) fn note_change(&mut self) {
        self.changed = true;
    }

    /// Notes that so many bytes were flushed, or made garbage by it.
    pub(crate) fn note_flushed(&mut self, bytes: u64) {
        self.idle_bytes = self.idle_bytes.saturating_add(bytes);
    }

    /// True if a job should look for a compaction.
    pub(crate) fn is_due(&self, options: &Options) -> bool {
        self.changed && !self.scheduled && self.in_flight.len() < options.compactions_max
    }

    pub(crate) fn set_scheduled(&mut self, scheduled: bool) {
        self.scheduled = scheduled;
    }

    pub(crate) fn is_scheduled(&self) -> bool {
        self.scheduled
    }

    /// Begins a look. `last` is the newest write; `is_empty` says that no memtable holds anything; `expired`
    /// is the filter's time.
    pub(crate) fn look(
        &mut self,
        options: &Options,
        oldest_snapshot: Option<Seq>,
        (last, is_empty): (Seq, bool),
        now: Duration,
        expired: Option<u64>,
    ) -> Look {
        self.changed = false;
        if self.quiet_since.0 != last {
            self.quiet_since = (last, now);
        }
        let is_idle = is_empty || now.saturating_sub(self.quiet_since.1) >= IDLE_AFTER;
        let relieving = self.in_flight.iter().any(|choice| choice.relieves_level0());
        Look {
            in_flight: self.in_flight.clone(),
            fenced: self.fenced.clone(),
            fenced_blobs: self.fenced_blobs.clone(),
            oldest_snapshot,
            idle_bytes: if is_idle { self.idle_bytes } else { 0 },
            expired,
            level0_only: !relieving
                && !self.in_flight.is_empty()
                && self.in_flight.len() + 1 == options.compactions_max,
        }
    }

    /// Enters a compaction, whose first step runs.
    pub(crate) fn enter(&mut self, choice: Choice, store_bytes: u64) -> Arc<Choice> {
        if choice.reason == Reason::Idle {
            let credit = self.idle_bytes.min(store_bytes);
            self.idle_bytes = credit.saturating_sub(choice.size_bytes);
        }
        let choice = Arc::new(choice);
        self.in_flight.push(Arc::clone(&choice));
        self.running += 1;
        // Others may begin beside it.
        self.changed = true;
        choice
    }

    pub(crate) fn pause(&mut self) {
        self.running -= 1;
    }

    pub(crate) fn resume(&mut self) {
        self.running += 1;
    }

    /// Notes how much of a compaction's input is done, in thousandths.
    pub(crate) fn note_progress(&mut self, choice: &Choice, done: u64) {
        if choice.relieves_level0() {
            let level0 = choice.inputs.iter().filter(|part| part.place.level == 0);
            self.relieved = level0.count() as u64 * done.min(1000);
        }
    }

    /// Thousandths of runs of level 0 that are as good as gone.
    pub(crate) fn relieved(&self) -> u64 {
        self.relieved
    }

    /// Strikes a paused compaction off.
    pub(crate) fn leave(&mut self, choice: &Arc<Choice>) {
        if !matches!(choice.reason, Reason::Covered | Reason::Damage) {
            self.note_progress(choice, 0);
        }
        self.in_flight.retain(|other| !Arc::ptr_eq(other, choice));
        self.changed = true;
    }

    /// Takes a damaged table out of all further picks. False if it was known already.
    pub(crate) fn fence(&mut self, file: u64) -> bool {
        self.changed = true;
        self.fenced.insert(file)
    }

    /// A file could not be read. True if that is so for good, as far as anyone can tell.
    pub(crate) fn note_unreadable(&mut self, file: Numbered) -> bool {
        let failures = self.unreadable.entry(file).or_default();
        *failures += 1;
        *failures >= MOST_FAILED_READS
    }

    /// Collects nothing from a blob file any more, because a value in it cannot be read. False if it was known already.
    pub(crate) fn fence_blob(&mut self, file: u64) -> bool {
        self.fenced_blobs.insert(file)
    }

    /// Blob files from which nothing is collected.
    pub(crate) fn fenced_blobs(&self) -> &BTreeSet<u64> {
        &self.fenced_blobs
    }

    /// True if a compaction under way meets one that would be made by this choice.
    pub(crate) fn collides(&self, choice: &Choice) -> bool {
        let mut choices = self.in_flight.iter();
        choices.any(|other| other.collides_with(choice))
    }

    /// True if a compaction under way reads the table.
    pub(crate) fn is_input(&self, file: u64) -> bool {
        let mut choices = self.in_flight.iter();
        choices.any(|choice| choice.files().any(|input| input == file))
    }

    /// Compactions under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Tables that are never picked.
    pub(crate) fn fenced(&self) -> &BTreeSet<u64> {
        &self.fenced
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running > 0
    }
}
