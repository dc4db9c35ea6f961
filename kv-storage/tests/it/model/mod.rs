//! Random histories against a map: batches, ingests, flushes, snapshots, scans, checkpoints, late jobs, values
//! that expire or that a filter rewrites, reopening, kills and power cuts.

mod aging;

use crate::support::{ManualJobs, contents, dir, env, env_with, with_hooks};
use aging::Aging;
use kv_storage::fs::Fs;
use kv_storage::sim::SimFs;
use kv_storage::{
    Commit, Db, Durability, Entry, Env, Hooks, Ingest, Options, Snapshot, WriteBatch, WriteError,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone)]
enum Op {
    /// Operations of a batch; synced or not.
    Write(Vec<Change>, bool),
    /// Writes rows to the files of an ingest: keys with the lengths of their values.
    BeginIngest(BTreeMap<u8, u16>),
    /// Commits an open ingest; synced or not.
    CommitIngest(u8, bool),
    Get(u8),
    /// Runs up to this many waiting jobs.
    Jobs(u8),
    Flush,
    TakeSnapshot,
    DropSnapshot(u8),
    /// Scans between two keys, backward or forward, in some snapshot or now.
    Scan(u8, u8, bool, Option<u8>),
    /// Makes a copy, and goes on with it or without it. The copy must stand a power loss.
    Checkpoint(bool, u64),
    Close,
    Kill,
    PowerLoss(u64),
}

#[derive(Debug, Clone)]
enum Change {
    /// Key and length of the value.
    Put(u8, u16),
    Delete(u8),
    /// Keys from one on and before another, or none.
    DeleteRange(u8, u8),
}

fn op() -> impl Strategy<Value = Op> {
    let change = prop_oneof![
        15 => (0u8..24, 0u16..600).prop_map(|(key, length)| Change::Put(key, length)),
        5 => (0u8..24).prop_map(Change::Delete),
        2 => (0u8..26, 0u8..26).prop_map(|(from, to)| Change::DeleteRange(from, to)),
    ];
    prop_oneof![
        12 => (prop::collection::vec(change, 1..6), any::<bool>()).prop_map(|(changes, sync)| Op::Write(changes, sync)),
        1 => prop::collection::btree_map(0u8..24, 0u16..600, 1..24).prop_map(Op::BeginIngest),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(number, sync)| Op::CommitIngest(number, sync)),
        4 => (0u8..26).prop_map(Op::Get),
        6 => (1u8..12).prop_map(Op::Jobs),
        1 => Just(Op::Flush),
        1 => Just(Op::TakeSnapshot),
        1 => any::<u8>().prop_map(Op::DropSnapshot),
        3 => (0u8..26, 0u8..26, any::<bool>(), prop::option::of(any::<u8>()))
            .prop_map(|(from, to, reverse, snapshot)| Op::Scan(from, to, reverse, snapshot)),
        1 => (any::<bool>(), any::<u64>()).prop_map(|(moves, seed)| Op::Checkpoint(moves, seed)),
        1 => Just(Op::Close),
        1 => Just(Op::Kill),
        1 => any::<u64>().prop_map(Op::PowerLoss),
    ]
}

/// The store under test, and all states it went through since the last start.
struct Run {
    fs: SimFs,
    dir: PathBuf,
    copies: u32,
    aging: Arc<Aging>,
    /// Whether the store has the filter; otherwise values stay as they are.
    filters: bool,
    jobs: Arc<ManualJobs>,
    db: Option<Db>,
    states: Vec<Map>,
    /// How many of the states' writes were reported synced, or handed to the operating system.
    synced: Arc<AtomicUsize>,
    handed: Arc<AtomicUsize>,
    /// Snapshots with what was seen in them when they were taken, whatever filters do later.
    snapshots: Vec<(Snapshot, Map)>,
    /// Ingests with their rows.
    ingests: Vec<(Ingest, Map)>,
}

fn key(number: u8) -> Vec<u8> {
    // Different lengths, and some that are prefixes of others.
    vec![b'k'; usize::from(number % 5) + 1]
        .into_iter()
        .chain([number / 5])
        .collect()
}

