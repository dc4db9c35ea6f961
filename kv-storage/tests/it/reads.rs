//! Reads of every form agree with a map, whatever the tables' options: points, iterators from both
//! ends, and visitors, with snapshots in between and rows in the row cache.

use crate::support::{dir, env};
use kv_storage::sim::SimFs;
use kv_storage::{
    CompactionFilter, Compression, Db, Durability, Options, Seq, Snapshot, Verdict, WriteBatch,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

fn key(number: u16) -> Vec<u8> {
    format!(
        "row/{:0width$}",
        number,
        width = 1 + usize::from(number % 4)
    )
    .into_bytes()
}

fn any_bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        Just(Bound::Unbounded),
        (0u16..320).prop_map(|number| Bound::Included(key(number))),
        (0u16..320).prop_map(|number| Bound::Excluded(key(number))),
    ]
}

fn any_options() -> impl Strategy<Value = Options> {
    let compression = || {
        prop_oneof![
            Just(Compression::None),
            Just(Compression::Lz4),
            Just(Compression::Zstd(3)),
            Just(Compression::ZstdDictionary(1)),
        ]
    };
    let bits = || prop_oneof![Just(0u32), Just(10), Just(30)];
    (compression(), compression(), bits(), bits(), 64usize..2000).prop_map(
        |(upper, bottom, upper_bits, bottom_bits, block_bytes)| {
            let mut options = Options::tiny();
            options.upper_tables.compression = upper;
            options.bottom_tables.compression = bottom;
            options.upper_tables.filter_bits_per_key = upper_bits;
            options.bottom_tables.filter_bits_per_key = bottom_bits;
            options.bottom_tables.block_bytes = block_bytes;
            options
        },
    )
}

/// Some batches of (key, length of the value or deletion).
fn any_writes() -> impl Strategy<Value = Vec<(u16, Option<usize>)>> {
    let write = (0u16..300, prop::option::weighted(0.8, 0usize..300));
    prop::collection::vec(write, 50..250)
}

fn apply(db: &Db, map: &mut Map, writes: &[(u16, Option<usize>)], round: u8) {
    for chunk in writes.chunks(10) {
        let mut batch = WriteBatch::new();
        for (number, length) in chunk {
            match length {
                Some(length) => {
                    let value = vec![round; *length];
                    batch.put(&key(*number), &value);
                    map.insert(key(*number), value);
                }
                None => {
                    batch.delete(&key(*number));
                    map.remove(&key(*number));
                }
            }
        }
        db.blocking().write(batch, Durability::Process).unwrap();
    }
}

/// A BTreeMap panics at ranges that the engine takes for empty.
fn is_empty(range: &Range) -> bool {
    let (start, end) = match range {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => return false,
        (Bound::Included(start) | Bound::Excluded(start), end) => (start, end),
    };
    match end {
        Bound::Included(end) => start > end,
        Bound::Excluded(end) => start >= end,
        Bound::Unbounded => false,
    }
}

