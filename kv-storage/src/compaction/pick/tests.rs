//! The picker as a table of cases, and under random histories of flushes, compactions that take their
//! time, and damaged tables.

use super::*;
use crate::blob::{BlobSummary, Pointer, References};
use crate::compaction::model::{PUT_BYTES, World};
use crate::table::TableSummary;
use crate::version::{BOTTOM, Edit, NewTable};
use proptest::prelude::*;

fn options() -> Options {
    Options {
        memtable_bytes: 12 * PUT_BYTES as usize,
        table_bytes: 8 * PUT_BYTES,
        level0_trigger: 3,
        middle_runs_max: 2,
        ..Options::tiny()
    }
}

/// A table of `size` bytes over the keys `first..=last`.
fn table(level: u8, run: u64, file: u64, (first, last): (u8, u8), size: u64) -> NewTable {
    let table = TableSummary {
        file,
        size_bytes: size,
        entries: 10,
        deletes: 0,
        smallest: vec![first],
        largest: vec![last],
        newest: Seq(file),
        ..TableSummary::default()
    };
    NewTable { level, run, table }
}

fn flushed(file: u64, range: (u8, u8), size: u64) -> NewTable {
    table(0, file, file, range, size)
}

fn bottom(file: u64, range: (u8, u8), size: u64) -> NewTable {
    table(BOTTOM, 0, file, range, size)
}

fn version(tables: Vec<NewTable>) -> Version<()> {
    let mut world = World::new(options());
    world.apply(&Edit {
        added: tables,
        ..Edit::default()
    });
    world.version
}

#[derive(Default)]
struct Given {
    in_flight: Vec<Arc<Choice>>,
    fenced: BTreeSet<u64>,
    fenced_blobs: BTreeSet<u64>,
    oldest_snapshot: Option<Seq>,
    idle_bytes: u64,
    expired: Option<u64>,
}

impl Given {
    fn pick(&self, version: &Version<()>) -> Option<Choice> {
        let situation = Situation {
            in_flight: &self.in_flight,
            fenced: &self.fenced,
            fenced_blobs: &self.fenced_blobs,
            oldest_snapshot: self.oldest_snapshot,
            idle_bytes: self.idle_bytes,
            expired: self.expired,
        };
        pick(version, &options(), &situation, false)
    }
}

fn picked(tables: Vec<NewTable>) -> Option<Choice> {
    Given::default().pick(&version(tables))
}

/// Inputs by run, and where they go: `(level, run)`.
fn outline(choice: &Choice) -> (Vec<u64>, (u8, u64), bool) {
    (
        choice.files().collect(),
        (choice.to.level, choice.to.run),
        choice.is_move,
    )
}

#[test]
fn nothing_is_picked_while_nothing_is_due() {
    assert_eq!(Given::default().pick(&Version::empty()), None);
    let calm = vec![
        flushed(11, (0, 9), 500),
        flushed(12, (0, 9), 500),
        table(1, 8, 8, (0, 9), 200),
        bottom(3, (0, 9), 1000),
    ];
    assert_eq!(picked(calm), None);
}

#[test]
fn level_zero_joins_a_small_bottom_and_otherwise_becomes_a_run_of_the_middle() {
    let level0 = || (11..14).map(|file| flushed(file, (2, 5), 400));
    let small = level0().chain([
        bottom(1, (0, 1), 9000),
        bottom(2, (4, 6), 2000),
        bottom(3, (8, 9), 9000),
    ]);
    let choice = picked(small.collect()).unwrap();
    assert_eq!(outline(&choice), (vec![13, 12, 11, 2], (BOTTOM, 0), false));
    let large = level0().chain([bottom(2, (0, 6), 9000)]);
    let choice = picked(large.collect()).unwrap();
    assert_eq!(outline(&choice), (vec![13, 12, 11], (1, 13), false));
    assert_eq!(choice.reason, Reason::Level0);
}

#[test]
fn level_zero_takes_along_what_an_interrupted_compaction_of_it_has_written() {
    // The output up to key 5 is in the run that level 0 would become, and inputs are released that ended there.
    let tables = || {
        let level0 = (11..14).map(|file| flushed(file, (4, 9), 400));
        level0.chain([table(1, 13, 20, (0, 5), 9000), bottom(1, (0, 9), 90_000)])
    };
    let choice = picked(tables().collect()).unwrap();
    assert_eq!(outline(&choice), (vec![13, 12, 11, 20], (1, 13), false));
    let idle = Given {
        idle_bytes: 20_000,
        ..Given::default()
    };
    let two = || tables().filter(|new| new.table.file != 11);
    let choice = idle.pick(&version(two().collect())).unwrap();
    assert_eq!(outline(&choice), (vec![13, 12, 20], (1, 13), false));
    // If that run cannot be taken, nothing goes there.
    let fenced = Given {
        fenced: [20].into(),
        ..Given::default()
    };
    assert_eq!(fenced.pick(&version(tables().collect())), None);
}

