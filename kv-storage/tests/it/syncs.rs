//! Syncs that fail beside others: what was acknowledged survives, is shown, and stays what it was.

use crate::meddling::Moment;
use crate::stage::{CHANCE, Stage, beside};
use crate::support::{dir, env, put};
use kv_storage::sim::Fault;
use kv_storage::{Db, Durability, JobClass, Options, Snapshot};
use std::io;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Which losses to try after each schedule.
const LOSSES: u64 = 20;

/// After how many power cuts the key is not there.
fn losses(stage: Stage, key: &[u8]) -> usize {
    let fs = stage.fs.clone();
    *stage.step.lock().unwrap() = None;
    drop(stage);
    let is_lost = |seed: &u64| {
        let fs = fs.fork().power_loss(*seed);
        let found = Db::open(dir(), Options::tiny(), env(&fs)).map(|db| db.blocking().get(key));
        !matches!(found, Ok(Ok(Some(_))))
    };
    (0..LOSSES).filter(is_lost).count()
}

/// A stage whose store has memtables of so many bytes.
fn stage(memtable_bytes: usize) -> Stage {
    let mut options = Options::tiny();
    options.memtable_bytes = memtable_bytes;
    Stage::new(options)
}

fn flush_beside(db: &Db) -> (JoinHandle<()>, mpsc::Receiver<()>) {
    let db = db.clone();
    beside(move || drop(db.flush()))
}

#[test]
fn a_sync_of_the_log_proves_nothing_beside_one_of_a_flush_that_fails() {
    let stage = stage(64 << 10);
    stage.db.blocking().put(b"first", b"durable").unwrap();
    stage.fill_segment();
    let commit = stage
        .db
        .write(put(b"acked", b"new"), Durability::Sync)
        .unwrap();
    let (db, fs, step) = (stage.db.clone(), stage.fs.clone(), stage.step.clone());
    let mut syncs = 0;
    let flushes = Arc::new(Mutex::new(Vec::new()));
    let started = flushes.clone();
    stage.set(move |moment, _| {
        syncs += u32::from(moment == Moment::BeforeSegmentSync);
        if moment == Moment::BeforeSegmentSync && syncs == 2 {
            // The group commit is about to sync the present segment. A flush wants to, and would fail.
            let fs = fs.clone();
            *step.lock().unwrap() = Some(Box::new(move |moment, _| {
                if moment == Moment::BeforeSegmentSync {
                    fs.plan(fs.calls(), Fault::Io);
                }
                Ok(())
            }));
            let (thread, end) = flush_beside(&db);
            let _ = end.recv_timeout(CHANCE);
            started.lock().unwrap().push(thread);
        }
        Ok(())
    });
    let outcome = commit.wait();
    for thread in flushes.lock().unwrap().drain(..) {
        thread.join().unwrap();
    }
    let losses = losses(stage, b"acked");
    assert!(
        outcome.is_err() || losses == 0,
        "acknowledged, and lost {losses} times"
    );
}

#[test]
fn a_flush_names_no_segment_whose_sync_failed_elsewhere() {
    let stage = stage(64 << 10);
    stage.db.blocking().put(b"first", b"durable").unwrap();
    stage.fill_segment();
    let commit = stage.db.write(put(b"x", b"new"), Durability::Sync).unwrap();
    let (db, fs) = (stage.db.clone(), stage.fs.clone());
    let flushes = Arc::new(Mutex::new(Vec::new()));
    let started = flushes.clone();
    let mut syncs = 0;
    stage.set(move |moment, _| {
        match moment {
            Moment::BeforeSegmentSync => {
                syncs += 1;
                if syncs == 2 {
                    fs.plan(fs.calls(), Fault::Io);
                }
            }
            Moment::AfterSegmentSync if syncs == 2 => {
                // The header of the new segment is lost, and nobody knows yet.
                let (thread, end) = flush_beside(&db);
                let _ = end.recv_timeout(CHANCE);
                started.lock().unwrap().push(thread);
            }
            _ => {}
        }
        Ok(())
    });
    assert!(commit.wait().is_err());
    for thread in flushes.lock().unwrap().drain(..) {
        thread.join().unwrap();
    }
    assert_eq!(losses(stage, b"first"), 0);
}

