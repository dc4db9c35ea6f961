//! Deleted ranges: what they hide, from whom, and what becomes of them.

use crate::support::{ManualJobs, contents, dir, env_with, open, put};
use kv_storage::sim::SimFs;
use kv_storage::{Db, Durability, Options, WriteBatch};
use std::ops::Bound;
use std::sync::Arc;

fn key(number: u32) -> Vec<u8> {
    format!("key{number:05}").into_bytes()
}

fn fill(db: &Db, numbers: impl Iterator<Item = u32>, value: &str) {
    for number in numbers {
        let batch = put(key(number), format!("{value} {number}"));
        db.blocking().write(batch, Durability::Process).unwrap();
    }
}

fn delete(db: &Db, from: u32, to: u32) {
    let mut batch = WriteBatch::new();
    batch.delete_range(key(from)..key(to));
    db.blocking().write(batch, Durability::Process).unwrap();
}

/// Numbers of the keys that are there, by scans both ways and by single reads.
fn present(db: &Db, up_to: u32) -> Vec<u32> {
    let scanned = contents(db).unwrap();
    let read = |number: &u32| {
        let found = db.blocking().get(&key(*number)).unwrap();
        assert_eq!(
            found.is_some(),
            scanned.contains_key(&key(*number)),
            "read and scan disagree on {number}"
        );
        found.is_some()
    };
    let read: Vec<u32> = (0..up_to).filter(read).collect();
    assert_eq!(read.len(), scanned.len());
    read
}

fn tables_with_everything() -> (SimFs, Db) {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    fill(&db, 0..300, "old");
    db.flush().unwrap();
    (fs, db)
}

#[test]
fn a_deleted_range_hides_older_versions_wherever_it_and_they_are() {
    let (fs, db) = tables_with_everything();
    // In the memtable, over tables.
    delete(&db, 50, 100);
    fill(&db, [60, 70].into_iter(), "new");
    let expected: Vec<u32> = (0..50).chain([60, 70]).chain(100..300).collect();
    assert_eq!(present(&db, 310), expected);
    // In a table, over tables; then over the memtable.
    db.flush().unwrap();
    assert_eq!(present(&db, 310), expected);
    delete(&db, 65, 120);
    let expected: Vec<u32> = (0..50).chain([60]).chain(120..300).collect();
    assert_eq!(present(&db, 310), expected);
    drop(db);
    // In the log.
    let db = open(&fs).unwrap();
    assert_eq!(present(&db, 310), expected);
    db.flush().unwrap();
    for round in 0..30 {
        fill(&db, 400..450, &format!("{round}"));
    }
    db.flush().unwrap();
    let with_new: Vec<u32> = expected.iter().copied().chain(400..450).collect();
    assert_eq!(present(&db, 460), with_new);
    db.close().unwrap();
    assert_eq!(present(&open(&fs).unwrap(), 460), with_new);
}

#[test]
fn a_snapshot_goes_on_seeing_what_was_deleted_after_it() {
    let (_fs, db) = tables_with_everything();
    let before = db.snapshot();
    delete(&db, 0, 300);
    let between = db.snapshot();
    fill(&db, 10..20, "new");
    for _ in 0..3 {
        assert_eq!(before.iter::<&[u8]>(..).count(), 300);
        assert_eq!(before.iter::<&[u8]>(..).rev().count(), 300);
        assert_eq!(before.get(&key(7)).unwrap().unwrap().value, "old 7");
        assert_eq!(between.iter::<&[u8]>(..).count(), 0);
        assert_eq!(between.iter::<&[u8]>(..).rev().count(), 0);
        assert!(between.get(&key(15)).unwrap().is_none());
        assert_eq!(present(&db, 300), (10..20).collect::<Vec<_>>());
        // Once in the memtable, once flushed, once compacted.
        db.flush().unwrap();
        fill(&db, 500..600, "more");
        delete(&db, 500, 600);
        db.flush().unwrap();
        db.tick();
    }
}

#[test]
fn batches_apply_their_operations_in_order() {
    let (_fs, db) = tables_with_everything();
    let mut batch = WriteBatch::new();
    batch.put(&key(5), b"before");
    batch.delete_range(key(0)..key(10));
    batch.put(&key(6), b"after");
    batch.delete_prefix(b"key0001");
    batch.put(&key(12), b"after");
    batch.delete_range::<&[u8]>((Bound::Excluded(&key(290)[..]), Bound::Unbounded));
    db.blocking().write(batch, Durability::Sync).unwrap();
    for _ in 0..2 {
        let expected: Vec<u32> = [6, 12].into_iter().chain(20..291).collect();
        assert_eq!(present(&db, 300), expected);
        db.flush().unwrap();
    }
}

#[test]
fn everything_may_be_deleted_at_once_and_the_space_comes_back() {
    let (_fs, db) = tables_with_everything();
    let size = |db: &Db| -> u64 { db.stats().levels.iter().map(|it| it.size_bytes).sum() };
    assert!(size(&db) > 2_000);
    let mut batch = WriteBatch::new();
    batch.delete_range::<&[u8]>(..);
    db.blocking().write(batch, Durability::Sync).unwrap();
    assert_eq!(present(&db, 300), []);
    db.flush().unwrap();
    db.tick();
    assert_eq!(present(&db, 300), []);
    assert!(size(&db) < 200, "{} bytes stay", size(&db));
    fill(&db, 0..3, "again");
    assert_eq!(present(&db, 300), [0, 1, 2]);
}

