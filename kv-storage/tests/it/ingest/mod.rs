//! Ingest: sorted rows enter the store as one write, between older and newer ones.

mod faults;

use crate::support::{Expiring, ManualJobs, TickingClock, contents, dir, env, env_with, open, put};
use kv_storage::sim::SimFs;
use kv_storage::{
    Db, Durability, Env, Error, FlushAttachment, Found, Hooks, Ingest, IngestError, InlineJobs,
    MAX_KEY_BYTES, MAX_NOTE_BYTES, Observed, Options, Read, Seq, WriteBatch, WriteError, WriteKind,
    WriteObserver,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(number: u32) -> Vec<u8> {
    format!("key{number:04}").into_bytes()
}

/// Rows that do not compress, so that they fill several tables.
fn rows(numbers: impl IntoIterator<Item = u32>, what: &str) -> Map {
    let mut random = fastrand::Rng::with_seed(3);
    let mut value = || -> String { (0..60).map(|_| random.alphanumeric()).collect() };
    let numbers = numbers.into_iter();
    numbers
        .map(|number| (key(number), format!("{what} {}", value()).into_bytes()))
        .collect()
}

fn push_all(ingest: &mut Ingest, rows: &Map) -> Result<(), IngestError> {
    for (key, value) in rows {
        ingest.push(key, value)?;
    }
    Ok(())
}

/// Ingests rows and waits until that is durable.
fn ingest(db: &Db, rows: &Map) -> Result<Seq, IngestError> {
    let mut ingest = db.ingest()?;
    push_all(&mut ingest, rows)?;
    let commit = ingest.commit(Durability::Sync)?;
    let seq = commit.seq;
    commit.wait()?;
    Ok(seq)
}

fn get(db: &Db, number: u32) -> Option<Vec<u8>> {
    let found = db.blocking().get(&key(number)).unwrap();
    found.map(|found| found.value.to_vec())
}

fn tables(fs: &SimFs) -> Vec<PathBuf> {
    let is_table = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "sst");
    fs.dump().into_keys().filter(is_table).collect()
}

fn level0(db: &Db) -> usize {
    db.stats().levels[0].runs
}

/// Nothing is compacted while writes go on, and nothing answered from a cache.
fn quiet() -> Options {
    let mut options = Options::tiny();
    options.level0_trigger = 20;
    options.level0_stop = 40;
    options.cache_bytes = 0;
    options
}

#[test]
fn rows_replace_older_writes_and_are_replaced_by_newer_ones() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    for number in 0..60 {
        db.blocking().put(&key(number * 2), b"older").unwrap();
    }
    db.blocking().delete(&key(40)).unwrap();
    let new = rows(20..100, "ingested");
    let before = db.snapshot();
    let seq = ingest(&db, &new).unwrap();
    assert_eq!(db.stats().last, seq);
    let after = db.snapshot();
    for number in 50..60 {
        db.blocking().put(&key(number), b"newer").unwrap();
    }
    db.blocking().delete(&key(99)).unwrap();

    let check = |db: &Db| {
        for number in 0..120 {
            let found = db.blocking().get(&key(number)).unwrap();
            let expected = match number {
                99 => None,
                50..60 => Some(b"newer".to_vec()),
                20..99 => Some(new[&key(number)].clone()),
                number if number % 2 == 0 => Some(b"older".to_vec()),
                _ => None,
            };
            let value = found.as_ref().map(|found| found.value.to_vec());
            assert_eq!(value, expected, "{number}");
            if matches!(number, 20..50 | 60..99) {
                assert_eq!(
                    found.unwrap().seq,
                    seq,
                    "all rows have the number of the write"
                );
            }
        }
        assert_eq!(contents(db).unwrap().len(), 10 + 79 + 10);
    };
    check(&db);
    assert_eq!(before.get(&key(21)).unwrap(), None);
    assert_eq!(before.get(&key(22)).unwrap().unwrap().value, "older");
    assert_eq!(before.iter::<&[u8]>(..).count(), 59);
    assert_eq!(after.get(&key(50)).unwrap().unwrap().seq, seq);
    drop((before, after));
    // From the manifest, and after everything was merged.
    db.flush().unwrap();
    check(&db);
    db.close().unwrap();
    let db = open(&fs).unwrap();
    check(&db);
    for round in 0..8 {
        db.blocking().put(b"other", &[round]).unwrap();
        db.flush().unwrap();
    }
    db.blocking().delete(b"other").unwrap();
    assert!(db.stats().compactions > 0);
    check(&db);
}

