//! Decides what to compact next: leveled compaction as a pure function.
//!
//! Level 0 is due by its number of runs, each deeper level by its size. The level furthest over its
//! limit goes first. Level 0 gives its oldest runs; a deeper level gives the table that overlaps
//! least, relative to its size, with the level below.

use crate::options::Options;
use crate::version::{LEVELS, Level, Placed, Version};
use std::sync::Arc;

/// Level 0 gives at most this many times its trigger at once, so that one compaction stays bounded.
const LEVEL0_MOST: usize = 2;

/// What to compact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub from: usize,
    pub to: usize,
    /// File numbers of the tables from `from`, which are newer than those of `to`.
    pub upper: Vec<u64>,
    /// File numbers of the overlapping tables in `to`.
    pub lower: Vec<u64>,
    /// True if the one upper table can change its level without being rewritten.
    pub is_move: bool,
}

/// The most urgent compaction, or none if every level is within its limit.
pub(crate) fn pick<R>(version: &Version<R>, options: &Options) -> Option<Choice> {
    let mut worst = (0, 100);
    for (number, level) in version.levels[..LEVELS - 1].iter().enumerate() {
        let percent = fullness_percent(number, level, options);
        if percent >= worst.1 && (percent > worst.1 || worst.1 == 100) {
            worst = (number, percent.max(101));
        }
    }
    if worst.1 == 100 {
        return None;
    }
    let from = worst.0;
    let upper = if from == 0 {
        oldest_runs(&version.levels[0], options)
    } else {
        vec![least_overlapping(
            &version.levels[from],
            &version.levels[from + 1],
        )?]
    };
    Some(choice(version, from, &upper))
}

/// Size of a level as a percentage of its limit.
fn fullness_percent<R>(number: usize, level: &Level<R>, options: &Options) -> u64 {
    if number == 0 {
        return level.runs.len() as u64 * 100 / options.level0_trigger as u64;
    }
    let growth = options.level_growth.saturating_pow(number as u32 - 1);
    let target = options.level1_bytes.saturating_mul(growth).max(1);
    level.size_bytes().saturating_mul(100) / target
}

fn oldest_runs<R>(level: &Level<R>, options: &Options) -> Vec<Arc<Placed<R>>> {
    let most = options.level0_trigger * LEVEL0_MOST;
    level
        .runs
        .iter()
        .rev()
        .take(most)
        .flat_map(|run| run.tables.iter().cloned())
        .collect()
}

/// The table for which the fewest bytes below must be rewritten per byte moved down; the first of equals.
fn least_overlapping<R>(level: &Level<R>, below: &Level<R>) -> Option<Arc<Placed<R>>> {
    let cost = |table: &Placed<R>| {
        let overlap: u64 = overlapping(below, &table.summary.smallest, &table.summary.largest)
            .map(|other| other.summary.size_bytes)
            .sum();
        u128::from(overlap) * 1_000_000 / u128::from(table.summary.size_bytes.max(1))
    };
    level.tables().min_by_key(|table| cost(table)).cloned()
}

fn overlapping<'a, R>(
    level: &'a Level<R>,
    smallest: &'a [u8],
    largest: &'a [u8],
) -> impl Iterator<Item = &'a Arc<Placed<R>>> {
    level
        .tables()
        .filter(move |table| table.overlaps(smallest, largest))
}

fn choice<R>(version: &Version<R>, from: usize, upper: &[Arc<Placed<R>>]) -> Choice {
    let smallest = upper
        .iter()
        .map(|table| &*table.summary.smallest)
        .min()
        .unwrap_or_default();
    let largest = upper
        .iter()
        .map(|table| &*table.summary.largest)
        .max()
        .unwrap_or_default();
    let below = &version.levels[from + 1];
    let lower: Vec<u64> = overlapping(below, smallest, largest)
        .map(|table| table.summary.file)
        .collect();
    Choice {
        from,
        to: from + 1,
        upper: upper.iter().map(|table| table.summary.file).collect(),
        is_move: upper.len() == 1 && lower.is_empty(),
        lower,
    }
}

#[cfg(test)]
mod tests;
