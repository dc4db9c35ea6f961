//! Tables that deleted ranges cover are dropped while others are at work.

use crate::meddling::Moment;
use crate::stage::{CHANCE, Stage, beside};
use crate::support::{contents, put};
use kv_storage::{Durability, Error, JobClass, KeyRange, Options, WriteBatch};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

const KEYS: u32 = 300;
/// Far longer than anything here takes.
const TOO_LONG: Duration = Duration::from_secs(10);

/// A store with tables.
fn filled() -> Stage {
    let mut options = Options::tiny();
    options.table_bytes = 2 << 10;
    let stage = Stage::new(options);
    (0..KEYS).for_each(|number| write(&stage, number));
    stage.db.flush().unwrap();
    stage.jobs.run_all();
    stage
}

fn write(stage: &Stage, number: u32) {
    let batch = put(number.to_be_bytes(), [1; 100]);
    while stage.db.write(batch.clone(), Durability::Process).is_err() {
        stage.jobs.run_all();
    }
}

/// Deletes all there is.
fn delete_all(stage: &Stage) {
    let mut batch = WriteBatch::new();
    batch.delete_range(vec![]..vec![255]);
    let _ = stage.db.write(batch, Durability::Process).unwrap();
}

fn is_edit(moment: Moment, path: &Path) -> bool {
    moment == Moment::AfterSync && path.to_string_lossy().contains("MANIFEST")
}

#[test]
fn what_deleted_ranges_cover_is_not_cut_anew_while_it_is_dropped() {
    let stage = filled();
    let tables = stage.fs.dump().into_iter();
    for (path, mut bytes) in
        tables.filter(|(path, _)| path.extension().is_some_and(|it| it == "sst"))
    {
        bytes[3] ^= 16;
        stage.fs.overwrite(&path, bytes).unwrap();
    }
    assert!(!stage.db.blocking().scrub().found.is_empty());
    delete_all(&stage);
    stage.db.flush().unwrap();

    let (db, jobs) = (stage.db.clone(), stage.jobs.clone());
    let (running, cuts) = channel();
    let mut has_begun = false;
    stage.set(move |moment, path| {
        // The tables are being dropped.
        if is_edit(moment, path) && !std::mem::replace(&mut has_begun, true) {
            let (done, report) = channel();
            let (db, jobs) = (db.clone(), jobs.clone());
            let (thread, end) = beside(move || {
                db.cut_out(vec![KeyRange::All], move |cut| {
                    done.send(cut.unwrap()).unwrap();
                });
                jobs.run_all();
            });
            // A broken engine waits here until they are dropped.
            let _ = end.recv_timeout(CHANCE);
            running.send((thread, report)).unwrap();
        }
        Ok(())
    });
    while stage.db.stats().covered_tables == 0 {
        assert!(stage.jobs.run_one_of(JobClass::Compaction));
    }
    let (thread, report) = cuts.recv_timeout(TOO_LONG).unwrap();
    thread.join().unwrap();
    let report = report.recv().unwrap();
    assert_eq!((report.tables, report.busy > 0), (0, true));
    stage.jobs.run_all();
    assert!(contents(&stage.db).unwrap().is_empty());
    stage.db.close().unwrap();
}

#[test]
fn who_closes_a_store_does_not_wait_for_tables_that_are_dropped_already() {
    let stage = filled();
    delete_all(&stage);
    let mut number = KEYS;
    while !stage.jobs.classes().contains(&JobClass::Flush) {
        write(&stage, number);
        number += 1;
    }
    let db = stage.db.clone();
    let (closed, outcome) = channel();
    let mut edits = 0;
    stage.set(move |moment, path| {
        edits += u32::from(is_edit(moment, path));
        // The first edit is the flush, the second one drops the tables.
        if is_edit(moment, path) && edits == 2 {
            let (store, closed) = (db.clone(), closed.clone());
            let (_thread, end) = beside(move || closed.send(store.close()).unwrap());
            while !matches!(db.blocking().get(b"k"), Err(Error::Closed)) {
                std::thread::yield_now();
            }
            // Closing has begun. In a broken engine it waits for something of which nobody tells it.
            let _ = end.recv_timeout(CHANCE);
        }
        Ok(())
    });
    assert!(stage.jobs.run_one_of(JobClass::Flush));
    assert!(stage.db.stats().covered_tables > 0);
    let outcome = outcome.recv_timeout(TOO_LONG);
    outcome.expect("it does not wait for ever").unwrap();
}
