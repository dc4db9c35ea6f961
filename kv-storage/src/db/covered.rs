//! Drops tables that deleted ranges cover as a whole, without reading them.

use super::inner::Inner;
use crate::compaction::{Choice, Reason, covered};
use crate::error::Error;
use crate::table::Table;
use crate::version::{Edit, Placed};
use std::convert::Infallible;
use std::sync::Arc;

type Input = Arc<Placed<Arc<Table>>>;

/// Drops those that no compaction reads now. Call it from jobs, without a lock.
///
/// # Errors
/// The manifest could not be written; see [`Inner::install`].
pub(super) fn drop_tables(inner: &Arc<Inner>) -> Result<(), Error> {
    let dropped = reserve(inner);
    if dropped.is_empty() {
        return Ok(());
    }
    let outcome = inner.install(
        |state| {
            let edit = Edit {
                removed: dropped
                    .iter()
                    .map(|(table, _)| table.summary.file)
                    .collect(),
                ..Edit::default()
            };
            let Ok(version) = state.version.apply(&edit, |_| -> Result<_, Infallible> {
                unreachable!("nothing is added")
            });
            (edit, Arc::new(version))
        },
        |_, _| {},
    );
    {
        let mut state = inner.state();
        for (_, choice) in &dropped {
            state.roster.pause();
            state.roster.leave(choice);
        }
    }
    // Whoever closes the store waits for it.
    inner.note_progress();
    outcome?;
    let mut bytes = 0;
    for (table, _) in &dropped {
        table.reader.mark_obsolete();
        bytes += table.summary.size_bytes;
    }
    {
        let counts = &mut inner.state().counts;
        counts.covered_tables += dropped.len() as u64;
        counts.covered_bytes += bytes;
    }
    drop(dropped);
    inner.files.empty_trash();
    Ok(())
}

/// Finds what may go, and keeps compactions away from it until that is in the manifest: one that took it as an input
/// meanwhile would bring back what it holds.
fn reserve(inner: &Inner) -> Vec<(Input, Arc<Choice>)> {
    let (version, oldest) = {
        let state = inner.state();
        if state.halted().is_some() {
            return Vec::new();
        }
        let oldest = state.snapshots.keys().next().copied();
        (Arc::clone(&state.version), oldest)
    };
    if !version.runs().any(|run| run.has_ranges) {
        return Vec::new();
    }
    let files = covered(&version, |table| table.ranges(), oldest);
    if files.is_empty() {
        return Vec::new();
    }
    let mut state = inner.state();
    let present = Arc::clone(&state.version);
    let mut reserved = Vec::new();
    for (place, run) in present.placed_runs() {
        for table in &run.tables {
            // A compaction may have begun with it.
            if files.contains(&table.summary.file) && !state.roster.is_input(table.summary.file) {
                let choice = Choice::of_one(&table.summary, place, Reason::Covered);
                let choice = state.roster.enter(choice, present.size_bytes());
                reserved.push((Arc::clone(table), choice));
            }
        }
    }
    reserved
}
