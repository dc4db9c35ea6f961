//! What all clones of a [`Db`](crate::Db) share, and how work is scheduled.

use super::front::{Front, Short};
use super::group_commit::GroupCommit;
use super::publisher::Publisher;
use super::state::{Due, State};
use super::sync_gate::SyncGate;
use super::view::View;
use super::{compact, flush, segments, sync};
use crate::blob::OpenBlobs;
use crate::env::{Env, Job, JobClass};
use crate::error::{Error, IoContext};
use crate::files::Numbered;
use crate::fs::FileLock;
use crate::hooks::Damage;
use crate::key::Seq;
use crate::options::Options;
use crate::planted::planted;
use crate::table::TableFiles;
use crate::version::{Edit, Version};
use crate::wal::LiveSegment;
use arc_swap::{ArcSwap, Guard};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long background work rests after a failure.
const RETRY_DELAY: Duration = Duration::from_millis(500);

pub(super) struct Inner {
    pub dir: PathBuf,
    pub options: Options,
    pub env: Env,
    pub store: u64,
    pub files: Arc<TableFiles>,
    pub state: Mutex<State>,
    /// Signalled when a sync, flush or compaction step ended, or a log segment became ready.
    pub progress: Condvar,
    /// How often work ended that writers may have waited for.
    pub steps: AtomicU64,
    pub front: Mutex<Front>,
    pub publisher: Publisher,
    pub commits: GroupCommit<Error>,
    /// Syncs of segments of the log.
    pub log_syncs: SyncGate,
    /// Syncs of the store's directory.
    pub dir_syncs: SyncGate,
    pub view: ArcSwap<View>,
    /// After a failure readers see writes up to this number only: those that are durable.
    pub ceiling: AtomicU64,
    pub closed: AtomicBool,
    /// Places of which the caller was told that they are damaged.
    pub told: Mutex<BTreeSet<(PathBuf, u64)>>,
    /// The ballast file is there.
    pub has_ballast: AtomicBool,
    pub lock: Mutex<Option<Box<dyn FileLock>>>,
}

impl Inner {
    /// The state. A panic elsewhere does not make it unusable: each change leaves it consistent.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until some background work ended.
    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.progress
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who wait that a flush, a compaction step or an edit of the manifest ended, or a log segment became
    /// ready. Call without a lock.
    pub(super) fn note_progress(&self) {
        self.steps.fetch_add(1, Ordering::AcqRel);
        // Whoever looked at the count before this waits by now, so it is not missed.
        drop(self.state());
        self.progress.notify_all();
    }

