//! The write observer: with flush attachments it keeps a derived value exactly in step with the contents.

use crate::support::{ManualJobs, contents, dir, env, env_with};
use kv_storage::sim::{Fault, SimFs};
use kv_storage::{
    BlockingError, Db, Durability, Env, FlushAttachment, Hooks, MAX_NOTE_BYTES, Observed,
    OpenError, Options, Seq, WriteBatch, WriteError, WriteKind, WriteObserver,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A stand-in for the hash of an item.
fn digest(key: &[u8], value: &[u8]) -> u64 {
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    for byte in [&[key.len() as u8], key, value].concat() {
        digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    digest
}

fn sum_of(contents: &Map) -> u64 {
    let digests = contents.iter().map(|(key, value)| digest(key, value));
    digests.fold(0, u64::wrapping_add)
}

/// Keeps the sum of the digests of all items, without ever looking at the contents.
#[derive(Default)]
struct Summing(Mutex<Sum>);

#[derive(Default)]
struct Sum {
    begun: bool,
    last: Seq,
    sum: u64,
    observed: u64,
}

impl Summing {
    fn sum(&self) -> u64 {
        self.0.lock().unwrap().sum
    }
}

impl WriteObserver for Summing {
    fn begins(&self, flushed: Seq, attachment: Option<&[u8]>) {
        let mut state = self.0.lock().unwrap();
        assert!(!state.begun, "begun twice");
        state.begun = true;
        state.last = flushed;
        state.sum = match attachment {
            Some(bytes) => u64::from_le_bytes(bytes.try_into().unwrap()),
            None => {
                assert_eq!(flushed, Seq(0), "an attachment got lost");
                0
            }
        };
    }

    fn wrote(&self, write: &Observed<'_>) {
        let mut state = match self.0.try_lock() {
            Ok(state) => state,
            Err(TryLockError::WouldBlock) => panic!("two at a time"),
            Err(TryLockError::Poisoned(_)) => panic!("failed before"),
        };
        assert!(state.begun);
        assert_eq!(write.seq.0, state.last.0 + 1, "out of order");
        state.last = write.seq;
        state.observed += 1;
        let (old, new) = write.note.split_at(8);
        let [old, new] = [old, new].map(|half| u64::from_le_bytes(half.try_into().unwrap()));
        match write.kind {
            WriteKind::Put => assert_eq!(new, digest(write.key, write.value)),
            WriteKind::Delete => assert_eq!((new, write.value), (0, &[][..])),
            other => panic!("{other:?}"),
        }
        state.sum = state.sum.wrapping_sub(old).wrapping_add(new);
    }
}

impl FlushAttachment for Summing {
    fn attachment(&self, seq: Seq) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        assert_eq!(
            seq, state.last,
            "an attachment sees exactly what was observed"
        );
        state.sum.to_le_bytes().to_vec()
    }
}

fn open_with(env: Env, options: Options) -> Result<(Db, Arc<Summing>), OpenError> {
    let summing = Arc::new(Summing::default());
    let hooks = Hooks {
        observer: Some(summing.clone()),
        attach: Some(summing.clone()),
        ..Hooks::default()
    };
    let db = Db::open(dir(), options, Env { hooks, ..env })?;
    Ok((db, summing))
}

fn open(fs: &SimFs) -> Result<(Db, Arc<Summing>), OpenError> {
    open_with(env(fs), Options::tiny())
}

/// Adds operations to a batch with the notes that the observer needs, and does the same to a map.
fn change(batch: &mut WriteBatch, map: &mut Map, key: &[u8], value: Option<&[u8]>) {
    let old = map.get(key).map_or(0, |value| digest(key, value));
    let new = value.map_or(0, |value| digest(key, value));
    let note = [old.to_le_bytes(), new.to_le_bytes()].concat();
    match value {
        Some(value) => {
            batch.put_noted(key, value, &note);
            map.insert(key.to_vec(), value.to_vec());
        }
        None => {
            batch.delete_noted(key, &note);
            map.remove(key);
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Write(Vec<(u8, Option<u16>)>, bool),
    Jobs(u8),
    Flush,
    Close,
    Kill,
    PowerLoss(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let change = (0u8..24, prop::option::weighted(0.75, 0u16..500));
    prop_oneof![
        12 => (prop::collection::vec(change, 1..6), any::<bool>()).prop_map(|(changes, sync)| Op::Write(changes, sync)),
        5 => (1u8..12).prop_map(Op::Jobs),
        1 => Just(Op::Flush),
        1 => Just(Op::Close),
        1 => Just(Op::Kill),
        1 => any::<u64>().prop_map(Op::PowerLoss),
    ]
}

struct Run {
    fs: SimFs,
    jobs: Arc<ManualJobs>,
    store: Option<(Db, Arc<Summing>)>,
    map: Map,
}

impl Run {
    fn new() -> Self {
        let mut run = Self {
            fs: SimFs::new(),
            jobs: Arc::default(),
            store: None,
            map: Map::new(),
        };
        run.start();
        run
    }

    fn start(&mut self) {
        self.jobs = Arc::default();
        let env = env_with(&self.fs, self.jobs.clone());
        self.store = Some(open_with(env, Options::tiny()).unwrap());
        self.map = contents(self.db()).unwrap();
    }

    fn restart(&mut self, fs: SimFs) {
        self.store = None;
        self.fs = fs;
        self.start();
    }

    fn db(&self) -> &Db {
        &self.store.as_ref().unwrap().0
    }

    fn check(&self) {
        let (db, summing) = self.store.as_ref().unwrap();
        assert_eq!(summing.sum(), sum_of(&self.map));
        assert_eq!(contents(db).unwrap(), self.map);
        if let Some(attachment) = db.attachment() {
            assert_eq!(attachment.seq, db.stats().flushed);
        }
    }

    fn write(&mut self, changes: &[(u8, Option<u16>)], sync: bool) {
        let mut batch = WriteBatch::new();
        for (key, length) in changes {
            let value = length.map(|length| vec![length as u8; usize::from(length)]);
            change(&mut batch, &mut self.map, &[*key], value.as_deref());
        }
        let need = if sync {
            Durability::Sync
        } else {
            Durability::Process
        };
        loop {
            match self.db().write(batch.clone(), need) {
                Ok(commit) => break drop(commit),
                Err(WriteError::Busy(_)) => self.jobs.run_all(),
                Err(other) => panic!("{other}"),
            }
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Write(changes, sync) => self.write(changes, *sync),
            Op::Jobs(count) => (0..*count).for_each(|_| _ = self.jobs.run_one()),
            Op::Flush => self.db().flush().unwrap(),
            Op::Close => {
                self.db().close().unwrap();
                self.restart(self.fs.clone());
            }
            Op::Kill => self.restart(self.fs.kill()),
            Op::PowerLoss(seed) => self.restart(self.fs.power_loss(*seed)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn attachment_and_observed_writes_make_the_present_state(ops in prop::collection::vec(op(), 1..100)) {
        let mut run = Run::new();
        for op in &ops {
            run.step(op);
            run.check();
        }
        run.jobs.run_all();
        run.check();
    }
}

/// Writes batches until one fails.
fn workload(fs: &SimFs) {
    let Ok((db, _)) = open(fs) else { return };
    let mut random = fastrand::Rng::with_seed(1);
    let mut map = Map::new();
    for number in 0..60u8 {
        let mut batch = WriteBatch::new();
        for _ in 0..random.usize(1..5) {
            let key = [random.u8(..20)];
            let value = vec![number; random.usize(..300)];
            let value = (random.u8(..4) > 0).then_some(&value[..]);
            change(&mut batch, &mut map, &key, value);
        }
        let outcome = db.blocking().write(batch, Durability::Sync);
        if outcome.is_err() || (number % 17 == 16 && db.flush().is_err()) {
            return;
        }
    }
    let _ = db.close();
}

#[test]
fn the_sum_is_right_after_a_power_cut_at_any_call() {
    let fs = SimFs::new();
    workload(&fs);
    let mut replayed = std::collections::BTreeSet::new();
    for cut in 0..fs.calls() {
        let fs = SimFs::new();
        fs.plan(cut, Fault::PowerCut);
        workload(&fs);
        for seed in 0..3 {
            let fs = fs.fork().power_loss(seed);
            for _ in 0..2 {
                let (db, summing) = open(&fs).unwrap();
                let found = contents(&db).unwrap();
                assert_eq!(summing.sum(), sum_of(&found), "cut {cut}, loss {seed}");
                let state = summing.0.lock().unwrap();
                assert_eq!(state.last, db.stats().last);
                replayed.insert(state.observed);
            }
        }
    }
    assert!(replayed.len() > 10, "too little was replayed: {replayed:?}");
}

#[test]
fn a_write_is_observed_once_also_if_the_open_must_begin_again_on_a_full_disk() {
    let fs = SimFs::new();
    let (db, _) = open(&fs).unwrap();
    let mut map = Map::new();
    for number in 0..20 {
        let mut batch = WriteBatch::new();
        change(&mut batch, &mut map, &[number], Some(&[number; 20]));
        db.blocking().write(batch, Durability::Sync).unwrap();
    }
    drop(db);
    let before = fs.calls();
    drop(open(&fs.fork()).unwrap());
    let (mut call, mut opened) = (before, 0);
    loop {
        let fs = fs.fork();
        fs.plan(call, Fault::NoSpace);
        if let Ok((db, summing)) = open(&fs) {
            assert_eq!(summing.0.lock().unwrap().observed, 20, "call {call}");
            assert_eq!(summing.sum(), sum_of(&contents(&db).unwrap()));
            opened += 1;
        }
        if fs.calls() <= call {
            break;
        }
        call += 1;
    }
    assert!(opened > 3);
}

/// Notes what it is told. It must not panic in other threads, who would then wait for one another for ever.
#[derive(Default)]
struct Order {
    told: Mutex<Vec<u64>>,
    /// Attachments that did not see exactly the writes up to their number.
    early: AtomicU64,
    overlaps: AtomicU64,
}

impl WriteObserver for Order {
    fn wrote(&self, write: &Observed<'_>) {
        match self.told.try_lock() {
            Ok(mut told) => {
                // Whoever does not wait for his turn comes in now.
                (0..5).for_each(|_| std::thread::yield_now());
                told.push(write.seq.0);
            }
            Err(_) => _ = self.overlaps.fetch_add(1, Ordering::SeqCst),
        }
    }
}

impl FlushAttachment for Order {
    fn attachment(&self, seq: Seq) -> Vec<u8> {
        let told = self.told.try_lock();
        if told.is_err() || told.is_ok_and(|told| told.last() != Some(&seq.0)) {
            self.early.fetch_add(1, Ordering::SeqCst);
        }
        Vec::new()
    }
}

#[test]
fn writes_of_many_threads_are_observed_in_order_one_at_a_time() {
    let fs = SimFs::new();
    let order = Arc::new(Order::default());
    let hooks = Hooks {
        observer: Some(order.clone()),
        attach: Some(order.clone()),
        ..Hooks::default()
    };
    let mut options = Options::tiny();
    options.memtable_bytes = 200 << 10;
    options.max_batch_bytes = 100 << 10;
    let db = Db::open(dir(), options, Env { hooks, ..env(&fs) }).unwrap();
    std::thread::scope(|scope| {
        // Small batches overtake large ones on their way into the memtable.
        for (thread, operations) in [(0u8, 150u8), (1, 150), (2, 1), (3, 1)] {
            let db = &db;
            scope.spawn(move || {
                for round in 0..30_000 / (u32::from(operations) + 150) {
                    let mut batch = WriteBatch::new();
                    for number in 0..operations {
                        batch.put(&[thread, number], &[round as u8; 200]);
                    }
                    db.blocking().write(batch, Durability::Process).unwrap();
                }
            });
        }
    });
    let told = order.told.lock().unwrap();
    assert!(told.is_sorted_by(|a, b| a + 1 == *b));
    assert_eq!(told.len() as u64, db.stats().last.0);
    assert_eq!(order.overlaps.load(Ordering::SeqCst), 0);
    assert_eq!(order.early.load(Ordering::SeqCst), 0);
    assert!(db.stats().flushes > 10, "{:?}", db.stats());
}

/// Looks at the store while it is told.
struct Peeking(Mutex<Option<Db>>, Mutex<u64>);

impl WriteObserver for Peeking {
    fn wrote(&self, write: &Observed<'_>) {
        let store = self.0.lock().unwrap();
        if let Some(db) = &*store {
            // A read takes none of the writers' locks, so a test may do it here.
            assert_eq!(db.blocking().get(write.key).unwrap(), None);
            *self.1.lock().unwrap() += 1;
        }
    }
}

#[test]
fn a_write_is_observed_before_readers_see_it() {
    let fs = SimFs::new();
    let peeking = Arc::new(Peeking(Mutex::default(), Mutex::default()));
    let hooks = Hooks {
        observer: Some(peeking.clone()),
        ..Hooks::default()
    };
    let env = Env { hooks, ..env(&fs) };
    let db = Db::open(dir(), Options::tiny(), env).unwrap();
    *peeking.0.lock().unwrap() = Some(db.clone());
    db.blocking().put(b"a", b"1").unwrap();
    assert!(db.blocking().get(b"a").unwrap().is_some());
    assert_eq!(*peeking.1.lock().unwrap(), 1);
    *peeking.0.lock().unwrap() = None;
}

#[test]
fn a_note_over_its_limit_is_refused() {
    let db = crate::support::open(&SimFs::new()).unwrap();
    let write = |length: usize| {
        let mut batch = WriteBatch::new();
        batch.put_noted(b"a", b"1", &vec![0; length]);
        db.blocking().write(batch, Durability::Process)
    };
    assert!(write(MAX_NOTE_BYTES).is_ok());
    let error = write(MAX_NOTE_BYTES + 1).unwrap_err();
    assert!(
        matches!(
            error,
            BlockingError::Refused(WriteError::TooLarge { what: "note", .. })
        ),
        "{error}"
    );
}

/// Keeps what it was told.
#[derive(Default)]
struct Told(Mutex<Vec<ToldWrite>>);

/// Number, kind, key, value, note.
type ToldWrite = (u64, WriteKind, Vec<u8>, Vec<u8>, Vec<u8>);

impl WriteObserver for Told {
    fn wrote(&self, write: &Observed<'_>) {
        let (key, value, note) = (write.key.into(), write.value.into(), write.note.into());
        let told = (write.seq.0, write.kind, key, value, note);
        self.0.lock().unwrap().push(told);
    }
}

#[test]
fn deleted_ranges_are_observed_with_their_bounds_and_notes_also_in_replay() {
    let fs = SimFs::new();
    let start = || {
        let told = Arc::new(Told::default());
        let hooks = Hooks {
            observer: Some(told.clone()),
            ..Hooks::default()
        };
        let env = Env { hooks, ..env(&fs) };
        (Db::open(dir(), Options::tiny(), env).unwrap(), told)
    };
    let (db, told) = start();
    let mut batch = WriteBatch::new();
    batch.put(b"a", b"1");
    batch.delete_range_noted(b"b".as_slice()..b"d", b"note");
    batch.delete_noted(b"e", b"gone");
    db.blocking().write(batch, Durability::Process).unwrap();
    let told = std::mem::take(&mut *told.0.lock().unwrap());
    let expected = [
        (1, WriteKind::Put, "a", "1", ""),
        (2, WriteKind::DeleteRange, "b", "d", "note"),
        (3, WriteKind::Delete, "e", "", "gone"),
    ];
    let expected = expected
        .map(|(seq, kind, key, value, note)| (seq, kind, key.into(), value.into(), note.into()));
    assert_eq!(told, expected);
    drop(db);
    assert_eq!(*start().1.0.lock().unwrap(), expected);
}