fn need(sync: bool) -> Durability {
    if sync {
        Durability::Sync
    } else {
        Durability::Process
    }
}

impl Run {
    fn new(filters: bool) -> Self {
        let mut run = Self {
            fs: SimFs::new(),
            dir: dir().to_owned(),
            copies: 0,
            aging: Arc::default(),
            filters,
            jobs: Arc::new(ManualJobs::default()),
            db: None,
            states: vec![Map::new()],
            synced: Arc::default(),
            handed: Arc::default(),
            snapshots: Vec::new(),
            ingests: Vec::new(),
        };
        run.open();
        run
    }

    fn open(&mut self) {
        self.jobs = Arc::new(ManualJobs::default());
        let env = self.with_filter(env_with(&self.fs, self.jobs.clone()));
        self.db = Some(Db::open(&self.dir, Options::tiny(), env).unwrap());
    }

    fn with_filter(&self, env: Env) -> Env {
        let filter = self.filters.then(|| self.aging.clone() as Arc<_>);
        let hooks = Hooks {
            filter,
            ..Hooks::default()
        };
        with_hooks(env, hooks)
    }

    /// What may be said of contents, with the filter or without.
    fn settled(&self, contents: &Map) -> Map {
        if self.filters {
            self.aging.settled(contents)
        } else {
            contents.clone()
        }
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn now(&self) -> &Map {
        self.states.last().unwrap()
    }

    fn write(&mut self, changes: &[Change], sync: bool) {
        let mut batch = WriteBatch::new();
        let mut next = self.now().clone();
        for change in changes {
            match change {
                Change::Put(number, length) => {
                    let value = self.aging.value(self.states.len() as u8, *length);
                    batch.put(&key(*number), &value);
                    next.insert(key(*number), value);
                }
                Change::Delete(number) => {
                    batch.delete(&key(*number));
                    next.remove(&key(*number));
                }
                Change::DeleteRange(from, to) => {
                    let (from, to) = (key(*from), key(*to));
                    batch.delete_range(from.clone()..to.clone());
                    next.retain(|key, _| *key < from || *key >= to);
                }
            }
        }
        if batch.is_empty() {
            return;
        }
        let commit = loop {
            match self.db().write(batch.clone(), need(sync)) {
                Ok(commit) => break commit,
                Err(WriteError::Busy(_)) => self.jobs.run_all(),
                Err(other) => panic!("{other}"),
            }
        };
        self.accepted(commit, sync, next);
    }

    fn begin_ingest(&mut self, rows: &BTreeMap<u8, u16>) {
        let mut ingest = loop {
            match self.db().ingest() {
                Ok(ingest) => break ingest,
                Err(WriteError::Busy(_)) => self.jobs.run_all(),
                Err(other) => panic!("{other}"),
            }
        };
        let row = |(number, length): (&u8, &u16)| {
            (key(*number), self.aging.value(0x80 | *number, *length))
        };
        let rows: Map = rows.iter().map(row).collect();
        for (key, value) in &rows {
            ingest.push(key, value).unwrap();
        }
        self.ingests.push((ingest, rows));
    }

    fn commit_ingest(&mut self, number: u8, sync: bool) {
        if self.ingests.is_empty() {
            return;
        }
        let number = usize::from(number) % self.ingests.len();
        let (ingest, rows) = self.ingests.swap_remove(number);
        let mut next = self.now().clone();
        next.extend(rows);
        let commit = ingest.commit(need(sync)).unwrap();
        self.accepted(commit, sync, next);
    }

    /// Notes the state after a write.
    fn accepted(&mut self, commit: Commit, sync: bool, next: Map) {
        let count = self.states.len();
        let reached = if sync {
            self.synced.clone()
        } else {
            self.handed.clone()
        };
        commit.on_durable(move |outcome| {
            // Told late by a dead process: the run has moved on.
            if outcome.is_ok() {
                reached.fetch_max(count, Ordering::SeqCst);
            }
        });
        self.states.push(next);
    }

    fn scan(&self, from: u8, to: u8, reverse: bool, snapshot: Option<u8>) {
        let chosen = snapshot
            .filter(|_| !self.snapshots.is_empty())
            .map(|number| usize::from(number) % self.snapshots.len());
        let (from, to) = (key(from), key(to));
        let is_inside = |key: &Vec<u8>| *key > from && *key <= to;
        let range = (Bound::Excluded(&from), Bound::Included(&to));
        let read = |snapshot: &Snapshot| -> Map {
            let iter = snapshot.iter::<Vec<u8>>(range);
            let found: Result<Vec<Entry>, _> = if reverse {
                iter.rev().collect()
            } else {
                iter.collect()
            };
            let mut found = found.unwrap();
            if reverse {
                found.reverse();
            }
            assert!(found.is_sorted_by(|a, b| a.key < b.key), "out of order");
            found
                .into_iter()
                .map(|entry| (entry.key.to_vec(), entry.value.to_vec()))
                .collect()
        };
        let (found, mut expected) = match chosen {
            Some(number) => {
                let (snapshot, seen) = &self.snapshots[number];
                (read(snapshot), seen.clone())
            }
            None => {
                let found = read(&self.db().snapshot());
                (self.settled(&found), self.settled(self.now()))
            }
        };
        expected.retain(|key, _| is_inside(key));
        assert_eq!(found, expected);
    }

    fn take_snapshot(&mut self) {
        let snapshot = self.db().snapshot();
        let seen: Map = snapshot
            .iter::<&[u8]>(..)
            .map(|entry| entry.map(|entry| (entry.key.to_vec(), entry.value.to_vec())))
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(self.settled(&seen), self.settled(self.now()));
        self.snapshots.push((snapshot, seen));
    }

    fn checkpoint(&mut self, moves: bool, seed: u64) {
        self.copies += 1;
        let target = PathBuf::from(format!("/copy{}", self.copies));
        self.db().checkpoint(&target).unwrap();
        let other = self.fs.fork().power_loss(seed);
        let copy = Db::open(&target, Options::tiny(), self.with_filter(env(&other))).unwrap();
        self.check_contents(&copy);
        drop(copy);
        if moves {
            let old = std::mem::replace(&mut self.dir, target);
            self.restart(self.fs.kill(), self.states.len() - 1);
            remove_dir(&self.fs, &old);
        } else {
            remove_dir(&self.fs, &target);
        }
    }

    fn check_contents(&self, db: &Db) {
        let found = contents(db).unwrap();
        assert_eq!(self.settled(&found), self.settled(self.now()));
    }

    /// Starts again. At least the first `floor` states' writes must be there.
    fn restart(&mut self, fs: SimFs, floor: usize) {
        self.snapshots.clear();
        self.db = None;
        self.fs = fs;
        // They go when the next process is at work, whose files are none of their business.
        let late = std::mem::take(&mut self.ingests);
        // Callbacks of the dead process keep the old counters.
        self.synced = Arc::new(self.synced.load(Ordering::SeqCst).into());
        self.open();
        drop(late);
        let found = self.settled(&contents(self.db()).unwrap());
        let reached = (floor..self.states.len())
            .rev()
            .find(|count| self.settled(&self.states[*count]) == found);
        let reached = reached.unwrap_or_else(|| {
            panic!(
                "not a prefix of {floor} to {} writes",
                self.states.len() - 1
            )
        });
        // What was found survives the next kill; power loss may still take what was never synced.
        self.states.truncate(reached + 1);
        self.handed = Arc::new(reached.into());
    }

    fn step(&mut self, op: &Op) {
        self.aging.pass();
        match op {
            Op::Write(changes, sync) => self.write(changes, *sync),
            Op::BeginIngest(rows) => self.begin_ingest(rows),
            Op::CommitIngest(number, sync) => self.commit_ingest(*number, *sync),
            Op::Get(number) => {
                let key = key(*number);
                let found = self.db().blocking().get(&key).unwrap();
                let found = found.map(|found| (key.clone(), found.value.to_vec()));
                let expected = self.now().get(&key).map(|value| (key, value.clone()));
                let settled = |row: Option<_>| self.settled(&row.into_iter().collect());
                assert_eq!(settled(found), settled(expected));
            }
            Op::Jobs(count) => (0..*count).for_each(|_| _ = self.jobs.run_one()),
            Op::Flush => self.db().flush().unwrap(),
            Op::TakeSnapshot => self.take_snapshot(),
            Op::DropSnapshot(_) if self.snapshots.is_empty() => {}
            Op::DropSnapshot(number) => drop(
                self.snapshots
                    .swap_remove(usize::from(*number) % self.snapshots.len()),
            ),
            Op::Scan(from, to, reverse, snapshot) => self.scan(*from, *to, *reverse, *snapshot),
            Op::Checkpoint(moves, seed) => self.checkpoint(*moves, *seed),
            Op::Close => {
                self.snapshots.clear();
                self.db().close().unwrap();
                self.restart(self.fs.clone(), self.states.len() - 1);
            }
            Op::Kill => {
                let floor = self
                    .handed
                    .load(Ordering::SeqCst)
                    .max(self.synced.load(Ordering::SeqCst));
                self.restart(self.fs.kill(), floor);
            }
            Op::PowerLoss(seed) => self.restart(
                self.fs.power_loss(*seed),
                self.synced.load(Ordering::SeqCst),
            ),
        }
    }
}

fn remove_dir(fs: &SimFs, dir: &Path) {
    for name in fs.list(dir).unwrap() {
        fs.remove(&dir.join(name)).unwrap();
    }
    fs.sync_dir(dir).unwrap();
}

/// An operation like those of [`op`].
fn random_op(random: &mut fastrand::Rng) -> Op {
    match random.u32(..308) {
        0..120 => {
            let change = |random: &mut fastrand::Rng| match random.u32(..22) {
                0..15 => Change::Put(random.u8(..24), random.u16(..600)),
                15..20 => Change::Delete(random.u8(..24)),
                _ => Change::DeleteRange(random.u8(..26), random.u8(..26)),
            };
            let count = random.usize(1..6);
            let changes = (0..count).map(|_| change(random)).collect();
            Op::Write(changes, random.bool())
        }
        120..190 => Op::Get(random.u8(..26)),
        190..250 => Op::Jobs(random.u8(1..12)),
        250..255 => Op::Flush,
        255..260 => Op::TakeSnapshot,
        260..265 => Op::DropSnapshot(random.u8(..)),
        265..294 => {
            let snapshot = random.bool().then(|| random.u8(..));
            Op::Scan(random.u8(..26), random.u8(..26), random.bool(), snapshot)
        }
        294..296 => Op::Close,
        296..298 => Op::Kill,
        298..300 => Op::PowerLoss(random.u64(..)),
        300..303 => {
            let count = random.usize(1..24);
            let row = |random: &mut fastrand::Rng| (random.u8(..24), random.u16(..600));
            Op::BeginIngest((0..count).map(|_| row(random)).collect())
        }
        303..307 => Op::CommitIngest(random.u8(..), random.bool()),
        _ => Op::Checkpoint(random.bool(), random.u64(..)),
    }
}

/// A long history, whose store grows old: some two thousand starts after a close, a kill or a power cut.
fn live_long(seed: u64, operations: u32, filters: bool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut run = Run::new(filters);
    for _ in 0..operations {
        let op = random_op(&mut random);
        run.step(&op);
        if run.snapshots.len() > 5 {
            run.snapshots.remove(0);
        }
    }
    run.check_contents(run.db());
}

#[test]
fn the_first_half_of_a_million_operations_reads_like_a_map() {
    (0..5).for_each(|seed| live_long(seed, 100_000, false));
}

#[test]
fn the_second_half_of_a_million_operations_reads_like_a_map_whose_values_age() {
    (5..10).for_each(|seed| live_long(seed, 100_000, true));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_reads_like_a_map(filters: bool, ops in prop::collection::vec(op(), 1..120)) {
        let mut run = Run::new(filters);
        for op in &ops {
            run.step(op);
        }
        run.check_contents(run.db());
        run.jobs.run_all();
        run.check_contents(run.db());
    }
}
