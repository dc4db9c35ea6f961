//! Trouble that passes, or that touches only a part, does not end writing for ever, and leaves no files behind.

use crate::meddling::{Meddling, Moment};
use crate::support::{ManualJobs, dir, env, env_with, put};
use kv_storage::sim::SimFs;
use kv_storage::{Db, Durability, Env, JobClass, Options, WriteError};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

fn tables(fs: &SimFs) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs.dump().into_iter();
    files
        .filter(|(path, _)| path.extension().is_some_and(|kind| kind == "sst"))
        .collect()
}

fn used(fs: &SimFs) -> u64 {
    fs.dump().values().map(|bytes| bytes.len() as u64).sum()
}

/// How many of `count` writes to new keys are taken, with all the time that jobs need.
fn take_writes(db: &Db, jobs: &ManualJobs, count: u32) -> u32 {
    for number in 0..count {
        let batch = put((1_000_000 + number).to_be_bytes(), [3; 150]);
        let mut tries = 0;
        while let Err(error) = db.write(batch.clone(), Durability::Process) {
            assert!(matches!(error, WriteError::Busy(_)), "{error}");
            tries += 1;
            if tries > 400 {
                return number;
            }
            jobs.run_all();
            db.tick();
            jobs.run_all();
        }
    }
    count
}

#[test]
fn damaged_tables_in_level_0_do_not_stop_writes_of_other_keys() {
    for count in [4, 24, 40] {
        let fs = SimFs::new();
        let jobs = Arc::new(ManualJobs::default());
        let mut options = Options::tiny();
        options.level0_stop = 50;
        let db = Db::open(dir(), options, env_with(&fs, jobs.clone())).unwrap();
        for number in 0..count {
            for key in 0..4u32 {
                let _ = db
                    .write(put(key.to_be_bytes(), [number; 150]), Durability::Process)
                    .unwrap();
            }
            db.flush().unwrap();
            // Everything but compaction.
            while [JobClass::LogSegment, JobClass::LogSync, JobClass::Flush]
                .iter()
                .any(|class| jobs.run_one_of(*class))
            {}
        }
        db.close().unwrap();
        for (path, mut bytes) in tables(&fs) {
            bytes[40] ^= 1;
            fs.overwrite(&path, bytes).unwrap();
        }
        drop(db);
        let db = Db::open(dir(), Options::tiny(), env_with(&fs, jobs.clone())).unwrap();
        jobs.run_all();
        assert_eq!(
            take_writes(&db, &jobs, 1_000),
            1_000,
            "{count} damaged tables"
        );
    }
}

#[test]
fn a_table_that_cannot_be_read_does_not_stop_writes_of_other_keys() {
    let fs = SimFs::new();
    let bad: Arc<Mutex<Option<PathBuf>>> = Arc::default();
    let is_bad = bad.clone();
    let meddling = Meddling::new(&fs, move |moment, path| {
        let hit =
            moment == Moment::BeforeHeadRead && is_bad.lock().unwrap().as_deref() == Some(path);
        if hit {
            Err(io::Error::other("a bad sector"))
        } else {
            Ok(())
        }
    });
    let jobs = Arc::new(ManualJobs::default());
    let mut options = Options::tiny();
    options.cache_bytes = 0;
    let env = Env {
        fs: Arc::new(meddling),
        ..env_with(&fs, jobs.clone())
    };
    let db = Db::open(dir(), options, env).unwrap();
    for key in 0..6u32 {
        let _ = db
            .write(put(key.to_be_bytes(), [1; 150]), Durability::Process)
            .unwrap();
    }
    db.flush().unwrap();
    *bad.lock().unwrap() = Some(tables(&fs)[0].0.clone());
    assert_eq!(take_writes(&db, &jobs, 2_000), 2_000);
    assert!(db.blocking().get(&0u32.to_be_bytes()).is_err());
    *bad.lock().unwrap() = None;
    let found = db.blocking().get(&0u32.to_be_bytes()).unwrap();
    assert!(found.is_some(), "readers go on trying");
}

#[test]
fn a_disk_that_filled_once_is_not_full_for_ever_where_free_space_cannot_be_looked_up() {
    let fs = SimFs::new();
    let is_full = Arc::new(AtomicBool::new(false));
    let full = is_full.clone();
    let meddling = Meddling::new(&fs, move |moment, _| match moment {
        Moment::BeforeFreeSpace => Err(io::ErrorKind::Unsupported.into()),
        Moment::BeforeCreateSegment if full.load(Ordering::SeqCst) => {
            Err(io::ErrorKind::StorageFull.into())
        }
        _ => Ok(()),
    });
    let mut options = Options::tiny();
    options.min_free_bytes = 1;
    let env = Env {
        fs: Arc::new(meddling),
        ..env(&fs)
    };
    let db = Db::open(dir(), options, env).unwrap();
    is_full.store(true, Ordering::SeqCst);
    let refused =
        (0..5_000u32).any(|key| db.blocking().put(&key.to_be_bytes(), &[1; 20_000]).is_err());
    assert!(refused);
    is_full.store(false, Ordering::SeqCst);
    let taken = (0..200u32).any(|key| {
        db.tick();
        db.blocking().put(&key.to_be_bytes(), &[2; 500]).is_ok()
    });
    assert!(taken);
}

