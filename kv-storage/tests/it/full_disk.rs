//! Disks that run full at any call, and get room again: nothing is lost, nothing is poisoned, reads go on,
//! and writing resumes by itself.

use crate::support::{TickingClock, Workload, contents, dir, env, put};
use kv_storage::fs::{Fs, RealFs};
use kv_storage::sim::{Fault, SimFs};
use kv_storage::{
    BlockingError, Db, Durability, Env, Hooks, InlineJobs, OpenError, Options, WriteError,
};
use std::io::Write;
use std::sync::Arc;

const BALLAST_BYTES: u64 = 24 << 10;

fn options(ballast: bool) -> Options {
    let mut options = Options::tiny();
    options.ballast_bytes = if ballast { BALLAST_BYTES } else { 0 };
    options
}

fn open(fs: &SimFs, ballast: bool) -> Result<Db, OpenError> {
    Db::open(dir(), options(ballast), env(fs))
}

/// Writes a batch; true if it was taken, false if the disk is too full. Anything else is a failure.
fn try_write(db: &Db, workload: &Workload, number: usize, what: &str) -> bool {
    let batch = workload.batches[number].clone();
    match db.blocking().write(batch, Durability::Sync) {
        Ok(_) => true,
        Err(BlockingError::Refused(WriteError::Full { .. } | WriteError::Busy(_))) => false,
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Writes as much of the workload as goes, and flushes now and then. Returns how far it came.
fn write_all(db: &Db, workload: &Workload, from: usize, what: &str) -> usize {
    for number in from..workload.batches.len() {
        if !try_write(db, workload, number, what) {
            return number;
        }
        if number % 13 == 12 {
            let _ = db.flush();
        }
    }
    workload.batches.len()
}

/// Room came: within a few tries everything goes on, and the ballast is there again.
fn finish(db: &Db, workload: &Workload, mut acked: usize, ballast: bool, what: &str) {
    for _ in 0..20 {
        acked = write_all(db, workload, acked, what);
    }
    assert_eq!(
        acked,
        workload.batches.len(),
        "{what}: writing did not resume"
    );
    db.flush().unwrap_or_else(|error| panic!("{what}: {error}"));
    // Made by a job that a write asks for.
    for _ in 0..20 {
        if db.stats().ballast != ballast {
            let last = workload.batches[acked - 1].clone();
            let _ = db.blocking().write(last, Durability::Sync);
        }
    }
    let stats = db.stats();
    assert!(!stats.poisoned && !stats.full, "{what}");
    assert_eq!(stats.ballast, ballast, "{what}");
    assert!(contents(db).unwrap() == workload.states[acked], "{what}");
}

fn calls_of(workload: &Workload, ballast: bool) -> u64 {
    let fs = SimFs::new();
    let db = open(&fs, ballast).unwrap();
    assert_eq!(
        write_all(&db, workload, 0, "no fault"),
        workload.batches.len()
    );
    fs.calls()
}

fn is_exactly(db: &Db, workload: &Workload, acked: usize) -> bool {
    contents(db).unwrap() == workload.states[acked]
}

#[test]
fn a_disk_that_fills_at_any_call_poisons_nothing_and_the_store_resumes_with_room() {
    let workload = Workload::new(80, Durability::Sync);
    for ballast in [true, false] {
        let (mut refused, mut gave_back) = (0, 0);
        for call in 0..calls_of(&workload, ballast) {
            let what = format!("ballast {ballast}, full from call {call}");
            let fs = SimFs::new();
            fs.plan(call, Fault::DiskFills);
            let Ok(db) = open(&fs, ballast) else {
                fs.set_capacity(u64::MAX);
                finish(&open(&fs, ballast).unwrap(), &workload, 0, ballast, &what);
                continue;
            };
            let acked = write_all(&db, &workload, 0, &what);
            let stats = db.stats();
            assert!(!stats.poisoned, "{what}");
            refused += u32::from(acked < workload.batches.len());
            gave_back += u32::from(ballast && !stats.ballast);
            assert!(is_exactly(&db, &workload, acked), "{what}");
            // Power loss while it is full, and room only after that.
            for seed in [call % 5, 5] {
                let fs = fs.fork().power_loss(seed);
                if let Ok(db) = open(&fs, ballast) {
                    assert!(is_exactly(&db, &workload, acked), "{what}, loss {seed}");
                } else {
                    assert!(
                        !stats.ballast,
                        "{what}: a ballast is there to be given back"
                    );
                }
                fs.set_capacity(u64::MAX);
                let db = open(&fs.kill(), ballast).unwrap();
                finish(&db, &workload, acked, ballast, &what);
            }
            fs.set_capacity(u64::MAX);
            finish(&db, &workload, acked, ballast, &what);
        }
        assert!(refused > 100, "{refused}");
        assert!(!ballast || gave_back > 50, "{gave_back}");
    }
}

#[test]
fn a_disk_that_is_full_for_a_while_at_any_call_costs_only_time() {
    let workload = Workload::new(60, Durability::Sync);
    for (length, ballast) in [(1, true), (4, false), (9, true), (30, true), (30, false)] {
        for call in (0..calls_of(&workload, ballast)).step_by(3) {
            let what = format!("ballast {ballast}, full from call {call} for {length}");
            let fs = SimFs::new();
            fs.plan(call, Fault::DiskFills);
            fs.plan(call + length, Fault::DiskFrees);
            let mut db = None;
            for _ in 0..=length {
                db = db.or_else(|| open(&fs, ballast).ok());
            }
            let db = db.unwrap_or_else(|| panic!("{what}: does not open"));
            let acked = write_all(&db, &workload, 0, &what);
            // Calls that were never made free nothing.
            fs.set_capacity(u64::MAX);
            finish(&db, &workload, acked, ballast, &what);
        }
    }
}

#[test]
fn an_append_that_ends_early_on_a_full_disk_counts_as_not_made_whatever_a_crash_shows() {
    let workload = Workload::new(80, Durability::Sync);
    for ballast in [false, true] {
        for call in 0..calls_of(&workload, ballast) {
            let what = format!("ballast {ballast}, torn append at call {call}");
            let fs = SimFs::new();
            fs.plan(call, Fault::TornNoSpace);
            // What else needs space fails too, until room comes.
            fs.plan(call + 1, Fault::DiskFills);
            let Ok(db) = open(&fs, ballast) else {
                continue;
            };
            let acked = write_all(&db, &workload, 0, &what);
            assert!(!db.stats().poisoned, "{what}");
            assert!(is_exactly(&db, &workload, acked), "{what}");
            for (seed, fs) in [
                (0, fs.fork().kill()),
                (1, fs.fork().power_loss(1)),
                (2, fs.fork().power_loss(2)),
            ] {
                fs.set_capacity(u64::MAX);
                let db =
                    open(&fs, ballast).unwrap_or_else(|error| panic!("{what}, {seed}: {error}"));
                assert!(is_exactly(&db, &workload, acked), "{what}, {seed}");
            }
            fs.set_capacity(u64::MAX);
            finish(&db, &workload, acked, ballast, &what);
            let tables = db.stats().levels.iter().map(|level| level.tables).sum();
            let named = fs.list(dir()).unwrap();
            let files = named.iter().filter(|name| name.ends_with(".sst")).count();
            assert_eq!(files, tables, "{what}: a table of an edit in doubt stayed");
            let files = named.iter().filter(|name| name.ends_with(".blob")).count();
            assert_eq!(
                files,
                db.stats().blob_files,
                "{what}: a blob file of an edit in doubt stayed"
            );
            drop(db);
            let db = open(&fs.power_loss(3), ballast).unwrap();
            assert!(is_exactly(&db, &workload, workload.batches.len()), "{what}");
        }
    }
}

/// A store whose log holds everything, on a disk that is full to the last byte.
fn full_store(options: &Options) -> (SimFs, Workload) {
    let workload = Workload::new(60, Durability::Sync);
    let fs = SimFs::new();
    let db = Db::open(dir(), options.clone(), env(&fs)).unwrap();
    assert_eq!(write_all(&db, &workload, 0, "filling"), 60);
    drop(db);
    let fs = fs.kill();
    fs.set_capacity(0);
    (fs, workload)
}

#[test]
fn a_store_with_a_ballast_opens_for_reading_on_a_full_disk_again_and_again() {
    let mut options = options(true);
    options.min_free_bytes = 100 << 10;
    // So that nothing but the log grows.
    options.memtable_bytes = 1 << 20;
    let (fs, workload) = full_store(&options);
    let used: usize = fs.dump().values().map(Vec::len).sum();
    fs.set_capacity(used as u64);
    let mut fs = fs;
    for round in 0..4 {
        let db = Db::open(dir(), options.clone(), env(&fs))
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(is_exactly(&db, &workload, 60));
        let refused = db.write(put(b"x", b""), Durability::Sync).unwrap_err();
        let needed = options.min_free_bytes + 2 * BALLAST_BYTES;
        assert!(
            matches!(refused, WriteError::Full { needed: n, .. } if n == needed),
            "{refused}"
        );
        assert!(!db.stats().ballast && db.stats().full);
        drop(db);
        fs = fs.power_loss(round);
    }
    fs.set_capacity(used as u64 + options.min_free_bytes + 3 * BALLAST_BYTES);
    let db = Db::open(dir(), options, env(&fs)).unwrap();
    finish(&db, &workload, 60, true, "with room");
}

#[test]
fn a_batch_that_may_use_the_reserve_is_taken_on_a_nearly_full_disk_and_others_are_not() {
    let mut options = options(true);
    options.min_free_bytes = 100 << 10;
    options.memtable_bytes = 1 << 20;
    let (fs, _) = full_store(&options);
    let used: usize = fs.dump().values().map(Vec::len).sum();
    fs.set_capacity(used as u64);
    for round in 0..4u64 {
        let db = Db::open(dir(), options.clone(), env(&fs)).unwrap();
        let refused = db.write(put(b"x", b""), Durability::Sync).unwrap_err();
        assert!(matches!(refused, WriteError::Full { .. }), "{refused}");
        let mut batch = put(b"boot", round.to_le_bytes());
        batch.use_reserve();
        db.blocking().write(batch, Durability::Sync).unwrap();
        drop(db);
        let db = Db::open(dir(), options.clone(), env(&fs.fork().power_loss(round))).unwrap();
        let found = db.blocking().get(b"boot").unwrap().unwrap();
        assert_eq!(found.value[..], round.to_le_bytes());
    }
}

#[test]
fn another_size_of_the_ballast_is_taken_up_at_the_next_open() {
    let fs = SimFs::new();
    let size = |fs: &SimFs| fs.dump().get(&dir().join("BALLAST")).map(Vec::len);
    drop(open(&fs, true).unwrap());
    assert_eq!(size(&fs), Some(BALLAST_BYTES as usize));
    let fs = fs.kill();
    drop(open(&fs, false).unwrap());
    assert_eq!(size(&fs), None);
    let fs = fs.kill();
    let mut larger = options(true);
    larger.ballast_bytes *= 2;
    drop(Db::open(dir(), larger, env(&fs)).unwrap());
    assert_eq!(size(&fs), Some(2 * BALLAST_BYTES as usize));
    // One that a crash left unfinished.
    let fs = fs.kill();
    fs.overwrite(&dir().join("BALLAST"), vec![0; 10]).unwrap();
    drop(open(&fs, true).unwrap());
    assert_eq!(size(&fs), Some(BALLAST_BYTES as usize));
}

/// Mounts a small file system in memory, if this process may.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .output()
            .map_err(|error| error.to_string())?;
        if mounted.status.success() {
            Ok(Self(dir))
        } else {
            Err(String::from_utf8_lossy(&mounted.stderr).into_owned())
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg(self.0.path())
            .status();
    }
}

#[test]
fn a_real_full_file_system_is_survived_and_left_by_itself() {
    let home = match Tmpfs::mount("6m") {
        Ok(home) => home,
        Err(reason) => return skip(&reason),
    };
    let dir = home.0.path().join("store");
    let mut options = Options::tiny();
    options.memtable_bytes = 256 << 10;
    options.log_segment_bytes = 256 << 10;
    options.table_bytes = 256 << 10;
    options.min_free_bytes = 256 << 10;
    options.ballast_bytes = 512 << 10;
    let env = || Env {
        fs: Arc::new(RealFs),
        jobs: Arc::new(InlineJobs),
        clock: Arc::new(TickingClock::default()),
        seed: 1,
        hooks: Hooks::default(),
    };
    let mut random = fastrand::Rng::with_seed(1);
    let mut db = Db::open(&dir, options.clone(), env()).unwrap();
    assert!(db.stats().ballast);
    let mut expected = std::collections::BTreeMap::new();
    // Somebody else fills the disk, to the last byte, while the store is written to.
    let hog = home.0.path().join("hog");
    for round in 0..3 {
        for number in 0..400u32 {
            let key = format!("{round} {number}").into_bytes();
            let value: Vec<u8> = (0..1000).map(|_| random.u8(..)).collect();
            match db.blocking().write(put(&key, &value), Durability::Sync) {
                Ok(_) => drop(expected.insert(key, value)),
                Err(BlockingError::Refused(WriteError::Full { .. })) => {}
                Err(error) => panic!("{error}"),
            }
            if number == 200 {
                let mut file = RealFs.create(&hog).unwrap();
                while file.append(&[1; 4096]).is_ok() {}
                let _ = db.flush();
            }
        }
        assert!(db.stats().full && !db.stats().poisoned);
        assert!(contents(&db).unwrap() == expected);
        drop(db);
        db = Db::open(&dir, options.clone(), env()).unwrap();
        assert!(contents(&db).unwrap() == expected, "opened on a full disk");
        std::fs::remove_file(&hog).unwrap();
        // Old rounds go, so that there is room for the next one.
        for key in expected.keys().cloned().collect::<Vec<_>>() {
            let mut batch = kv_storage::WriteBatch::new();
            batch.delete(&key);
            for _ in 0..20 {
                match db.write(batch.clone(), Durability::Process) {
                    Ok(_) => {
                        expected.remove(&key);
                        break;
                    }
                    Err(WriteError::Full { .. } | WriteError::Busy(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert!(expected.is_empty(), "writing did not resume");
        db.flush().unwrap();
    }
}

fn skip(reason: &str) {
    assert!(
        std::env::var_os("KV_TEST_NO_SKIPS").is_none(),
        "KV_TEST_NO_SKIPS is set, but {reason}"
    );
    // Not by `eprintln`, which the test harness would keep to itself.
    let _ = writeln!(
        std::io::stderr(),
        "skipped: this needs the right to mount a file system ({})",
        reason.trim()
    );
}
