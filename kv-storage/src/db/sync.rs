//! Group commit: one round hands all waiting log bytes to the disk and answers all who wait for them.

use super::inner::Inner;
use super::state::{Due, Durability, State, Task, Waiter};
use crate::error::Error;
use crate::files::Numbered;
use crate::key::Seq;
use crate::log::{Chunk, LogFile};
use std::sync::Arc;

/// What one round has to do.
pub(super) struct Round {
    pub file: LogFile,
    pub chunks: Vec<Chunk>,
    /// The newest write that the operating system has after the round.
    pub last: Seq,
    pub sync: bool,
    pub look_for_space: bool,
}

/// What a round did.
#[derive(Default)]
pub(super) struct Done {
    /// Segments created, in order.
    created: Vec<u64>,
    /// The newest write known to be synced by this round.
    synced: Seq,
    appended_bytes: u64,
    appends: u64,
    syncs: u64,
    free: Option<u64>,
}

/// The log job.
pub(super) fn job(inner: &Arc<Inner>) {
    let work = {
        let mut state = inner.state();
        if state.log_task == Task::Scheduled {
            state.log_task = Task::Idle;
        }
        begin(&mut state)
    };
    if let Some(work) = work {
        perform(inner, work);
    }
}

/// Runs one round, unless another thread runs one or there is nothing to do. Blocks on the disk.
/// Writes that arrive meanwhile form the next round.
pub(super) fn round(inner: &Arc<Inner>) {
    let work = begin(&mut inner.state());
    if let Some(work) = work {
        perform(inner, work);
    }
}

fn perform(inner: &Arc<Inner>, mut round: Round) {
    let outcome = run(inner, &mut round);
    match outcome {
        Ok(done) => {
            let (ready, due) = end(inner, round, &done);
            inner.progress.notify_all();
            // Nothing is locked, and the next round may begin meanwhile: a callback may do what it likes.
            for waiter in ready {
                (waiter.call)(Ok(()));
            }
            inner.submit(due);
        }
        Err(error) => {
            let waiters = inner.poison(&mut inner.state(), &error);
            tell_failed(inner, waiters, &error);
        }
    }
}

/// Tells waiters, and everyone blocked, that the store was poisoned.
pub(super) fn tell_failed(inner: &Inner, waiters: Vec<Waiter>, error: &Error) {
    inner.progress.notify_all();
    for waiter in waiters {
        (waiter.call)(Err(error.clone()));
    }
}

fn begin(state: &mut State) -> Option<Round> {
    if state.poison.is_some() || !state.log_is_behind() {
        return None;
    }
    let file = state.log_file.take()?;
    let look_for_space = std::mem::take(&mut state.space.look);
    Some(Round {
        file,
        chunks: state.log.take(),
        last: state.last,
        sync: state.sync_wanted > state.durable,
        look_for_space,
    })
}

/// The file calls. After an error it is unknown what is on disk, so the file is given up.
pub(super) fn run(inner: &Inner, round: &mut Round) -> Result<Done, Error> {
    let mut done = Done::default();
    for chunk in &round.chunks {
        match chunk {
            Chunk::Frames(frames) => {
                round.file.append(frames)?;
                done.appended_bytes += frames.len() as u64;
                done.appends += 1;
            }
            Chunk::Rotate(header) => {
                // The new header will vouch for this segment's length.
                round.file.sync()?;
                done.synced = Seq(header.first.0 - 1);
                done.syncs += 1;
                debug_assert_eq!(round.file.length(), header.previous_length);
                let path = Numbered::Log(header.id).path(&inner.dir);
                round.file = LogFile::create(&*inner.env.fs, &path, header, &[])?;
                done.created.push(header.id);
            }
        }
    }
    if round.sync {
        round.file.sync()?;
        done.synced = round.last;
        done.syncs += 1;
    }
    if round.look_for_space {
        // Not knowing is no reason to stop: writing goes on until the log itself is refused space.
        let free = inner.env.fs.free_space(&inner.dir);
        done.free = free
            .inspect_err(|error| tracing::warn!(%error, "could not look up free space"))
            .ok();
    }
    Ok(done)
}

/// Notes what is true now. Returns those whose wait is over, and the work that is due.
pub(super) fn end(inner: &Inner, round: Round, done: &Done) -> (Vec<Waiter>, Vec<Due>) {
    let mut state = inner.state();
    state.written = state.written.max(round.last);
    // Also without anyone asking: a memtable may only be flushed, and older versions dropped, up to here.
    state.durable = state.durable.max(done.synced);
    state.log.note_synced(round.file.id(), round.file.synced());
    state.created_segment = round.file.id();
    state.segments.extend(&done.created);
    state.log_file = Some(round.file);
    state.log.recycle(round.chunks);
    state.counts.log_appends += done.appends;
    state.counts.log_bytes += done.appended_bytes;
    state.counts.log_syncs += done.syncs;
    let reserve = inner.options.min_free_bytes;
    if let Some(free) = done.free {
        state.space.note(free, reserve);
    }
    state.space.spend(done.appended_bytes, reserve);

    let (written, durable) = (state.written, state.durable);
    let over = |waiter: &mut Waiter| match waiter.need {
        Durability::Sync => waiter.seq <= durable,
        Durability::Process => waiter.seq <= written,
    };
    let ready = state.waiters.extract_if(.., over).collect();
    (ready, inner.take_due(&mut state))
}