#[test]
fn queued_rows_are_read_between_memtables_also_from_the_disk_and_after_a_kill() {
    let fs = SimFs::new();
    let jobs = Arc::new(ManualJobs::default());
    let db = Db::open(dir(), quiet(), env_with(&fs, jobs.clone())).unwrap();
    let write = |db: &Db, number: u32, value: &[u8]| {
        let batch = put(key(number), value);
        drop(db.write(batch, Durability::Process).unwrap());
    };
    let new = rows(0..200, "ingested");
    write(&db, 5, b"older");
    ingest(&db, &new).unwrap();
    write(&db, 7, b"newer");
    write(&db, 300, b"newer");
    let second = rows(100..110, "second");
    ingest(&db, &second).unwrap();
    write(&db, 105, b"newest");
    let stats = db.stats();
    assert_eq!((stats.waiting_ingests, stats.sealed_memtables), (2, 2));
    assert_eq!((stats.ingests, stats.flushes, level0(&db)), (2, 0, 0));
    let mut expected = new.clone();
    expected.extend(second);
    expected.insert(key(7), b"newer".to_vec());
    expected.insert(key(105), b"newest".to_vec());
    expected.insert(key(300), b"newer".to_vec());
    let check = |db: &Db| {
        assert_eq!(contents(db).unwrap(), expected);
        let (mut ready, mut from_disk) = (0, 0);
        for (key, value) in &expected {
            let found: Option<Found> = match db.get(key) {
                Read::Ready(outcome) => {
                    ready += 1;
                    outcome.unwrap()
                }
                Read::NeedsIo(job) => {
                    from_disk += 1;
                    job.run().unwrap()
                }
            };
            assert_eq!(found.unwrap().value, *value);
        }
        assert!(ready > 0 && from_disk > 0, "{ready}, {from_disk}");
    };
    check(&db);
    drop(db);
    let fs = fs.kill();
    let jobs = Arc::new(ManualJobs::default());
    let db = Db::open(dir(), quiet(), env_with(&fs, jobs.clone())).unwrap();
    assert_eq!(db.stats().waiting_ingests, 2);
    check(&db);
    jobs.run_all();
    assert_eq!(db.stats().waiting_ingests, 0);
    assert_eq!(contents(&db).unwrap(), expected);
}

#[test]
fn an_ingest_that_began_before_a_flush_stands_above_it_and_below_later_ones() {
    let fs = SimFs::new();
    // No job runs, so nothing is compacted.
    let jobs = Arc::new(ManualJobs::default());
    let db = Db::open(dir(), quiet(), env_with(&fs, jobs)).unwrap();
    let new = rows(0..50, "ingested");
    let mut early = db.ingest().unwrap();
    push_all(&mut early, &new).unwrap();
    // Its files have lower numbers than this table.
    db.blocking().put(&key(10), b"older").unwrap();
    db.flush().unwrap();
    early.commit(Durability::Sync).unwrap().wait().unwrap();
    db.blocking().put(&key(11), b"newer").unwrap();
    db.flush().unwrap();
    let check = |db: &Db| {
        assert_eq!(get(db, 10), Some(new[&key(10)].clone()));
        assert_eq!(get(db, 11), Some(b"newer".to_vec()));
    };
    assert_eq!(level0(&db), 3);
    check(&db);
    drop(db);
    check(&open(&fs.kill()).unwrap());
}

#[test]
fn rows_over_deleted_keys_and_ranges_are_there_and_later_deletes_hide_them() {
    let fs = SimFs::new();
    let db = Db::open(dir(), quiet(), env(&fs)).unwrap();
    for number in 0..50 {
        db.blocking().put(&key(number), b"older").unwrap();
    }
    db.flush().unwrap();
    let mut batch = WriteBatch::new();
    batch.delete(&key(3));
    batch.delete_range(key(10)..key(40));
    db.blocking().write(batch, Durability::Sync).unwrap();
    let new = rows(0..30, "ingested");
    ingest(&db, &new).unwrap();
    let mut batch = WriteBatch::new();
    batch.delete(&key(4));
    batch.delete_range(key(20)..key(25));
    db.blocking().write(batch, Durability::Sync).unwrap();
    let check = |db: &Db| {
        let expected = |number: u32| match number {
            4 | 20..25 => None,
            0..30 => Some(new[&key(number)].clone()),
            30..40 => None,
            _ => Some(b"older".to_vec()),
        };
        let mut all = Map::new();
        for number in 0..50 {
            assert_eq!(get(db, number), expected(number), "{number}");
            all.extend(expected(number).map(|value| (key(number), value)));
        }
        assert_eq!(contents(db).unwrap(), all);
    };
    check(&db);
    db.flush().unwrap();
    check(&db);
    drop(db);
    let db = open(&fs.kill()).unwrap();
    check(&db);
    for _ in 0..6 {
        db.blocking().put(&key(45), b"older").unwrap();
        db.flush().unwrap();
    }
    check(&db);
}

