//! Compaction filter, flush attachment and events.

use crate::support::{
    Expiring, ManualJobs, Told, Workload, contents, dir, env, env_with, put, with_hooks,
};
use kv_storage::sim::{Fault, SimFs};
use kv_storage::{
    CompactionFilter, Db, Durability, Events, Filtered, FlushAttachment, Hooks, KeyRange, Options,
    Seq, Snapshot, Verdict, WriteBatch,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Drops values that begin with `D`, turns a leading `R` into `r`, and keeps the rest.
struct ByFirstByte;

impl CompactionFilter for ByFirstByte {
    fn decide(&self, _key: &[u8], _seq: Seq, value: &[u8]) -> Verdict {
        match outcome(value) {
            None => Verdict::Drop(u32::from(value[1])),
            Some(other) if other != value => Verdict::Rewrite(other),
            Some(_) => Verdict::Keep,
        }
    }
}

/// What the filter leaves of a value.
fn outcome(value: &[u8]) -> Option<Vec<u8>> {
    match value[0] {
        b'D' => None,
        b'R' => Some([b"r", &value[1..]].concat()),
        _ => Some(value.to_vec()),
    }
}

fn filtering() -> Hooks {
    Hooks {
        filter: Some(Arc::new(ByFirstByte)),
        ..Hooks::default()
    }
}

fn shown(snapshot: &Snapshot) -> Map {
    let entries = snapshot.iter::<&[u8]>(..).map(Result::unwrap);
    entries
        .map(|entry| (entry.key.to_vec(), entry.value.to_vec()))
        .collect()
}

#[derive(Debug, Clone)]
enum Op {
    Write(u8, Option<u8>, u16),
    Jobs(u8),
    Flush,
    Tick,
    TakeSnapshot,
    CheckSnapshots,
    DropSnapshot(u8),
    Kill,
    PowerLoss(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        14 => (0u8..20, prop::option::weighted(0.85, 0u8..3), 2u16..500).prop_map(|(key, class, size)| Op::Write(key, class, size)),
        8 => (1u8..10).prop_map(Op::Jobs),
        1 => Just(Op::Flush),
        1 => Just(Op::Tick),
        2 => Just(Op::TakeSnapshot),
        3 => Just(Op::CheckSnapshots),
        1 => any::<u8>().prop_map(Op::DropSnapshot),
        1 => Just(Op::Kill),
        1 => any::<u64>().prop_map(Op::PowerLoss),
    ]
}

/// Bytes that do not compress.
fn noise(length: u16) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(u64::from(length));
    std::iter::repeat_with(|| random.u8(..))
        .take(usize::from(length))
        .collect()
}

struct Run {
    fs: SimFs,
    jobs: Arc<ManualJobs>,
    db: Option<Db>,
    /// What was written.
    raw: Map,
    /// What was seen last.
    seen: Map,
    snapshots: Vec<(Snapshot, Map)>,
    drops: u64,
}

impl Run {
    fn new() -> Self {
        let mut run = Self {
            fs: SimFs::new(),
            jobs: Arc::default(),
            db: None,
            raw: Map::new(),
            seen: Map::new(),
            snapshots: Vec::new(),
            drops: 0,
        };
        run.start();
        run
    }

