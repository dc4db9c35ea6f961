//! Walks the entries of a memtable in order, as they were when the cursor was made.

use super::order::SortedRun;
use super::{Entry, Memtable};
use crate::key::KeyVersion;
use std::ops::Bound;
use std::sync::Arc;

/// A position in one sorted run of a memtable. Several cursors cover a memtable.
#[derive(Debug)]
pub(crate) struct MemCursor {
    table: Arc<Memtable>,
    run: Arc<SortedRun>,
    forward: bool,
    /// Beyond the end if it is at no entry; going backward from the first wraps around.
    index: usize,
}

impl Memtable {
    /// Cursors over all entries published so far, each at its first entry on the given side of `from`.
    /// What is published later is numbered above everything that a reader of now may see.
    pub(crate) fn cursors(
        self: &Arc<Self>,
        from: Bound<KeyVersion<'_>>,
        forward: bool,
    ) -> impl Iterator<Item = MemCursor> {
        let runs = if self.is_empty() {
            [Arc::default(), Arc::default()]
        } else {
            self.order.runs(self)
        };
        let start = |run: &SortedRun| match (from, forward) {
            (Bound::Unbounded, true) => 0,
            (Bound::Unbounded, false) => run.len(),
            (Bound::Included(version), true) | (Bound::Excluded(version), false) => {
                run.position(self, version, false)
            }
            (Bound::Excluded(version), true) | (Bound::Included(version), false) => {
                run.position(self, version, true)
            }
        };
        runs.map(|run| {
            let start = start(&run);
            MemCursor {
                table: Arc::clone(self),
                run,
                forward,
                index: if forward {
                    start
                } else {
                    start.wrapping_sub(1)
                },
            }
        })
        .into_iter()
        .filter(|cursor| cursor.run.len() > 0)
    }
}

impl MemCursor {
    /// The present entry; `None` at the end.
    pub(crate) fn entry(&self) -> Option<Entry<'_>> {
        self.run
            .get(self.index)
            .map(|offset| self.table.entry(offset))
    }

    /// Moves to the first entry at or after `version`; going backward, to the last one before it.
    pub(crate) fn seek(&mut self, version: KeyVersion<'_>) {
        let start = self.run.position(&self.table, version, false);
        self.index = if self.forward {
            start
        } else {
            start.wrapping_sub(1)
        };
    }

    /// Moves to no entry.
    pub(crate) fn end(&mut self) {
        self.index = usize::MAX;
    }

    pub(crate) fn advance(&mut self) {
        if self.run.get(self.index).is_some() {
            self.index = if self.forward {
                self.index + 1
            } else {
                self.index.wrapping_sub(1)
            };
        }
    }
}
