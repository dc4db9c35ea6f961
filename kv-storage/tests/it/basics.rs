//! Puts, gets, batches, scans, tickets, flushes, and reopening.

use crate::support::{ManualJobs, contents, dir, env_with, open, put};
use kv_storage::sim::SimFs;
use kv_storage::{
    Db, Durability, Error, JobClass, OpenError, Options, Read, ScanRequest, WriteBatch, WriteError,
};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

fn key(number: u32) -> Vec<u8> {
    format!("key{number:06}").into_bytes()
}

#[test]
fn what_was_put_is_there_after_flush_reopen_and_kill() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    for number in 0..500 {
        db.blocking()
            .put(&key(number), &[number as u8; 40])
            .unwrap();
    }
    for number in (0..500).step_by(3) {
        db.blocking().delete(&key(number)).unwrap();
    }
    let check = |db: &Db| {
        for number in 0..510 {
            let found = db
                .blocking()
                .get(&key(number))
                .unwrap()
                .map(|found| found.value);
            let expected = (number % 3 != 0 && number < 500).then(|| vec![number as u8; 40]);
            assert_eq!(found.as_deref(), expected.as_deref(), "key {number}");
        }
        assert_eq!(contents(db).unwrap().len(), 333);
    };
    check(&db);
    assert!(db.stats().flushes > 3, "{:?}", db.stats());
    db.flush().unwrap();
    check(&db);
    db.close().unwrap();
    assert!(matches!(db.blocking().get(b"a"), Err(Error::Closed)));
    assert!(matches!(
        db.write(put(b"a", b""), Durability::Sync),
        Err(WriteError::Closed)
    ));
    drop(db);
    let db = open(&fs).unwrap();
    check(&db);
    let fs = fs.kill();
    check(&open(&fs).unwrap());
}

#[test]
fn a_batch_is_atomic_and_its_last_operation_wins() {
    let db = open(&SimFs::new()).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(b"a", b"1");
    batch.delete(b"a");
    batch.put(b"b", b"1");
    batch.put(b"b", b"2");
    assert_eq!(db.blocking().write(batch, Durability::Sync).unwrap().0, 4);
    assert_eq!(db.blocking().get(b"a").unwrap(), None);
    let found = db.blocking().get(b"b").unwrap().unwrap();
    assert_eq!((&*found.value, found.seq.0), (&b"2"[..], 4));
}

#[test]
fn impossible_writes_are_refused_with_numbers() {
    let db = open(&SimFs::new()).unwrap();
    let limit = kv_storage::MAX_KEY_BYTES;
    db.blocking().put(&vec![1; limit], b"at the limit").unwrap();
    let error = db
        .write(put(vec![1; limit + 1], b""), Durability::Sync)
        .unwrap_err();
    assert!(
        matches!(error, WriteError::TooLarge { what: "key", size, limit: l } if size == l + 1),
        "{error}"
    );
    let error = db
        .write(put(b"a", vec![0; 1 << 20]), Durability::Sync)
        .unwrap_err();
    assert!(
        matches!(error, WriteError::TooLarge { what: "batch", .. }),
        "{error}"
    );
    assert!(matches!(
        db.write(WriteBatch::new(), Durability::Sync),
        Err(WriteError::Empty)
    ));
    db.blocking().put(b"", b"empty key").unwrap();
    assert_eq!(contents(&db).unwrap().len(), 2);
    let mut batch = WriteBatch::new();
    for number in 0..3000u32 {
        batch.delete_range(number.to_be_bytes()..u32::MAX.to_be_bytes());
    }
    let error = db.write(batch, Durability::Process).unwrap_err();
    assert!(matches!(
        error,
        WriteError::TooManyRanges { count: 3000, .. }
    ));
}

#[test]
fn a_directory_in_use_is_refused_with_the_owner() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    let error = open(&fs).unwrap_err();
    assert!(
        matches!(error, OpenError::Locked { pid: Some(_), .. }),
        "{error}"
    );
    db.close().unwrap();
    open(&fs).unwrap();
}