    pub(super) fn front(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What readers look at, for a short use.
    pub(super) fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// Lets readers see the memtables of `front`. Views change under the front's lock only.
    pub(super) fn publish_memtables(&self, front: &Front) {
        let version = Arc::clone(&self.view.load().version);
        self.publish_view(front, version);
    }

    /// Seals the active memtable, and lets readers see the new one.
    pub(super) fn seal(&self, front: &mut Front, entry_bytes: usize) {
        let hooks = &self.env.hooks;
        if hooks.attach.is_some() {
            // The attachment belongs to exactly the writes so far. Those who still copy into memory do not need
            // the front's lock, and later ones cannot begin.
            self.publisher.wait_for(front.last.0);
        }
        front.seal(&self.options, entry_bytes, hooks.attachment(front.last));
        self.publish_memtables(front);
    }

    fn publish_view(&self, front: &Front, version: Arc<Version>) {
        self.view.store(Arc::new(View::of(front, version)));
    }

    /// Readers see writes up to this number.
    pub(super) fn visible(&self) -> Seq {
        let visible = self.publisher.visible();
        Seq(visible.min(self.ceiling.load(Ordering::Acquire)))
    }

    /// Makes everything stored in log segments survive power loss. Call without a lock. A failure poisons the store.
    pub(super) fn sync_segments(&self, segments: &[LiveSegment]) -> Result<(), Error> {
        let sync = |segment: &LiveSegment| {
            if planted!("skip the sync of the log") {
                return Ok(());
            }
            let path = Numbered::Log(segment.id).path(&self.dir);
            segment.segment.sync().context("sync", &path)
        };
        self.log_syncs
            .run(|| segments.iter().try_for_each(sync))
            .inspect_err(|error| self.poison(error))
    }

    /// Makes the names of new and removed files survive power loss. A failure poisons the store: the next sync could
    /// succeed and still prove nothing about names that others have made meanwhile. Call without a lock.
    pub(super) fn sync_dir(&self) -> Result<(), Error> {
        let sync = || {
            if planted!("skip the sync of the directory") {
                return Ok(());
            }
            self.env.fs.sync_dir(&self.dir)
        };
        self.dir_syncs
            .run(|| sync().context("sync directory", &self.dir))
            .inspect_err(|error| self.poison(error))
    }

    /// Submits all background work that is due. Call without a lock.
    pub(super) fn schedule(self: &Arc<Self>) {
        let mut state = self.state();
        let due = state.take_due(&mut self.front(), &self.options, || self.env.clock.now());
        drop(state);
        for work in due {
            let inner = Arc::clone(self);
            let (class, job): (JobClass, Job) = match work {
                Due::Segment => (
                    JobClass::LogSegment,
                    Box::new(move || segments::job(&inner)),
                ),
                Due::Flush => (JobClass::Flush, Box::new(move || flush::job(&inner))),
                Due::Compaction => (JobClass::Compaction, Box::new(move || compact::job(&inner))),
            };
            self.env.jobs.submit(class, job);
        }
    }

    /// Ends all writing, because it is unknown what is on disk. Readers keep what is durable; everyone who
    /// waits is told. Call without a lock.
    pub(super) fn poison(&self, error: &Error) {
        let mut state = self.state();
        let mut front = self.front();
        if state.poison.is_none() {
            tracing::error!(dir = %self.dir.display(), %error, "the store takes no more writes");
            let cause = match error {
                Error::Poisoned { cause } => Arc::clone(cause),
                other => other.to_string().into(),
            };
            state.poison = Some(Arc::clone(&cause));
            front.gate.poison = Some(cause);
        }
        // Unsynced writes may be gone after the next start, so nobody may see them now.
        // A flush may just have put newer ones into tables, without what they replace.
        let durable = sync::stop(self, error).max(state.flushed);
        self.ceiling.fetch_min(durable.0, Ordering::AcqRel);
        drop(front);
        drop(state);
        sync::halt(self, error);
        self.progress.notify_all();
    }

    /// Tells the caller of damage, once for each place. Call without a lock.
    #[cold]
    pub(super) fn report_damage(&self, error: &Error) {
        self.tell_damage(error, true);
    }

    pub(super) fn tell_damage(&self, error: &Error, hides_data: bool) {
        let Error::Corrupt {
            file,
            offset,
            range,
            what,
        } = error
        else {
            return;
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = told.insert((file.clone(), *offset));
        drop(told);
        if !is_new {
            return;
        }
        tracing::error!(%error, "damage was found");
        if let Some(events) = &self.env.hooks.events {
            events.damaged(&Damage {
                file: file.clone(),
                offset: *offset,
                what,
                range: range.clone(),
                hides_data,
            });
        }
    }

    /// Notes that a flush or compaction failed without harm to what is stored; it is tried again later.
    pub(super) fn note_failure(&self, state: &mut State, what: &'static str, error: &Error) {
        tracing::warn!(dir = %self.dir.display(), %error, what, "background work failed, will be tried again");
        state.counts.background_failures += 1;
        state.retry_at = self.env.clock.now() + RETRY_DELAY;
        if error.is_no_space() {
            let mut front = self.front();
            front.look = true;
            let sealed_most = self.options.sealed_memtables_max;
            if front.needed_segment > 0 || front.sealed_memtables() >= sealed_most {
                // Writers wait for what cannot be made; they are told why.
                let needed = self.options.min_free_bytes.max(1);
                front.gate.short.get_or_insert(Short { free: 0, needed });
            }
        }
    }

    /// Makes an edit durable, then visible. `prepare` decides it, `change` is called when it has
    /// become true.
    ///
    /// Edits are installed one at a time. A failure poisons the store, because it is unknown whether the
    /// edit is in the manifest; only on a full disk it is not made, and can be tried again.
    pub(super) fn install(
        self: &Arc<Self>,
        prepare: impl FnOnce(&State) -> (Edit, Arc<Version>),
        change: impl FnOnce(&mut State, &mut Front),
    ) -> Result<(), Error> {
        let mut state = self.state();
        let mut manifest = loop {
            if let Some(halt) = state.halted() {
                return Err(halt);
            }
            match state.manifest.take() {
                Some(manifest) => break manifest,
                None => state = self.wait(state),
            }
        };
        let (mut edit, version) = prepare(&state);
        edit.next_file = Some(state.next_file);
        let (log_floor, flushed) = (
            edit.log_floor.unwrap_or(state.log_floor),
            edit.flushed.unwrap_or(state.flushed),
        );
        let attachment = if edit.flushed.is_some() {
            edit.attachment.clone()
        } else {
            state.attachment.clone()
        };
        drop(state);

        let whole = || Edit {
            log_floor: Some(log_floor),
            flushed: Some(flushed),
            attachment: attachment.clone(),
            ..version.snapshot()
        };
        let outcome = self.write_edit(&mut manifest, &edit, whole);
        let mut state = match outcome {
            Ok(()) => self.state(),
            Err(error) if error.is_no_space() => {
                let mut state = self.state();
                state.note_doubt(&edit);
                state.manifest = Some(manifest);
                drop(state);
                self.progress.notify_all();
                return Err(error);
            }
            Err(error) => {
                self.poison(&error);
                return Err(error);
            }
        };
        let mut front = self.front();
        for file in state.end_doubt(&version, &front) {
            self.files.discard(file.path(&self.dir));
        }
        state.manifest = Some(manifest);
        (state.log_floor, state.flushed) = (log_floor, flushed);
        if state.poison.is_some() {
            // The poison came while the edit was being written. Readers get to see the tables without what they
            // replace, and what a flush put there is durable. Snapshots taken meanwhile see less: they go on with
            // what is replaced.
            state.pin_snapshots(Seq::ZERO, &self.view());
            self.ceiling.fetch_max(flushed.0, Ordering::AcqRel);
        }
        let retired: Vec<u64> = state.version.blobs.missing_in(&version.blobs).collect();
        state.set_version(Arc::clone(&version));
        change(&mut state, &mut front);
        front.gate.table_debt = state.table_debt(&self.options);
        // Dropped without a lock: the old view may be the last user of a large memtable.
        let old_view = self.view.load_full();
        self.publish_view(&front, version);
        drop(front);
        drop(state);
        for file in retired {
            OpenBlobs::retire(&self.files, &self.dir, file);
        }
        drop(old_view);
        self.note_progress();
        Ok(())
    }
}
