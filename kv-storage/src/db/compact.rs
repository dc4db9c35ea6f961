//! The compaction driver: runs the chosen rewrite in steps, one job each, and installs the result.

use super::flush::{NewFiles, OpenTables, open_tables, take_table};
use super::inner::Inner;
use super::state::{State, Task};
use crate::compaction::{Choice, Retention, Rewrite, Step};
use crate::env::JobClass;
use crate::error::Error;
use crate::merge::{Direction, Merge};
use crate::table::{Fetch, Table, TableSpec, TableSummary};
use crate::version::{Edit, LEVELS, NewTable, Placed, Version};
use std::convert::Infallible;
use std::sync::Arc;

/// A compaction between two steps.
struct Compaction {
    choice: Choice,
    inputs: Vec<Arc<Placed<Arc<Table>>>>,
    rewrite: Rewrite,
    files: NewFiles,
}

/// The first job of a compaction.
pub(super) fn job(inner: &Arc<Inner>) {
    let (choice, version, snapshots) = {
        let mut state = inner.state();
        if state.compaction_task != Task::Scheduled {
            return;
        }
        let Some(choice) = state.choice.clone().filter(|_| state.halted().is_none()) else {
            state.compaction_task = Task::Idle;
            return;
        };
        state.compaction_task = Task::Running;
        (
            choice,
            Arc::clone(&state.version),
            state.snapshots.keys().copied().collect(),
        )
    };
    let outcome = if choice.is_move {
        move_table(inner, &choice).map(|()| None)
    } else {
        begin(inner, choice, &version, snapshots).map(Some)
    };
    match outcome {
        Ok(Some(compaction)) => step(inner, compaction),
        Ok(None) => end(inner, Ok(())),
        Err(error) => end(inner, Err(error)),
    }
}

/// Lets a table that overlaps nothing below change its level.
fn move_table(inner: &Arc<Inner>, choice: &Choice) -> Result<(), Error> {
    inner.install(
        |state| {
            let moved = state
                .version
                .tables()
                .filter(|table| choice.upper.contains(&table.summary.file));
            let edit = Edit {
                added: moved
                    .map(|table| new_table(choice, table.summary.clone()))
                    .collect(),
                removed: choice.upper.clone(),
                ..Edit::default()
            };
            let Ok(version) = state.version.apply(&edit, |_| -> Result<_, Infallible> {
                unreachable!("a moved table keeps its reader")
            });
            (edit, Arc::new(version))
        },
        |state, _| state.counts.compactions += 1,
    )
}

fn new_table(choice: &Choice, table: TableSummary) -> NewTable {
    // Deeper levels have one run each.
    NewTable {
        level: u8::try_from(choice.to).expect("there are 7 levels"),
        run: 0,
        table,
    }
}

fn begin(
    inner: &Arc<Inner>,
    choice: Choice,
    version: &Version,
    snapshots: Vec<crate::key::Seq>,
) -> Result<Compaction, Error> {
    let mut merge = Merge::new(Direction::Forward);
    let mut inputs = Vec::new();
    for (level, files) in [(choice.from, &choice.upper), (choice.to, &choice.lower)] {
        for run in &version.levels[level].runs {
            let tables: Vec<_> = run
                .tables
                .iter()
                .filter(|table| files.contains(&table.summary.file))
                .cloned()
                .collect();
            inputs.extend(tables.iter().cloned());
            if !tables.is_empty() {
                merge.add_tables(tables, Fetch::Passing)?;
            }
        }
    }
    let deeper = version.levels[(choice.to + 1).min(LEVELS)..]
        .iter()
        .flat_map(|level| level.tables());
    let below: Vec<_> = deeper
        .map(|table| {
            (
                table.summary.smallest.clone(),
                table.summary.largest.clone(),
            )
        })
        .collect();
    let spec = if below.is_empty() {
        TableSpec::bottom(&inner.options)
    } else {
        TableSpec::upper(&inner.options)
    };
    let rewrite = Rewrite::compaction(
        merge,
        Retention::new(snapshots),
        below,
        inner.options.table_bytes,
    );
    Ok(Compaction {
        choice,
        inputs,
        rewrite,
        files: NewFiles::new(inner, spec),
    })
}

/// Works through one step, then hands the rest to another job.
fn step(inner: &Arc<Inner>, mut compaction: Compaction) {
    match compaction
        .rewrite
        .step(inner.options.compaction_step_bytes, &mut compaction.files)
    {
        Ok(Step::More) => {
            inner.state().compaction_task = Task::Scheduled;
            inner.progress.notify_all();
            let next = Arc::clone(inner);
            inner.env.jobs.submit(
                JobClass::Compaction,
                Box::new(move || resume(&next, compaction)),
            );
        }
        Ok(Step::Done) => {
            let outcome = finish(inner, compaction);
            end(inner, outcome);
        }
        Err(error) => {
            compaction.files.discard();
            end(inner, Err(error));
        }
    }
}

fn resume(inner: &Arc<Inner>, mut compaction: Compaction) {
    let halted = {
        let mut state = inner.state();
        let halted = state.halted();
        state.compaction_task = if halted.is_some() {
            Task::Idle
        } else {
            Task::Running
        };
        halted
    };
    match halted {
        None => step(inner, compaction),
        // The store is closed or poisoned, so the files stay as orphans for the next open.
        Some(_) => compaction.files.forget(),
    }
}

fn finish(inner: &Arc<Inner>, compaction: Compaction) -> Result<(), Error> {
    let Compaction {
        choice,
        inputs,
        rewrite,
        mut files,
    } = compaction;
    let read_bytes = rewrite.read_bytes();
    let mut tables = open_tables(inner, rewrite.into_tables()).inspect_err(|_| files.discard())?;
    let written: u64 = tables.values().map(|(table, _)| table.size_bytes).sum();
    inner.install(
        |state| replace_inputs(state, &choice, &mut tables),
        |state, _| {
            state.counts.compactions += 1;
            state.counts.compaction_read_bytes += read_bytes;
            state.counts.table_written_bytes += written;
        },
    )?;
    // The last version that has them lets their files go.
    for input in inputs {
        input.reader.mark_obsolete();
    }
    Ok(())
}

fn replace_inputs(state: &State, choice: &Choice, tables: &mut OpenTables) -> (Edit, Arc<Version>) {
    let edit = Edit {
        added: tables
            .values()
            .map(|(table, _)| new_table(choice, table.clone()))
            .collect(),
        removed: choice.upper.iter().chain(&choice.lower).copied().collect(),
        ..Edit::default()
    };
    let Ok(version) = state
        .version
        .apply(&edit, |new| Ok::<_, Infallible>(take_table(tables, new)));
    (edit, Arc::new(version))
}

fn end(inner: &Arc<Inner>, outcome: Result<(), Error>) {
    {
        let mut state = inner.state();
        state.compaction_task = Task::Idle;
        if let Err(error) = &outcome
            && state.halted().is_none()
        {
            inner.note_failure(&mut state, "compaction", error);
        }
    }
    inner.progress.notify_all();
    inner.files.empty_trash();
    inner.schedule();
}