#[test]
fn an_ingest_may_go_on_and_be_committed_by_other_threads() {
    let db = open(&SimFs::new()).unwrap();
    let new = rows(0..100, "ingested");
    let mut begun = db.ingest().unwrap();
    let pushed = std::thread::scope(|scope| {
        let pushed = scope.spawn(|| {
            push_all(&mut begun, &new).unwrap();
            begun
        });
        pushed.join().unwrap()
    });
    std::thread::scope(|scope| {
        scope.spawn(|| pushed.commit(Durability::Sync).unwrap().wait().unwrap());
    });
    assert_eq!(contents(&db).unwrap(), new);
}

#[test]
fn rows_out_of_order_or_too_large_are_left_out_and_named() {
    let db = open(&SimFs::new()).unwrap();
    let mut ingest = db.ingest().unwrap();
    ingest.push(b"b", b"1").unwrap();
    for late in [&b"b"[..], b"a", b""] {
        let error = ingest.push(late, b"2").unwrap_err();
        let IngestError::OutOfOrder { key, before } = &error else {
            panic!("{error}");
        };
        assert_eq!((&key[..], &before[..]), (late, &b"b"[..]));
    }
    let error = ingest.push(b"a\x01", b"2").unwrap_err();
    assert_eq!(
        error.to_string(),
        "key \"a\\x01\" does not come after \"b\"; push rows in ascending order of their keys"
    );
    let long = vec![b'c'; MAX_KEY_BYTES + 1];
    let refused = |outcome: Result<(), IngestError>, name: &str| match outcome {
        Err(IngestError::Refused(WriteError::TooLarge { what, .. })) => assert_eq!(what, name),
        other => panic!("{other:?}"),
    };
    refused(ingest.push(&long, b""), "key");
    refused(ingest.push(b"c", &vec![0; 1 << 20]), "row");
    ingest.push(&long[1..], b"3").unwrap();
    ingest.commit(Durability::Sync).unwrap().wait().unwrap();
    let found = contents(&db).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[&b"b"[..]], b"1");

    let empty = db.ingest().unwrap();
    assert!(matches!(
        empty.commit(Durability::Sync),
        Err(IngestError::Empty)
    ));
    let mut noted = db.ingest().unwrap();
    noted.push(b"d", b"4").unwrap();
    let outcome = noted.commit_noted(Durability::Sync, &[0; MAX_NOTE_BYTES + 1]);
    refused(outcome.map(drop), "note");
    assert_eq!(contents(&db).unwrap().len(), 2);
}

#[test]
fn without_a_commit_nothing_stays() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    let mut given_up = db.ingest().unwrap();
    push_all(&mut given_up, &rows(0..200, "never")).unwrap();
    assert!(tables(&fs).len() > 1);
    drop(given_up);
    assert!(tables(&fs).is_empty());
    // One that a crash interrupts goes at the next open, and its numbers are not used again.
    let mut interrupted = db.ingest().unwrap();
    push_all(&mut interrupted, &rows(0..200, "never")).unwrap();
    let fs = fs.kill();
    let db = open(&fs).unwrap();
    assert!(tables(&fs).is_empty());
    assert!(contents(&db).unwrap().is_empty());
    drop(interrupted);
}

#[test]
fn a_closed_store_refuses_and_its_files_are_left_to_the_next_open() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    let (mut first, mut second) = (db.ingest().unwrap(), db.ingest().unwrap());
    push_all(&mut first, &rows(0..100, "never")).unwrap();
    push_all(&mut second, &rows(0..100, "never")).unwrap();
    db.close().unwrap();
    assert!(matches!(db.ingest(), Err(WriteError::Closed)));
    assert!(matches!(
        first.push(b"z", b""),
        Err(IngestError::Storage(Error::Closed))
    ));
    let left = tables(&fs);
    drop(first);
    assert_eq!(
        tables(&fs),
        left,
        "the directory may be another process' now"
    );
    let db = open(&fs).unwrap();
    let new = rows(0..100, "new");
    ingest(&db, &new).unwrap();
    let used = tables(&fs);
    assert!(matches!(
        second.commit(Durability::Sync),
        Err(IngestError::Storage(Error::Closed))
    ));
    assert_eq!(tables(&fs), used);
    assert_eq!(contents(&db).unwrap(), new);
}

