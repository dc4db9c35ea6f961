//! A counter that many threads raise without waiting for each other.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const CELLS: usize = 16;

/// Each cell has a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cell(AtomicU64);

/// The sum of its cells.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    cells: [Cell; CELLS],
}

impl Counter {
    /// Adds one, and gives what the cell has now. Callers that spread `hint` rarely meet in the same cell.
    #[inline]
    pub(crate) fn add(&self, hint: usize) -> u64 {
        self.cells[hint % CELLS].0.fetch_add(1, Relaxed) + 1
    }

    pub(crate) fn sum(&self) -> u64 {
        self.cells.iter().map(|cell| cell.0.load(Relaxed)).sum()
    }
}
