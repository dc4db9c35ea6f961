//! Every file-system call fails once; disks run full and get room again.

use crate::support::{Outcome, TickingClock, Workload, contents, dir, env, open, put};
use kv_storage::sim::{Fault, SimFs};
use kv_storage::{BlockingError, Db, Durability, Options, WriteError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Writes all batches and goes on after failures. Returns how far it came, and the store if it is open.
fn run_on(workload: &Workload, fs: &SimFs) -> (Outcome, Option<Db>) {
    let mut outcome = Outcome { acked: 0, tried: 0 };
    // A failed open changes nothing that matters: the next one succeeds.
    let Some(db) = open(fs).or_else(|_| open(fs)).ok() else {
        return (outcome, None);
    };
    for batch in &workload.batches {
        if db
            .blocking()
            .write(batch.clone(), workload.durability)
            .is_err()
        {
            // Of a poisoned store's writes the first failed one has an unknown outcome, later ones are refused.
            outcome.tried = outcome.tried.max(outcome.acked + 1);
            break;
        }
        outcome.acked += 1;
        outcome.tried = outcome.acked;
        if outcome.acked.is_multiple_of(13) {
            let _ = db.flush();
        }
    }
    (outcome, Some(db))
}

/// Reads all keys; each must be right or an error.
fn check_reads(db: &Db, workload: &Workload, outcome: &Outcome, what: &str) {
    for number in 0..30 {
        let key = format!("key{number:03}").into_bytes();
        if let Ok(found) = db.blocking().get(&key) {
            let found = found.map(|found| found.value.to_vec());
            let possible = (outcome.acked..=outcome.tried)
                .any(|count| workload.states[count].get(&key) == found.as_ref());
            assert!(possible, "{what}: wrong value of key {number}");
        }
    }
}

fn each_call_fails_once(fault: Fault) {
    let workload = Workload::new(80, Durability::Sync);
    let fs = SimFs::new();
    assert_eq!(run_on(&workload, &fs).0.acked, workload.batches.len());
    let calls = fs.calls();
    for call in 0..calls {
        let what = format!("{fault:?} at call {call} of {calls}");
        let fs = SimFs::new();
        fs.plan(call, fault);
        let (outcome, db) = run_on(&workload, &fs);
        let db = db.unwrap_or_else(|| panic!("{what}: a second open fails"));
        check_reads(&db, &workload, &outcome, &what);
        drop(db);
        let db = open(&fs.power_loss(call)).unwrap_or_else(|error| panic!("{what}: {error}"));
        let found = contents(&db).unwrap();
        assert!(
            workload.prefix(&found, &outcome).is_some(),
            "{what}: acked {}, tried {}",
            outcome.acked,
            outcome.tried
        );
    }
}

#[test]
fn an_io_error_at_any_call_loses_no_acked_write() {
    each_call_fails_once(Fault::Io);
    each_call_fails_once(Fault::LateIo);
}

#[test]
fn a_write_that_fails_may_be_in_the_log_and_says_so() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    db.blocking().put(b"old", b"durable").unwrap();
    fs.plan(fs.calls(), Fault::LateIo);
    let failed = db.blocking().put(b"young", b"stored").unwrap_err();
    assert!(
        matches!(failed, BlockingError::Refused(WriteError::LogFailed { .. })),
        "{failed}"
    );
    let later = db.blocking().put(b"more", b"").unwrap_err();
    assert!(
        matches!(later, BlockingError::Refused(WriteError::Poisoned { .. })),
        "{later}"
    );
    assert_eq!(db.blocking().get(b"young").unwrap(), None, "nobody sees it");
    drop(db);
    let found = open(&fs.kill()).unwrap().blocking().get(b"young").unwrap();
    assert_eq!(found.unwrap().value, "stored", "all of it was in the log");
}

#[test]
fn no_space_at_any_call_loses_no_acked_write() {
    each_call_fails_once(Fault::NoSpace);
}

#[test]
fn a_failed_flush_or_compaction_is_tried_again() {
    let workload = Workload::new(80, Durability::Sync);
    let mut healed = 0;
    for call in 0..400 {
        let fs = SimFs::new();
        fs.plan(call, Fault::Io);
        let (outcome, db) = run_on(&workload, &fs);
        let stats = db.as_ref().unwrap().stats();
        if stats.background_failures > 0 && !stats.poisoned {
            assert_eq!(outcome.acked, workload.batches.len(), "call {call}");
            db.unwrap().flush().unwrap();
            healed += 1;
        }
    }
    assert!(healed > 10, "{healed}");
}