/// Counts what it is told in order, and attaches the count.
#[derive(Default)]
struct Counting(Mutex<(Vec<Noted>, u64)>);

/// What was done, and the note.
type Noted = (WriteKind, Vec<u8>);

impl WriteObserver for Counting {
    fn begins(&self, flushed: Seq, attachment: Option<&[u8]>) {
        let counted = attachment.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        assert_eq!(counted, flushed.0);
        self.0.lock().unwrap().1 = counted;
    }

    fn wrote(&self, write: &Observed<'_>) {
        let mut state = self.0.lock().unwrap();
        state.1 += 1;
        assert_eq!(write.seq.0, state.1);
        state.0.push((write.kind, write.note.to_vec()));
    }
}

impl FlushAttachment for Counting {
    fn attachment(&self, seq: Seq) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        assert_eq!(seq.0, state.1);
        state.1.to_le_bytes().to_vec()
    }
}

#[test]
fn an_ingest_is_observed_once_in_its_place_also_in_replay() {
    let start = |fs: &SimFs, jobs: Arc<ManualJobs>| {
        let counting = Arc::new(Counting::default());
        let hooks = Hooks {
            observer: Some(counting.clone()),
            attach: Some(counting.clone()),
            ..Hooks::default()
        };
        let env = Env {
            hooks,
            ..env_with(fs, jobs)
        };
        (Db::open(dir(), quiet(), env).unwrap(), counting)
    };
    let fs = SimFs::new();
    let (db, counting) = start(&fs, Arc::default());
    let write = || drop(db.write(put(b"a", b"1"), Durability::Process).unwrap());
    write();
    let mut noted = db.ingest().unwrap();
    noted.push(b"b", b"2").unwrap();
    let commit = noted.commit_noted(Durability::Sync, b"root").unwrap();
    assert_eq!(commit.seq, Seq(2));
    write();
    ingest(&db, &rows(0..3, "second")).unwrap();
    write();
    let expected = [
        (WriteKind::Put, &b""[..]),
        (WriteKind::Ingest, b"root"),
        (WriteKind::Put, b""),
        (WriteKind::Ingest, b""),
        (WriteKind::Put, b""),
    ]
    .map(|(kind, note)| (kind, note.to_vec()));
    assert_eq!(counting.0.lock().unwrap().0, expected);
    // At each number of flushed entries, the rest is replayed.
    for flushed in 0..5 {
        let fs = fs.fork();
        let jobs = Arc::new(ManualJobs::default());
        let (db, counting) = start(&fs, jobs.clone());
        assert_eq!(counting.0.lock().unwrap().0, expected);
        for _ in 0..flushed {
            jobs.run_one();
        }
        let done = db.stats().flushed.0;
        let attached = db.attachment().map(|attachment| attachment.seq.0);
        assert_eq!(attached.unwrap_or(0), done);
        drop(db);
        let (_, counting) = start(&fs.kill(), Arc::default());
        assert_eq!(counting.0.lock().unwrap().0, expected[done as usize..]);
    }
}

#[test]
fn a_large_ingest_does_not_stop_writers() {
    let fs = SimFs::new();
    let mut options = Options::tiny();
    options.memtable_bytes = 1 << 10;
    let db = Db::open(dir(), options, env(&fs)).unwrap();
    // Many times what is borne above the bottom otherwise.
    ingest(&db, &rows(0..5000, "ingested")).unwrap();
    db.flush().unwrap();
    assert!(db.stats().debt < 600, "{}", db.stats().debt);
    for number in 0..100 {
        let batch = put(key(number), b"newer");
        drop(db.write(batch, Durability::Process).unwrap());
    }
    assert_eq!(db.stats().busy, 0);
}

