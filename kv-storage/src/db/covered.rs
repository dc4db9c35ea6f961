//! Drops tables that deleted ranges cover as a whole, without reading them.

use super::inner::Inner;
use super::state::State;
use crate::compaction::covered;
use crate::error::Error;
use crate::table::Table;
use crate::version::{Edit, Placed, Version};
use std::convert::Infallible;
use std::sync::Arc;

/// Drops those that no compaction reads now. Call it from jobs, without a lock.
///
/// # Errors
/// The manifest could not be written; see [`Inner::install`].
pub(super) fn drop_tables(inner: &Arc<Inner>) -> Result<(), Error> {
    let tables = find(inner);
    if tables.is_empty() {
        return Ok(());
    }
    let mut dropped = Vec::new();
    inner.install(
        |state| {
            // A compaction may have begun with some of them, or ended.
            dropped.extend(tables.into_iter().filter(|table| is_free(state, table)));
            let edit = Edit {
                removed: dropped.iter().map(|table| table.summary.file).collect(),
                ..Edit::default()
            };
            let Ok(version) = state.version.apply(&edit, |_| -> Result<_, Infallible> {
                unreachable!("nothing is added")
            });
            (edit, Arc::new(version))
        },
        |_, _| {},
    )?;
    let mut bytes = 0;
    for table in &dropped {
        table.reader.mark_obsolete();
        bytes += table.summary.size_bytes;
    }
    let counts = &mut inner.state().counts;
    counts.covered_tables += dropped.len() as u64;
    counts.covered_bytes += bytes;
    drop(dropped);
    inner.files.empty_trash();
    Ok(())
}

fn find(inner: &Inner) -> Vec<Arc<Placed<Arc<Table>>>> {
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
    let state = inner.state();
    version
        .tables()
        .filter(|table| files.contains(&table.summary.file) && is_free(&state, table))
        .cloned()
        .collect()
}

/// True if the table is in the version, and no compaction reads it.
fn is_free(state: &State, table: &Arc<Placed<Arc<Table>>>) -> bool {
    let is_present = |version: &Version| version.tables().any(|it| Arc::ptr_eq(it, table));
    !state.roster.is_input(table.summary.file) && is_present(&state.version)
}
