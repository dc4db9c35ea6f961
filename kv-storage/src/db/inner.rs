//! What all clones of a [`Db`](crate::Db) share, and how work is scheduled.

use super::state::{Due, State, Waiter};
use super::view::View;
use super::{compact, flush, sync};
use crate::env::{Env, Job, JobClass};
use crate::error::Error;
use crate::files::Numbered;
use crate::fs::FileLock;
use crate::key::Seq;
use crate::options::Options;
use crate::table::TableFiles;
use crate::version::{Edit, Manifest, Version};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
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
    /// Signalled when a log round, flush or compaction step ended.
    pub progress: Condvar,
    pub view: RwLock<Arc<View>>,
    /// Readers see writes up to this number.
    pub visible: AtomicU64,
    pub closed: AtomicBool,
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

    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets readers see the memtables and version of `state`. The old view is returned, to be
    /// dropped without the lock: it may be the last user of a large memtable.
    pub(super) fn publish_view(&self, state: &State) -> Arc<View> {
        let view = Arc::new(state.view());
        std::mem::replace(
            &mut *self.view.write().unwrap_or_else(PoisonError::into_inner),
            view,
        )
    }

    pub(super) fn visible(&self) -> Seq {
        Seq(self.visible.load(Ordering::Acquire))
    }

    /// Submits all background work that is due. Call without a lock.
    pub(super) fn schedule(self: &Arc<Self>) {
        let due = self.take_due(&mut self.state());
        self.submit(due);
    }

    /// Work that must be submitted once the lock is released.
    pub(super) fn take_due(&self, state: &mut State) -> Vec<Due> {
        state.take_due(&self.options, || self.env.clock.now())
    }

    /// Submits work. Call without a lock: jobs may run at once.
    pub(super) fn submit(self: &Arc<Self>, due: Vec<Due>) {
        for work in due {
            let inner = Arc::clone(self);
            let (class, job): (JobClass, Job) = match work {
                Due::Log => (JobClass::LogSync, Box::new(move || sync::job(&inner))),
                Due::Flush => (JobClass::Flush, Box::new(move || flush::job(&inner))),
                Due::Compaction => (JobClass::Compaction, Box::new(move || compact::job(&inner))),
            };
            self.env.jobs.submit(class, job);
        }
    }

    /// Ends all writing, because it is unknown what is on disk. Readers keep what is durable.
    /// Returns the waiters to be told.
    pub(super) fn poison(&self, state: &mut State, error: &Error) -> Vec<Waiter> {
        if state.poison.is_none() {
            tracing::error!(dir = %self.dir.display(), %error, "the store takes no more writes");
            state.poison = Some(error.to_string().into());
        }
        // Unsynced writes may be gone after the next start, so nobody may see them now.
        self.visible.fetch_min(state.durable.0, Ordering::AcqRel);
        std::mem::take(&mut state.waiters)
    }

    /// Notes that a flush or compaction failed without harm to what is stored; it is tried again later.
    pub(super) fn note_failure(&self, state: &mut State, what: &'static str, error: &Error) {
        tracing::warn!(dir = %self.dir.display(), %error, what, "background work failed, will be tried again");
        state.counts.background_failures += 1;
        state.retry_at = self.env.clock.now() + RETRY_DELAY;
        if error.is_no_space() {
            state.space.look = true;
        }
    }

    /// Makes an edit durable, then visible. `prepare` decides it, `change` is called when it has
    /// become true.
    ///
    /// Edits are installed one at a time. A failure poisons the store: the edit may or may not be
    /// in the manifest.
    pub(super) fn install(
        self: &Arc<Self>,
        prepare: impl FnOnce(&State) -> (Edit, Arc<Version>),
        change: impl FnOnce(&mut State),
    ) -> Result<(), Error> {
        let mut state = self.state();
        let manifest = loop {
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
        let fresh = manifest.is_oversized().then(|| state.allocate_file());
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

        let outcome = match fresh {
            None => append(manifest, &edit),
            Some(id) => {
                let whole = Edit {
                    log_floor: Some(log_floor),
                    flushed: Some(flushed),
                    next_file: Some(id + 1),
                    attachment,
                    ..version.snapshot()
                };
                self.replace_manifest(manifest, id, &whole)
            }
        };
        let mut state = self.state();
        let manifest = match outcome {
            Ok(manifest) => manifest,
            Err(error) => {
                let waiters = self.poison(&mut state, &error);
                drop(state);
                sync::tell_failed(self, waiters, &error);
                return Err(error);
            }
        };
        state.manifest = Some(manifest);
        (state.log_floor, state.flushed) = (log_floor, flushed);
        state.set_version(version, &self.options);
        change(&mut state);
        let old_view = self.publish_view(&state);
        drop(state);
        drop(old_view);
        self.progress.notify_all();
        Ok(())
    }

    /// Starts a fresh manifest in place of an overgrown one.
    fn replace_manifest(&self, old: Manifest, id: u64, whole: &Edit) -> Result<Manifest, Error> {
        let fresh = Manifest::create(&*self.env.fs, &self.dir, self.store, id, whole)?;
        self.files
            .discard(Numbered::Manifest(old.id()).path(&self.dir));
        Ok(fresh)
    }
}

fn append(mut manifest: Manifest, edit: &Edit) -> Result<Manifest, Error> {
    manifest.append(edit)?;
    Ok(manifest)
}
