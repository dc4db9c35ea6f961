//! Makes log segments ready before writers need them: new ones are filled with zeros once, and those
//! whose writes are in tables are used again.

use super::ballast;
use super::front::{Front, Short};
use super::inner::Inner;
use super::state::Task;
use crate::error::{Error, IoContext};
use crate::files::Numbered;
use crate::wal::{LiveSegment, Spare};
use std::sync::Arc;

/// With fewer spares, making one comes before everything else.
const FEW_SPARES: usize = 2;

/// Segments of unusual size are multiples of this.
const PAGE_BYTES: u64 = 4096;

/// The job that makes segments ready and looks at the free space.
pub(super) fn job(inner: &Arc<Inner>) {
    {
        let mut front = inner.front();
        if front.segment_task == Task::Running {
            return;
        }
        front.segment_task = Task::Running;
    }
    let outcome = prepare(inner);
    if let Err(error) = &outcome {
        let mut state = inner.state();
        if state.halted().is_none() {
            inner.note_failure(&mut state, "making a log segment ready", error);
        }
        if error.is_no_space() {
            // Whoever wanted it was told; a smaller one may fit.
            inner.front().needed_segment = 0;
        }
    }
    inner.front().segment_task = Task::Idle;
    inner.note_progress();
    inner.schedule();
}

/// Does the job on this thread, if a writer waits for a segment and nobody makes one yet. False if it did not.
pub(super) fn help(inner: &Arc<Inner>) -> bool {
    let front = inner.front();
    let waits = front.needed_segment > 0 && front.segment_task != Task::Running;
    drop(front);
    if waits {
        job(inner);
    }
    waits
}

/// Makes segments until enough are ready.
fn prepare(inner: &Arc<Inner>) -> Result<(), Error> {
    loop {
        let mut front = inner.front();
        if !front.wants_segment() || front.gate.closed || front.gate.poison.is_some() {
            return Ok(());
        }
        let needed = front.needed_segment.next_multiple_of(PAGE_BYTES);
        let mut unused = front.wal.take_small_spares(needed);
        if std::mem::take(&mut front.has_surplus) {
            unused.extend(front.wal.take_surplus(Front::SPARES));
        }
        let is_urgent = front.needed_segment > 0 || front.wal.spares() < FEW_SPARES;
        let looks = std::mem::take(&mut front.look);
        drop(front);
        if !unused.is_empty() {
            for spare in unused {
                inner
                    .files
                    .discard(Numbered::Log(spare.id).path(&inner.dir));
            }
            inner.files.empty_trash();
        }
        if !looks && !inner.front().wants_segment() {
            return Ok(());
        }
        // Readers may have let tables go since the last work ended.
        inner.files.empty_trash();
        let size = inner.options.log_segment_bytes.max(needed);
        if look_at_space(inner, size) {
            // Writers are refused from now on. Each of them asks for another look.
            inner.front().needed_segment = 0;
            return Ok(());
        }
        // Writers of a store that has just been made would wait for it.
        if !is_urgent {
            ballast::restore(inner)?;
            if !inner.front().wants_segment() {
                return Ok(());
            }
        }
        let spare = create(inner, size)?;
        add_spares(inner, [spare]);
        inner.note_progress();
    }
}

fn add_spares(inner: &Inner, spares: impl IntoIterator<Item = Spare>) {
    for spare in spares {
        let mut front = inner.front();
        if spare.segment.size() >= front.needed_segment {
            front.needed_segment = 0;
        }
        let late = front.wal.add_spare(spare);
        drop(front);
        if let Some(late) = late {
            inner.files.discard(Numbered::Log(late.id).path(&inner.dir));
        }
    }
}

/// Creates a segment; its zeros, size and name are durable when this returns.
fn create(inner: &Arc<Inner>, size: u64) -> Result<Spare, Error> {
    let id = inner.state().allocate_file();
    let path = Numbered::Log(id).path(&inner.dir);
    let fs = &inner.env.fs;
    let segment = fs.create_segment(&path, size).context("create", &path)?;
    // Otherwise the first commit in it would wait for all the zeros.
    if let Err(error) = segment.sync().context("sync", &path) {
        // It was never used, so another one may be tried.
        inner.files.discard(path);
        return Err(error);
    }
    inner.sync_dir()?;
    Ok(Spare { id, segment })
}

/// Looks at the free space. True, and writers are refused, if `more` bytes would not leave the reserve free.
/// A missing ballast counts as a part of the reserve; if there is room for it, a job will be due to make it.
pub(super) fn look_at_space(inner: &Inner, more: u64) -> bool {
    let missing = ballast::missing_bytes(inner);
    let reserve = inner.options.min_free_bytes.saturating_add(missing);
    if reserve == 0 {
        inner.front().gate.short = None;
        return false;
    }
    // Not knowing is no reason to stop: writing goes on until the disk itself refuses.
    let free = match inner.env.fs.free_space(&inner.dir) {
        Ok(free) => free,
        Err(error) => {
            tracing::warn!(%error, "could not look up free space");
            inner.front().gate.short = None;
            return false;
        }
    };
    let short = free < reserve.saturating_add(more);
    let mut front = inner.front();
    front.gate.short = short.then_some(Short {
        free,
        needed: reserve,
    });
    front.look |= !short && missing > 0;
    short
}

/// Gives spares back that a store at rest does not need.
pub(super) fn trim(inner: &Inner) {
    let mut front = inner.front();
    let is_idle = front.active.is_empty() && front.sealed.is_empty();
    let surplus = if is_idle {
        front.wal.take_surplus(0)
    } else {
        Vec::new()
    };
    drop(front);
    for spare in surplus {
        inner
            .files
            .discard(Numbered::Log(spare.id).path(&inner.dir));
    }
}

/// Uses segments again that hold nothing needed any more, or removes them.
pub(super) fn recycle(inner: &Arc<Inner>, released: Vec<LiveSegment>) {
    let mut renamed = Vec::new();
    for old in released {
        let path = Numbered::Log(old.id).path(&inner.dir);
        let usual = old.segment.size() == inner.options.log_segment_bytes;
        let is_short = inner.front().gate.short.is_some();
        let most = if is_short {
            0
        } else {
            Front::most_spares(&inner.options)
        };
        if usual && inner.front().wal.spares() + renamed.len() < most {
            let id = inner.state().allocate_file();
            let fresh = Numbered::Log(id).path(&inner.dir);
            if inner.env.fs.rename(&path, &fresh).is_ok() {
                let segment = old.segment;
                renamed.push(Spare { id, segment });
                continue;
            }
        }
        inner.files.discard(path);
    }
    // Without durable names they must not be used; the next open removes them.
    if !renamed.is_empty() && inner.sync_dir().is_ok() {
        add_spares(inner, renamed);
    }
}