#[test]
fn level_zero_moves_to_the_bottom_if_nothing_overlaps() {
    let tables = (11..14).map(|file| {
        flushed(
            file,
            (10 * (file as u8 - 10), 10 * (file as u8 - 10) + 9),
            400,
        )
    });
    let choice = picked(tables.clone().chain([bottom(2, (0, 6), 9000)]).collect()).unwrap();
    assert_eq!(outline(&choice), (vec![13, 12, 11], (BOTTOM, 0), true));
    let choice = picked(tables.clone().chain([bottom(2, (0, 10), 9000)]).collect()).unwrap();
    assert!(!choice.is_move);
    let deleting = tables.map(|mut new| {
        new.table.ranges = 1;
        new
    });
    let choice = picked(deleting.chain([bottom(2, (0, 6), 9000)]).collect()).unwrap();
    assert!(!choice.is_move, "tombstones are merged away");
}

#[test]
fn a_long_level_zero_gives_its_oldest_runs_first() {
    let tables = (11..=30)
        .map(|file| flushed(file, (0, 9), 400))
        .chain([bottom(1, (0, 9), 90_000)]);
    let choice = picked(tables.collect()).unwrap();
    assert_eq!(
        outline(&choice),
        ((11..=22).rev().collect(), (1, 22), false)
    );
}

#[test]
fn too_many_runs_in_the_middle_lose_the_cheapest_neighbours() {
    let runs = [(40, 700), (30, 100), (20, 120), (10, 4000)];
    let tables = runs.map(|(run, size)| table(1, run, run, (0, 9), size));
    let choice = picked(
        tables
            .into_iter()
            .chain([bottom(1, (0, 9), 90_000)])
            .collect(),
    )
    .unwrap();
    assert_eq!(outline(&choice), (vec![30, 20], (1, 20), false));
    assert_eq!(choice.reason, Reason::Runs);
}

#[test]
fn too_much_above_the_bottom_sinks_where_that_frees_most() {
    let tables = vec![
        table(1, 30, 30, (0, 3), 900),
        table(1, 30, 31, (4, 9), 2000),
        bottom(1, (0, 3), 4000),
        bottom(2, (4, 9), 2000),
        bottom(3, (10, 19), 3000),
    ];
    let choice = picked(tables).unwrap();
    assert_eq!(outline(&choice), (vec![31, 2], (BOTTOM, 0), false));
    assert_eq!(choice.reason, Reason::Space);
}

#[test]
fn a_slice_takes_along_what_is_older_and_overlaps_but_not_what_is_newer() {
    let tables = vec![
        table(1, 40, 40, (0, 9), 10),
        table(1, 30, 30, (4, 6), 3000),
        bottom(1, (0, 3), 1000),
        bottom(2, (5, 7), 1000),
        bottom(3, (7 + 1, 9), 1000),
    ];
    let choice = picked(tables).unwrap();
    assert_eq!(outline(&choice), (vec![30, 2], (BOTTOM, 0), false));
}

#[test]
fn an_old_store_without_a_bottom_gets_its_deepest_run_moved_there() {
    let tables = vec![
        table(1, 0, 5, (0, 9), 100),
        table(3, 0, 6, (0, 3), 100),
        table(3, 0, 7, (4, 9), 100),
    ];
    let choice = picked(tables).unwrap();
    assert_eq!(outline(&choice), (vec![6, 7], (BOTTOM, 0), true));
}

#[test]
fn a_large_compaction_below_does_not_stop_the_relief_of_level_zero() {
    let tables: Vec<_> = (11..14)
        .map(|file| flushed(file, (0, 9), 400))
        .chain([table(1, 8, 8, (0, 9), 5000), bottom(2, (0, 9), 9000)])
        .collect();
    let version = version(tables);
    let sink = Given::default();
    let level0 = sink.pick(&version).unwrap();
    assert_eq!(level0.to.level, BOTTOM, "alone it would take all along");
    let busy = Given {
        in_flight: vec![Arc::new(
            Stack::of(&version)
                .columns(3, 4)
                .unwrap()
                .choice(Reason::Space, false),
        )],
        ..Given::default()
    };
    let beside = busy.pick(&version).unwrap();
    assert_eq!(outline(&beside), (vec![13, 12, 11], (1, 13), false));
}