    fn start(&mut self) {
        self.jobs = Arc::default();
        let env = with_hooks(env_with(&self.fs, self.jobs.clone()), filtering());
        let mut options = Options::tiny();
        // Small enough that a compaction gives its outputs to readers piece by piece.
        options.table_bytes = 1024;
        self.db = Some(Db::open(dir(), options, env).unwrap());
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn restart(&mut self, fs: SimFs) {
        self.snapshots.clear();
        self.drops += self.db().stats().filter_drops.values().sum::<u64>();
        self.db = None;
        self.fs = fs;
        self.start();
    }

    /// Each key shows what was written or what the filter leaves of it, and never the first again after the second.
    fn look(&mut self, found: Map) {
        for (key, raw) in &self.raw {
            let (found, seen) = (found.get(key), self.seen.get(key));
            if found != Some(raw) {
                assert_eq!(found, outcome(raw).as_ref(), "{key:?}");
            } else {
                assert_eq!(seen, Some(raw), "what was filtered came back");
            }
        }
        assert!(found.keys().all(|key| self.raw.contains_key(key)));
        self.seen = found;
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Write(key, class, size) => {
                let mut batch = WriteBatch::new();
                let key = vec![*key];
                match class {
                    Some(class) => {
                        let value = [&[b"DRK"[usize::from(*class)]][..], &noise(*size)].concat();
                        batch.put(&key, &value);
                        self.raw.insert(key.clone(), value.clone());
                        self.seen.insert(key, value);
                    }
                    None => {
                        batch.delete(&key);
                        self.raw.remove(&key);
                        self.seen.remove(&key);
                    }
                }
                self.db().blocking().write(batch, Durability::Sync).unwrap();
            }
            Op::Jobs(count) => (0..*count).for_each(|_| _ = self.jobs.run_one()),
            Op::Flush => self.db().flush().unwrap(),
            Op::Tick => self.db().tick(),
            Op::TakeSnapshot => {
                let snapshot = self.db().snapshot();
                let found = shown(&snapshot);
                self.look(found.clone());
                self.snapshots.push((snapshot, found));
            }
            Op::CheckSnapshots => self.check_snapshots(),
            Op::DropSnapshot(_) if self.snapshots.is_empty() => {}
            Op::DropSnapshot(number) => {
                drop(
                    self.snapshots
                        .swap_remove(usize::from(*number) % self.snapshots.len()),
                );
            }
            Op::Kill => self.restart(self.fs.kill()),
            Op::PowerLoss(seed) => self.restart(self.fs.power_loss(*seed)),
        }
    }

