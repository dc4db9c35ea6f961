//! Damage in files of large values touches one key, and is told.

use super::{blobs, damageable, key, quiet, rest, write};
use crate::support::{ManualJobs, contents, dir, env, env_with, with_events};
use kv_storage::fs::Fs;
use kv_storage::sim::{Fault, SimFs};
use kv_storage::{Db, Durability, Error, KeyRange, WriteBatch, tools};
use std::path::Path;
use std::sync::Arc;

fn with(fs: &SimFs, path: &Path, bytes: Vec<u8>) -> SimFs {
    let fs = fs.fork();
    fs.overwrite(path, bytes).unwrap();
    fs
}

fn is_of_key(error: &Error, wanted: &[u8], path: &Path) -> bool {
    matches!(error, Error::Corrupt { file, range: KeyRange::Between { first, last }, .. }
        if **first == *wanted && **last == *wanted && file == path)
}

#[test]
fn every_flipped_bit_of_a_blob_file_is_noticed_or_harmless_and_touches_one_key() {
    let (fs, all) = damageable();
    let (path, bytes) = blobs(&fs).remove(0);
    let (mut fenced, mut harmless) = (0, 0);
    for bit in 0..bytes.len() * 8 {
        // Each byte once, every bit of the header, the first record's head and the footer.
        if !(bit < 60 * 8 || bit > (bytes.len() - 40) * 8 || bit % 8 == bit / 8 % 8) {
            continue;
        }
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let fs = with(&fs, &path, bad);
        let verified = tools::verify(Arc::new(fs.clone()), dir()).unwrap();
        assert!(!verified.findings.is_empty(), "bit {bit}: {verified:?}");
        assert!(verified.findings.iter().all(|finding| finding.file == path));
        let db = Db::open(dir(), quiet(), env(&fs)).unwrap();
        let failed: Vec<&Vec<u8>> = all
            .iter()
            .filter(|(key, value)| match db.blocking().get(key) {
                Ok(found) => {
                    assert_eq!(found.unwrap().value, **value, "bit {bit}");
                    false
                }
                Err(error) => {
                    assert!(is_of_key(&error, key, &path), "bit {bit}: {error}");
                    true
                }
            })
            .map(|(key, _)| key)
            .collect();
        assert!(failed.len() <= 1, "bit {bit}: {failed:?}");
        fenced += failed.len();
        harmless += 1 - failed.len();
    }
    assert!(fenced > 1000 && harmless > 300, "{fenced} {harmless}");
}

#[test]
fn damage_fences_one_key_is_told_once_and_is_healed_by_a_write() {
    let (fs, all) = damageable();
    let (path, mut bytes) = blobs(&fs).remove(0);
    // The sixth record, each of which has 12 + 301 bytes.
    bytes[32 + 5 * 313 + 12 + 100] ^= 1;
    let fs = with(&fs, &path, bytes);
    let (env, told) = with_events(env(&fs));
    let db = Db::open(dir(), quiet(), env).unwrap();
    let bad = key(10);
    for _ in 0..2 {
        let error = db.blocking().get(&bad).unwrap_err();
        assert!(is_of_key(&error, &bad, &path), "{error}");
    }
    let snapshot = db.snapshot();
    let forward: Vec<_> = snapshot.iter::<&[u8]>(..).collect();
    assert!(forward.len() == 11 && forward[..10].iter().all(Result::is_ok) && forward[10].is_err());
    let backward: Vec<_> = snapshot.iter::<&[u8]>(..).rev().collect();
    assert!(backward.len() == 30 && backward[..29].iter().all(Result::is_ok));
    assert!(backward[29].is_err());
    // A scan that ends before it, or begins behind it, does not hear of it.
    for range in [..key(10), ..key(9)] {
        assert!(snapshot.iter(range).all(|entry| entry.is_ok()));
    }
    for range in [key(11).., [&key(10)[..], b"+"].concat()..] {
        assert!(snapshot.iter(range.clone()).all(|entry| entry.is_ok()));
        assert!(snapshot.iter(range).rev().all(|entry| entry.is_ok()));
    }
    let report = db.blocking().scrub();
    assert_eq!((report.found.len(), report.values), (1, 20));
    let told = told.damaged.lock().unwrap().clone();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].range, KeyRange::between(&bad, &bad));
    assert!(told[0].hides_data && told[0].file == path);
    write(&db, &bad, b"new");
    assert_eq!(db.blocking().get(&bad).unwrap().unwrap().value, "new");
    assert_eq!(contents(&db).unwrap().len(), all.len());
}