#[test]
fn a_ticket_is_told_by_the_log_job_and_one_sync_serves_all() {
    let fs = SimFs::new();
    let jobs = Arc::new(ManualJobs::default());
    let db = Db::open(dir(), Options::tiny(), env_with(&fs, jobs.clone())).unwrap();
    jobs.run_all();
    let told = Arc::new(Mutex::new(Vec::new()));
    for number in 0..10 {
        let commit = db.write(put(key(number), b"v"), Durability::Sync).unwrap();
        let told = told.clone();
        commit.on_durable(move |outcome| told.lock().unwrap().push((number, outcome.is_ok())));
    }
    assert_eq!(jobs.classes(), [JobClass::LogSync]);
    assert!(told.lock().unwrap().is_empty());
    // Visible before it is durable; on_durable is how a reader waits for that.
    let Read::Ready(Ok(Some(found))) = db.get(&key(9)) else {
        panic!("not in memory")
    };
    let waited = Arc::new(AtomicUsize::new(0));
    let count = waited.clone();
    db.on_durable(found.seq, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let syncs = db.stats().log_syncs;
    jobs.run_all();
    assert_eq!(
        *told.lock().unwrap(),
        (0..10).map(|number| (number, true)).collect::<Vec<_>>()
    );
    assert_eq!(waited.load(Ordering::SeqCst), 1);
    assert_eq!(db.stats().log_syncs, syncs + 1);
    let count = waited.clone();
    db.on_durable(found.seq, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(
        waited.load(Ordering::SeqCst),
        2,
        "already durable: told at once"
    );
}

#[test]
fn a_blocking_wait_does_the_work_of_a_job_that_never_runs() {
    let fs = SimFs::new();
    let db = Db::open(
        dir(),
        Options::tiny(),
        env_with(&fs, Arc::new(ManualJobs::default())),
    )
    .unwrap();
    db.write(put(b"a", b"1"), Durability::Sync)
        .unwrap()
        .wait()
        .unwrap();
    db.flush().unwrap();
    db.close().unwrap();
    assert_eq!(contents(&open(&fs).unwrap()).unwrap().len(), 1);
}

#[test]
fn callbacks_may_call_the_store() {
    fn chain(db: Db, left: u32, done: Arc<AtomicUsize>) {
        if left == 0 {
            done.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let commit = db
            .clone()
            .write(put(key(left), [0; 100]), Durability::Sync)
            .unwrap();
        commit.on_durable(move |outcome| {
            outcome.unwrap();
            db.clone().get_with(&key(left), move |found| {
                assert!(found.unwrap().is_some());
                chain(db, left - 1, done);
            });
        });
    }
    // Inline: each callback runs inside the call that it answers.
    let db = open(&SimFs::new()).unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    chain(db.clone(), 300, done.clone());
    assert_eq!(done.load(Ordering::SeqCst), 1);
    assert_eq!(contents(&db).unwrap().len(), 300);

    // By jobs: the stack does not grow.
    let jobs = Arc::new(ManualJobs::default());
    let db = Db::open(
        dir(),
        Options::tiny(),
        env_with(&SimFs::new(), jobs.clone()),
    )
    .unwrap();
    chain(db.clone(), 3_000, done.clone());
    jobs.run_all();
    assert_eq!(done.load(Ordering::SeqCst), 2);
    assert_eq!(contents(&db).unwrap().len(), 3_000);
}

#[test]
fn a_read_that_misses_the_cache_becomes_a_job() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    for number in 0..300 {
        db.blocking().put(&key(number), &[1; 100]).unwrap();
    }
    db.close().unwrap();
    let db = open(&fs).unwrap();
    let calls = fs.calls();
    let Read::NeedsIo(job) = db.get(&key(5)) else {
        panic!("the cache is empty after an open")
    };
    assert_eq!(fs.calls(), calls, "a get touched the file system");
    assert_eq!(job.run().unwrap().unwrap().value, vec![1; 100]);
    assert!(
        matches!(db.get(&key(5)), Read::Ready(Ok(Some(_)))),
        "now it is cached"
    );
    assert!(
        matches!(db.get(b"zzz"), Read::Ready(Ok(None))),
        "out of range needs no disk"
    );
}

#[test]
fn snapshots_do_not_change_and_outlive_compactions() {
    let db = open(&SimFs::new()).unwrap();
    let mut snapshots = Vec::new();
    for round in 0..10u8 {
        for number in 0..60 {
            db.blocking().put(&key(number), &[round; 50]).unwrap();
        }
        snapshots.push((round, db.snapshot()));
        db.blocking().delete(&key(u32::from(round))).unwrap();
    }
    db.flush().unwrap();
    assert!(db.stats().compactions > 0, "{:?}", db.stats());
    for (round, snapshot) in snapshots {
        assert_eq!(snapshot.iter::<&[u8]>(..).count(), 60);
        for number in 0..60 {
            assert_eq!(
                snapshot.get(&key(number)).unwrap().unwrap().value,
                vec![round; 50]
            );
        }
    }
    assert_eq!(db.stats().snapshots, 0);
}

#[test]
fn scans_come_in_pages_both_ways() {
    let db = open(&SimFs::new()).unwrap();
    for number in 0..200 {
        db.blocking().put(&key(number), &[2; 30]).unwrap();
    }
    let snapshot = db.snapshot();
    db.blocking().delete(&key(100)).unwrap();
    for reverse in [false, true] {
        let mut request = Some(ScanRequest {
            start: key(10).into(),
            end: Bound::Included(key(150).into()),
            reverse,
            max_items: 7,
            max_bytes: usize::MAX,
            max_visited: ScanRequest::DEFAULT_MAX_VISITED,
        });
        let mut seen = Vec::new();
        while let Some(next) = request.take() {
            let page = Arc::new(Mutex::new(None));
            let slot = page.clone();
            db.scan_with(&snapshot, next, move |outcome| {
                *slot.lock().unwrap() = Some(outcome.unwrap());
            });
            let page = page.lock().unwrap().take().unwrap();
            assert!(page.entries.len() <= 7);
            seen.extend(page.entries.into_iter().map(|entry| entry.key.to_vec()));
            request = page.next;
        }
        let mut expected: Vec<_> = (10..=150).map(key).collect();
        if reverse {
            expected.reverse();
        }
        assert_eq!(seen, expected);
    }
}

#[test]
fn an_iterator_met_from_both_ends_returns_each_key_once() {
    let db = open(&SimFs::new()).unwrap();
    for number in 0..50 {
        db.blocking().put(&key(number), b"").unwrap();
    }
    let snapshot = db.snapshot();
    let mut iter = snapshot.iter(key(5)..key(45));
    let mut seen = Vec::new();
    loop {
        let front = iter.next();
        let back = iter.next_back();
        seen.extend(
            [&front, &back]
                .into_iter()
                .flatten()
                .map(|entry| entry.as_ref().unwrap().key.to_vec()),
        );
        if front.is_none() && back.is_none() {
            break;
        }
    }
    seen.sort();
    assert_eq!(seen, (5..45).map(key).collect::<Vec<_>>());
    assert_eq!(snapshot.iter(key(9)..key(9)).count(), 0);
    assert_eq!(snapshot.iter(key(9)..=key(9)).count(), 1);
}

#[test]
fn nothing_needed_and_nothing_useless_lies_in_the_directory() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    for round in 0..5 {
        for number in 0..300 {
            db.blocking().put(&key(number), &[round; 60]).unwrap();
        }
    }
    db.flush().unwrap();
    let stats = db.stats();
    let count = |ending: &str| {
        fs.dump()
            .keys()
            .filter(|path| path.to_str().unwrap().ends_with(ending))
            .count()
    };
    assert_eq!(
        count(".sst"),
        stats.levels.iter().map(|level| level.tables).sum::<usize>()
    );
    assert_eq!(count(".log"), stats.log_segments + stats.spare_segments);
    assert_eq!(count(".tmp"), 0);
    let garbage: u64 = stats.levels.iter().map(|level| level.entries).sum();
    assert!(
        garbage < 1_000,
        "compaction dropped overwritten entries: {stats:?}"
    );
}

#[test]
fn a_number_from_the_future_is_durable_when_the_newest_write_is() {
    let db = open(&SimFs::new()).unwrap();
    db.write(put(b"a", b"1"), Durability::Process)
        .unwrap()
        .wait()
        .unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    db.on_durable(kv_storage::Seq(1_000), move |outcome| {
        outcome.unwrap();
        count.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(told.load(Ordering::SeqCst), 1);
    assert_eq!(db.stats().durable, db.stats().last);
}

#[test]
fn a_flush_makes_writes_durable_without_a_sync_of_their_log() {
    let fs = SimFs::new();
    let jobs = Arc::new(ManualJobs::default());
    let db = Db::open(dir(), Options::tiny(), env_with(&fs, jobs.clone())).unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    for number in 0..5u8 {
        let commit = db.write(put([number], b"value"), Durability::Sync).unwrap();
        let told = Arc::clone(&told);
        commit.on_durable(move |outcome| {
            outcome.unwrap();
            told.fetch_add(1, Ordering::SeqCst);
        });
    }
    let syncs = db.stats().log_syncs;
    db.flush().unwrap();
    assert_eq!(told.load(Ordering::SeqCst), 5);
    let stats = db.stats();
    assert_eq!((stats.durable, stats.log_syncs), (stats.last, syncs));
    // The log job that they asked for finds nothing to do.
    jobs.run_all();
    assert_eq!(db.stats().log_syncs, syncs);
    drop(db);
    for seed in 0..4 {
        let fs = fs.fork().power_loss(seed);
        assert_eq!(contents(&open(&fs).unwrap()).unwrap().len(), 5, "{seed}");
    }
}

#[test]
fn spare_log_segments_go_when_nobody_writes() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    for number in 0..400 {
        db.blocking().put(&key(number), &[7; 60]).unwrap();
    }
    let spares = db.stats().spare_segments;
    db.tick();
    assert_eq!(db.stats().spare_segments, spares, "somebody wrote");
    let files = fs.dump().len();
    db.tick();
    assert!(db.stats().spare_segments <= 4);
    assert!(spares <= 4 || fs.dump().len() < files);
    assert_eq!(contents(&db).unwrap().len(), 400);
}