    fn check_snapshots(&mut self) {
        for (snapshot, expected) in &self.snapshots {
            assert_eq!(&shown(snapshot), expected, "a snapshot changed");
            for key in 0..20 {
                let found = snapshot
                    .get(&[key])
                    .unwrap()
                    .map(|found| found.value.to_vec());
                assert_eq!(found.as_ref(), expected.get(&vec![key]));
            }
        }
        let now = contents(self.db()).unwrap();
        self.look(now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_filter_drops_stays_dropped_and_snapshots_go_on_seeing_it(ops in prop::collection::vec(op(), 20..200)) {
        let mut run = Run::new();
        for op in &ops {
            run.step(op);
        }
        run.check_snapshots();
        run.jobs.run_all();
        run.check_snapshots();
        run.snapshots.clear();
        // In one run at rest, everything was met.
        run.db().flush().unwrap();
        run.jobs.run_all();
        let now = contents(run.db()).unwrap();
        run.look(now);
    }
}

#[test]
fn verdicts_are_told_with_key_number_and_reason_and_counted() {
    let told = Arc::new(Told::default());
    let hooks = Hooks {
        events: Some(told.clone()),
        ..filtering()
    };
    let fs = SimFs::new();
    let db = Db::open(dir(), Options::tiny(), with_hooks(env(&fs), hooks)).unwrap();
    db.blocking().put(b"a", b"D\x05").unwrap();
    db.blocking().put(b"b", b"Rest").unwrap();
    db.blocking().put(b"c", b"Kept").unwrap();
    for _ in 0..3 {
        db.blocking().put(b"z", b"K").unwrap();
        db.flush().unwrap();
    }
    let expected = [
        Filtered {
            key: b"a".to_vec(),
            seq: Seq(1),
            dropped: Some(5),
        },
        Filtered {
            key: b"b".to_vec(),
            seq: Seq(2),
            dropped: None,
        },
    ];
    assert_eq!(*told.filtered.lock().unwrap(), expected);
    assert_eq!(db.stats().filter_drops, [(5, 1)].into());
    let found = contents(&db).unwrap();
    assert_eq!(found[&b"b"[..]], b"rest");
    assert!(!found.contains_key(&b"a"[..]));
    assert_eq!(
        db.stats().levels[6].deletes,
        0,
        "nothing lies below, so no tombstone was left"
    );
}

/// Looks whether a reader still sees what the filter is said to have dropped.
#[derive(Default)]
struct Looking {
    db: OnceLock<Db>,
    seen: Mutex<Vec<Vec<u8>>>,
    told: AtomicUsize,
}

impl Events for Looking {
    fn filtered(&self, entries: &[Filtered]) {
        let db = self.db.get().unwrap().blocking();
        self.told.fetch_add(entries.len(), Ordering::SeqCst);
        for entry in entries {
            let found = db.get(&entry.key).unwrap();
            if found.is_some_and(|found| found.seq == entry.seq) {
                self.seen.lock().unwrap().push(entry.key.clone());
            }
        }
    }
}

#[test]
fn a_verdict_is_told_when_no_reader_sees_what_it_changed() {
    let events = Arc::new(Looking::default());
    let hooks = Hooks {
        events: Some(events.clone()),
        ..filtering()
    };
    let mut options = Options::tiny();
    // A compaction gives its outputs to readers piece by piece, below inputs that are wider.
    options.table_bytes = 1024;
    let db = Db::open(dir(), options, with_hooks(env(&SimFs::new()), hooks)).unwrap();
    events.db.set(db.clone()).unwrap();
    for number in 0..1_700u16 {
        let key = (number * 37 % 200) as u8;
        let first: &[u8] = if number.is_multiple_of(3) {
            b"D\0"
        } else {
            b"K\0"
        };
        let value = [first, &noise(100 + number % 50)].concat();
        db.blocking()
            .write(put([key], value), Durability::Process)
            .unwrap();
    }
    assert_eq!(*events.seen.lock().unwrap(), Vec::<Vec<u8>>::new());
    assert!(events.told.load(Ordering::SeqCst) > 20);
    assert!(db.stats().compaction_releases > 0);
}

/// Makes a value of each that no batch could hold.
struct Boundless;

impl CompactionFilter for Boundless {
    fn decide(&self, _key: &[u8], _seq: Seq, _value: &[u8]) -> Verdict {
        Verdict::Rewrite(vec![0; (1 << 30) + 1])
    }
}

#[test]
fn rewriting_to_a_value_without_bounds_keeps_the_entry() {
    let hooks = Hooks {
        filter: Some(Arc::new(Boundless)),
        ..Hooks::default()
    };
    let db = Db::open(
        dir(),
        Options::tiny(),
        with_hooks(env(&SimFs::new()), hooks),
    )
    .unwrap();
    for _ in 0..4 {
        db.blocking().put(b"a", b"as it was").unwrap();
        db.flush().unwrap();
    }
    assert!(db.stats().compactions > 0);
    assert_eq!(contents(&db).unwrap()[&b"a"[..]], b"as it was");
}

#[test]
fn expired_entries_go_when_their_time_comes_also_after_a_restart() {
    let fs = SimFs::new();
    let filter = Arc::new(Expiring::default());
    let open = |fs: &SimFs| {
        let hooks = Hooks {
            filter: Some(filter.clone()),
            ..Hooks::default()
        };
        Db::open(dir(), Options::tiny(), with_hooks(env(fs), hooks)).unwrap()
    };
    let db = open(&fs);
    for second in 10..=50u8 {
        for round in 0..4u8 {
            db.blocking().put(&[second, round], &[second; 100]).unwrap();
        }
    }
    db.flush().unwrap();
    assert_eq!(contents(&db).unwrap().len(), 41 * 4);
    drop(db);
    let fs = fs.power_loss(1);
    let db = open(&fs);
    db.flush().unwrap();
    for now in [9, 10, 30, 50] {
        filter.0.store(now, Ordering::SeqCst);
        db.tick();
        let oldest = contents(&db)
            .unwrap()
            .keys()
            .next()
            .map(|key| u64::from(key[0]));
        assert_eq!(
            oldest,
            (now < 50).then_some(now + 1).map(|first| first.max(10))
        );
    }
    let before = db.stats().compactions;
    (0..20).for_each(|_| db.tick());
    assert_eq!(db.stats().compactions, before, "it came to rest");
}

#[test]
fn an_entry_that_expired_under_a_snapshot_goes_when_the_snapshot_has_gone() {
    let filter = Arc::new(Expiring::default());
    let hooks = Hooks {
        filter: Some(filter.clone()),
        ..Hooks::default()
    };
    let env = with_hooks(env(&SimFs::new()), hooks);
    let db = Db::open(dir(), Options::tiny(), env).unwrap();
    filter.0.store(20, Ordering::SeqCst);
    db.blocking().put(b"expired", &[10; 100]).unwrap();
    let snapshot = db.snapshot();
    for _ in 0..4 {
        db.blocking().put(b"other", &[90; 100]).unwrap();
        db.flush().unwrap();
    }
    let before = db.stats().compactions;
    assert!(before > 0);
    assert_eq!(contents(&db).unwrap().len(), 2);
    drop(snapshot);
    (0..20).for_each(|_| db.tick());
    assert!(db.stats().compactions > before);
    let left: Vec<Vec<u8>> = contents(&db).unwrap().into_keys().collect();
    assert_eq!(left, [b"other"]);
}

/// Attaches the number of the newest write.
struct Numbering;

impl FlushAttachment for Numbering {
    fn attachment(&self, seq: Seq) -> Vec<u8> {
        seq.0.to_string().into_bytes()
    }
}

fn attaching() -> Hooks {
    Hooks {
        attach: Some(Arc::new(Numbering)),
        ..Hooks::default()
    }
}

fn open_attaching(fs: &SimFs) -> Result<Db, kv_storage::OpenError> {
    Db::open(dir(), Options::tiny(), with_hooks(env(fs), attaching()))
}

fn check_attachment(db: &Db) {
    let flushed = db.stats().flushed;
    match db.attachment() {
        Some(attachment) => {
            assert_eq!(attachment.seq, flushed);
            assert_eq!(attachment.bytes, flushed.0.to_string().into_bytes());
        }
        None => assert_eq!(flushed, Seq(0)),
    }
}

#[test]
fn an_attachment_belongs_to_exactly_the_flushed_state_after_any_crash() {
    let workload = Workload::new(60, Durability::Sync);
    let run = |fs: &SimFs| {
        let Ok(db) = open_attaching(fs) else { return };
        for batch in &workload.batches {
            if db
                .blocking()
                .write(batch.clone(), Durability::Sync)
                .is_err()
            {
                return;
            }
        }
        let _ = db.close();
    };
    let fs = SimFs::new();
    run(&fs);
    let mut seen = std::collections::BTreeSet::new();
    for cut in 0..fs.calls() {
        let fs = SimFs::new();
        fs.plan(cut, Fault::PowerCut);
        run(&fs);
        let db = open_attaching(&fs.power_loss(cut)).unwrap();
        check_attachment(&db);
        seen.insert(db.attachment().map(|attachment| attachment.seq));
        db.flush().unwrap();
        check_attachment(&db);
    }
    assert!(seen.len() > 5, "{seen:?}");
}

/// Fails the first time.
#[derive(Default)]
struct FailingOnce(AtomicUsize);

impl FlushAttachment for FailingOnce {
    fn attachment(&self, _seq: Seq) -> Vec<u8> {
        assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "as planned");
        Vec::new()
    }
}

#[test]
fn an_attachment_that_panics_leaves_the_log_whole() {
    let fs = SimFs::new();
    let attach = Arc::new(FailingOnce::default());
    let hooks = Hooks {
        attach: Some(attach.clone()),
        ..Hooks::default()
    };
    // Nobody runs its jobs, so nothing is flushed.
    let jobs = Arc::new(ManualJobs::default());
    let env_of = env_with(&fs, jobs.clone());
    let db = Db::open(dir(), Options::tiny(), with_hooks(env_of, hooks)).unwrap();
    let (mut acked, mut panics) = (0, 0);
    for key in 0..=255u8 {
        let write = || {
            db.blocking()
                .write(put([key], [key; 200]), Durability::Process)
        };
        match catch_unwind(AssertUnwindSafe(write)) {
            Ok(outcome) => {
                outcome.unwrap();
                acked += 1;
                if panics > 0 {
                    // What follows would sooner or later be flushed, and that part of the log never read again.
                    break;
                }
            }
            Err(_) => panics += 1,
        }
    }
    assert_eq!(panics, 1);
    drop((db, jobs));
    let db = Db::open(dir(), Options::tiny(), env(&fs.kill())).unwrap();
    assert_eq!(contents(&db).unwrap().len(), acked);
}

#[test]
fn a_flush_without_an_attachment_ends_the_one_before() {
    let fs = SimFs::new();
    let db = open_attaching(&fs).unwrap();
    assert_eq!(db.attachment(), None);
    db.blocking().put(b"a", b"1").unwrap();
    db.flush().unwrap();
    assert_eq!(db.attachment().unwrap().bytes, b"1");
    drop(db);
    let db = crate::support::open(&fs).unwrap();
    assert_eq!(db.attachment().unwrap().bytes, b"1", "an open keeps it");
    db.blocking()
        .write(put(b"b", b"2"), Durability::Sync)
        .unwrap();
    assert_eq!(db.attachment().unwrap().seq, Seq(1));
    db.flush().unwrap();
    assert_eq!(db.attachment(), None);
}

#[test]
fn a_damaged_table_is_told_once_left_alone_and_the_rest_is_compacted() {
    let fs = SimFs::new();
    let told = Arc::new(Told::default());
    let hooks = || Hooks {
        events: Some(told.clone()),
        ..Hooks::default()
    };
    let open = |fs: &SimFs| Db::open(dir(), Options::tiny(), with_hooks(env(fs), hooks())).unwrap();
    let db = open(&fs);
    let value = |round: u32| [round as u8; 90];
    for number in 0..200u32 {
        db.blocking().put(&number.to_be_bytes(), &value(0)).unwrap();
    }
    db.flush().unwrap();
    db.close().unwrap();
    let tables = fs
        .dump()
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "sst"));
    let (path, mut bytes) = tables.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    bytes[10] ^= 1;
    fs.overwrite(&path, bytes).unwrap();

    let db = open(&fs);
    let mut failures = Vec::new();
    for round in 1..30u32 {
        for number in 0..200u32 {
            db.blocking()
                .put(&number.to_be_bytes(), &value(round))
                .unwrap();
        }
        db.flush().unwrap();
        failures.push(db.stats().background_failures);
    }
    assert_eq!(failures.last(), Some(&1), "{failures:?}");
    let damaged = told.damaged.lock().unwrap();
    assert_eq!(damaged.len(), 1);
    assert_eq!((&damaged[0].file, damaged[0].offset), (&path, 0));
    let KeyRange::Between { first, last } = &damaged[0].range else {
        panic!("{:?}", damaged[0]);
    };
    assert!(first < last && damaged[0].hides_data);
    let stats = db.stats();
    assert_eq!(stats.fenced_tables, 1);
    let entries: u64 = stats.levels.iter().map(|level| level.entries).sum();
    assert!(entries < 2_000, "compaction goes on around it: {stats:?}");
    for number in 0..200u32 {
        assert_eq!(
            db.blocking()
                .get(&number.to_be_bytes())
                .unwrap()
                .unwrap()
                .value,
            &value(29)[..]
        );
    }
}