#[test]
fn a_compaction_does_not_fall_into_a_gap_of_another() {
    // The output of the first may be one table over the whole gap.
    let version = version(vec![
        table(1, 40, 40, (18, 20), 4000),
        table(1, 30, 30, (10, 12), 1000),
        table(1, 30, 31, (28, 30), 1000),
        bottom(1, (50, 60), 4000),
    ]);
    let alone = Given::default().pick(&version).unwrap();
    assert_eq!(outline(&alone).0, [40]);
    let stack = Stack::of(&version);
    let first = stack.slice(1, stack.layers[1].tables, 2).unwrap();
    let busy = Given {
        in_flight: vec![Arc::new(first.choice(Reason::Space, false))],
        ..Given::default()
    };
    assert_eq!(busy.pick(&version), None);
}

#[test]
fn newer_runs_stay_above_a_damaged_table_of_level_zero() {
    let tables: Vec<_> = (11..17)
        .map(|file| flushed(file, (0, 9), 400))
        .chain([bottom(2, (0, 9), 900)])
        .collect();
    let given = Given {
        fenced: [12].into(),
        ..Given::default()
    };
    let choice = given.pick(&version(tables)).unwrap();
    assert_eq!(outline(&choice), (vec![16, 15, 14, 13], (0, 13), false));
}

#[test]
fn tombstones_are_buried_and_in_the_bottom_removed_when_no_snapshot_needs_them() {
    let mut dense = table(1, 30, 30, (0, 3), 10);
    dense.table.deletes = 6;
    let tables = vec![dense.clone(), bottom(1, (0, 9), 9000)];
    assert_eq!(
        outline(&picked(tables).unwrap()),
        (vec![30, 1], (BOTTOM, 0), false)
    );

    dense.level = BOTTOM;
    dense.run = 0;
    let version = version(vec![dense]);
    let with_snapshot = |oldest| Given {
        oldest_snapshot: Some(Seq(oldest)),
        ..Given::default()
    };
    assert_eq!(with_snapshot(29).pick(&version), None);
    let choice = with_snapshot(30).pick(&version).unwrap();
    assert_eq!(outline(&choice), (vec![30], (BOTTOM, 0), false));
    assert_eq!(choice.reason, Reason::Tombstones);
}

#[test]
fn expired_tables_are_rewritten_unless_a_snapshot_may_need_them() {
    let mut aging = bottom(7, (0, 9), 1000);
    aging.table.expires = Some(50);
    let version = version(vec![aging]);
    let at = |now, oldest_snapshot| Given {
        expired: Some(now),
        oldest_snapshot,
        ..Given::default()
    };
    assert_eq!(at(49, None).pick(&version), None);
    assert_eq!(at(50, Some(Seq(99))).pick(&version), None);
    assert_eq!(at(50, None).pick(&version).unwrap().reason, Reason::Expiry);
}

#[test]
fn a_run_that_cost_readers_as_much_as_its_merge_is_merged() {
    let tables = vec![
        flushed(20, (0, 9), 1000),
        table(1, 10, 10, (0, 9), 1000),
        bottom(1, (0, 9), 9000),
    ];
    let version = version(tables);
    let run = &version.levels[0].runs[0].tables[0];
    let lost = || run.reads.lost_bytes();
    while lost() < 2000 {
        assert_eq!(
            Given::default().pick(&version),
            None,
            "after {} bytes",
            lost()
        );
        run.reads.note_miss(1);
        run.reads.note_miss(0);
    }
    let choice = Given::default().pick(&version).unwrap();
    assert_eq!(outline(&choice), (vec![20, 10], (1, 10), false));
    assert_eq!(choice.reason, Reason::Reads);
}

#[test]
fn an_idle_store_becomes_one_run_as_far_as_its_credit_goes() {
    let tables = || {
        vec![
            flushed(20, (0, 9), 300),
            table(1, 10, 10, (0, 9), 200),
            bottom(1, (0, 9), 9000),
        ]
    };
    let idle = |idle_bytes| {
        let given = Given {
            idle_bytes,
            ..Given::default()
        };
        given
            .pick(&version(tables()))
            .map(|choice| outline(&choice).0)
    };
    assert_eq!(idle(0), None);
    assert_eq!(idle(9_100), None);
    assert_eq!(idle(9_400), Some(vec![10, 1]));
    assert_eq!(idle(9_500), Some(vec![20, 10, 1]));
}

