//! Damaged, shortened and missing files: an error that names the file, or right data. Never a
//! panic, never wrong data.

use crate::support::{Outcome, Workload, contents, dir, env, open};
use kv_storage::sim::SimFs;
use kv_storage::{Db, Durability, Error, OpenError, Options, tools};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A small store that was closed: log, manifest and tables of two levels.
fn closed_store() -> (SimFs, Workload) {
    let workload = Workload::new(40, Durability::Sync);
    let fs = SimFs::new();
    let outcome = workload.run(&fs);
    assert_eq!(outcome.acked, 40);
    let dump = fs.dump();
    let kinds = |ending: &str| {
        dump.keys()
            .filter(|path| path.to_string_lossy().contains(ending))
            .count()
    };
    assert!(
        kinds(".sst") >= 2 && kinds(".log") >= 1 && kinds("MANIFEST") == 1,
        "{:?}",
        dump.keys()
    );
    (fs, workload)
}

/// Opens and reads everything. `None` if damage was reported.
fn read(fs: &SimFs, path: &Path) -> Option<std::collections::BTreeMap<Vec<u8>, Vec<u8>>> {
    let check = |error: &Error| match error {
        Error::Corrupt { file, .. } => assert!(file.starts_with(dir()), "{error}"),
        Error::Io { .. } => {}
        other => panic!("{}: {other}", path.display()),
    };
    let mut options = Options::tiny();
    // Nothing may be rewritten before it is read.
    options.level0_trigger = 11;
    match Db::open(dir(), options, env(fs)) {
        Ok(db) => contents(&db).inspect_err(check).ok(),
        Err(OpenError::Storage(error)) => {
            check(&error);
            None
        }
        Err(OpenError::NewerFormat { .. }) => None,
        Err(other) => panic!("{}: {other}", path.display()),
    }
}

fn damage(fs: &SimFs, path: &Path, bytes: Vec<u8>) -> SimFs {
    let fs = fs.fork();
    fs.overwrite(path, bytes).unwrap();
    fs
}

fn files(fs: &SimFs) -> Vec<(PathBuf, Vec<u8>)> {
    fs.dump().into_iter().collect()
}

#[test]
fn every_flipped_bit_of_a_closed_store_is_noticed_or_harmless() {
    let (fs, workload) = closed_store();
    let complete = &workload.states[40];
    let mut noticed = 0;
    for (path, bytes) in files(&fs) {
        // What lies behind the last byte that is used was never anything but zeros.
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 9);
        for bit in 0..used.min(bytes.len()) * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            match read(&damage(&fs, &path, bad), &path) {
                Some(found) => assert_eq!(&found, complete, "{} bit {bit}", path.display()),
                None => noticed += 1,
            }
        }
    }
    assert!(noticed > 10_000, "{noticed}");
}

#[test]
fn every_truncation_of_a_closed_store_is_noticed_or_harmless() {
    let (fs, workload) = closed_store();
    let complete = &workload.states[40];
    for (path, bytes) in files(&fs) {
        for end in 0..bytes.len() {
            if let Some(found) = read(&damage(&fs, &path, bytes[..end].to_vec()), &path) {
                assert_eq!(&found, complete, "{} cut at {end}", path.display());
            }
        }
        let mut longer = bytes.clone();
        longer.extend_from_slice(&[0; 100]);
        if let Some(found) = read(&damage(&fs, &path, longer), &path) {
            assert_eq!(&found, complete, "{} with zeros behind", path.display());
        }
    }
}

#[test]
fn a_missing_file_is_noticed() {
    let (fs, workload) = closed_store();
    for (path, bytes) in files(&fs) {
        let fs = fs.fork();
        kv_storage::fs::Fs::remove(&fs, &path).unwrap();
        let found = read(&fs, &path);
        // A spare log segment is not missed: it carries no number yet, or an older one.
        let named = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        let is_spare = path.extension().is_some_and(|ending| ending == "log")
            && named
                != bytes
                    .get(12..20)
                    .map(|id| u64::from_le_bytes(id.try_into().unwrap()));
        if path.extension().is_some_and(|ending| ending == "blob") {
            // Newer values in the log may hide all that lie in it.
            assert!(found.is_none_or(|found| found == workload.states[40]));
        } else if path.ends_with("LOCK") || is_spare {
            assert_eq!(found.as_ref(), Some(&workload.states[40]));
        } else {
            assert_eq!(found, None, "{} is missing", path.display());
        }
    }
}

#[test]
fn swapped_tables_are_noticed() {
    let (fs, _) = closed_store();
    let tables: Vec<_> = files(&fs)
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "sst"))
        .collect();
    let swapped = damage(&fs, &tables[0].0, tables[1].1.clone());
    assert_eq!(read(&swapped, &tables[0].0), None);
}

