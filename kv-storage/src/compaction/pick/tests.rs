//! The picker as a table of cases, and as a simulation that must come to rest with a sound shape.

use super::*;
use crate::key::Seq;
use crate::table::TableSummary;
use crate::version::{Edit, NewTable};
use proptest::prelude::*;
use std::convert::Infallible;

fn options() -> Options {
    let mut options = Options::tiny();
    options.level0_trigger = 3;
    options.level1_bytes = 100;
    options.level_growth = 10;
    options
}

/// A table of `size` bytes over the keys `first..=last`.
fn table(level: u8, file: u64, first: u8, last: u8, size: u64) -> NewTable {
    let table = TableSummary {
        file,
        size_bytes: size,
        entries: 1,
        deletes: 0,
        smallest: vec![first],
        largest: vec![last],
        newest: Seq(file),
    };
    NewTable {
        level,
        run: if level == 0 { file } else { 0 },
        table,
    }
}

fn apply(version: &Version<()>, edit: &Edit) -> Version<()> {
    let Ok(next) = version.apply(edit, |_| Ok::<(), Infallible>(()));
    next
}

fn version(tables: Vec<NewTable>) -> Version<()> {
    apply(
        &Version::empty(),
        &Edit {
            added: tables,
            ..Edit::default()
        },
    )
}

#[test]
fn nothing_is_picked_while_every_level_is_within_its_limit() {
    assert_eq!(pick(&Version::<()>::empty(), &options()), None);
    let calm = vec![
        table(0, 1, 0, 9, 500),
        table(0, 2, 0, 9, 500),
        table(1, 3, 0, 9, 99),
        table(2, 4, 0, 9, 999),
    ];
    assert_eq!(pick(&version(calm), &options()), None);
}

#[test]
fn level_zero_is_due_by_runs_and_takes_all_that_overlaps_below() {
    let tables = vec![
        table(0, 7, 2, 4, 1),
        table(0, 8, 3, 6, 1),
        table(0, 9, 5, 5, 1),
        table(1, 1, 0, 1, 9),
        table(1, 2, 2, 2, 9),
        table(1, 3, 6, 8, 9),
        table(1, 4, 9, 9, 9),
    ];
    let choice = pick(&version(tables), &options()).unwrap();
    assert_eq!(
        choice,
        Choice {
            from: 0,
            to: 1,
            upper: vec![7, 8, 9],
            lower: vec![2, 3],
            is_move: false
        }
    );
}

#[test]
fn a_long_level_zero_gives_its_oldest_runs_first() {
    let tables = (1..=20).map(|file| table(0, file, 0, 9, 1)).collect();
    let choice = pick(&version(tables), &options()).unwrap();
    assert_eq!(choice.upper, (1..=6).collect::<Vec<_>>());
}

#[test]
fn a_deep_level_gives_the_table_that_costs_least_and_moves_it_if_it_can() {
    let mut tables = vec![
        table(1, 1, 0, 3, 60),
        table(1, 2, 4, 6, 60),
        table(2, 5, 0, 0, 500),
        table(2, 6, 5, 5, 100),
    ];
    let choice = pick(&version(tables.clone()), &options()).unwrap();
    assert_eq!(
        choice,
        Choice {
            from: 1,
            to: 2,
            upper: vec![2],
            lower: vec![6],
            is_move: false
        }
    );
    tables.push(table(1, 3, 7, 9, 10));
    let choice = pick(&version(tables), &options()).unwrap();
    assert_eq!(
        choice,
        Choice {
            from: 1,
            to: 2,
            upper: vec![3],
            lower: vec![],
            is_move: true
        }
    );
}

#[test]
fn the_level_furthest_over_its_limit_goes_first() {
    let level0 = (10..14).map(|file| table(0, file, 0, 9, 1));
    let tables: Vec<_> = level0.chain([table(1, 1, 0, 9, 300)]).collect();
    assert_eq!(pick(&version(tables.clone()), &options()).unwrap().from, 1);
    let more: Vec<_> = (14..20)
        .map(|file| table(0, file, 0, 9, 1))
        .chain(tables)
        .collect();
    assert_eq!(pick(&version(more), &options()).unwrap().from, 0);
}

