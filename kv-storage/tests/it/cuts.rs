//! What is damaged is cut out when the caller can do without it, and the store is sound again.

use crate::meddling::{Meddling, Moment};
use crate::support::{ManualJobs, dir, env, env_with};
use kv_storage::sim::SimFs;
use kv_storage::{CutReport, Db, Durability, Env, Error, JobClass, KeyRange, Options, WriteBatch};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const KEYS: u32 = 300;

/// What is done in the middle of something else.
type Step = Box<dyn FnOnce() + Send>;

/// A cut under way, and its report.
type Running = (JoinHandle<()>, Receiver<CutReport>);

fn options() -> Options {
    let mut options = Options::tiny();
    options.table_bytes = 2 << 10;
    options
}

/// Every seventh value is large enough for a file of its own.
fn value(number: u32, round: u8) -> Vec<u8> {
    let size = if number.is_multiple_of(7) { 400 } else { 100 };
    let mut random = fastrand::Rng::with_seed(u64::from(number) << 8 | u64::from(round));
    (0..size).map(|_| random.u8(..)).collect()
}

fn fill(db: &Db, round: u8) {
    for number in 0..KEYS {
        let put = db
            .blocking()
            .put(&number.to_be_bytes(), &value(number, round));
        put.unwrap();
    }
    db.flush().unwrap();
}

fn files(fs: &SimFs, ending: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let all = fs.dump().into_iter();
    all.filter(|(path, _)| path.to_string_lossy().ends_with(ending))
        .collect()
}

fn cut_out(db: &Db, may_be_lost: &[KeyRange]) -> Result<CutReport, Error> {
    let (done, report) = channel();
    db.cut_out(may_be_lost.to_vec(), move |cut| done.send(cut).unwrap());
    report.recv().unwrap()
}

fn range_of(error: &Error) -> KeyRange {
    match error {
        Error::Corrupt { range, .. } => range.clone(),
        other => panic!("{other}"),
    }
}

/// Of each key that may be lost an older value or nothing is left, and of all others the newest; says how many are not
/// the newest.
fn check(db: &Db, lost: &[KeyRange], newest: u8) -> usize {
    let snapshot = db.snapshot();
    let rows = snapshot.iter::<&[u8]>(..).map(|row| row.unwrap());
    let rows: Vec<_> = rows.collect();
    let mut older = 0;
    for number in 0..KEYS {
        let key = number.to_be_bytes();
        let found = db.blocking().get(&key).unwrap().map(|found| found.value);
        let scanned = rows.iter().find(|row| *row.key == key);
        assert_eq!(scanned.map(|row| row.value.clone()), found, "{number}");
        let is_newest = found.as_deref() == Some(&value(number, newest)[..]);
        let may_be_lost = lost.iter().any(|range| range.contains(&key));
        let is_old = found.is_none_or(|found| (0..newest).any(|r| found == value(number, r)));
        assert!(is_newest || may_be_lost && is_old, "{number}");
        older += usize::from(!is_newest);
    }
    older
}

