//! Large values in files of their own: garbage collection, faults at every call, and damage.

mod damage;

use crate::support::{contents, dir, env};
use kv_storage::fs::Fs;
use kv_storage::sim::{Fault, SimFs};
use kv_storage::{
    CompactionFilter, Db, Durability, Env, Hooks, Options, Read, Seq, Stats, Verdict, WriteBatch,
    tools,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A key, and its new value if it is not deleted.
type Change = (Vec<u8>, Option<Vec<u8>>);

/// Nothing is compacted by itself, and nothing is answered from the row cache.
fn quiet() -> Options {
    let mut options = Options::tiny();
    options.level0_trigger = 11;
    options.memtable_bytes = 64 << 10;
    options.cache_bytes = 0;
    options
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

fn blobs(fs: &SimFs) -> Vec<(PathBuf, Vec<u8>)> {
    let is_blob = |path: &Path| {
        path.starts_with(dir()) && path.extension().is_some_and(|ending| ending == "blob")
    };
    let all = fs.dump().into_iter();
    all.filter(|(path, _)| is_blob(path)).collect()
}

/// Lets compactions run that use idle time.
fn rest(db: &Db) {
    for _ in 0..40 {
        db.tick();
    }
}

fn key(number: u32) -> Vec<u8> {
    format!("key{number:04}").into_bytes()
}

/// Overwrites and deletes large and small values under few keys, so that files become garbage, are relocated
/// and removed. Returns what was acknowledged, and the key of the write that failed with its new value.
fn churn(fs: &SimFs) -> (Map, Option<Change>, Option<Db>) {
    let mut expected = Map::new();
    let mut options = Options::tiny();
    options.memtable_bytes = 3 << 10;
    options.level0_trigger = 2;
    options.level0_stop = 24;
    options.middle_runs_max = 1;
    options.blob_file_bytes = 1 << 10;
    let Ok(db) = Db::open(dir(), options, env(fs)) else {
        return (expected, None, None);
    };
    let mut random = fastrand::Rng::with_seed(11);
    for number in 0..150u64 {
        let key = key(random.u32(..24));
        let length = random.usize(10..700);
        let value = (random.u32(..7) > 0).then(|| noise(number, length));
        let written = match &value {
            Some(value) => db.blocking().put(&key, value).map(drop),
            None => db.blocking().delete(&key).map(drop),
        };
        if written.is_err() {
            return (expected, Some((key, value)), None);
        }
        match value {
            Some(value) => expected.insert(key, value),
            None => expected.remove(&key),
        };
    }
    if db.flush().is_err() {
        return (expected, None, None);
    }
    rest(&db);
    (expected, None, Some(db))
}

/// The store holds what was acknowledged; the write that failed may be there or not. Its blob files are those on
/// disk, and what no table points to is counted as garbage.
fn check(fs: &SimFs, expected: &Map, failed: Option<&Change>, what: &str) -> Stats {
    let db =
        Db::open(dir(), Options::tiny(), env(fs)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut with = expected.clone();
    if let Some((key, value)) = failed {
        match value {
            Some(value) => with.insert(key.clone(), value.clone()),
            None => with.remove(key),
        };
    }
    let is_right = |db: &Db| {
        let found = contents(db).unwrap_or_else(|error| panic!("{what}: {error}"));
        found == *expected || found == with
    };
    assert!(is_right(&db), "{what}: wrong contents");
    db.flush().unwrap();
    rest(&db);
    assert!(is_right(&db), "{what}: wrong contents after compaction");
    let stats = db.stats();
    let files = blobs(fs);
    assert_eq!(stats.blob_files, files.len(), "{what}: orphans");
    let bytes: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(stats.blob_bytes, bytes as u64, "{what}");
    db.close().unwrap();
    let verified = tools::verify(Arc::new(fs.clone()), dir()).unwrap();
    assert!(
        verified.findings.is_empty() && verified.leftovers.is_empty(),
        "{what}: {verified:?}"
    );
    stats
}

#[test]
fn a_power_cut_at_any_call_of_relocations_and_removals_loses_nothing() {
    let fs = SimFs::new();
    let (expected, _, db) = churn(&fs);
    let stats = db.unwrap().stats();
    assert!(stats.blob_relocated_bytes > 2_000, "{stats:?}");
    assert!(stats.blob_written_bytes > 4 * stats.blob_bytes, "{stats:?}");
    let calls = fs.calls();
    check(&fs.kill(), &expected, None, "without a cut");
    for cut in 0..calls {
        let fs = SimFs::new();
        fs.plan(cut, Fault::PowerCut);
        let (expected, failed, _) = churn(&fs);
        for loss in 0..2 {
            let fs = fs.fork().power_loss(loss);
            let what = format!("cut {cut}, loss {loss}");
            check(&fs, &expected, failed.as_ref(), &what);
        }
    }
}

#[test]
fn an_error_at_any_call_of_relocations_and_removals_loses_nothing() {
    let calls = {
        let fs = SimFs::new();
        churn(&fs);
        fs.calls()
    };
    for call in 0..calls {
        for fault in [Fault::Io, Fault::TornNoSpace] {
            let fs = SimFs::new();
            fs.plan(call, fault);
            let (expected, failed, db) = churn(&fs);
            let what = format!("{fault:?} at {call}");
            if let Some(db) = db.filter(|db| !db.stats().poisoned) {
                assert_eq!(contents(&db).unwrap(), expected, "{what}");
                db.flush().unwrap();
                rest(&db);
                // What was tried again left nothing behind; only a removal that fails does.
                if fault == Fault::TornNoSpace {
                    assert_eq!(db.stats().blob_files, blobs(&fs).len(), "{what}: orphans");
                }
            }
            check(&fs.power_loss(call), &expected, failed.as_ref(), &what);
        }
    }
}

/// Large values under `keys` keys, each overwritten about `rounds` times in random order.
fn overwritten(options: &Options, keys: u32, rounds: u32) -> (SimFs, Db, u64) {
    let fs = SimFs::new();
    let db = Db::open(dir(), options.clone(), env(&fs)).unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    for number in 0..keys {
        write(&db, &key(number), &noise(u64::from(number), 1000));
    }
    let mut most = 0;
    for number in 0..keys * rounds {
        write(
            &db,
            &key(random.u32(..keys)),
            &noise(u64::from(number), 1000),
        );
        most = most.max(db.stats().blob_bytes);
    }
    db.flush().unwrap();
    (fs, db, most)
}

fn write(db: &Db, key: &[u8], value: &[u8]) {
    let mut batch = WriteBatch::new();
    batch.put(key, value);
    db.blocking().write(batch, Durability::Process).unwrap();
}

fn size_on_disk(fs: &SimFs) -> usize {
    let files = fs.dump().into_iter();
    files
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "sst" || e == "blob"))
        .map(|(_, bytes)| bytes.len())
        .sum()
}

#[test]
fn overwritten_values_give_their_space_back() {
    let mut options = Options::tiny();
    options.memtable_bytes = 32 << 10;
    options.table_bytes = 16 << 10;
    options.blob_file_bytes = 32 << 10;
    let (fs, db, most) = overwritten(&options, 400, 6);
    let live = 400 * 1000;
    assert!(most < live * 22 / 10, "{most} bytes at most");
    rest(&db);
    let stats = db.stats();
    assert!(stats.blob_relocated_bytes > 0, "{stats:?}");
    let size = size_on_disk(&fs) as u64;
    assert!(size < live * 16 / 10, "{size} bytes at rest, {stats:?}");
    // Written: once by its flush, and what collection adds.
    let written = stats.blob_written_bytes as f64 / (7.0 * live as f64);
    println!("blob bytes at most {most}, at rest {size}, for {live}; written {written:.2}");
    assert!(written < 2.2, "{written}");
}

#[test]
fn deleted_values_give_their_space_back_although_no_key_is_written_again() {
    let mut options = Options::tiny();
    options.memtable_bytes = 16 << 10;
    let (fs, db, _) = overwritten(&options, 100, 0);
    rest(&db);
    let before = size_on_disk(&fs);
    // Four of five in each neighbourhood, so that all files keep something.
    for number in (0..100).filter(|number| number % 5 > 0) {
        db.blocking().delete(&key(number)).unwrap();
    }
    db.flush().unwrap();
    rest(&db);
    let stats = db.stats();
    assert!(stats.blob_relocated_bytes > 0, "{stats:?}");
    let after = size_on_disk(&fs);
    assert!(after < before / 3, "{before} {after}");
    assert_eq!(contents(&db).unwrap().len(), 20);
    drop(db);
    let db = Db::open(dir(), options, env(&fs.power_loss(1))).unwrap();
    assert_eq!(contents(&db).unwrap().len(), 20);
}

#[test]
fn a_file_stays_as_long_as_a_reader_may_need_it_and_no_longer() {
    let fs = SimFs::new();
    let db = Db::open(dir(), quiet(), env(&fs)).unwrap();
    let old: Map = (0..20)
        .map(|number| (key(number), noise(u64::from(number), 500)))
        .collect();
    for (key, value) in &old {
        write(&db, key, value);
    }
    db.flush().unwrap();
    let before = blobs(&fs);
    assert!(before.len() > 3, "{}", before.len());
    let snapshot = db.snapshot();
    let mut iter = snapshot.iter::<&[u8]>(..);
    let first = iter.next().unwrap().unwrap();
    let Read::NeedsIo(job) = db.get(&key(7)) else {
        panic!("a separated value is not in memory")
    };
    drop(snapshot);
    for number in 0..20 {
        write(&db, &key(number), b"small");
    }
    db.flush().unwrap();
    rest(&db);
    assert_eq!(db.stats().blob_files, 0, "nothing points there any more");
    for (path, _) in &before {
        assert!(blobs(&fs).iter().any(|(there, _)| there == path));
    }
    // Those who began before still read.
    let rest_of: Map = iter
        .map(|entry| entry.map(|entry| (entry.key.to_vec(), entry.value.to_vec())))
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(first.value, old[&key(0)]);
    assert_eq!(rest_of.len(), 19);
    assert!(rest_of.iter().all(|(key, value)| old[key] == *value));
    assert_eq!(job.run().unwrap().unwrap().value, old[&key(7)]);
    db.flush().unwrap();
    write(&db, b"x", b"y");
    db.flush().unwrap();
    assert_eq!(blobs(&fs).len(), 0);
}

#[test]
fn a_snapshot_keeps_old_values_through_relocations() {
    let mut options = Options::tiny();
    options.memtable_bytes = 8 << 10;
    let fs = SimFs::new();
    let db = Db::open(dir(), options, env(&fs)).unwrap();
    let old: Map = (0..40)
        .map(|number| (key(number), noise(u64::from(number), 500)))
        .collect();
    // Neighbours that are gone soon, so that the files are garbage for a large part.
    for (key, value) in &old {
        write(&db, key, value);
        write(&db, &[key, &b"+"[..]].concat(), &noise(1, 900));
    }
    for key in old.keys() {
        db.blocking().delete(&[key, &b"+"[..]].concat()).unwrap();
    }
    let snapshot = db.snapshot();
    for round in 0..4u64 {
        for number in 0..40 {
            write(&db, &key(number), &noise(1000 + round, 400));
        }
        db.flush().unwrap();
        rest(&db);
        for (key, value) in &old {
            assert_eq!(snapshot.get(key).unwrap().unwrap().value, *value);
        }
        let found = snapshot.iter::<&[u8]>(..).map(|entry| entry.unwrap().value);
        assert!(found.eq(old.values().cloned()));
    }
    assert!(db.stats().blob_relocated_bytes > 0);
    drop(snapshot);
    for number in 0..40 {
        write(&db, &key(number), &noise(2000, 400));
    }
    db.flush().unwrap();
    rest(&db);
    let size = size_on_disk(&fs);
    assert!(size < 40 * 400 * 17 / 10, "{size}");
}

/// A closed store with twenty large and twenty small values in tables and blob files that nothing compacts.
fn damageable() -> (SimFs, Map) {
    let fs = SimFs::new();
    let db = Db::open(dir(), quiet(), env(&fs)).unwrap();
    let mut all = Map::new();
    for number in 0..40 {
        let length = if number % 2 == 0 { 300 } else { 20 };
        all.insert(key(number), noise(u64::from(number), length));
    }
    for (key, value) in &all {
        write(&db, key, value);
    }
    db.flush().unwrap();
    db.close().unwrap();
    (fs, all)
}

/// Rewrites values that begin with 1 to large ones and with 2 to small ones, and drops those with 3.
struct ByFirstByte;

impl CompactionFilter for ByFirstByte {
    fn decide(&self, key: &[u8], _seq: Seq, value: &[u8]) -> Verdict {
        assert_eq!(key[0], value[0], "the filter gets the value, not a pointer");
        match (value[0], value.len()) {
            (1, ..300) => Verdict::Rewrite([&[1], &noise(1, 400)[..]].concat()),
            (2, 300..) => Verdict::Rewrite(vec![2; 10]),
            (3, _) => Verdict::Drop(3),
            _ => Verdict::Keep,
        }
    }

    fn expires(&self, key: &[u8], value: &[u8]) -> Option<u64> {
        assert_eq!(key[0], value[0]);
        Some(1000)
    }
}

#[test]
fn the_filter_sees_values_and_may_make_them_large_or_small() {
    let fs = SimFs::new();
    let hooks = Hooks {
        filter: Some(Arc::new(ByFirstByte)),
        ..Hooks::default()
    };
    let env = Env { hooks, ..env(&fs) };
    let db = Db::open(dir(), Options::tiny(), env).unwrap();
    for number in 0..40u8 {
        let first = number % 5;
        let length = if number % 2 == 0 { 20 } else { 500 };
        let mut value = noise(u64::from(number), length);
        value[0] = first;
        write(&db, &[first, number], &value);
    }
    db.flush().unwrap();
    rest(&db);
    let found = contents(&db).unwrap();
    assert_eq!(found.len(), 32);
    for (key, value) in found {
        let length = match key[0] {
            1 => 401..=500,
            2 => 10..=20,
            _ if key[1].is_multiple_of(2) => 20..=20,
            _ => 500..=500,
        };
        assert!(length.contains(&value.len()), "{key:?} {}", value.len());
    }
    let stats = db.stats();
    assert_eq!(stats.filter_drops[&3], 8);
    // Two groups of four stay large, and one became large as a whole.
    let verified = {
        db.close().unwrap();
        tools::verify(Arc::new(fs.clone()), dir()).unwrap()
    };
    assert!(verified.findings.is_empty(), "{verified:?}");
    assert!(verified.blob_values >= 4 + 4 + 8, "{verified:?}");
}

#[test]
fn the_threshold_may_change_at_each_open() {
    let fs = SimFs::new();
    let mut all = Map::new();
    let mut random = fastrand::Rng::with_seed(9);
    for (round, threshold) in [0, 64, 0, 300, 64, 0].into_iter().enumerate() {
        let mut options = Options::tiny();
        options.blob_value_bytes = threshold;
        let db = Db::open(dir(), options, env(&fs)).unwrap();
        for number in 0..60 {
            let key = key(random.u32(..30));
            let value = noise(number + round as u64 * 100, random.usize(..500));
            write(&db, &key, &value);
            all.insert(key, value);
        }
        db.flush().unwrap();
        rest(&db);
        assert_eq!(contents(&db).unwrap(), all, "round {round}");
        let stats = db.stats();
        assert_eq!(stats.blob_files, blobs(&fs).len(), "round {round}");
        match (round, threshold) {
            (0, _) => assert_eq!(stats.blob_files, 0),
            (_, 64) => assert!(stats.blob_files > 0, "{stats:?}"),
            _ => {}
        }
        db.close().unwrap();
    }
}

#[test]
fn a_checkpoint_keeps_its_values_when_the_store_lets_them_go() {
    let (fs, all) = damageable();
    let db = Db::open(dir(), quiet(), env(&fs)).unwrap();
    let target = Path::new("/copy");
    db.checkpoint(target).unwrap();
    for key in all.keys() {
        db.blocking().delete(key).unwrap();
    }
    db.flush().unwrap();
    rest(&db);
    assert_eq!(db.stats().blob_files, 0);
    assert_eq!(blobs(&fs).len(), 0);
    drop(db);
    let fs = fs.power_loss(3);
    let copy = Db::open(target, quiet(), env(&fs)).unwrap();
    assert_eq!(contents(&copy).unwrap(), all);
    copy.close().unwrap();
    let verified = tools::verify(Arc::new(fs.clone()), target).unwrap();
    assert!(verified.findings.is_empty() && verified.blob_files > 0);
}

#[test]
fn point_reads_of_large_values_are_jobs_and_small_ones_may_be_cached() {
    let (fs, all) = damageable();
    let mut options = quiet();
    options.cache_bytes = 64 << 10;
    let db = Db::open(dir(), options, env(&fs)).unwrap();
    let size = db.approximate_size::<&[u8]>(..);
    assert!(size > 20 * 300, "{size}");
    let half = db.approximate_size(..key(20));
    assert!((size / 4..size * 3 / 4).contains(&half), "{half} of {size}");
    for _ in 0..3 {
        match db.get(&key(2)) {
            Read::NeedsIo(job) => {
                assert_eq!(job.run().unwrap().unwrap().value, all[&key(2)]);
            }
            Read::Ready(found) => {
                assert_eq!(found.unwrap().unwrap().value, all[&key(2)]);
                assert!(db.stats().row_cache_hits > 0);
            }
        }
    }
    assert!(matches!(db.get(&key(2)), Read::Ready(Ok(Some(_)))));
    // An absent key, and a deleted one, need no value.
    db.blocking().delete(&key(4)).unwrap();
    assert!(matches!(db.get(&key(4)), Read::Ready(Ok(None))));
}

#[test]
fn tools_show_verify_and_save_large_values() {
    let (fs, all) = damageable();
    let arc = || -> Arc<dyn Fs> { Arc::new(fs.clone()) };
    let verified = tools::verify(arc(), dir()).unwrap();
    assert!(verified.findings.is_empty());
    assert_eq!(verified.blob_values, 20);
    assert_eq!(verified.blob_files as usize, blobs(&fs).len());
    let dumped = |file: Option<&str>, keys_only| {
        let mut out = Vec::new();
        let damaged = tools::dump(arc(), dir(), file, keys_only, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        (text.lines().map(str::to_owned).collect::<Vec<_>>(), damaged)
    };
    let (lines, damaged) = dumped(None, false);
    assert_eq!((lines.len(), damaged), (40, 0));
    assert!(lines[0].contains(&all[&key(0)].escape_ascii().to_string()));
    let (path, bytes) = blobs(&fs).remove(0);
    let name = path.file_name().unwrap().to_str().unwrap();
    let (lines, damaged) = dumped(Some(name), true);
    assert!(damaged == 0 && lines[0] == "32 300 bytes", "{lines:?}");
    let mut out = Vec::new();
    tools::summarize(arc(), dir(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.contains("blob files, ") && text.contains(" are garbage"),
        "{text}"
    );
    // Without a manifest too: tables say themselves where their values lie.
    for (file, _) in fs.dump() {
        let name = file.file_name().unwrap().to_string_lossy();
        if name.starts_with("MANIFEST") || name == "CURRENT" {
            fs.remove(&file).unwrap();
        }
    }
    let mut bad = bytes;
    bad[32 + 12] ^= 1;
    fs.overwrite(&path, bad).unwrap();
    let target = Path::new("/saved");
    let report = tools::repair(arc(), dir(), target, &Options::tiny()).unwrap();
    assert_eq!(report.keys, 39);
    assert!(
        report
            .losses
            .iter()
            .any(|loss| loss.range.contains(&key(0)) && loss.file == path)
    );
    let db = Db::open(target, Options::tiny(), env(&fs)).unwrap();
    let mut expected = all;
    expected.remove(&key(0));
    assert_eq!(contents(&db).unwrap(), expected);
}
