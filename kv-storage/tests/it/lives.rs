//! A hundred short lives of a store, each lived again and again, with one thing going wrong at each of its calls.

use crate::support::{contents, dir, env};
use kv_storage::sim::{Fault, SimFs};
use kv_storage::{Db, Durability, OpenError, Options, WriteBatch};
use std::collections::BTreeMap;

/// How many lives there are.
const LIVES: u64 = 100;
/// Which losses to try after each power cut.
const LOSSES: u64 = 3;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

enum Step {
    Write(WriteBatch, Durability),
    Ingest(Map, Durability),
    Flush,
    Reopen,
}

/// What a program does with a store, and what the store holds after each of its writes.
struct Life {
    steps: Vec<Step>,
    states: Vec<Map>,
}

/// How far a life came, in writes.
#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    /// Power loss must not take these: an acknowledged sync covers them.
    synced: usize,
    /// These were acknowledged, synced or not.
    acked: usize,
    /// These were tried.
    tried: usize,
}

impl Life {
    fn draw(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut life = Self {
            steps: Vec::new(),
            states: vec![Map::new()],
        };
        for number in 0..random.u32(8..16) {
            match random.u32(..10) {
                0..7 => life.draw_write(number, &mut random),
                7 => life.draw_ingest(number, &mut random),
                8 => life.steps.push(Step::Flush),
                _ => life.steps.push(Step::Reopen),
            }
        }
        life
    }

    fn draw_write(&mut self, number: u32, random: &mut fastrand::Rng) {
        let (mut batch, mut state) = (WriteBatch::new(), self.last());
        for _ in 0..random.usize(1..5) {
            let key = key(random.u32(..12));
            match random.u32(..10) {
                0 => {
                    let end = self::key(random.u32(..12));
                    batch.delete_range(key.clone()..end.clone());
                    state.retain(|other, _| *other < key || *other >= end);
                }
                1..3 => {
                    batch.delete(&key);
                    state.remove(&key);
                }
                _ => {
                    let value = value(number, random);
                    batch.put(&key, &value);
                    state.insert(key, value);
                }
            }
        }
        if !batch.is_empty() {
            self.steps.push(Step::Write(batch, durability(random)));
            self.states.push(state);
        }
    }

    fn draw_ingest(&mut self, number: u32, random: &mut fastrand::Rng) {
        let count = random.usize(1..6);
        let row = |random: &mut fastrand::Rng| (key(random.u32(..12)), value(number, random));
        let rows: Map = (0..count).map(|_| row(random)).collect();
        let mut state = self.last();
        state.extend(rows.clone());
        self.steps.push(Step::Ingest(rows, durability(random)));
        self.states.push(state);
    }

    fn last(&self) -> Map {
        self.states.last().cloned().unwrap_or_default()
    }

    /// Lives it until a write fails.
    fn run(&self, fs: &SimFs) -> Reached {
        let mut reached = Reached::default();
        let Ok(mut db) = open_again(fs) else {
            return reached;
        };
        for step in &self.steps {
            let done = match step {
                Step::Flush => {
                    // It promises nothing that was not promised before, and may be tried again.
                    let _ = db.flush();
                    continue;
                }
                Step::Reopen => {
                    if db.close().is_ok() {
                        reached.synced = reached.acked;
                    }
                    drop(db);
                    match open_again(fs) {
                        Ok(next) => db = next,
                        Err(_) => return reached,
                    }
                    continue;
                }
                Step::Write(batch, durability) => {
                    reached.tried += 1;
                    let written = db.blocking().write(batch.clone(), *durability);
                    written.is_ok().then_some(*durability)
                }
                Step::Ingest(rows, durability) => {
                    reached.tried += 1;
                    ingest(&db, rows, *durability).then_some(*durability)
                }
            };
            match done {
                None => return reached,
                Some(durability) => {
                    reached.acked = reached.tried;
                    if durability == Durability::Sync {
                        reached.synced = reached.acked;
                    }
                }
            }
        }
        if db.close().is_ok() {
            reached.synced = reached.acked;
        }
        reached
    }

