//! The compaction driver: picks without the lock, runs the rewrite in steps, one job each, and
//! installs what is finished.
//!
//! Large compactions install their outputs as they go, so that inputs are freed early and a crash
//! loses little work.

use super::flush::{
    NewFiles, OpenTables, blob_bytes, blobs_of, measure_ranges, open_tables, take_table,
};
use super::inner::Inner;
use super::state::State;
use super::{ballast, covered};
use crate::compaction::{
    Below, Boundary, Choice, Cuts, Place, RELEASE_TABLES, Retention, Rewrite, Separation, Step,
    released,
};
use crate::env::JobClass;
use crate::error::Error;
use crate::files::Numbered;
use crate::key::{KeyVersion, Seq};
use crate::merge::{Direction, Merge, Start};
use crate::ranges::Fragments;
use crate::table::{Fetch, Table, TableSpec, TableSummary};
use crate::version::{BOTTOM, Edit, NewTable, Placed, Version};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

/// Input tables by run, newest run first.
type Inputs = Vec<(Place, Vec<Arc<Placed<Arc<Table>>>>)>;

/// A compaction between two steps.
struct Compaction {
    choice: Arc<Choice>,
    /// Those that were not released yet.
    inputs: Inputs,
    rewrite: Rewrite,
    files: NewFiles,
    /// Entries in all inputs.
    entries: u64,
    /// Bytes of relocated values that were counted.
    relocated_bytes: u64,
}

/// What a compaction begins with.
struct Picked {
    choice: Arc<Choice>,
    version: Arc<Version>,
    snapshots: Vec<Seq>,
    /// Blob files whose values are written anew.
    collected: BTreeSet<u64>,
}

/// Looks for a compaction and runs its first step.
pub(super) fn job(inner: &Arc<Inner>) {
    // What goes unread need not be merged. A failure is noted by whatever meets the same one next.
    let _ = covered::drop_tables(inner);
    let Some(picked) = pick(inner) else {
        // Readers may have let tables go since the last work ended.
        inner.files.empty_trash();
        inner.note_progress();
        return;
    };
    // Another one may begin beside it.
    inner.schedule();
    let choice = Arc::clone(&picked.choice);
    let outcome = if choice.is_move {
        move_tables(inner, &choice).map(|()| None)
    } else {
        begin(inner, picked).map(Some)
    };
    match outcome {
        Ok(Some(compaction)) => step(inner, compaction),
        Ok(None) => end(inner, &choice, Ok(())),
        Err(error) => end(inner, &choice, Err(error)),
    }
}

/// Picks by a copy of what decides; if the version changed meanwhile, once more.
fn pick(inner: &Inner) -> Option<Picked> {
    let mut state = inner.state();
    loop {
        if !state.roster.is_scheduled() {
            return None;
        }
        if state.halted().is_some() {
            state.roster.set_scheduled(false);
            return None;
        }
        let version = Arc::clone(&state.version);
        let oldest = state.snapshots.keys().next().copied();
        let front = inner.front();
        let is_empty = front.active.is_empty() && front.sealed.is_empty();
        let written = (front.last, is_empty);
        drop(front);
        let now = inner.env.clock.now();
        let filter = inner.env.hooks.filter.as_ref();
        let expired = filter.and_then(|filter| filter.now());
        let look = state
            .roster
            .look(&inner.options, oldest, written, now, expired);
        drop(state);
        let choice = look.pick(&version, &inner.options);
        state = inner.state();
        if !Arc::ptr_eq(&state.version, &version) {
            continue;
        }
        if choice.as_ref().is_some_and(|it| state.roster.collides(it)) {
            // Something began with those tables that does not go through a pick.
            continue;
        }
        state.roster.set_scheduled(false);
        let choice = state.roster.enter(choice?, version.size_bytes());
        let percent = inner.options.blob_garbage_percent;
        return Some(Picked {
            choice,
            collected: version
                .blobs
                .collectable(percent, state.roster.fenced_blobs()),
            version,
            snapshots: state.snapshots.keys().copied().collect(),
        });
    }
}

