//! Pages of scans end with their work, however little they found, and together they are the scan.

use crate::support::{ManualJobs, dir, env_with, open, put};
use kv_storage::sim::SimFs;
use kv_storage::{
    Db, Durability, Entry, InlineJobs, Job, JobClass, Jobs, Options, ScanPage, ScanRequest,
    Snapshot, WriteBatch,
};
use proptest::prelude::*;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::mpsc::channel;

/// How many rows there are where most are deleted, and every which one is left.
const ROWS: u32 = 200_000;
const EVERY: u32 = 50_000;
const LIMIT: usize = 1_000;

/// Runs all jobs at once, but keeps compactions.
#[derive(Default)]
struct WithoutCompactions(ManualJobs);

impl Jobs for WithoutCompactions {
    fn submit(&self, class: JobClass, job: Job) {
        match class {
            JobClass::Compaction => self.0.submit(class, job),
            _ => InlineJobs.submit(class, job),
        }
    }
}

/// A store with a large memtable, in which nothing is dropped.
fn without_compactions() -> Db {
    let env = env_with(&SimFs::new(), Arc::new(WithoutCompactions::default()));
    Db::open(dir(), Options::default(), env).unwrap()
}

fn key(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn everything(reverse: bool, max_visited: usize) -> ScanRequest {
    ScanRequest {
        start: Vec::new().into(),
        end: Bound::Unbounded,
        reverse,
        max_items: usize::MAX,
        max_bytes: usize::MAX,
        max_visited,
    }
}

fn page(db: &Db, snapshot: &Snapshot, request: ScanRequest) -> ScanPage {
    let (done, page) = channel();
    db.scan_with(snapshot, request, move |outcome| {
        done.send(outcome.unwrap()).unwrap();
    });
    page.try_recv().unwrap()
}

/// All pages; each gets further than the one before.
fn pages(db: &Db, snapshot: &Snapshot, request: ScanRequest) -> Vec<ScanPage> {
    let (reverse, mut request) = (request.reverse, Some(request));
    let mut pages: Vec<ScanPage> = Vec::new();
    while let Some(next) = request {
        let page = page(db, snapshot, next);
        assert_eq!(page.through.is_some(), page.next.is_some());
        let before = pages.last().and_then(|last| last.through.as_ref());
        for key in page.entries.iter().map(|entry| &entry.key) {
            assert!(before.is_none_or(|before| (key > before) != reverse && key != before));
        }
        if let (Some(before), Some(through)) = (before, &page.through) {
            assert!((through > before) != reverse && through != before);
        }
        request = page.next.clone();
        pages.push(page);
    }
    pages
}

fn entries(pages: &[ScanPage]) -> Vec<Entry> {
    let entries = pages.iter().flat_map(|page| &page.entries);
    entries.cloned().collect()
}

fn visited(pages: &[ScanPage]) -> usize {
    pages.iter().map(|page| page.visited).sum()
}

fn write(db: &Db, numbers: impl IntoIterator<Item = u32>, add: impl Fn(&mut WriteBatch, &[u8])) {
    let numbers: Vec<u32> = numbers.into_iter().collect();
    for chunk in numbers.chunks(1_000) {
        let mut batch = WriteBatch::new();
        chunk
            .iter()
            .for_each(|number| add(&mut batch, &key(*number)));
        db.blocking().write(batch, Durability::Process).unwrap();
    }
}

#[test]
fn a_page_over_deleted_rows_ends_with_its_work() {
    for in_tables in [false, true] {
        let db = without_compactions();
        write(&db, 0..ROWS, |batch, key| batch.put(key, b"v"));
        if in_tables {
            db.flush().unwrap();
        }
        let deleted = (0..ROWS).filter(|number| number % EVERY != 0);
        write(&db, deleted, |batch, key| batch.delete(key));
        if in_tables {
            db.flush().unwrap();
        }
        assert_eq!(db.stats().compactions, 0);
        let snapshot = db.snapshot();
        for reverse in [false, true] {
            let pages = pages(&db, &snapshot, everything(reverse, LIMIT));
            // Backward, the key that reaches the limit is finished: it has two versions.
            let most = pages.iter().map(|page| page.visited).max();
            assert!(most.unwrap() <= LIMIT + 1, "{most:?} visited");
            assert!(visited(&pages) > ROWS as usize, "nothing was dropped yet");
            assert!(pages.iter().any(|page| page.entries.is_empty()));
            let entries = entries(&pages);
            let left: Vec<u32> = entries
                .iter()
                .map(|entry| u32::from_be_bytes(entry.key[..].try_into().unwrap()))
                .collect();
            let mut expected: Vec<u32> = (0..ROWS).step_by(EVERY as usize).collect();
            if reverse {
                expected.reverse();
            }
            assert_eq!(left, expected, "in tables: {in_tables}");
        }
    }
}

#[test]
fn rows_behind_the_range_are_not_visited() {
    let db = open(&SimFs::new()).unwrap();
    write(&db, 0..1_000, |batch, key| batch.put(key, b"v"));
    write(&db, 10..990, |batch, key| batch.delete(key));
    let snapshot = db.snapshot();
    for (reverse, start, end) in [(false, 0, 10), (true, 990, 1_000)] {
        let request = ScanRequest {
            start: key(start).into(),
            end: Bound::Excluded(key(end).into()),
            ..everything(reverse, LIMIT)
        };
        let page = page(&db, &snapshot, request);
        assert_eq!((page.entries.len(), page.next), (10, None));
        assert!(page.visited < 15, "{} visited", page.visited);
    }
}

#[test]
fn a_deleted_range_over_older_tables_is_one_step() {
    let db = open(&SimFs::new()).unwrap();
    write(&db, 0..5_000, |batch, key| batch.put(key, b"v"));
    db.flush().unwrap();
    let mut batch = WriteBatch::new();
    batch.delete_range(key(10)..key(4_990));
    db.blocking().write(batch, Durability::Process).unwrap();
    for reverse in [false, true] {
        let page = page(&db, &db.snapshot(), everything(reverse, 50));
        assert_eq!((page.entries.len(), page.next), (20, None));
        assert!(page.visited < 30, "{} visited", page.visited);
    }
}

#[test]
fn a_deleted_range_over_rows_of_its_own_memtable_is_gone_through_page_by_page() {
    let db = without_compactions();
    write(&db, 0..5_000, |batch, key| batch.put(key, b"v"));
    let mut batch = WriteBatch::new();
    batch.delete_range(key(10)..key(4_990));
    db.blocking().write(batch, Durability::Process).unwrap();
    for reverse in [false, true] {
        let pages = pages(&db, &db.snapshot(), everything(reverse, 100));
        assert!(pages.iter().all(|page| page.visited <= 100));
        assert_eq!((entries(&pages).len(), visited(&pages)), (20, 5_000));
    }
}

#[test]
fn a_key_with_more_versions_than_a_page_may_visit_is_finished() {
    let db = open(&SimFs::new()).unwrap();
    let write = |key, value: &[u8]| {
        db.blocking()
            .write(put(key, value), Durability::Process)
            .unwrap();
    };
    write("a", b"old");
    write("b", b"old");
    let before = db.snapshot();
    let newer: Vec<Snapshot> = (0..50)
        .map(|round| {
            write("a", &[round]);
            write("aa", &[round]);
            db.snapshot()
        })
        .collect();
    for reverse in [false, true] {
        let pages = pages(&db, &before, everything(reverse, 5));
        let entries = entries(&pages);
        assert_eq!(entries.len(), 2, "{pages:?}");
        assert!(entries.iter().all(|entry| entry.value[..] == *b"old"));
        assert!(pages.len() > 1);
    }
    // What is older than what shows need not be finished.
    let pages = pages(&db, &newer[49], everything(false, 5));
    assert!(pages.iter().all(|page| page.visited <= 5));
    assert_eq!(entries(&pages).len(), 3);
}

/// Half of the keys stand right behind another.
fn near_key(number: u8) -> Vec<u8> {
    let mut key = vec![number / 2];
    key.resize(1 + usize::from(number % 2), 0);
    key
}

#[derive(Debug, Clone)]
enum Change {
    Put(u8, usize),
    Delete(u8),
    DeleteRange(u8, u8),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        // Large values have a file of their own.
        8 => (0u8..40, prop_oneof![9 => 0usize..20, 1 => Just(300)])
            .prop_map(|(number, length)| Change::Put(number, length)),
        8 => (0u8..40).prop_map(Change::Delete),
        1 => (0u8..40, 0u8..40).prop_map(|(from, to)| Change::DeleteRange(from, to)),
    ]
}