    fn calls(&self) -> u64 {
        let fs = SimFs::new();
        let reached = self.run(&fs);
        assert_eq!(reached.acked, self.states.len() - 1, "it must succeed");
        fs.calls()
    }

    /// Opens what a life has left. It must hold one of the states from `floor` on, and still hold it after a flush and
    /// another loss of power.
    fn check(&self, fs: &SimFs, floor: usize, reached: Reached, what: &str) {
        let open = |fs: &SimFs| open_again(fs).unwrap_or_else(|error| panic!("{what}: {error}"));
        let db = open(fs);
        let found = contents(&db).unwrap();
        let states = &self.states[floor..=reached.tried];
        assert!(states.contains(&found), "{what}: {reached:?}");
        db.flush().unwrap();
        drop(db);
        let again = contents(&open(&fs.power_loss(1))).unwrap();
        assert_eq!(again, found, "{what}: the second start changed data");
    }
}

fn key(number: u32) -> Vec<u8> {
    format!("key{number:02}").into_bytes()
}

fn value(number: u32, random: &mut fastrand::Rng) -> Vec<u8> {
    // Some go into files of their own.
    format!("{number} ")
        .repeat(random.usize(1..150))
        .into_bytes()
}

fn durability(random: &mut fastrand::Rng) -> Durability {
    if random.bool() {
        Durability::Sync
    } else {
        Durability::Process
    }
}

/// A failed open changes nothing that matters: the next one succeeds, unless there is no power.
fn open_again(fs: &SimFs) -> Result<Db, OpenError> {
    let open = || Db::open(dir(), Options::tiny(), env(fs));
    open().or_else(|_| open())
}

fn ingest(db: &Db, rows: &Map, durability: Durability) -> bool {
    let Ok(mut ingest) = db.ingest() else {
        return false;
    };
    let pushed = rows
        .iter()
        .all(|(key, value)| ingest.push(key, value).is_ok());
    // As in `blocking().write`, without a sync it is enough that the log has it.
    pushed
        && match ingest.commit(durability) {
            Ok(commit) => durability != Durability::Sync || commit.wait().is_ok(),
            Err(_) => false,
        }
}

/// Lives every life once for each of its calls; `check` looks at what is left.
fn at_each_call(fault: Fault, check: impl Fn(&Life, &SimFs, Reached, &str)) {
    let mut runs = 0;
    for seed in 0..LIVES {
        let life = Life::draw(seed);
        for call in 0..life.calls() {
            let fs = SimFs::new();
            fs.plan(call, fault);
            let reached = life.run(&fs);
            fs.forget_plans();
            check(
                &life,
                &fs,
                reached,
                &format!("life {seed}, {fault:?} at call {call}"),
            );
            runs += 1;
        }
    }
    assert!(runs > 5_000, "{runs} runs: too few to be interesting");
}

#[test]
fn a_power_cut_at_any_call_of_any_life_loses_nothing_that_was_synced() {
    at_each_call(Fault::PowerCut, |life, fs, reached, what| {
        for loss in 0..LOSSES {
            let what = format!("{what}, loss {loss}");
            let fs = fs.fork().power_loss(loss);
            life.check(&fs, reached.synced, reached, &what);
        }
    });
}

/// After a call that failed, everything acknowledged survives the death of the process, and what was synced survives
/// a loss of power, too.
fn each_call_fails(fault: Fault) {
    at_each_call(fault, |life, fs, reached, what| {
        let killed = fs.fork().kill();
        life.check(&killed, reached.acked, reached, &format!("{what}, killed"));
        let lost = fs.fork().power_loss(reached.tried as u64);
        life.check(
            &lost,
            reached.synced,
            reached,
            &format!("{what}, power loss"),
        );
    });
}

#[test]
fn an_error_at_any_call_of_any_life_loses_nothing_that_was_acknowledged() {
    each_call_fails(Fault::Io);
}

#[test]
fn an_error_after_its_effect_at_any_call_of_any_life_loses_nothing_that_was_acknowledged() {
    each_call_fails(Fault::LateIo);
}

#[test]
fn a_full_disk_at_any_call_of_any_life_loses_nothing_that_was_acknowledged() {
    each_call_fails(Fault::NoSpace);
    each_call_fails(Fault::TornNoSpace);
}
