//! The yardstick: leveled compaction with growth 10, as a picker of the same form.

use crate::compaction::choice::{Choice, Part, Place, Reason};
use crate::version::{LEVELS, Placed, Version};
use std::sync::Arc;

/// Level 0 is due at four runs, level `n` at `level1_bytes * 10^(n-1)`; a deep level gives the table
/// that overlaps least.
pub(super) fn pick(version: &Version<()>, level1_bytes: u64) -> Option<Choice> {
    let fullness = |number: usize| {
        let level = &version.levels[number];
        match number {
            0 => level.runs.len() as u64 * 100 / 4,
            _ => level.size_bytes() * 100 / (level1_bytes * 10u64.pow(number as u32 - 1)),
        }
    };
    let from = (0..LEVELS - 1)
        .rev()
        .max_by_key(|number| fullness(*number))?;
    if fullness(from) < 100 {
        return None;
    }
    let level = &version.levels[from];
    let upper: Vec<Arc<Placed<()>>> = if from == 0 {
        level.tables().cloned().collect()
    } else {
        let cost = |table: &Arc<Placed<()>>| {
            let lower: u64 = overlapping(version, from + 1, std::slice::from_ref(table))
                .iter()
                .map(|table| table.summary.size_bytes)
                .sum();
            lower * 1000 / table.summary.size_bytes
        };
        level
            .tables()
            .min_by_key(|table| cost(table))
            .cloned()
            .into_iter()
            .collect()
    };
    let lower = overlapping(version, from + 1, &upper);
    let place = |level: usize, run| Place {
        level: level as u8,
        run,
    };
    let of = |tables: &[Arc<Placed<()>>]| tables.iter().map(|table| table.summary.file).collect();
    let mut inputs: Vec<Part> = level
        .runs
        .iter()
        .map(|run| Part {
            place: place(from, run.id),
            files: of(&run.tables),
        })
        .collect();
    if from > 0 {
        inputs[0].files = of(&upper);
    }
    inputs.push(Part {
        place: place(from + 1, 0),
        files: of(&lower),
    });
    Some(Choice {
        is_move: lower.is_empty() && upper.len() == 1,
        size_bytes: upper
            .iter()
            .chain(&lower)
            .map(|table| table.summary.size_bytes)
            .sum(),
        inputs,
        to: place(from + 1, 0),
        smallest: vec![0; 4],
        largest: vec![255; 4],
        reason: Reason::Level0,
    })
}

fn overlapping(
    version: &Version<()>,
    level: usize,
    upper: &[Arc<Placed<()>>],
) -> Vec<Arc<Placed<()>>> {
    let smallest = upper.iter().map(|table| &table.summary.smallest).min();
    let largest = upper.iter().map(|table| &table.summary.largest).max();
    let (Some(smallest), Some(largest)) = (smallest, largest) else {
        return Vec::new();
    };
    version.levels[level]
        .tables()
        .filter(|table| table.overlaps(smallest, largest))
        .cloned()
        .collect()
}