#[derive(Debug, Clone)]
enum Op {
    Write(u8, bool),
    Flush,
    /// Flushes a few neighbouring keys, so that tables are narrow and leave gaps.
    Burst(u8, u8, bool),
    /// Picks, with or without idle time, and lets it wait.
    Begin(bool),
    /// Carries one out that waits.
    End(u8),
    Fence(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        60 => (0u8..80, prop::bool::weighted(0.3)).prop_map(|(key, is_delete)| Op::Write(key, is_delete)),
        2 => Just(Op::Flush),
        12 => (0u8..80, 1u8..8, prop::bool::weighted(0.3)).prop_map(|(first, count, is_delete)| Op::Burst(first, count, is_delete)),
        8 => prop::bool::weighted(0.1).prop_map(Op::Begin),
        6 => any::<u8>().prop_map(Op::End),
    ]
}

fn op_with_fences() -> impl Strategy<Value = Op> {
    prop_oneof![99 => op(), 1 => any::<u8>().prop_map(Op::Fence)]
}

/// A compaction that was picked, and the key ranges of older tables at that moment.
type Waiting = (Arc<Choice>, Vec<(Vec<u8>, Vec<u8>)>);

/// Runs a history; readers must see the newest versions at every moment.
fn run(ops: &[Op]) -> World {
    let mut world = World::new(options());
    world.checks_each_step = true;
    let mut waiting: Vec<Waiting> = Vec::new();
    for op in ops {
        match op {
            Op::Write(key, is_delete) => {
                if world.write(u32::from(*key), *is_delete) {
                    world.flush();
                }
            }
            Op::Flush => world.flush(),
            Op::Burst(first, count, is_delete) => {
                world.flush();
                for key in *first..first + count {
                    world.write(u32::from(key), *is_delete);
                }
                world.flush();
            }
            Op::Begin(idle) => {
                let Some(choice) = world.pick(*idle) else {
                    continue;
                };
                check(&world, &choice);
                let below = world.version.ranges_older_than(choice.to);
                let choice = Arc::new(choice);
                world.in_flight.push(Arc::clone(&choice));
                waiting.push((choice, below));
            }
            Op::End(number) if !waiting.is_empty() => {
                let (choice, below) = waiting.swap_remove(usize::from(*number) % waiting.len());
                world.perform_with(&choice, below);
                world.in_flight.retain(|other| !Arc::ptr_eq(other, &choice));
                world.check_reads();
            }
            Op::End(_) => {}
            Op::Fence(number) => {
                let files: Vec<u64> = world
                    .version
                    .tables()
                    .map(|table| table.summary.file)
                    .collect();
                // Of a table in flight the damage shows only when its compaction has ended.
                let free = |file: &&u64| {
                    world
                        .in_flight
                        .iter()
                        .all(|choice| choice.files().all(|other| other != **file))
                };
                let file = files
                    .iter()
                    .filter(free)
                    .nth(usize::from(*number) % files.len().max(1));
                world.fenced.extend(file);
            }
        }
    }
    for (choice, below) in waiting {
        world.perform_with(&choice, below);
        world.check_reads();
    }
    world.in_flight.clear();
    world.flush();
    world.rest(false);
    world.check_reads();
    world
}

