//! Power is cut at every file-system call of a short workload, with several losses each.

use crate::support::{Outcome, Workload, contents, open, put};
use kv_storage::sim::{Fault, SimFs};
use kv_storage::{Durability, Error};

/// Which losses to try after each cut.
const LOSSES: u64 = 6;

/// Runs the workload with the power cut at call `cut`.
fn cut_at(cut: u64, workload: &Workload) -> (SimFs, Outcome) {
    let fs = SimFs::new();
    fs.plan(cut, Fault::PowerCut);
    let outcome = workload.run(&fs);
    (fs, outcome)
}

fn calls_of(workload: &Workload) -> u64 {
    let fs = SimFs::new();
    let outcome = workload.run(&fs);
    assert_eq!(
        outcome.acked,
        workload.batches.len(),
        "the workload itself must succeed"
    );
    fs.calls()
}

#[test]
fn a_power_cut_at_any_call_loses_no_acked_write_and_tears_no_batch() {
    let workload = Workload::new(90, Durability::Sync);
    let calls = calls_of(&workload);
    assert!(calls > 250, "{calls} calls: too few to be interesting");
    let mut prefixes = std::collections::BTreeSet::new();
    for cut in 0..calls {
        let (fs, outcome) = cut_at(cut, &workload);
        for seed in 0..LOSSES {
            let fs = fs.fork().power_loss(seed);
            let db = open(&fs).unwrap_or_else(|error| panic!("cut {cut}, loss {seed}: {error}"));
            let prefix = workload.prefix(&contents(&db).unwrap(), &outcome);
            let prefix = prefix.unwrap_or_else(|| {
                panic!(
                    "cut {cut}, loss {seed}: no prefix of at least {}",
                    outcome.acked
                )
            });
            prefixes.insert((outcome.acked, prefix));
            // It goes on working, and what it showed stays.
            db.blocking().put(b"after", b"crash").unwrap();
            db.flush().unwrap();
            drop(db);
            let db = open(&fs.power_loss(seed)).unwrap();
            let mut after = contents(&db).unwrap();
            assert!(after.remove(&b"after"[..]).is_some());
            assert_eq!(
                after, workload.states[prefix],
                "cut {cut}, loss {seed}: the second start changed data"
            );
        }
    }
    assert!(
        prefixes.iter().any(|(acked, prefix)| prefix > acked),
        "a write that was not acked never survived"
    );
}

#[test]
fn unsynced_writes_survive_a_kill_whole_and_power_loss_as_a_prefix() {
    let workload = Workload::new(120, Durability::Process);
    let calls = calls_of(&workload);
    let mut lost = 0;
    for cut in (0..calls).step_by(3) {
        let (fs, outcome) = cut_at(cut, &workload);
        let killed = open(&fs.fork().kill()).unwrap();
        assert!(
            workload
                .prefix(&contents(&killed).unwrap(), &outcome)
                .is_some(),
            "cut {cut}: a kill lost a write"
        );
        for seed in 0..LOSSES {
            let db = open(&fs.fork().power_loss(seed))
                .unwrap_or_else(|error| panic!("cut {cut}, loss {seed}: {error}"));
            let none_acked = Outcome {
                acked: 0,
                ..outcome
            };
            let prefix = workload.prefix(&contents(&db).unwrap(), &none_acked);
            let prefix = prefix.unwrap_or_else(|| panic!("cut {cut}, loss {seed}: a gap"));
            lost += usize::from(prefix < outcome.acked);
        }
    }
    assert!(
        lost > 10,
        "power loss took something only {lost} times: the simulation is too kind"
    );
}