fn apply(db: &Db, changes: &[Change]) {
    for change in changes {
        let mut batch = WriteBatch::new();
        match change {
            Change::Put(number, length) => batch.put(&near_key(*number), &vec![*number; *length]),
            Change::Delete(number) => batch.delete(&near_key(*number)),
            Change::DeleteRange(from, to) => {
                batch.delete_range(near_key(*from.min(to))..near_key(from.max(to) + 1));
            }
        }
        db.blocking().write(batch, Durability::Process).unwrap();
    }
}

fn any_request() -> impl Strategy<Value = ScanRequest> {
    let end = prop_oneof![
        Just(Bound::Unbounded),
        (0u8..42).prop_map(Bound::Included),
        (0u8..42).prop_map(Bound::Excluded),
    ];
    (0u8..42, end, any::<bool>(), 1usize..6, 0usize..12).prop_map(
        |(start, end, reverse, max_items, max_visited)| ScanRequest {
            start: near_key(start).into(),
            end: end.map(|number| near_key(number).into()),
            max_items,
            ..everything(reverse, max_visited)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pages_with_any_limits_are_together_the_whole_scan(
        rounds in prop::collection::vec((prop::collection::vec(change(), 1..40), any::<bool>()), 1..6),
        requests in prop::collection::vec(any_request(), 1..6),
    ) {
        let db = open(&SimFs::new()).unwrap();
        let mut snapshots = Vec::new();
        for (changes, flush) in &rounds {
            apply(&db, changes);
            if *flush {
                db.flush().unwrap();
            }
            snapshots.push(db.snapshot());
        }
        for snapshot in &snapshots {
            for request in &requests {
                let range = (Bound::Included(request.start.clone()), request.end.clone());
                let iter = snapshot.iter::<bytes::Bytes>(range);
                let whole: Result<Vec<Entry>, _> = match request.reverse {
                    false => iter.collect(),
                    true => iter.rev().collect(),
                };
                let pages = pages(&db, snapshot, request.clone());
                prop_assert!(pages.iter().all(|page| page.entries.len() <= request.max_items));
                prop_assert_eq!(entries(&pages), whole.unwrap());
            }
        }
    }
}