/// Lets tables that overlap nothing on their way change their place.
fn move_tables(inner: &Arc<Inner>, choice: &Choice) -> Result<(), Error> {
    inner.install(
        |state| {
            let files: Vec<u64> = choice.files().collect();
            let moved = state
                .version
                .tables()
                .filter(|table| files.contains(&table.summary.file));
            let edit = Edit {
                added: moved
                    .map(|table| new_table(choice, table.summary.clone()))
                    .collect(),
                removed: files.clone(),
                ..Edit::default()
            };
            let Ok(version) = state.version.apply(&edit, |_| -> Result<_, Infallible> {
                unreachable!("a moved table keeps its reader")
            });
            (edit, Arc::new(version))
        },
        |state, _| {
            state.counts.compactions += 1;
            state.counts.compaction_moved_bytes += choice.size_bytes;
        },
    )
}

fn new_table(choice: &Choice, table: TableSummary) -> NewTable {
    NewTable {
        level: choice.to.level,
        run: choice.to.run,
        table,
    }
}

fn begin(inner: &Arc<Inner>, picked: Picked) -> Result<Compaction, Error> {
    let Picked {
        choice,
        version,
        snapshots,
        collected,
    } = picked;
    let inputs: Inputs = choice
        .inputs
        .iter()
        .map(|part| (part.place, version.tables_of(part.place, &part.files)))
        .collect();
    let merge = merge(&inputs, Start::Edge)?;
    let boundaries = version.levels[usize::from(BOTTOM)]
        .tables()
        .filter(|table| table.overlaps(&choice.smallest, &choice.largest))
        .map(|table| Boundary::of(&table.summary));
    let cuts = Cuts::new(
        inner.options.table_bytes,
        boundaries.collect(),
        choice.to,
        choice.size_bytes,
    );
    let older = version.ranges_older_than(choice.to);
    let spec = if older.is_empty() {
        TableSpec::bottom(&inner.options)
    } else {
        TableSpec::upper(&inner.options)
    };
    let below = Below::new(older);
    let rewrite = Rewrite::compaction(
        merge,
        Retention::new(snapshots, &ranges(&inputs)),
        below,
        cuts,
        Separation::new(&inner.options, collected),
        inner.env.hooks.filter.as_ref(),
    );
    let tables = inputs.iter().flat_map(|(_, tables)| tables);
    Ok(Compaction {
        choice,
        entries: tables.map(|table| table.summary.entries).sum(),
        inputs,
        rewrite,
        files: NewFiles::new(inner, spec),
        relocated_bytes: 0,
    })
}

/// The deleted ranges of all inputs.
fn ranges(inputs: &Inputs) -> Fragments {
    let tables = inputs.iter().flat_map(|(_, tables)| tables);
    Fragments::merge(tables.map(|table| &**table.reader.ranges()))
}

fn merge(inputs: &Inputs, start: Start<'_>) -> Result<Merge, Error> {
    let mut merge = Merge::new(Direction::Forward);
    for (_, tables) in inputs.iter().filter(|(_, tables)| !tables.is_empty()) {
        merge.add_tables(tables.clone(), start, Fetch::Passing)?;
    }
    Ok(merge)
}

/// Works through one step, then hands the rest to another job.
fn step(inner: &Arc<Inner>, mut compaction: Compaction) {
    let stepped = compaction
        .rewrite
        .step(inner.options.compaction_step_bytes, &mut compaction.files);
    note_values(inner, &mut compaction);
    let outcome = stepped.and_then(|step| match step {
        Step::More => release(inner, &mut compaction).map(|()| step),
        Step::Done => finish(inner, &mut compaction).map(|()| step),
    });
    match outcome {
        Ok(Step::More) => {
            let done = compaction.rewrite.read_entries() * 1000 / compaction.entries.max(1);
            {
                let mut state = inner.state();
                state.roster.note_progress(&compaction.choice, done);
                inner.front().gate.table_debt = state.table_debt(&inner.options);
                state.roster.pause();
            }
            inner.note_progress();
            let next = Arc::clone(inner);
            inner.env.jobs.submit(
                JobClass::Compaction,
                Box::new(move || resume(&next, compaction)),
            );
        }
        Ok(Step::Done) => give_up(inner, compaction, Ok(())),
        Err(error) => {
            compaction.files.discard();
            give_up(inner, compaction, Err(error));
        }
    }
}

