//! Point reads and cursors against an ordered map; readers beside writers.

use super::*;
use crate::batch::WriteBatch;
use crate::key::{KeyVersion, Kind};
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

fn memtable(size_bytes: usize) -> Memtable {
    Memtable::new(&Arc::new(MemoryPool::new(size_bytes)), size_bytes)
}

fn insert(table: &Memtable, first: u64, batch: &WriteBatch) {
    let mut room = table.reserve(batch.need()).unwrap();
    table.fill(&mut room, Seq(first), batch.operations(), |_, _, _| {});
    table.publish(room);
}

fn get(table: &Memtable, key: &[u8], at: u64) -> Option<(u64, Kind, Vec<u8>)> {
    table
        .get(key, key_hash(key), Seq(at))
        .map(|entry| (entry.seq.0, entry.kind, entry.value.to_vec()))
}

type Version = (Vec<u8>, u64);

/// All versions by merging a table's cursors.
fn walk(table: &Arc<Memtable>, from: Bound<KeyVersion<'_>>, forward: bool) -> Vec<Version> {
    let mut cursors: Vec<MemCursor> = table.cursors(from, forward).collect();
    let mut seen = Vec::new();
    loop {
        let heads = cursors
            .iter()
            .enumerate()
            .filter_map(|(index, cursor)| Some((cursor.entry()?.version(), index)));
        let next = if forward { heads.min() } else { heads.max() };
        let Some((version, index)) = next else {
            return seen;
        };
        seen.push((version.key.to_vec(), version.seq.0));
        cursors[index].advance();
    }
}

#[test]
fn the_newest_version_at_or_below_a_number_is_found() {
    let table = memtable(4096);
    let mut batch = WriteBatch::new();
    batch.put(b"b", b"1");
    batch.put(b"a", b"2");
    batch.delete(b"b");
    batch.put(b"ba", b"4");
    insert(&table, 1, &batch);
    assert_eq!(get(&table, b"b", 9), Some((3, Kind::Delete, vec![])));
    assert_eq!(get(&table, b"b", 2), Some((1, Kind::Put, b"1".to_vec())));
    assert_eq!(get(&table, b"b", 0), None);
    assert_eq!(get(&table, b"bb", 9), None);
    assert_eq!(get(&table, b"ba", 3), None);
    assert_eq!(table.entries(), 4);
}

#[test]
fn a_full_memtable_gives_no_room_and_keeps_what_it_has() {
    let table = memtable(100);
    let mut batch = WriteBatch::new();
    batch.put(b"key", b"value");
    let need = batch.need();
    assert_eq!((need.bytes, need.ranges), (32, 0));
    for number in 1..=3 {
        assert!(table.has_room(need));
        insert(&table, number, &batch);
    }
    assert!(!table.has_room(need) && table.reserve(need).is_none());
    assert_eq!(get(&table, b"key", 9).unwrap().0, 3);
    assert_eq!(get(&table, b"key", 1).unwrap().0, 1);
}

#[test]
fn thousands_of_entries_keep_their_order_while_scans_come_in_between() {
    let table = Arc::new(memtable(4 << 20));
    let mut model = BTreeMap::new();
    let mut random = fastrand::Rng::with_seed(3);
    for number in 1..=20_000u64 {
        let mut batch = WriteBatch::new();
        let key = format!("prefix{}", random.u32(..5_000)).into_bytes();
        batch.put(&key, b"v");
        insert(&table, number, &batch);
        model.insert((key, Reverse(number)), ());
        if number % 1_999 == 0 {
            let seen = walk(&table, Bound::Unbounded, true);
            assert!(
                seen.iter().eq(model
                    .keys()
                    .map(|(key, seq)| (key.clone(), seq.0))
                    .collect::<Vec<_>>()
                    .iter())
            );
        }
    }
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Short keys over few letters: prefixes of one another, and many with common beginnings.
    proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 0..12)
}

proptest! {
    #[test]
    fn it_agrees_with_an_ordered_map(
        batches in proptest::collection::vec(proptest::collection::vec((key(), any::<bool>()), 1..6), 1..60),
        looks in proptest::collection::vec((key(), 0u64..200, any::<bool>(), any::<bool>(), 0usize..60), 1..20),
    ) {
        let table = Arc::new(memtable(64 << 10));
        let mut model: BTreeMap<(Vec<u8>, Reverse<u64>), bool> = BTreeMap::new();
        let mut next = 1;
        for (number, operations) in batches.iter().enumerate() {
            let mut batch = WriteBatch::new();
            for (key, is_put) in operations {
                if *is_put { batch.put(key, b"value") } else { batch.delete(key) }
            }
            insert(&table, next, &batch);
            for (key, is_put) in operations {
                model.insert((key.clone(), Reverse(next)), *is_put);
                next += 1;
            }
            for (key, seq, forward, inclusive, _) in looks.iter().filter(|look| look.4 == number) {
                let newest = model.range((key.clone(), Reverse(*seq))..).next();
                let newest = newest.filter(|((found, _), _)| found == key);
                let expected = newest.map(|((_, seq), is_put)| (seq.0, *is_put));
                let found = get(&table, key, *seq).map(|(seq, kind, _)| (seq, kind == Kind::Put));
                prop_assert_eq!(found, expected);

                let version = KeyVersion::new(key, Seq(*seq));
                let bound = if *inclusive { Bound::Included(version) } else { Bound::Excluded(version) };
                let owned = bound.map(|version| (version.key.to_vec(), Reverse(version.seq.0)));
                let seen = walk(&table, bound, *forward);
                let name = |((key, seq), _): (&(Vec<u8>, Reverse<u64>), _)| (key.clone(), seq.0);
                let expected: Vec<Version> = if *forward {
                    model.range((owned, Bound::Unbounded)).map(name).collect()
                } else {
                    model.range((Bound::Unbounded, owned)).rev().map(name).collect()
                };
                prop_assert_eq!(seen, expected);
            }
        }
    }
}

#[test]
fn readers_beside_a_writer_see_each_published_entry() {
    let table = Arc::new(memtable(4 << 20));
    let published = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for reader in 0..2u64 {
            let (table, published) = (&table, &published);
            scope.spawn(move || {
                loop {
                    let end = published.load(Ordering::Acquire);
                    if end > 0 {
                        let number = (end * 7 + reader) % end + 1;
                        let (seq, _, value) = get(table, &number.to_be_bytes(), end).unwrap();
                        assert_eq!((seq, value.len() as u64), (number, number % 50));
                    }
                    if reader == 0 && end % 64 == 0 {
                        let last = walk(table, Bound::Unbounded, false).first().cloned();
                        assert!(
                            last.is_none_or(|(key, _)| key >= end.to_be_bytes().to_vec())
                                || end == 0
                        );
                    }
                    if end == 5_000 {
                        return;
                    }
                }
            });
        }
        for number in 1..=5_000u64 {
            let mut batch = WriteBatch::new();
            batch.put(&number.to_be_bytes(), &vec![1; number as usize % 50]);
            insert(&table, number, &batch);
            published.store(number, Ordering::Release);
        }
    });
}