#[test]
fn many_ingests_in_a_row_wait_for_no_job() {
    let fs = SimFs::new();
    let jobs = Arc::new(ManualJobs::default());
    let db = Db::open(dir(), quiet(), env_with(&fs, jobs)).unwrap();
    let mut expected = Map::new();
    for round in 0..15 {
        let new = rows([round, 50], &format!("round {round}"));
        ingest(&db, &new).unwrap();
        expected.extend(new);
        assert!(db.stats().waiting_ingests <= 8);
        if round % 5 == 0 {
            let batch = put(key(60 + round), b"1");
            drop(db.write(batch, Durability::Process).unwrap());
            expected.insert(key(60 + round), b"1".to_vec());
        }
    }
    assert_eq!(contents(&db).unwrap(), expected);
}

#[test]
fn readers_beside_an_ingest_see_all_rows_or_none_and_never_a_stale_one() {
    let fs = SimFs::new();
    let env = Env {
        clock: Arc::new(TickingClock::default()),
        jobs: Arc::new(InlineJobs),
        ..env(&fs)
    };
    let db = Db::open(dir(), Options::tiny(), env).unwrap();
    let round_of = |value: &[u8]| value[0];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=60u8 {
                let mut ingest = db.ingest().unwrap();
                for number in 0..30 {
                    ingest.push(&key(number), &[round; 100]).unwrap();
                }
                ingest.commit(Durability::Process).unwrap().wait().unwrap();
            }
        });
        scope.spawn(|| {
            // Every write is an ingest of all rows, so none of them may be older than what is visible.
            for _ in 0..30_000 {
                let snapshot = db.snapshot();
                if let Some(found) = snapshot.get(&key(0)).unwrap() {
                    assert_eq!(found.seq, snapshot.seq());
                }
            }
        });
        for thread in 0..2u32 {
            let db = &db;
            scope.spawn(move || {
                let mut least = 0;
                for _ in 0..400 {
                    let snapshot = db.snapshot();
                    let rounds: Vec<u8> = snapshot
                        .iter::<&[u8]>(..)
                        .map(|entry| round_of(&entry.unwrap().value))
                        .collect();
                    assert!(rounds.is_empty() || rounds.len() == 30);
                    assert!(rounds.iter().all(|round| *round == rounds[0]));
                    let found = db.blocking().get(&key(thread * 7)).unwrap();
                    let round = found.map_or(0, |found| round_of(&found.value));
                    let scanned = rounds.first().copied().unwrap_or(0);
                    assert!(round >= scanned && scanned >= least, "a read went back");
                    least = round;
                }
            });
        }
    });
    assert_eq!(contents(&db).unwrap()[&key(0)], [60; 100]);
}

#[test]
fn cached_rows_are_looked_up_again_after_an_ingest() {
    let db = open(&SimFs::new()).unwrap();
    db.blocking().put(&key(1), b"older").unwrap();
    db.flush().unwrap();
    for _ in 0..5 {
        assert_eq!(get(&db, 1), Some(b"older".to_vec()));
    }
    assert!(db.stats().row_cache_hits > 0);
    let new = rows(0..3, "ingested");
    ingest(&db, &new).unwrap();
    for _ in 0..5 {
        assert_eq!(get(&db, 1), Some(new[&key(1)].clone()));
    }
}

#[test]
fn ingested_rows_expire_when_their_time_comes() {
    let fs = SimFs::new();
    let filter = Arc::new(Expiring::default());
    let open = |fs: &SimFs| {
        let hooks = Hooks {
            filter: Some(filter.clone()),
            ..Hooks::default()
        };
        let env = Env { hooks, ..env(fs) };
        Db::open(dir(), Options::tiny(), env).unwrap()
    };
    let db = open(&fs);
    let mut random = fastrand::Rng::with_seed(1);
    for part in 0..4u8 {
        let mut ingest = db.ingest().unwrap();
        for second in 10 + part * 10..20 + part * 10 {
            let noise: Vec<u8> = (0..200).map(|_| random.u8(..)).collect();
            let value = [&[second], &noise[..]].concat();
            ingest.push(&[second], &value).unwrap();
        }
        ingest.commit(Durability::Sync).unwrap().wait().unwrap();
    }
    drop(db);
    let fs = fs.power_loss(1);
    let db = open(&fs);
    db.flush().unwrap();
    db.tick();
    // They were only moved, so nobody looked at their rows again.
    let stats = db.stats();
    assert_eq!((level0(&db), stats.compaction_written_bytes), (0, 0));
    filter.0.store(30, Ordering::SeqCst);
    db.tick();
    let found = contents(&db).unwrap();
    assert_eq!(found.keys().next(), Some(&vec![31]));
    assert_eq!(found.len(), 19);
}
