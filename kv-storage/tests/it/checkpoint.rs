//! Checkpoints: whole, durable and independent, whatever goes wrong and whatever goes on meanwhile.

use crate::meddling::{Meddling, Moment};
use crate::support::{ManualJobs, Workload, contents, dir, env, env_with, open, put};
use kv_storage::fs::{Fs, RealFs};
use kv_storage::sim::{Fault, SimFs};
use kv_storage::{Db, Durability, Env, Error, Options};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

fn copy_dir() -> &'static Path {
    Path::new("/copy")
}

fn open_copy(fs: &SimFs) -> Result<Db, kv_storage::OpenError> {
    Db::open(copy_dir(), Options::tiny(), env(fs))
}

/// A store with tables on several levels and writes that are only in the log.
fn filled(fs: &SimFs) -> (Db, Workload) {
    let workload = Workload::new(60, Durability::Sync);
    let db = open(fs).unwrap();
    for batch in &workload.batches {
        db.blocking()
            .write(batch.clone(), Durability::Process)
            .unwrap();
    }
    db.blocking().sync().unwrap();
    (db, workload)
}

#[test]
fn a_checkpoint_holds_everything_visible_and_both_stores_go_on_alone() {
    let fs = SimFs::new();
    let (db, workload) = filled(&fs);
    let newest = db.checkpoint(copy_dir()).unwrap();
    assert_eq!(newest, db.stats().last);
    db.blocking().put(b"only", b"here").unwrap();
    let fs = fs.power_loss(1);
    let copy = open_copy(&fs).unwrap();
    assert_eq!(contents(&copy).unwrap(), workload.states[60]);
    assert_eq!(copy.stats().last, newest);
    let db = open(&fs).unwrap();
    for number in 0..200u32 {
        copy.blocking()
            .put(&number.to_be_bytes(), &[1; 200])
            .unwrap();
        db.blocking().put(&number.to_be_bytes(), &[2; 100]).unwrap();
    }
    copy.close().unwrap();
    db.close().unwrap();
    let (copy, db) = (open_copy(&fs).unwrap(), open(&fs).unwrap());
    let mut expected = workload.states[60].clone();
    expected.extend((0..200u32).map(|number| (number.to_be_bytes().to_vec(), vec![1; 200])));
    assert_eq!(contents(&copy).unwrap(), expected);
    expected.extend((0..200u32).map(|number| (number.to_be_bytes().to_vec(), vec![2; 100])));
    expected.insert(b"only".to_vec(), b"here".to_vec());
    assert_eq!(contents(&db).unwrap(), expected);
}

#[test]
fn an_empty_store_has_an_empty_checkpoint_that_takes_writes() {
    let fs = SimFs::new();
    open(&fs).unwrap().checkpoint(copy_dir()).unwrap();
    let fs = fs.power_loss(0);
    let copy = open_copy(&fs).unwrap();
    copy.blocking().put(b"a", b"1").unwrap();
    drop(copy);
    let copy = open_copy(&fs.power_loss(1)).unwrap();
    assert_eq!(contents(&copy).unwrap().len(), 1);
}

#[test]
fn a_checkpoint_of_a_checkpoint_and_a_flushed_store_needs_no_writes() {
    let fs = SimFs::new();
    let (db, workload) = filled(&fs);
    let newest = db.checkpoint(copy_dir()).unwrap();
    let copy = open_copy(&fs).unwrap();
    assert_eq!(copy.checkpoint(Path::new("/third")).unwrap(), newest);
    let third = Db::open(Path::new("/third"), Options::tiny(), env(&fs)).unwrap();
    assert_eq!(contents(&third).unwrap(), workload.states[60]);
}

#[test]
fn a_directory_with_files_is_refused_and_left_alone() {
    let fs = SimFs::new();
    let (db, _) = filled(&fs);
    fs.create(&copy_dir().join("x")).unwrap();
    let error = db.checkpoint(copy_dir()).unwrap_err();
    assert!(error.to_string().contains("/copy"), "{error}");
    assert!(db.checkpoint(dir()).is_err());
    assert_eq!(fs.list(copy_dir()).unwrap(), ["x"]);
    db.close().unwrap();
    assert!(matches!(
        db.checkpoint(Path::new("/new")),
        Err(Error::Closed)
    ));
}

/// Makes a checkpoint with a fault at each of its calls, and hands the disk and the outcome to `check`.
fn each_call(fault: Fault, mut check: impl FnMut(u64, SimFs, Db, &Workload, Result<(), Error>)) {
    let fs = SimFs::new();
    let (db, workload) = filled(&fs);
    drop(db);
    let fs = fs.kill();
    let calls = |fs: &SimFs| {
        let db = open(fs).unwrap();
        let before = fs.calls();
        let outcome = db.checkpoint(copy_dir());
        (before, fs.calls(), db, outcome)
    };
    let (first, end, ..) = calls(&fs.fork());
    assert!(end - first > 25, "{first}..{end}");
    for call in first..end {
        let fs = fs.fork();
        fs.plan(call, fault);
        let (.., db, outcome) = calls(&fs);
        check(call - first, fs, db, &workload, outcome.map(drop));
    }
}