#[test]
fn a_nearly_full_disk_refuses_writes_serves_reads_and_resumes_by_itself() {
    let fs = SimFs::new();
    let options = || {
        let mut options = Options::tiny();
        options.min_free_bytes = 40 << 10;
        // Large enough that the log is what fills the disk.
        options.memtable_bytes = 16 << 20;
        options
    };
    fs.set_capacity(9 << 20);
    let db = Db::open(dir(), options(), env(&fs)).unwrap();
    let mut accepted = BTreeMap::new();
    let mut number = 0u32;
    let refused = loop {
        let key = number.to_be_bytes().to_vec();
        match db.write(put(&key, vec![1; 3000]), Durability::Sync) {
            Ok(commit) => commit.wait().unwrap(),
            Err(error) => break error,
        }
        accepted.insert(key, vec![1; 3000]);
        number += 1;
    };
    assert!(
        matches!(refused, WriteError::Full { needed: 40960, .. }),
        "{refused}"
    );
    assert!(number > 1_000);
    assert_eq!(contents(&db).unwrap(), accepted);
    assert!(matches!(
        db.write(put(b"x", b""), Durability::Sync),
        Err(WriteError::Full { .. })
    ));

    fs.set_capacity(90 << 20);
    // The refused writer asked for a look at the disk, so the next one is accepted.
    let _ = db.write(put(b"x", b""), Durability::Sync);
    db.blocking().put(b"x", b"room").unwrap();
    drop(db);
    let db = Db::open(dir(), options(), env(&fs.power_loss(3))).unwrap();
    accepted.insert(b"x".to_vec(), b"room".to_vec());
    assert_eq!(contents(&db).unwrap(), accepted);
}

#[test]
fn a_disk_that_is_really_full_ends_writing_but_loses_nothing() {
    for capacity in (2_000..60_000).step_by(1_777) {
        let workload = Workload::new(150, Durability::Sync);
        let fs = SimFs::new();
        fs.set_capacity(capacity);
        let (outcome, _) = run_on(&workload, &fs);
        fs.set_capacity(u64::MAX);
        let db = open(&fs.power_loss(capacity))
            .unwrap_or_else(|error| panic!("capacity {capacity}: {error}"));
        let found = contents(&db).unwrap();
        assert!(
            workload.prefix(&found, &outcome).is_some(),
            "capacity {capacity}"
        );
        db.blocking().put(b"room", b"again").unwrap();
    }
}

#[test]
fn writers_are_told_to_wait_when_flushes_are_behind() {
    let fs = SimFs::new();
    let jobs = Arc::new(crate::support::ManualJobs::default());
    let env = kv_storage::Env {
        jobs: jobs.clone(),
        clock: Arc::new(TickingClock::default()),
        ..env(&fs)
    };
    let db = Db::open(dir(), Options::tiny(), env).unwrap();
    let mut refused = 0;
    for number in 0..400u32 {
        let batch = put(number.to_be_bytes(), [0; 200]);
        while let Err(error) = db.write(batch.clone(), Durability::Process) {
            let WriteError::Busy(delay) = error else {
                panic!("{error}")
            };
            assert!(!delay.is_zero());
            refused += 1;
            jobs.run_all();
        }
    }
    assert!(refused > 3, "memory is not bounded: {:?}", db.stats());
    assert_eq!(contents(&db).unwrap().len(), 400);
}

#[test]
fn after_a_failed_sync_of_its_directory_a_store_takes_no_more_writes() {
    let mut seen = 0;
    for call in 0..40 {
        let fs = SimFs::new();
        let db = open(&fs).unwrap();
        db.blocking().put(b"a", b"acked").unwrap();
        fs.plan(fs.calls() + call, Fault::Io);
        let Err(error) = db.flush() else { continue };
        if error.to_string().contains("sync directory") {
            seen += 1;
            let refused = db.blocking().put(b"b", b"later").unwrap_err();
            assert!(
                refused.to_string().contains("takes no more writes"),
                "call {call}: {refused}"
            );
            assert!(db.blocking().get(b"a").unwrap().is_some());
        }
    }
    assert!(seen > 0);
}

#[test]
fn a_bit_that_flips_while_a_store_is_opened_is_not_written_back() {
    for count in [3, 9, 23] {
        // Some writes are synced, later ones only stored, so an open stores them again.
        let (synced, stored) = (
            Workload::new(count, Durability::Sync),
            Workload::new(count, Durability::Process),
        );
        let fs = SimFs::new();
        for (round, workload) in [&synced, &stored, &stored].into_iter().enumerate() {
            let db = open(&fs).unwrap();
            for batch in &workload.batches[..if round == 2 {
                0
            } else {
                workload.batches.len()
            }] {
                db.blocking()
                    .write(batch.clone(), workload.durability)
                    .unwrap();
            }
        }
        let fs = fs.kill();
        let expected = contents(&open(&fs.fork()).unwrap()).unwrap();
        let calls = {
            let fs = fs.fork();
            let before = fs.calls();
            let _db = open(&fs).unwrap();
            fs.calls() - before
        };
        for call in 0..calls {
            let fs = fs.fork();
            fs.plan(fs.calls() + call, Fault::FlippedRead);
            if let Ok(db) = open(&fs) {
                let _ = db.blocking().put(b"between", b"x");
            }
            let fs = fs.kill();
            fs.forget_plans();
            let what = format!("{count} batches, call {call} of {calls}");
            let db = open(&fs).unwrap_or_else(|error| panic!("{what}: {error}"));
            let mut found = contents(&db).unwrap();
            found.remove(&b"between"[..]);
            assert_eq!(found, expected, "{what}");
        }
    }
}