/// After a kill the newest frames carry no promise, so damage there looks like a torn tail: a
/// prefix is right then.
#[test]
fn damage_to_the_log_of_a_killed_store_gives_a_prefix_or_an_error() {
    let workload = Workload::new(25, Durability::Sync);
    let fs = SimFs::new();
    let mut options = Options::tiny();
    options.memtable_bytes = 1 << 20;
    let db = Db::open(dir(), options, env(&fs)).unwrap();
    for batch in &workload.batches {
        db.blocking()
            .write(batch.clone(), Durability::Sync)
            .unwrap();
    }
    drop(db);
    let fs = fs.kill();
    let logs = files(&fs)
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|ending| ending == "log"));
    let mut errors = 0;
    for (path, bytes) in logs {
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            let Ok(db) = open(&damage(&fs, &path, bad)) else {
                errors += 1;
                continue;
            };
            // All but the last two writes were promised by a later frame.
            let outcome = Outcome {
                acked: 23,
                tried: 25,
            };
            assert!(
                workload.prefix(&contents(&db).unwrap(), &outcome).is_some(),
                "{} byte {at}",
                path.display()
            );
        }
    }
    assert!(errors > 1_000, "{errors}");
}

#[test]
fn a_damaged_block_fails_its_range_with_file_and_offset_and_the_rest_goes_on() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    for number in 0..200u32 {
        db.blocking()
            .put(&number.to_be_bytes(), &number.to_le_bytes().repeat(20))
            .unwrap();
    }
    db.flush().unwrap();
    db.close().unwrap();
    let (path, mut bytes) = files(&fs)
        .into_iter()
        .find(|(path, _)| path.extension().is_some_and(|e| e == "sst"))
        .unwrap();
    bytes[10] ^= 1;
    let db = open(&damage(&fs, &path, bytes)).unwrap();
    let outcomes: Vec<_> = (0..200u32)
        .map(|number| db.blocking().get(&number.to_be_bytes()))
        .collect();
    let failed: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| outcome.as_ref().err())
        .collect();
    assert!(
        !failed.is_empty() && failed.len() < 100,
        "{} reads failed",
        failed.len()
    );
    for error in failed {
        assert!(
            matches!(error, Error::Corrupt { file, offset: 0, .. } if *file == path),
            "{error}"
        );
    }
}

#[test]
fn a_damaged_last_edit_of_the_manifest_is_not_taken_for_a_torn_one_when_its_files_are_needed() {
    let workload = Workload::new(80, Durability::Sync);
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    let mut refused = 0;
    for (written, batch) in workload.batches.iter().enumerate() {
        db.blocking()
            .write(batch.clone(), Durability::Sync)
            .unwrap();
        if written % 4 != 0 {
            continue;
        }
        let dump = fs.dump();
        let is_manifest = |path: &Path| path.to_string_lossy().contains("MANIFEST");
        let (path, bytes) = dump
            .into_iter()
            .find(|(path, _)| is_manifest(path))
            .unwrap();
        let end = bytes.len();
        let flipped = (1..40.min(end - 60)).step_by(7).map(|back| {
            let mut bad = bytes.clone();
            bad[end - back] ^= 4;
            bad
        });
        let cut = [1, 5, 20].map(|back| bytes[..end - back].to_vec());
        for bad in flipped.chain(cut) {
            let fs = damage(&fs, &path, bad).kill();
            let before = fs.dump();
            let Some(found) = read(&fs, &path) else {
                refused += 1;
                let after = fs.dump();
                let is_table = |path: &&PathBuf| path.extension().is_some_and(|kind| kind == "sst");
                assert!(
                    before
                        .keys()
                        .filter(is_table)
                        .all(|table| after.contains_key(table))
                );
                let found = tools::verify(Arc::new(fs.clone()), dir()).unwrap().findings;
                assert!(
                    found.iter().any(|finding| is_manifest(&finding.file)),
                    "{found:?}"
                );
                let saved = Path::new("/saved");
                tools::repair(Arc::new(fs.clone()), dir(), saved, &Options::tiny()).unwrap();
                let saved = Db::open(saved, Options::tiny(), env(&fs)).unwrap();
                let saved = contents(&saved).unwrap();
                let expected = &workload.states[written + 1];
                assert!(
                    expected
                        .iter()
                        .all(|(key, value)| saved.get(key) == Some(value))
                );
                continue;
            };
            assert_eq!(
                found,
                workload.states[written + 1],
                "nothing is lost silently"
            );
        }
    }
    assert!(refused > 20, "only {refused} damaged edits were needed");
}