#[test]
fn a_power_cut_at_any_call_leaves_the_original_and_a_whole_copy_or_none() {
    let (mut whole, mut none) = (0, 0);
    each_call(Fault::PowerCut, |call, fs, db, workload, outcome| {
        // After the last call that matters, files are only cleaned up.
        let made = outcome.is_ok();
        drop(db);
        for seed in 0..6 {
            let fs = fs.fork().power_loss(seed);
            let what = format!("call {call}, loss {seed}");
            let db = open(&fs).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(contents(&db).unwrap() == workload.states[60], "{what}");
            // Every empty directory opens as an empty store.
            if fs.list(copy_dir()).unwrap().is_empty() {
                assert!(!made, "{what}");
                continue;
            }
            match open_copy(&fs) {
                Ok(copy) => {
                    assert!(contents(&copy).unwrap() == workload.states[60], "{what}");
                    whole += 1;
                }
                Err(error) => {
                    assert!(!made, "{what}: {error}");
                    none += 1;
                }
            }
        }
    });
    assert!(whole > 5 && none > 20, "{whole} whole, {none} not openable");
}

#[test]
fn a_failed_checkpoint_removes_what_it_made_and_the_next_one_succeeds() {
    for fault in [Fault::Io, Fault::NoSpace] {
        each_call(fault, |call, fs, db, workload, outcome| {
            let what = format!("{fault:?} at call {call}");
            if db.stats().poisoned {
                return;
            }
            if outcome.is_err() {
                assert_eq!(fs.list(copy_dir()).unwrap(), [""; 0], "{what}");
                db.checkpoint(copy_dir())
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            assert!(contents(&db).unwrap() == workload.states[60], "{what}");
            let copy = open_copy(&fs).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(contents(&copy).unwrap() == workload.states[60], "{what}");
        });
    }
}

#[test]
fn tables_that_compaction_replaces_meanwhile_are_in_the_copy() {
    let jobs = Arc::new(ManualJobs::default());
    let links = Arc::new(AtomicU32::new(0));
    let meddle = {
        let (jobs, links) = (jobs.clone(), links.clone());
        move |moment, _: &Path| {
            if moment == Moment::BeforeLink {
                jobs.run_all();
                links.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }
    };
    let fs = SimFs::new();
    let env = Env {
        fs: Arc::new(Meddling::new(&fs, meddle)),
        ..env_with(&fs, jobs.clone())
    };
    let mut options = Options::tiny();
    options.sealed_memtables_max = 100;
    let db = Db::open(dir(), options, env).unwrap();
    for number in 0..300u32 {
        let batch = put((number % 50).to_be_bytes(), [number as u8; 150]);
        while db.write(batch.clone(), Durability::Process).is_err() {
            jobs.run_one();
        }
    }
    let expected = contents(&db).unwrap();
    let compactions = db.stats().compactions;
    db.checkpoint(copy_dir()).unwrap();
    assert!(db.stats().compactions > compactions);
    assert!(links.load(Ordering::Relaxed) > 3);
    let fs = fs.power_loss(1);
    let copy = open_copy(&fs).unwrap();
    assert_eq!(contents(&copy).unwrap(), expected);
}

#[test]
fn real_files_are_linked_and_writers_go_on_meanwhile() {
    let home = tempfile::tempdir().unwrap();
    let mut options = Options::tiny();
    options.memtable_bytes = 64 << 10;
    let db = Db::open(&home.path().join("a"), options.clone(), Env::embedded(1)).unwrap();
    for number in 0..500u32 {
        let batch = put(number.to_be_bytes(), [1; 300]);
        db.blocking().write(batch, Durability::Process).unwrap();
    }
    let targets: Vec<_> = (0..5)
        .map(|n| home.path().join(format!("copy{n}")))
        .collect();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 500..3_000u32 {
                let batch = put(number.to_be_bytes(), [2; 300]);
                db.blocking().write(batch, Durability::Process).unwrap();
            }
        });
        for target in &targets {
            db.checkpoint(target).unwrap();
        }
        writer.join().unwrap();
    });
    let mut least = 500;
    for target in &targets {
        let copy = Db::open(target, options.clone(), Env::embedded(1)).unwrap();
        let found = contents(&copy).unwrap();
        assert!(found.len() >= least, "a later copy holds less");
        assert!(
            found.keys().eq((0..found.len() as u32)
                .map(|n| n.to_be_bytes().to_vec())
                .collect::<Vec<_>>()
                .iter())
        );
        least = found.len();
    }
    assert!(
        RealFs
            .list(&targets[0])
            .unwrap()
            .iter()
            .any(|name| name.ends_with(".sst"))
    );
}