#[test]
fn a_flush_does_not_count_on_names_whose_sync_failed_elsewhere() {
    let stage = stage(64 << 10);
    stage.db.blocking().put(b"acked", b"durable").unwrap();
    while !stage.jobs.classes().contains(&JobClass::LogSegment) {
        let _ = stage
            .db
            .write(put(b"filler", [1; 300]), Durability::Process);
    }
    let (fs, step, jobs) = (stage.fs.clone(), stage.step.clone(), stage.jobs.clone());
    let (go, wait) = mpsc::channel::<()>();
    let mut wait = Some(wait);
    let (failed, has_failed): (Sender<()>, _) = mpsc::channel();
    let others = Arc::new(Mutex::new(Vec::new()));
    let started = others.clone();
    stage.set(move |moment, path| {
        let is_table = path.extension().is_some_and(|kind| kind == "sst");
        let Some(wait) = wait.take_if(|_| moment == Moment::AfterSync && is_table) else {
            return Ok(());
        };
        // A new table lies there. The segment job's sync of the directory fails, and it has not said so yet.
        let (fs, failed) = (fs.clone(), failed.clone());
        let mut hit = false;
        *step.lock().unwrap() = Some(Box::new(move |moment, _| {
            match moment {
                Moment::BeforeDirSync if !hit => {
                    hit = true;
                    fs.plan(fs.calls(), Fault::Io);
                }
                Moment::AfterDirSync if hit => {
                    let _ = failed.send(());
                    let _ = wait.recv_timeout(CHANCE);
                }
                _ => {}
            }
            Ok(())
        }));
        let jobs = jobs.clone();
        let (thread, _) = beside(move || while jobs.run_one_of(JobClass::LogSegment) {});
        started.lock().unwrap().push(thread);
        has_failed.recv().unwrap();
        Ok(())
    });
    let _ = stage.db.flush();
    let _ = go.send(());
    for thread in others.lock().unwrap().drain(..) {
        thread.join().unwrap();
    }
    assert!(stage.db.stats().poisoned);
    assert_eq!(losses(stage, b"acked"), 0);
}

#[test]
fn what_a_sync_made_durable_after_a_poison_is_not_acknowledged_unseen() {
    let stage = stage(4 << 10);
    stage.db.blocking().put(b"k", b"old").unwrap();
    let commit = stage.db.write(put(b"k", b"new"), Durability::Sync).unwrap();
    let (db, step) = (stage.db.clone(), stage.step.clone());
    let mut once = true;
    stage.set(move |moment, _| {
        if moment == Moment::BeforeSegmentSync && std::mem::take(&mut once) {
            // Meanwhile the directory cannot be synced.
            *step.lock().unwrap() = Some(Box::new(|moment, _| match moment {
                Moment::BeforeDirSync => Err(io::Error::other("broken")),
                _ => Ok(()),
            }));
            let (thread, end) = flush_beside(&db);
            end.recv().unwrap();
            thread.join().unwrap();
        }
        Ok(())
    });
    let outcome = commit.wait();
    assert!(stage.db.stats().poisoned);
    let found = stage.db.blocking().get(b"k").unwrap().unwrap();
    assert!(
        outcome.is_err() || found.value == "new",
        "{outcome:?}, but {found:?}"
    );
}

/// Poisons the store while a flush writes its edit, does something, and lets the flush end.
fn poison_during_flush<T: Send + 'static>(
    meanwhile: impl Fn(&Db) -> T + Send + 'static,
) -> (Stage, T) {
    let stage = stage(4 << 10);
    stage.db.blocking().put(b"k", b"old").unwrap();
    let _ = stage
        .db
        .write(put(b"k", b"new"), Durability::Process)
        .unwrap();
    let (db, step) = (stage.db.clone(), stage.step.clone());
    let given: Arc<Mutex<Option<T>>> = Arc::default();
    let give = given.clone();
    stage.set(move |moment, path| {
        let is_edit = path.to_string_lossy().contains("MANIFEST");
        if moment == Moment::AfterSync && is_edit && give.lock().unwrap().is_none() {
            *step.lock().unwrap() = Some(Box::new(|moment, _| match moment {
                Moment::BeforeSegmentSync => Err(io::Error::other("broken")),
                _ => Ok(()),
            }));
            assert!(db.blocking().sync().is_err());
            *give.lock().unwrap() = Some(meanwhile(&db));
        }
        Ok(())
    });
    let _ = stage.db.flush();
    assert!(stage.db.stats().poisoned);
    *stage.step.lock().unwrap() = None;
    let given = given.lock().unwrap().take();
    (stage, given.unwrap())
}

#[test]
fn a_store_poisoned_while_a_flush_ends_shows_what_is_in_tables() {
    let (stage, ()) = poison_during_flush(|_| ());
    let found = stage.db.blocking().get(b"k").unwrap().unwrap();
    assert_eq!(
        found.value, "new",
        "the flush kept only this one, and made it durable"
    );
    assert_eq!(losses(stage, b"k"), 0);
}

#[test]
fn a_snapshot_taken_between_a_poison_and_the_end_of_a_flush_stays_as_it_is() {
    let shows = |snapshot: &Snapshot| snapshot.get(b"k").unwrap().unwrap().value;
    let (_stage, snapshot) = poison_during_flush(move |db| {
        let snapshot = db.snapshot();
        assert_eq!(shows(&snapshot), "old");
        snapshot
    });
    assert_eq!(shows(&snapshot), "old");
}
