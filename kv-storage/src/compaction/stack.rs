//! The runs of a store from newest to oldest, and the slices of them that may be merged.
//!
//! Invariants of a slice, which make it safe to merge its tables into its oldest run:
//! 1. Its runs are neighbours: none between its newest and its oldest is left out.
//! 2. Whatever an older run of the slice holds within the key range taken from the newer ones is in
//!    the slice, down to its oldest run. So nothing older stays above what moves down, and the output
//!    overlaps nothing that stays in its run.
//! 3. Data above the slice may overlap it: it is newer and stays above.

use super::choice::{Choice, Part, Place, Reason};
use crate::version::{BOTTOM, Placed, Version};
use std::sync::Arc;

/// One run at its place.
#[derive(Debug)]
pub(super) struct Layer<'a, R> {
    pub place: Place,
    pub tables: &'a [Arc<Placed<R>>],
}

// Not derived, because `R` need not be `Clone`.
impl<R> Clone for Layer<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Layer<'_, R> {}

impl<'a, R> Layer<'a, R> {
    pub(super) fn size_bytes(&self) -> u64 {
        size_bytes(self.tables)
    }

    /// Tables with keys in the range; neighbours, because a run is sorted.
    fn within(&self, smallest: &[u8], largest: &[u8]) -> &'a [Arc<Placed<R>>] {
        let from = self
            .tables
            .partition_point(|table| *table.summary.largest < *smallest);
        let to = self
            .tables
            .partition_point(|table| *table.summary.smallest <= *largest);
        &self.tables[from..to.max(from)]
    }
}

/// Bytes on disk of some tables.
fn size_bytes<R>(tables: &[Arc<Placed<R>>]) -> u64 {
    tables.iter().map(|table| table.summary.size_bytes).sum()
}

/// All runs, newest first, with the bottom last even if it is empty.
#[derive(Debug)]
pub(super) struct Stack<'a, R> {
    pub layers: Vec<Layer<'a, R>>,
    /// How many of them are in level 0.
    pub level0: usize,
}

impl<'a, R> Stack<'a, R> {
    pub(super) fn of(version: &'a Version<R>) -> Self {
        let mut layers = Vec::new();
        for (level, runs) in (0u8..).zip(&version.levels) {
            layers.extend(runs.runs.iter().map(|run| Layer {
                place: Place { level, run: run.id },
                tables: &run.tables,
            }));
        }
        if layers.last().is_none_or(|layer| layer.place.level < BOTTOM) {
            layers.push(Layer {
                place: Place::BOTTOM,
                tables: &[],
            });
        }
        Self {
            level0: version.levels[0].runs.len(),
            layers,
        }
    }

    /// Index of the bottom layer.
    pub(super) fn bottom(&self) -> usize {
        self.layers.len() - 1
    }

    /// The runs between level 0 and the bottom.
    pub(super) fn middle(&self) -> &[Layer<'a, R>] {
        &self.layers[self.level0..self.bottom()]
    }

    /// The slice that begins with `tables` of layer `top` and ends in layer `end`.
    pub(super) fn slice(
        &self,
        top: usize,
        tables: &'a [Arc<Placed<R>>],
        end: usize,
    ) -> Option<Slice<'a, R>> {
        let mut slice = Slice::new(self.layers[end].place, tables)?;
        slice.add(self.layers[top].place, tables);
        for layer in &self.layers[top + 1..=end] {
            slice.extend(layer);
        }
        Some(slice)
    }

    /// The slice of whole runs from layer `top` to layer `end`. Its tables are all tables of these runs
    /// if `end` is above the bottom; of the bottom it takes what overlaps.
    pub(super) fn columns(&self, top: usize, end: usize) -> Option<Slice<'a, R>> {
        let whole = if end == self.bottom() { end } else { end + 1 };
        let mut slice: Option<Slice<'a, R>> = None;
        for layer in &self.layers[top..whole] {
            let slice = match &mut slice {
                Some(slice) => slice,
                None => slice.insert(Slice::new(self.layers[end].place, layer.tables)?),
            };
            slice.add(layer.place, layer.tables);
        }
        let mut slice = slice?;
        if end == self.bottom() {
            slice.extend(&self.layers[end]);
        }
        Some(slice)
    }
}

/// Tables of neighbouring runs that may be merged into the oldest of these runs.
#[derive(Debug)]
pub(super) struct Slice<'a, R> {
    /// Newest first; runs without a table in the slice are left out.
    pub parts: Vec<(Place, &'a [Arc<Placed<R>>])>,
    /// Where the result goes.
    pub to: Place,
    smallest: &'a [u8],
    largest: &'a [u8],
}

impl<'a, R> Slice<'a, R> {
    fn new(to: Place, tables: &'a [Arc<Placed<R>>]) -> Option<Self> {
        Some(Self {
            parts: Vec::new(),
            to,
            smallest: &tables.first()?.summary.smallest,
            largest: &tables.last()?.summary.largest,
        })
    }

    fn add(&mut self, place: Place, tables: &'a [Arc<Placed<R>>]) {
        let (Some(first), Some(last)) = (tables.first(), tables.last()) else {
            return;
        };
        self.smallest = self.smallest.min(&first.summary.smallest);
        self.largest = self.largest.max(&last.summary.largest);
        self.parts.push((place, tables));
    }

    /// Takes along whatever layer `from` and all older ones hold in the slice's key range, down to the
    /// bottom.
    pub(super) fn descend(&mut self, stack: &Stack<'a, R>, from: usize) {
        for layer in &stack.layers[from..] {
            self.extend(layer);
        }
        self.to = Place::BOTTOM;
    }

    fn extend(&mut self, layer: &Layer<'a, R>) {
        self.add(layer.place, layer.within(self.smallest, self.largest));
    }

    pub(super) fn tables(&self) -> impl Iterator<Item = &'a Arc<Placed<R>>> {
        self.parts.iter().flat_map(|(_, tables)| tables.iter())
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.parts
            .iter()
            .map(|(_, tables)| size_bytes(tables))
            .sum()
    }

    /// Bytes that come from above the run that takes the result.
    pub(super) fn upper_bytes(&self) -> u64 {
        let above = self.parts.iter().filter(|(place, _)| *place != self.to);
        above.map(|(_, tables)| size_bytes(tables)).sum()
    }

    /// Tombstones that come from above the run that takes the result.
    pub(super) fn upper_deletes(&self) -> u64 {
        let above = self.parts.iter().filter(|(place, _)| *place != self.to);
        above
            .flat_map(|(_, tables)| tables.iter())
            .map(|table| table.summary.deletes)
            .sum()
    }

    /// True if no key can be in two of its tables, so that they can change their place as they are.
    pub(super) fn is_disjoint(&self) -> bool {
        let mut ranges: Vec<(&[u8], &[u8])> = self
            .tables()
            .map(|table| (&*table.summary.smallest, &*table.summary.largest))
            .collect();
        ranges.sort_unstable();
        ranges.is_sorted_by(|a, b| a.1 < b.0)
    }

    pub(super) fn choice(&self, reason: Reason, is_move: bool) -> Choice {
        let parts = self.parts.iter().map(|(place, tables)| Part {
            place: *place,
            files: tables.iter().map(|table| table.summary.file).collect(),
        });
        Choice {
            inputs: parts.collect(),
            to: self.to,
            smallest: self.smallest.to_vec(),
            largest: self.largest.to_vec(),
            size_bytes: self.size_bytes(),
            is_move,
            reason,
        }
    }
}