/// Tells of values that could not be read, and leaves their blob files alone from now on.
fn note_values(inner: &Arc<Inner>, compaction: &mut Compaction) {
    let relocated = compaction.rewrite.relocated_bytes();
    let more = relocated - std::mem::replace(&mut compaction.relocated_bytes, relocated);
    let damage = compaction.rewrite.take_damage();
    let mut state = inner.state();
    state.counts.blob_relocated_bytes += more;
    for error in &damage {
        if let Some(Numbered::Blob(file)) = damaged_file(error) {
            state.roster.fence_blob(file);
        }
    }
    drop(state);
    for error in &damage {
        inner.report_damage(error);
    }
}

/// Lets go of the inputs, so that their files can be removed at once.
fn give_up(inner: &Arc<Inner>, compaction: Compaction, outcome: Result<(), Error>) {
    let choice = Arc::clone(&compaction.choice);
    drop(compaction);
    end(inner, &choice, outcome);
}

fn resume(inner: &Arc<Inner>, mut compaction: Compaction) {
    let halted = {
        let mut state = inner.state();
        let halted = state.halted();
        if halted.is_none() {
            state.roster.resume();
        }
        halted
    };
    match halted {
        None => step(inner, compaction),
        // The store is closed or poisoned, so the files stay as orphans for the next open.
        Some(_) => compaction.files.forget(),
    }
}

/// Installs outputs, if there are enough, and frees the inputs they replace.
fn release(inner: &Arc<Inner>, compaction: &mut Compaction) -> Result<(), Error> {
    let finished = compaction.rewrite.finished();
    let possible = (RELEASE_TABLES..=finished.len()).rev().find_map(|count| {
        let last = &finished[count - 1].table.largest;
        let gone = released(&compaction.inputs, compaction.choice.to, last)?;
        (!gone.is_empty()).then_some((count, gone))
    });
    let Some((count, gone)) = possible else {
        return Ok(());
    };
    install(inner, compaction, count, &gone)?;
    inner.state().counts.compaction_releases += 1;
    for (_, tables) in &mut compaction.inputs {
        tables.retain(|table| !gone.contains(&table.summary.file));
    }
    // The old merge would keep the files of released tables open, and so on disk.
    let at = compaction.rewrite.merge().version();
    if let Some((key, seq)) = at.map(|version| (version.key.to_vec(), version.seq)) {
        let start = Start::At(KeyVersion::new(&key, seq));
        let merge = merge(&compaction.inputs, start)?;
        compaction.rewrite.continue_with(merge);
    }
    inner.files.empty_trash();
    Ok(())
}

fn finish(inner: &Arc<Inner>, compaction: &mut Compaction) -> Result<(), Error> {
    let inputs = compaction.inputs.iter().flat_map(|(_, tables)| tables);
    let gone: Vec<u64> = inputs.map(|table| table.summary.file).collect();
    let count = compaction.rewrite.finished().len();
    install(inner, compaction, count, &gone)?;
    let read_bytes = compaction.rewrite.read_bytes();
    let counts = &mut inner.state().counts;
    counts.compactions += 1;
    counts.compaction_read_bytes += read_bytes;
    Ok(())
}

/// Puts the first `count` finished outputs in the place of the inputs that are `gone`.
fn install(
    inner: &Arc<Inner>,
    compaction: &mut Compaction,
    count: usize,
    gone: &[u64],
) -> Result<(), Error> {
    let choice = &compaction.choice;
    let finished = compaction.rewrite.take_finished(count);
    // What the filter changed is still there as it was, above the outputs, in inputs that reach beyond them.
    let inputs = compaction.inputs.iter().flat_map(|(_, tables)| tables);
    let staying = inputs
        .filter(|table| !gone.contains(&table.summary.file))
        .map(|table| table.summary.smallest.clone())
        .min();
    let is_gone = |key: &[u8]| staying.as_ref().is_none_or(|smallest| *key < **smallest);
    let filtered = compaction.rewrite.take_filtered(is_gone);
    let changed = compaction.rewrite.oldest_changed();
    let mut tables = open_tables(inner, finished)?;
    measure_ranges(inner, &mut tables, choice.to);
    let written: u64 = tables.values().map(|opened| opened.table.size_bytes).sum();
    let blob_bytes = blob_bytes(&tables);
    // From here on the files are part of the store, perhaps also after a failure: the edit may be in
    // the manifest.
    compaction.files.keep(&tables);
    inner.install(
        |state| replace(state, choice, gone, &mut tables),
        |state, _| {
            state.counts.table_written_bytes += written;
            state.counts.compaction_written_bytes += written;
            state.counts.blob_written_bytes += blob_bytes;
            for reason in filtered.iter().filter_map(|entry| entry.dropped) {
                *state.filter_drops.entry(reason).or_default() += 1;
            }
            // Readers with an older snapshot than this moment go on seeing what the filter changed.
            if let Some(changed) = changed {
                state.pin_snapshots(changed, &inner.view());
            }
        },
    )?;
    if !filtered.is_empty() {
        // Readers have the new view, so nothing filtered gets into the row cache from here on.
        inner.files.rows.start_epoch();
    }
    // The last version that has them lets their files go.
    for table in compaction.inputs.iter().flat_map(|(_, tables)| tables) {
        if gone.contains(&table.summary.file) {
            table.reader.mark_obsolete();
        }
    }
    if let Some(events) = inner
        .env
        .hooks
        .events
        .as_ref()
        .filter(|_| !filtered.is_empty())
    {
        events.filtered(&filtered);
    }
    Ok(())
}

