//! Compactions that free their inputs as they go, beside each other, and under faults.

use crate::support::{contents, dir, env};
use kv_storage::sim::{Fault, SimFs};
use kv_storage::{Db, Options};
use std::collections::BTreeMap;

/// Tables so small that each compaction gives its outputs to readers in several pieces.
fn options() -> Options {
    let mut options = Options::tiny();
    options.table_bytes = 1024;
    options.upper_tables.block_bytes = 256;
    options.bottom_tables.block_bytes = 256;
    options.memtable_bytes = 6 << 10;
    options.level0_trigger = 2;
    options.middle_runs_max = 1;
    options.compaction_step_bytes = 2 << 10;
    // Some values lie in blob files; enough stay in the tables to fill them.
    options.blob_value_bytes = 240;
    options
}

/// Bytes that do not compress.
fn noise(random: &mut fastrand::Rng) -> Vec<u8> {
    let length = random.usize(40..250);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A key, and its new value if it is not deleted.
type Change = (Vec<u8>, Option<Vec<u8>>);

/// Overwrites and deletes keys; returns what was acknowledged, and the write that failed.
fn run(fs: &SimFs) -> (Map, Option<Change>, Option<kv_storage::Stats>) {
    let mut expected = Map::new();
    let Ok(db) = Db::open(dir(), options(), env(fs)) else {
        return (expected, None, None);
    };
    let mut random = fastrand::Rng::with_seed(3);
    for number in 0..360u32 {
        let key = random.u32(..80).to_be_bytes().to_vec();
        let value = (random.u32(..6) > 0).then(|| noise(&mut random));
        let written = match &value {
            Some(value) => db.blocking().put(&key, value).map(drop),
            None => db.blocking().delete(&key).map(drop),
        };
        if written.is_err() {
            return (expected, Some((key, value)), None);
        }
        match value {
            Some(value) => expected.insert(key, value),
            None => expected.remove(&key),
        };
        if number % 120 == 119 && db.flush().is_err() {
            return (expected, None, None);
        }
    }
    (expected, None, Some(db.stats()))
}

/// The store holds what was acknowledged; the write that failed may be there or not.
fn check(db: &Db, expected: &Map, failed: Option<&Change>, what: &str) {
    let found = contents(db).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut with = expected.clone();
    if let Some((key, value)) = failed {
        match value {
            Some(value) => with.insert(key.clone(), value.clone()),
            None => with.remove(key),
        };
    }
    assert!(
        found == *expected || found == with,
        "{what}: wrong contents"
    );
}

#[test]
fn a_power_cut_at_any_call_of_compactions_that_free_inputs_early_loses_nothing() {
    let fs = SimFs::new();
    let (_, _, stats) = run(&fs);
    let stats = stats.unwrap();
    assert!(stats.compaction_releases >= 3, "{stats:?}");
    for cut in 0..fs.calls() {
        let fs = SimFs::new();
        fs.plan(cut, Fault::PowerCut);
        let (expected, failed, _) = run(&fs);
        for loss in 0..2 {
            let what = format!("cut {cut}, loss {loss}");
            let fs = fs.fork().power_loss(loss);
            let db = Db::open(dir(), options(), env(&fs))
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            check(&db, &expected, failed.as_ref(), &what);
            db.flush().unwrap();
            check(&db, &expected, failed.as_ref(), &what);
        }
    }
}

#[test]
fn an_io_error_at_any_call_of_such_compactions_loses_nothing() {
    let fs = SimFs::new();
    run(&fs);
    for call in 0..fs.calls() {
        let what = format!("error at {call}");
        let fs = SimFs::new();
        fs.plan(call, Fault::Io);
        let (expected, failed, _) = run(&fs);
        let db = Db::open(dir(), options(), env(&fs.power_loss(call)))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        check(&db, &expected, failed.as_ref(), &what);
    }
}

#[test]
fn an_ascending_fill_is_moved_to_the_bottom_and_written_once() {
    let fs = SimFs::new();
    let db = Db::open(dir(), Options::tiny(), env(&fs)).unwrap();
    let mut random = fastrand::Rng::with_seed(4);
    for number in 0..2_000u32 {
        db.blocking()
            .put(&number.to_be_bytes(), &noise(&mut random))
            .unwrap();
    }
    db.flush().unwrap();
    let stats = db.stats();
    assert_eq!(stats.compaction_written_bytes, 0, "{stats:?}");
    assert!(
        stats.compaction_moved_bytes > 0 && stats.levels[6].runs == 1,
        "{stats:?}"
    );
    assert_eq!(contents(&db).unwrap().len(), 2_000);
}

#[test]
fn an_idle_store_comes_to_rest_in_one_run() {
    let fs = SimFs::new();
    let db = Db::open(dir(), Options::tiny(), env(&fs)).unwrap();
    let mut random = fastrand::Rng::with_seed(8);
    for number in 0..3_000u32 {
        let key = random.u32(..900).to_be_bytes();
        db.blocking()
            .put(&key, &number.to_be_bytes().repeat(20))
            .unwrap();
    }
    db.flush().unwrap();
    let stats = db.stats();
    let runs: usize = stats.levels.iter().map(|level| level.runs).sum();
    let entries: u64 = stats.levels.iter().map(|level| level.entries).sum();
    assert_eq!((runs, stats.debt), (1, 0), "{stats:?}");
    assert_eq!(entries, contents(&db).unwrap().len() as u64);
    let written = stats.table_written_bytes;
    (0..10).for_each(|_| db.tick());
    assert_eq!(db.stats().table_written_bytes, written, "it came to rest");
}

#[test]
fn the_size_of_a_range_is_known_about() {
    let fs = SimFs::new();
    let db = Db::open(dir(), Options::tiny(), env(&fs)).unwrap();
    let mut random = fastrand::Rng::with_seed(2);
    for number in 0..1_000u16 {
        let value: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(100).collect();
        db.blocking().put(&number.to_be_bytes(), &value).unwrap();
    }
    db.flush().unwrap();
    let whole = db.approximate_size::<&[u8]>(..);
    let stats = db.stats();
    assert_eq!(
        whole,
        stats
            .levels
            .iter()
            .map(|level| level.size_bytes)
            .sum::<u64>()
    );
    let part = |from: u16, to: u16| db.approximate_size(from.to_be_bytes()..to.to_be_bytes());
    assert_eq!((part(0, 0), part(2000, 3000)), (0, 0));
    for (from, to) in [(0, 500), (250, 750), (900, 1000)] {
        let (expected, found) = (whole * u64::from(to - from) / 1000, part(from, to));
        assert!(
            found.abs_diff(expected) < 6_000,
            "{from}..{to}: {found} of {expected}"
        );
    }
}