#[test]
fn damage_is_cut_out_only_where_keys_may_be_lost() {
    for (ending, spoils) in [
        (".sst", false),
        (".blob", false),
        (".sst", true),
        (".blob", true),
    ] {
        let sound = SimFs::new();
        let db = Db::open(dir(), options(), env(&sound)).unwrap();
        fill(&db, 0);
        fill(&db, 1);
        db.close().unwrap();
        drop(db);
        let places = [0.1, 0.5, 0.99];
        let paths = files(&sound, ending);
        assert!(!paths.is_empty());
        let mut older = 0;
        for (path, bytes) in &paths {
            for place in places {
                let fs = sound.fork();
                let at = (bytes.len() as f64 * place) as usize;
                if spoils {
                    fs.spoil(path, at).unwrap();
                } else {
                    let mut bad = bytes.clone();
                    bad[at] ^= 16;
                    fs.overwrite(path, bad).unwrap();
                }
                let what = format!("{} byte {at}", path.display());
                let db = Db::open(dir(), options(), env(&fs)).unwrap();
                let found = db.blocking().scrub().found;
                let lost: Vec<KeyRange> = found.iter().map(range_of).collect();

                let kept = cut_out(&db, &[]).unwrap();
                assert!(kept.lost.is_empty(), "{what}");
                let report = cut_out(&db, &lost).unwrap();
                assert!(report.left.is_empty() && report.busy == 0, "{what}");
                // A sector touches several blocks of a table.
                let tables = kept.tables + report.tables;
                assert!(spoils || tables >= lost.len() as u64, "{what}");
                assert!(db.blocking().scrub().found.is_empty(), "{what}");
                older += check(&db, &report.lost, 1);
                db.close().unwrap();
                drop(db);

                let db = Db::open(dir(), options(), env(&fs)).unwrap();
                check(&db, &report.lost, 1);
                fill(&db, 2);
                assert_eq!(check(&db, &[], 2), 0, "{what}");
                assert_eq!(db.stats().fenced_tables, 0, "{what}");
                assert!(db.blocking().scrub().found.is_empty(), "{what}");
            }
        }
        assert!(older > 0, "something was lost");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the cut outlives the call of the disk in which it begins"
)]
#[test]
fn what_deleted_ranges_cover_is_not_cut_anew_while_it_is_dropped() {
    let fs = SimFs::new();
    let cut: Arc<Mutex<Option<Step>>> = Arc::default();
    let begin_cut = cut.clone();
    let meddling = Meddling::new(&fs, move |moment, path| {
        if moment == Moment::AfterSync
            && path.to_string_lossy().contains("MANIFEST")
            && let Some(cut) = begin_cut.lock().unwrap().take()
        {
            cut();
        }
        Ok(())
    });
    let jobs = Arc::new(ManualJobs::default());
    let env = Env {
        fs: Arc::new(meddling),
        ..env_with(&fs, jobs.clone())
    };
    let db = Db::open(dir(), options(), env).unwrap();
    let put = |number: u32| {
        let batch = crate::support::put(number.to_be_bytes(), [1; 100]);
        while db.write(batch.clone(), Durability::Process).is_err() {
            jobs.run_all();
        }
    };
    (0..KEYS).for_each(put);
    db.flush().unwrap();
    jobs.run_all();
    for (path, mut bytes) in files(&fs, ".sst") {
        bytes[3] ^= 16;
        fs.overwrite(&path, bytes).unwrap();
    }
    assert!(!db.blocking().scrub().found.is_empty());
    let mut batch = WriteBatch::new();
    batch.delete_range(vec![]..vec![255]);
    let _ = db.write(batch, Durability::Process).unwrap();
    db.flush().unwrap();

    // The tables are dropped. While the manifest is synced, a cut comes.
    let running: Arc<Mutex<Option<Running>>> = Arc::default();
    let (store, queue, keep) = (db.clone(), jobs.clone(), running.clone());
    *cut.lock().unwrap() = Some(Box::new(move || {
        let (done, report) = channel();
        let (ended, end) = channel();
        let thread = std::thread::spawn(move || {
            store.cut_out(vec![KeyRange::All], move |cut| {
                done.send(cut.unwrap()).unwrap();
            });
            queue.run_all();
            ended.send(()).unwrap();
        });
        // A broken engine waits here until the tables are dropped.
        let _ = end.recv_timeout(Duration::from_millis(500));
        *keep.lock().unwrap() = Some((thread, report));
    }));
    while db.stats().covered_tables == 0 {
        assert!(jobs.run_one_of(JobClass::Compaction));
    }
    let (thread, report) = running.lock().unwrap().take().unwrap();
    thread.join().unwrap();
    let report = report.recv().unwrap();
    assert_eq!((report.tables, report.busy > 0), (0, true));
    jobs.run_all();
    assert!(crate::support::contents(&db).unwrap().is_empty());
    db.close().unwrap();
}

#[expect(
    clippy::disallowed_methods,
    reason = "the store is closed beside the call of the disk in which that begins"
)]
#[test]
fn who_closes_a_store_does_not_wait_for_tables_that_are_dropped_already() {
    let fs = SimFs::new();
    let step: Arc<Mutex<Option<Step>>> = Arc::default();
    let (set, edits) = (step.clone(), AtomicU32::new(0));
    let meddling = Meddling::new(&fs, move |moment, path| {
        let is_edit = path.to_string_lossy().contains("MANIFEST");
        // The first edit is the flush, the second one drops tables.
        if moment == Moment::AfterSync
            && is_edit
            && set.lock().unwrap().is_some()
            && edits.fetch_add(1, Ordering::Relaxed) == 1
            && let Some(step) = set.lock().unwrap().take()
        {
            step();
        }
        Ok(())
    });
    let jobs = Arc::new(ManualJobs::default());
    let env = Env {
        fs: Arc::new(meddling),
        ..env_with(&fs, jobs.clone())
    };
    let db = Db::open(dir(), options(), env).unwrap();
    let put = |number: u32| {
        let batch = crate::support::put(number.to_be_bytes(), [1; 100]);
        while db.write(batch.clone(), Durability::Process).is_err() {
            jobs.run_all();
        }
    };
    (0..KEYS).for_each(put);
    db.flush().unwrap();
    jobs.run_all();
    let mut batch = WriteBatch::new();
    batch.delete_range(vec![]..vec![255]);
    let _ = db.write(batch, Durability::Process).unwrap();
    let mut number = KEYS;
    while !jobs.classes().contains(&JobClass::Flush) {
        put(number);
        number += 1;
    }
    let (ended, end) = channel();
    let store = db.clone();
    *step.lock().unwrap() = Some(Box::new(move || {
        std::thread::spawn(move || ended.send(store.close()));
        // Until it waits.
        std::thread::sleep(Duration::from_millis(200));
    }));
    assert!(jobs.run_one_of(JobClass::Flush));
    assert!(step.lock().unwrap().is_none(), "tables were dropped");
    let closed = end.recv_timeout(Duration::from_secs(10));
    closed.expect("it does not wait for ever").unwrap();
}