#[test]
fn a_batch_too_large_for_the_disk_does_not_keep_small_writes_out() {
    for min_free_bytes in [0, 1] {
        let fs = SimFs::new();
        let mut options = Options::tiny();
        options.min_free_bytes = min_free_bytes;
        let db = Db::open(dir(), options, env(&fs)).unwrap();
        for key in 0..20u32 {
            db.blocking().put(&key.to_be_bytes(), &[1; 100]).unwrap();
        }
        fs.set_capacity(used(&fs) + (200 << 10));
        assert!(db.blocking().put(b"large", &[1; 600 << 10]).is_err());
        let taken = (0..60u32).filter(|key| {
            let taken = db.blocking().put(&key.to_be_bytes(), &[2; 100]).is_ok();
            db.tick();
            taken
        });
        assert!(
            taken.count() > 50,
            "with {min_free_bytes} bytes to be left free"
        );
    }
}

#[test]
fn files_that_a_reader_kept_make_room_when_it_is_gone() {
    let fs = SimFs::new();
    let mut options = Options::tiny();
    options.min_free_bytes = 64 << 10;
    options.blob_value_bytes = 0;
    let db = Db::open(dir(), options, env(&fs)).unwrap();
    let mut random = fastrand::Rng::with_seed(4);
    let mut value = || -> Vec<u8> { (0..800).map(|_| random.u8(..)).collect() };
    for key in 0..400u32 {
        db.blocking().put(&key.to_be_bytes(), &value()).unwrap();
    }
    db.flush().unwrap();
    let snapshot = db.snapshot();
    let mut reader = snapshot.iter::<&[u8]>(..);
    reader.next().unwrap().unwrap();
    drop(snapshot);
    for key in 0..800u32 {
        db.blocking()
            .put(&(key % 400).to_be_bytes(), &value())
            .unwrap();
    }
    db.flush().unwrap();
    fs.set_capacity(used(&fs) + (70 << 10));
    let mut key = 100_000u32;
    let mut tries = 0;
    while tries < 60 {
        key += 1;
        match db.blocking().put(&key.to_be_bytes(), &value()) {
            Ok(_) => tries = 0,
            Err(_) => tries += 1,
        }
        db.tick();
    }
    drop(reader);
    let taken = (0..50).any(|_| {
        db.tick();
        db.blocking().put(b"k", b"v").is_ok()
    });
    assert!(taken, "what the reader kept is not removed");
}

#[test]
fn segments_that_cannot_be_synced_leave_no_files() {
    let fs = SimFs::new();
    let failures = Arc::new(AtomicU64::new(0));
    let left = failures.clone();
    let created: Mutex<Option<PathBuf>> = Mutex::default();
    let meddling = Meddling::new(&fs, move |moment, path| {
        match moment {
            Moment::BeforeCreateSegment => *created.lock().unwrap() = Some(path.to_owned()),
            Moment::BeforeSegmentSync if created.lock().unwrap().as_deref() == Some(path) => {
                let counted = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                });
                return counted.map_or(Ok(()), |_| Err(io::Error::other("broken")));
            }
            _ => {}
        }
        Ok(())
    });
    let env = Env {
        fs: Arc::new(meddling),
        ..env(&fs)
    };
    let db = Db::open(dir(), Options::tiny(), env).unwrap();
    failures.store(100, Ordering::SeqCst);
    for key in 0..1_000u32 {
        let _ = db
            .blocking()
            .write(put(key.to_be_bytes(), [1; 100]), Durability::Process);
        db.tick();
    }
    db.flush().unwrap();
    assert!(!db.stats().poisoned && failures.load(Ordering::SeqCst) == 0);
    let files = fs.dump();
    let logs = files
        .keys()
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"));
    assert!(logs.count() < 20);
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread that hangs is left behind"
)]
#[test]
fn one_who_is_told_that_a_write_is_durable_may_flush() {
    let fs = SimFs::new();
    let jobs = Arc::new(ManualJobs::default());
    let db = Db::open(dir(), Options::tiny(), env_with(&fs, jobs.clone())).unwrap();
    jobs.run_all();
    let commit = db.write(put(b"a", b"1"), Durability::Sync).unwrap();
    let (told, outcome) = mpsc::channel();
    let inner = db.clone();
    commit.on_durable(move |durable| {
        durable.unwrap();
        let _ = inner.write(put(b"b", b"2"), Durability::Process).unwrap();
        let _ = told.send(inner.flush().is_ok());
    });
    std::thread::spawn(move || drop(db.flush()));
    assert!(outcome.recv_timeout(Duration::from_secs(20)).unwrap());
}