/// No input is in use or fenced, and compactions under way are apart.
fn check(world: &World, choice: &Choice) {
    for other in &world.in_flight {
        assert!(!choice.collides_with(other) && !other.collides_with(choice));
        assert!(
            choice
                .files()
                .all(|file| other.files().all(|used| used != file))
        );
        assert!(!(choice.relieves_level0() && other.relieves_level0()));
    }
    assert!(choice.files().all(|file| !world.fenced.contains(&file)));
    assert!(choice.files().next().is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compactions_that_overtake_each_other_never_hide_a_newer_version(ops in prop::collection::vec(op(), 1..600)) {
        let mut world = run(&ops);
        let middle = world.version.levels[1].runs.len();
        prop_assert!(world.version.levels[0].runs.len() < world.options.level0_trigger);
        prop_assert!(middle <= world.options.middle_runs_max, "{middle}");
        world.idle_bytes = u64::MAX;
        world.rest(true);
        world.check_reads();
        prop_assert!(world.runs() <= 1, "an idle store has one run");
        prop_assert_eq!(world.size_bytes(), world.live_bytes());
    }

    #[test]
    fn damaged_tables_stay_where_they_are_and_hide_nothing(ops in prop::collection::vec(op_with_fences(), 1..600)) {
        let world = run(&ops);
        let files: Vec<u64> = world.version.tables().map(|table| table.summary.file).collect();
        prop_assert!(world.fenced.iter().all(|file| files.contains(file)));
    }
}

/// A table that points to so many bytes in each of these blob files.
fn pointing(table: NewTable, blobs: &[(u64, u32)]) -> NewTable {
    let mut references = References::default();
    for (file, bytes) in blobs {
        references.note(&Pointer {
            file: *file,
            offset: 32,
            // With its head.
            stored: bytes - 12,
            raw: 1,
            checksum: 0,
        });
    }
    let table_of = TableSummary {
        references,
        ..table.table
    };
    NewTable {
        table: table_of,
        ..table
    }
}

/// A version of these tables, and blob files of so many bytes.
fn version_with_blobs(tables: Vec<NewTable>, blobs: &[(u64, u64)]) -> Version<()> {
    let blob = |(file, value_bytes): &(u64, u64)| BlobSummary {
        file: *file,
        size_bytes: value_bytes + 60,
        values: 10,
        value_bytes: *value_bytes,
    };
    let mut world = World::new(options());
    world.apply(&Edit {
        added: tables,
        blobs: blobs.iter().map(blob).collect(),
        ..Edit::default()
    });
    world.version
}

#[test]
fn garbage_in_blob_files_is_collected_where_it_frees_most_for_what_is_written() {
    // File 50 has 600 bytes of garbage and 400 in use, file 51 less than half.
    let tables = |size| {
        vec![
            pointing(bottom(1, (0, 9), size), &[(50, 300)]),
            pointing(bottom(2, (10, 19), size), &[(50, 100), (51, 500)]),
        ]
    };
    let blobs = [(50, 1000), (51, 800)];
    let version = version_with_blobs(tables(100), &blobs);
    let choice = Given::default().pick(&version).unwrap();
    assert_eq!(outline(&choice), (vec![1], (BOTTOM, 0), false));
    assert_eq!(choice.reason, Reason::Garbage);
    // The first one frees 450 bytes, and is not rewritten for that if it has more than twice as many.
    assert!(
        Given::default()
            .pick(&version_with_blobs(tables(900), &blobs))
            .is_some()
    );
    assert_eq!(
        Given::default().pick(&version_with_blobs(tables(901), &blobs)),
        None
    );
    let given = Given {
        fenced_blobs: BTreeSet::from([50, 51]),
        ..Given::default()
    };
    assert_eq!(given.pick(&version), None, "values in them are damaged");
    let full = version_with_blobs(tables(100), &[(50, 799), (51, 500)]);
    let choice = Given::default().pick(&full).unwrap();
    assert_eq!(
        choice.reason,
        Reason::Garbage,
        "a quarter of all is garbage"
    );
    let full = version_with_blobs(tables(100), &[(50, 600), (51, 500)]);
    assert_eq!(
        Given::default().pick(&full),
        None,
        "less than a quarter of all, and less than half of each"
    );
}

#[test]
fn garbage_of_the_middle_is_collected_together_with_the_bottom_below() {
    let tables = vec![
        pointing(table(1, 30, 30, (4, 6), 10), &[(50, 100)]),
        bottom(1, (0, 5), 100),
        bottom(2, (6, 9), 100),
    ];
    let version = version_with_blobs(tables, &[(50, 1000)]);
    let choice = Given::default().pick(&version).unwrap();
    assert_eq!(outline(&choice), (vec![30, 1, 2], (BOTTOM, 0), false));
    assert_eq!(choice.reason, Reason::Garbage);
}

#[test]
fn deleted_ranges_go_to_the_bottom_once_what_they_hide_is_worth_it() {
    let deleting = |level, run, covered_bytes| {
        let mut new = table(level, run, 11, (2, 5), 100);
        (new.table.ranges, new.table.covered_bytes) = (2, covered_bytes);
        new
    };
    let below = || [bottom(1, (0, 3), 500), bottom(2, (4, 6), 500)];
    let tables = |new: NewTable| below().into_iter().chain([new]).collect::<Vec<_>>();
    // 1100 bytes would be rewritten.
    for (level, run) in [(0, 11), (1, 9)] {
        assert_eq!(picked(tables(deleting(level, run, 300))), None);
        let choice = picked(tables(deleting(level, run, 500))).unwrap();
        assert_eq!(choice.reason, Reason::Tombstones);
        assert_eq!(outline(&choice), (vec![11, 1, 2], (BOTTOM, 0), false));
    }
    let needed = Given {
        oldest_snapshot: Some(Seq(10)),
        ..Given::default()
    };
    assert_eq!(needed.pick(&version(tables(deleting(0, 11, 500)))), None);
    let choice = picked(vec![deleting(BOTTOM, 0, 0)]).unwrap();
    assert_eq!(outline(&choice), (vec![11], (BOTTOM, 0), false));
}