#[test]
fn a_cached_row_is_not_read_once_its_range_is_deleted() {
    let (_fs, db) = tables_with_everything();
    for _ in 0..4 {
        assert!(db.blocking().get(&key(33)).unwrap().is_some());
    }
    assert!(db.stats().row_cache_hits > 0);
    delete(&db, 30, 40);
    assert!(db.blocking().get(&key(33)).unwrap().is_none());
    assert!(db.blocking().get(&key(43)).unwrap().is_some());
}

#[test]
fn readers_skip_what_is_deleted() {
    let fs = SimFs::new();
    let mut options = Options::tiny();
    options.memtable_bytes = 1 << 20;
    (options.level0_trigger, options.level0_stop) = (100, 200);
    let jobs = Arc::new(ManualJobs::default());
    let db = Db::open(dir(), options, env_with(&fs, jobs)).unwrap();
    for number in 0..20_000 {
        let batch = put(key(number), "x");
        db.blocking().write(batch, Durability::Process).unwrap();
    }
    db.flush().unwrap();
    delete(&db, 10, 19_990);
    let reads = |db: &Db| {
        let stats = db.stats();
        stats.cache_hits + stats.cache_misses
    };
    for flushed in [false, true] {
        if flushed {
            db.flush().unwrap();
        }
        let before = reads(&db);
        assert_eq!(contents(&db).unwrap().len(), 20);
        // Of some hundred blocks, those at both ends.
        assert!(reads(&db) - before < 20, "{} blocks", reads(&db) - before);
    }
}

#[test]
fn a_memtable_with_many_ranges_is_flushed() {
    let fs = SimFs::new();
    let mut options = Options::tiny();
    options.memtable_bytes = 16 << 20;
    let jobs = Arc::new(ManualJobs::default());
    let db = Db::open(dir(), options, env_with(&fs, jobs.clone())).unwrap();
    fill(&db, 0..100, "value");
    let mut sealed = 0;
    for number in 0..5_000u32 {
        let mut batch = WriteBatch::new();
        // Nested, so that every fragment has many numbers.
        batch.delete_range(key(number)..key(90_000 - number));
        db.blocking().write(batch, Durability::Process).unwrap();
        sealed = sealed.max(db.stats().sealed_memtables);
    }
    assert_eq!(sealed, 2);
    assert_eq!(present(&db, 100), []);
    fill(&db, 7..9, "new");
    jobs.run_all();
    db.flush().unwrap();
    assert_eq!(present(&db, 100), [7, 8]);
}

#[test]
fn ends_of_ranges_may_be_any_keys() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    // Keys that are prefixes of others, with zeros at their ends: the keys right behind others.
    let keys: Vec<Vec<u8>> = (0..4usize.pow(4))
        .map(|number| {
            let letters = (0..4).map(|digit| number / 4usize.pow(digit) % 4);
            letters
                .take_while(|letter| *letter > 0)
                .map(|it| it as u8 - 1)
                .collect()
        })
        .collect();
    let mut random = fastrand::Rng::with_seed(1);
    let mut model = std::collections::BTreeMap::new();
    for round in 0..300 {
        let mut batch = WriteBatch::new();
        for _ in 0..random.usize(1..6) {
            let key = &keys[random.usize(..keys.len())];
            let value = vec![round as u8; random.usize(..200)];
            batch.put(key, &value);
            model.insert(key.clone(), value);
        }
        if random.bool() {
            let (a, b) = (
                &keys[random.usize(..keys.len())],
                &keys[random.usize(..keys.len())],
            );
            let (start, end) = (a.min(b), a.max(b));
            batch.delete_range::<&[u8]>((Bound::Included(&start[..]), Bound::Excluded(&end[..])));
            model.retain(|key, _| key < start || key >= end);
        }
        db.blocking().write(batch, Durability::Process).unwrap();
        if round % 7 == 0 {
            db.flush().unwrap();
        }
        assert_eq!(contents(&db).unwrap(), model, "round {round}");
    }
    assert!(db.stats().compactions > 10);
}

fn size_bytes(db: &Db) -> u64 {
    db.stats().levels.iter().map(|it| it.size_bytes).sum()
}

#[test]
fn tables_that_are_covered_go_unread_and_what_is_left_of_others_is_merged() {
    let (_fs, db) = tables_with_everything();
    fill(&db, 300..2_000, "old");
    db.flush().unwrap();
    let before = size_bytes(&db);
    delete(&db, 1_000, 1_900);
    db.flush().unwrap();
    let covered = db.stats().covered_bytes;
    assert!(covered > before / 5, "{covered} of {before}");
    let snapshot = db.snapshot();
    delete(&db, 100, 1_000);
    db.flush().unwrap();
    assert_eq!(db.stats().covered_bytes, covered, "a snapshot needs them");
    assert_eq!(snapshot.iter::<&[u8]>(..).count(), 1_100);
    drop(snapshot);
    db.tick();
    assert!(
        size_bytes(&db) < before / 5,
        "{} of {before}",
        size_bytes(&db)
    );
    let expected: Vec<u32> = (0..100).chain(1_900..2_000).collect();
    assert_eq!(present(&db, 2_000), expected);
    db.close().unwrap();
}

#[test]
fn many_small_ranges_give_their_space_back_too() {
    let (_fs, db) = tables_with_everything();
    fill(&db, 300..2_000, "old");
    db.flush().unwrap();
    let before = size_bytes(&db);
    for first in (0..2_000).step_by(20) {
        delete(&db, first, first + 17);
    }
    db.flush().unwrap();
    db.tick();
    let expected: Vec<u32> = (0..2_000).filter(|number| number % 20 >= 17).collect();
    assert_eq!(present(&db, 2_000), expected);
    assert!(
        size_bytes(&db) < before / 3,
        "{} of {before}",
        size_bytes(&db)
    );
}
