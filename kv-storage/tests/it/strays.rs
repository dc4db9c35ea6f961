//! Bits that flip on the way, and writes that land in wrong places: the engine notices, and never returns what
//! was not written.

use crate::support::{Workload, contents, dir, env, open};
use kv_storage::sim::{Fault, SimFs};
use kv_storage::{Db, Durability, Error, OpenError, Options};
use std::collections::BTreeMap;

/// Contents of a store that may be damaged: right, or an error.
enum Found {
    All(BTreeMap<Vec<u8>, Vec<u8>>),
    Damage,
}

fn read(fs: &SimFs, what: &str) -> Found {
    let mut options = Options::tiny();
    // Nothing may be rewritten before it is read.
    options.level0_trigger = 11;
    let outcome = match Db::open(dir(), options, env(fs)) {
        Ok(db) => contents(&db),
        Err(OpenError::Storage(error)) => Err(error),
        Err(other) => panic!("{what}: {other}"),
    };
    match outcome {
        Ok(found) => Found::All(found),
        Err(Error::Corrupt { file, .. }) => {
            assert!(file.starts_with(dir()), "{what}");
            Found::Damage
        }
        Err(other) => panic!("{what}: {other}"),
    }
}

#[test]
fn a_bit_flipped_in_flight_is_an_error_once_or_harmless_and_the_next_read_is_right() {
    let workload = Workload::new(60, Durability::Sync);
    let fs = SimFs::new();
    assert_eq!(workload.run(&fs).acked, 60);
    let before = fs.calls();
    let whole = fs.fork();
    read(&whole, "no fault");
    let mut noticed = 0;
    for call in before..whole.calls() {
        let what = format!("read {}", call - before);
        let fs = fs.fork();
        fs.plan(call, Fault::FlippedRead);
        match read(&fs, &what) {
            Found::All(found) => assert!(found == workload.states[60], "{what}"),
            Found::Damage => noticed += 1,
        }
        let Found::All(found) = read(&fs.kill(), &what) else {
            panic!("{what}: the damage stayed")
        };
        assert!(found == workload.states[60], "{what}");
    }
    // Logs, manifests and the like: what is read of tables is read again.
    assert!(noticed > 2, "{noticed} of {}", whole.calls() - before);
}

#[test]
fn a_bit_flipped_on_its_way_from_a_table_is_read_again() {
    let workload = Workload::new(60, Durability::Sync);
    let fs = SimFs::new();
    assert_eq!(workload.run(&fs).acked, 60);
    let mut options = Options::tiny();
    options.cache_bytes = 0;
    let db = Db::open(dir(), options, env(&fs)).unwrap();
    let before = fs.calls();
    assert!(contents(&db).unwrap() == workload.states[60]);
    let calls = fs.calls() - before;
    assert!(calls > 4, "{calls}");
    for call in 0..calls {
        fs.plan(fs.calls() + call, Fault::FlippedRead);
        assert!(contents(&db).unwrap() == workload.states[60], "read {call}");
    }
    assert_eq!(db.stats().damaged_places, 0);
}

/// Every write misses its place once. What is found later is a state that the store had, or an error.
fn each_write_strays(fault: Fault) -> (u32, u32) {
    let workload = Workload::new(50, Durability::Sync);
    let fs = SimFs::new();
    workload.run(&fs);
    let (mut noticed, mut shorter) = (0, 0);
    for call in 0..fs.calls() {
        let what = format!("{fault:?} at call {call}");
        let fs = SimFs::new();
        fs.plan(call, fault);
        let outcome = workload.run(&fs);
        let Found::All(found) = read(&fs.power_loss(call), &what) else {
            noticed += 1;
            continue;
        };
        // A frame at the end of the log that never reached its place looks like one that was never synced, unless
        // a later one promises that it was.
        let prefix = (0..=outcome.tried)
            .rev()
            .find(|count| workload.states[*count] == found);
        let prefix = prefix.unwrap_or_else(|| panic!("{what}: wrong contents"));
        if prefix < outcome.acked {
            shorter += 1;
            assert!(
                prefix + 2 >= outcome.acked,
                "{what}: {prefix} of {}",
                outcome.acked
            );
        }
    }
    (noticed, shorter)
}

#[test]
fn a_write_to_a_wrong_place_is_noticed_or_harmless() {
    let (noticed, shorter) = each_write_strays(Fault::Misdirected);
    assert!(noticed > 20, "{noticed}, {shorter}");
    let (noticed, shorter) = each_write_strays(Fault::MisdirectedOnDisk);
    assert!(noticed > 20, "{noticed}, {shorter}");
}

#[test]
fn a_running_store_never_returns_what_a_stray_write_left() {
    let workload = Workload::new(50, Durability::Sync);
    let fs = SimFs::new();
    workload.run(&fs);
    let mut errors = 0;
    for call in 0..fs.calls() {
        let fs = SimFs::new();
        fs.plan(call, Fault::Misdirected);
        let Ok(db) = open(&fs) else { continue };
        let mut acked = 0;
        for batch in &workload.batches {
            if db
                .blocking()
                .write(batch.clone(), Durability::Sync)
                .is_err()
            {
                break;
            }
            acked += 1;
        }
        let _ = db.flush();
        for number in 0..30 {
            let key = format!("key{number:03}").into_bytes();
            match db.blocking().get(&key) {
                Ok(found) => {
                    let found = found.map(|found| found.value.to_vec());
                    assert!(
                        workload.states[acked].get(&key) == found.as_ref(),
                        "call {call}, key {number}"
                    );
                }
                Err(_) => errors += 1,
            }
        }
    }
    assert!(errors > 5, "{errors}");
}