#[test]
fn a_missing_file_fences_only_the_keys_that_point_there() {
    let (fs, all) = damageable();
    let files = blobs(&fs);
    assert!(files.len() > 2);
    fs.remove(&files[1].0).unwrap();
    let (env, told) = with_events(env(&fs));
    let db = Db::open(dir(), quiet(), env).unwrap();
    let mut failed = 0;
    for (key, value) in &all {
        match db.blocking().get(key) {
            Ok(found) => assert_eq!(found.unwrap().value, *value),
            Err(error) => {
                assert!(is_of_key(&error, key, &files[1].0), "{error}");
                failed += 1;
            }
        }
    }
    assert!((3..15).contains(&failed), "{failed}");
    assert_eq!(told.damaged.lock().unwrap().len(), failed);
    // What a deleted range hides is not read, in whichever table that is.
    for _ in 0..2 {
        let mut batch = WriteBatch::new();
        batch.delete_range(key(0)..key(40));
        db.blocking().write(batch, Durability::Sync).unwrap();
        for key in all.keys() {
            assert_eq!(db.blocking().get(key).unwrap(), None);
        }
        assert!(contents(&db).unwrap().is_empty());
        db.flush().unwrap();
        rest(&db);
    }
    assert_eq!(db.stats().blob_files, 0);
}

#[test]
fn a_bit_that_flips_while_a_value_is_read_harms_nothing() {
    let (fs, all) = damageable();
    for number in (0..40).step_by(2) {
        let db = Db::open(dir(), quiet(), env(&fs)).unwrap();
        let _ = db.blocking().get(&key(number)).unwrap();
        fs.plan(fs.calls(), Fault::FlippedRead);
        let found = db.blocking().get(&key(number)).unwrap().unwrap();
        assert_eq!(found.value, all[&key(number)]);
        db.close().unwrap();
    }
}

#[test]
fn a_compaction_leaves_a_damaged_value_where_it_is_and_ends() {
    let (fs, all) = damageable();
    let (path, mut bytes) = blobs(&fs).remove(0);
    bytes[32 + 12 + 100] ^= 1;
    let fs = with(&fs, &path, bytes.clone());
    let jobs = Arc::new(ManualJobs::default());
    let (env, told) = with_events(env_with(&fs, jobs.clone()));
    let db = Db::open(dir(), quiet(), env).unwrap();
    let bad = key(0);
    // All neighbours but one are deleted: the file is garbage for the most part, and two values are left.
    for number in (4..40).step_by(2) {
        db.blocking().delete(&key(number)).unwrap();
    }
    db.flush().unwrap();
    for _ in 0..20 {
        db.tick();
        for step in 0.. {
            if jobs.run_one().is_none() {
                break;
            }
            assert!(step < 500, "it goes on for ever");
        }
    }
    assert_eq!(told.damaged.lock().unwrap().len(), 1);
    let stats = db.stats();
    assert!(
        stats.compactions > 0 && stats.background_failures == 0,
        "{stats:?}"
    );
    let error = db.blocking().get(&bad).unwrap_err();
    assert!(is_of_key(&error, &bad, &path), "{error}");
    for number in (1..40).step_by(2).chain([2]) {
        let found = db.blocking().get(&key(number)).unwrap().unwrap();
        assert_eq!(found.value, all[&key(number)]);
    }
    db.close().unwrap();
    // The pointer is still there: with the file restored, so is the value.
    bytes[32 + 12 + 100] ^= 1;
    let db = Db::open(
        dir(),
        quiet(),
        crate::support::env(&with(&fs, &path, bytes)),
    )
    .unwrap();
    assert_eq!(db.blocking().get(&bad).unwrap().unwrap().value, all[&bad]);
}