fn replace(
    state: &State,
    choice: &Choice,
    gone: &[u64],
    tables: &mut OpenTables,
) -> (Edit, Arc<Version>) {
    let edit = Edit {
        added: tables
            .values()
            .map(|opened| new_table(choice, opened.table.clone()))
            .collect(),
        blobs: blobs_of(tables),
        removed: gone.to_vec(),
        ..Edit::default()
    };
    let Ok(version) = state
        .version
        .apply(&edit, |new| Ok::<_, Infallible>(take_table(tables, new)));
    (edit, Arc::new(version))
}

fn end(inner: &Arc<Inner>, choice: &Arc<Choice>, outcome: Result<(), Error>) {
    if outcome.as_ref().is_err_and(Error::is_no_space) {
        ballast::give_back(inner);
    }
    {
        let mut state = inner.state();
        state.roster.pause();
        state.roster.leave(choice);
        if let Err(error) = &outcome
            && state.halted().is_none()
        {
            fail(inner, &mut state, error);
        }
        inner.front().gate.table_debt = state.table_debt(&inner.options);
    }
    if let Err(error) = &outcome {
        inner.report_damage(error);
    }
    inner.note_progress();
    inner.files.empty_trash();
    inner.schedule();
}

/// A damaged table stays damaged: trying again would never end, so it is left alone from now on; a file that could
/// not be read a few times, until the next open. Anything else may pass, and is tried again later.
fn fail(inner: &Inner, state: &mut State, error: &Error) {
    let damaged = damaged_table(state, error).map(Numbered::Table);
    let damaged = damaged.filter(|_| !error.is_unreadable());
    let unreadable = || unreadable_file(error).filter(|file| state.roster.note_unreadable(*file));
    let is_new = match damaged.or_else(unreadable) {
        Some(Numbered::Table(file)) => state.roster.fence(file),
        Some(Numbered::Blob(file)) => state.roster.fence_blob(file),
        _ => false,
    };
    if is_new {
        tracing::error!(dir = %inner.dir.display(), %error, "compaction leaves a damaged file alone");
        state.counts.background_failures += 1;
    } else {
        inner.note_failure(state, "compaction", error);
    }
}

/// The file that an error tells to be unreadable.
fn unreadable_file(error: &Error) -> Option<Numbered> {
    match error {
        Error::Io {
            action: "read",
            path,
            ..
        } => Numbered::parse(path.file_name()?.to_str()?),
        _ if error.is_unreadable() => damaged_file(error),
        _ => None,
    }
}

/// The table that an error tells to be damaged.
fn damaged_table(state: &State, error: &Error) -> Option<u64> {
    let Numbered::Table(number) = damaged_file(error)? else {
        return None;
    };
    let mut tables = state.version.tables();
    tables
        .any(|table| table.summary.file == number)
        .then_some(number)
}

/// The file that an error tells to be damaged.
fn damaged_file(error: &Error) -> Option<Numbered> {
    let Error::Corrupt { file, .. } = error else {
        return None;
    };
    Numbered::parse(file.file_name()?.to_str()?)
}