#[test]
fn the_last_level_is_never_picked() {
    let deepest = u8::try_from(LEVELS - 1).unwrap();
    assert_eq!(
        pick(
            &version(vec![table(deepest, 1, 0, 9, u64::MAX / 200)]),
            &options()
        ),
        None
    );
}

/// Does what a compaction would: inputs become tables of 20 bytes each below, cut at distinct keys.
fn perform(version: &Version<()>, choice: &Choice, next_file: &mut u64) -> Version<()> {
    let inputs: Vec<_> = version
        .tables()
        .filter(|table| {
            choice.upper.contains(&table.summary.file) || choice.lower.contains(&table.summary.file)
        })
        .collect();
    let smallest = inputs
        .iter()
        .map(|table| table.summary.smallest[0])
        .min()
        .unwrap();
    let largest = inputs
        .iter()
        .map(|table| table.summary.largest[0])
        .max()
        .unwrap();
    let level = u8::try_from(choice.to).unwrap();
    let mut added = Vec::new();
    let (mut left, mut at): (u64, u8) = (
        inputs.iter().map(|table| table.summary.size_bytes).sum(),
        smallest,
    );
    while left > 0 {
        let size = if at == largest { left } else { left.min(20) };
        *next_file += 1;
        added.push(table(level, *next_file, at, at, size));
        left -= size;
        at += 1;
    }
    let removed = choice.upper.iter().chain(&choice.lower).copied().collect();
    apply(
        version,
        &Edit {
            added,
            removed,
            ..Edit::default()
        },
    )
}

proptest! {
    /// Whatever is flushed, compaction comes to rest, and every choice keeps newer data above older data.
    #[test]
    fn compaction_comes_to_rest_with_every_level_in_bounds(
        flushes in prop::collection::vec((0u8..200, 0u8..50, 1u64..40), 1..80)
    ) {
        let options = options();
        let mut current = Version::<()>::empty();
        let mut next_file = 0;
        let size = |version: &Version<()>| version.tables().map(|table| table.summary.size_bytes).sum::<u64>();
        for (first, width, bytes) in flushes {
            next_file += 1;
            current = apply(&current, &Edit { added: vec![table(0, next_file, first, first + width, bytes)], ..Edit::default() });
            let mut steps = 0;
            while let Some(choice) = pick(&current, &options) {
                check_choice(&current, &choice)?;
                let before = size(&current);
                current = perform(&current, &choice, &mut next_file);
                prop_assert_eq!(size(&current), before);
                prop_assert!(current.is_ordered());
                steps += 1;
                prop_assert!(steps < 1_000, "compaction does not come to rest");
            }
            prop_assert!(current.levels[0].runs.len() < options.level0_trigger);
        }
    }
}

/// Nothing that stays behind may be older than what moves below it, or newer than what it is merged with.
fn check_choice(version: &Version<()>, choice: &Choice) -> Result<(), TestCaseError> {
    prop_assert!(!choice.upper.is_empty() && choice.to == choice.from + 1);
    let upper: Vec<_> = version.levels[choice.from]
        .tables()
        .filter(|t| choice.upper.contains(&t.summary.file))
        .collect();
    for table in version.levels[choice.to].tables() {
        let overlaps = upper
            .iter()
            .any(|other| table.overlaps(&other.summary.smallest, &other.summary.largest));
        prop_assert!(
            !overlaps || choice.lower.contains(&table.summary.file),
            "an overlapping table is left out"
        );
    }
    if choice.from == 0 {
        let oldest_left = version.levels[0]
            .runs
            .iter()
            .filter(|run| !choice.upper.contains(&run.id))
            .map(|run| run.id)
            .min();
        prop_assert!(
            choice
                .upper
                .iter()
                .all(|file| oldest_left.is_none_or(|left| *file < left))
        );
    }
    prop_assert_eq!(
        choice.is_move,
        choice.upper.len() == 1 && choice.lower.is_empty()
    );
    Ok(())
}