#[test]
fn a_second_power_cut_during_recovery_changes_nothing() {
    let workload = Workload::new(40, Durability::Sync);
    let calls = calls_of(&workload);
    let mut second_cuts = 0;
    for cut in (0..calls).step_by(5) {
        let (fs, outcome) = cut_at(cut, &workload);
        for seed in 0..2 {
            let fs = fs.fork().power_loss(seed);
            let mut step = 0;
            loop {
                let again = fs.fork();
                again.plan(again.calls() + step, Fault::PowerCut);
                match open(&again) {
                    Ok(db) if again.calls() <= fs.calls() + step => {
                        drop(db);
                        break;
                    }
                    // Cleaning up after the store is open may meet the cut too.
                    Ok(_) | Err(_) => second_cuts += 1,
                }
                let fs = again.power_loss(seed + step);
                let db = open(&fs)
                    .unwrap_or_else(|error| panic!("cut {cut}, loss {seed}, step {step}: {error}"));
                let found = contents(&db).unwrap();
                assert!(
                    workload.prefix(&found, &outcome).is_some(),
                    "cut {cut}, loss {seed}, step {step}"
                );
                step += 1;
            }
        }
    }
    assert!(second_cuts > 500, "{second_cuts}");
}

#[test]
fn what_a_killed_process_left_after_a_failed_sync_is_not_trusted_in_place() {
    let workload = Workload::new(60, Durability::Sync);
    for call in 0..calls_of(&workload) {
        let fs = SimFs::new();
        fs.plan(call, Fault::Io);
        let outcome = workload.run(&fs);
        // The page cache still shows what the failed sync lost.
        let fs = fs.kill();
        let db = open(&fs).unwrap_or_else(|error| panic!("call {call}: {error}"));
        db.blocking().sync().unwrap();
        let shown = contents(&db).unwrap();
        assert!(workload.prefix(&shown, &outcome).is_some(), "call {call}");
        drop(db);
        for seed in 0..3 {
            let db = open(&fs.fork().power_loss(seed))
                .unwrap_or_else(|error| panic!("call {call}: {error}"));
            assert_eq!(
                contents(&db).unwrap(),
                shown,
                "call {call}: shown after the kill, gone after power loss"
            );
        }
    }
}

#[test]
fn a_failed_sync_poisons_for_ever_and_durable_data_stays_readable() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    db.blocking().put(b"old", b"durable").unwrap();
    fs.plan(fs.calls() + 1, Fault::Io);
    let error = db.blocking().put(b"young", b"lost").unwrap_err();
    assert!(error.to_string().contains("sync"), "{error}");
    for _ in 0..3 {
        let error = db.blocking().put(b"more", b"").unwrap_err();
        assert!(
            matches!(
                error,
                kv_storage::BlockingError::Refused(kv_storage::WriteError::Poisoned { .. })
            ),
            "{error}"
        );
    }
    assert_eq!(db.blocking().get(b"old").unwrap().unwrap().value, "durable");
    assert_eq!(
        db.blocking().get(b"young").unwrap(),
        None,
        "never durable, so never shown again"
    );
    assert_eq!(contents(&db).unwrap().len(), 1);
    assert!(matches!(db.flush(), Err(Error::Poisoned { .. })));
    assert!(matches!(db.close(), Err(Error::Poisoned { .. })));
    assert_eq!(
        open(&fs)
            .unwrap()
            .blocking()
            .get(b"old")
            .unwrap()
            .unwrap()
            .value,
        "durable"
    );
}

#[test]
fn a_poisoned_store_shows_what_was_flushed_although_nobody_asked_for_a_sync() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    for round in 0..5u8 {
        for number in 0..50u8 {
            let batch = put([number], [round; 100]);
            db.blocking().write(batch, Durability::Process).unwrap();
        }
    }
    db.flush().unwrap();
    let stats = db.stats();
    assert_eq!(
        stats.durable, stats.last,
        "a flush makes its writes durable"
    );
    fs.plan(fs.calls(), Fault::Io);
    assert!(db.blocking().put(b"young", b"lost").is_err());
    let found = contents(&db).unwrap();
    assert_eq!(found.len(), 50);
    assert!(found.values().all(|value| *value == [4; 100]));
}

#[test]
fn a_store_opens_after_a_power_loss_that_follows_a_close_with_flushed_but_unsynced_writes() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    db.blocking().put(b"a", b"synced").unwrap();
    let _ = db
        .write(put(b"b", b"flushed"), Durability::Process)
        .unwrap();
    db.flush().unwrap();
    db.close().unwrap();
    for seed in 0..LOSSES {
        let db = open(&fs.fork().power_loss(seed)).unwrap();
        assert_eq!(contents(&db).unwrap().len(), 2, "loss {seed}");
    }
}