fn expected(map: &Map, range: &Range) -> Vec<(Vec<u8>, Vec<u8>)> {
    if is_empty(range) {
        return Vec::new();
    }
    let rows = map.iter().filter(|(key, _)| range.contains(*key));
    rows.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn check(snapshot: &Snapshot, map: &Map, range: &Range, from_end: &[bool]) {
    let rows = expected(map, range);
    let mut visited = Vec::new();
    let visit = |rows: &mut Vec<_>, key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    snapshot
        .for_each(range.clone(), |key, value| visit(&mut visited, key, value))
        .unwrap();
    assert_eq!(visited, rows, "forward");
    visited.clear();
    snapshot
        .for_each_back(range.clone(), |key, value| visit(&mut visited, key, value))
        .unwrap();
    visited.reverse();
    assert_eq!(visited, rows, "backward");

    // An iterator that is pulled from both ends until they meet.
    let (mut front, mut back) = (Vec::new(), Vec::new());
    let mut iter = snapshot.iter(range.clone());
    for is_back in from_end.iter().cycle() {
        let step = if *is_back {
            iter.next_back()
        } else {
            iter.next()
        };
        let Some(entry) = step else { break };
        let entry = entry.unwrap();
        let row = (entry.key.to_vec(), entry.value.to_vec());
        if *is_back { &mut back } else { &mut front }.push(row);
    }
    back.reverse();
    front.extend(back);
    assert_eq!(front, rows, "from both ends");

    for number in 0..320 {
        let found = snapshot.get(&key(number)).unwrap();
        let found = found.map(|found| found.value.to_vec());
        assert_eq!(found.as_ref(), map.get(&key(number)), "row {number}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn all_forms_of_reading_agree_with_a_map(
        options in any_options(),
        rounds in prop::collection::vec((any_writes(), any::<bool>()), 1..5),
        ranges in prop::collection::vec((any_bound(), any_bound()), 1..4),
        from_end in prop::collection::vec(any::<bool>(), 1..6),
    ) {
        let fs = SimFs::new();
        let db = Db::open(dir(), options, env(&fs)).unwrap();
        let mut map = Map::new();
        let mut held = None;
        for (number, (writes, flush)) in rounds.iter().enumerate() {
            apply(&db, &mut map, writes, number as u8);
            if *flush {
                db.flush().unwrap();
            }
            // Twice, so that rows get into the row cache and are read from there.
            for range in ranges.iter().chain(&ranges) {
                check(&db.snapshot(), &map, range, &from_end);
            }
            held.get_or_insert_with(|| (db.snapshot(), map.clone()));
        }
        if let Some((snapshot, then)) = held {
            check(&snapshot, &then, &ranges[0], &from_end);
        }
    }
}

#[test]
fn a_visitor_that_breaks_sees_no_more() {
    let fs = SimFs::new();
    let db = Db::open(dir(), Options::tiny(), env(&fs)).unwrap();
    apply(
        &db,
        &mut Map::new(),
        &[(1, Some(1)), (2, Some(1)), (3, Some(1))],
        1,
    );
    let mut seen = 0;
    let outcome = db.snapshot().for_each::<&[u8]>(.., |_, _| {
        seen += 1;
        if seen == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(outcome.is_ok());
    assert_eq!(seen, 2);
}

#[test]
fn a_row_read_again_and_again_comes_from_the_row_cache_until_it_is_written() {
    let fs = SimFs::new();
    let db = Db::open(dir(), Options::tiny(), env(&fs)).unwrap();
    let mut map = Map::new();
    apply(&db, &mut map, &[(1, Some(10)), (2, Some(20))], 1);
    db.flush().unwrap();
    let get = || db.blocking().get(&key(1)).unwrap().map(|found| found.value);
    for _ in 0..5 {
        assert_eq!(get().as_deref(), Some(&[1; 10][..]));
    }
    let hits = db.stats().row_cache_hits;
    assert!(hits >= 3, "{hits} hits");
    assert!(db.stats().row_cache_bytes > 0);
    apply(&db, &mut map, &[(1, Some(11))], 2);
    assert_eq!(get().as_deref(), Some(&[2; 11][..]));
    apply(&db, &mut map, &[(1, None)], 3);
    assert_eq!(get(), None);
    assert_eq!(db.stats().row_cache_hits, hits);
}

/// Rewrites values that begin with 1, and drops those that begin with 2, once it is told to.
struct Switched(AtomicBool);

impl CompactionFilter for Switched {
    fn decide(&self, _key: &[u8], _seq: Seq, value: &[u8]) -> Verdict {
        match (self.0.load(Ordering::Relaxed), value.first()) {
            (true, Some(1)) => Verdict::Rewrite(vec![9]),
            (true, Some(2)) => Verdict::Drop(7),
            _ => Verdict::Keep,
        }
    }
}

#[test]
fn cached_rows_are_void_once_a_filter_changed_or_dropped_them() {
    let filter = Arc::new(Switched(AtomicBool::new(false)));
    let mut env = env(&SimFs::new());
    env.hooks.filter = Some(filter.clone());
    let db = Db::open(dir(), Options::tiny(), env).unwrap();
    let mut map = Map::new();
    apply(&db, &mut map, &[(1, Some(10))], 1);
    apply(&db, &mut map, &[(2, Some(10))], 2);
    db.flush().unwrap();
    let get = |number| db.blocking().get(&key(number)).unwrap();
    for _ in 0..4 {
        assert_eq!(get(1).unwrap().value, vec![1; 10]);
        assert_eq!(get(2).unwrap().value, vec![2; 10]);
    }
    assert!(db.stats().row_cache_hits >= 4);
    filter.0.store(true, Ordering::Relaxed);
    let mut round = 0;
    while db.stats().filter_drops.is_empty() {
        round += 1;
        assert!(round < 100, "nothing was compacted");
        let writes: Vec<_> = (0..50).map(|number| (number, Some(100))).collect();
        let others: Vec<_> = writes
            .into_iter()
            .filter(|(number, _)| *number > 2)
            .collect();
        apply(&db, &mut map, &others, 3);
        db.flush().unwrap();
    }
    assert_eq!(get(1).unwrap().value, vec![9]);
    assert_eq!(get(2), None);
}
