//! Damage in a table fences the keys that it touches, and nothing else.

use crate::support::{Told, dir, env, with_events};
use kv_storage::fs::Fs;
use kv_storage::sim::SimFs;
use kv_storage::{Db, Error, KeyRange, Options};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// Nothing may be rewritten before it is read, and nothing may be answered from a cache.
fn quiet() -> Options {
    let mut options = Options::tiny();
    options.level0_trigger = 11;
    options.cache_bytes = 0;
    options
}

fn open(fs: &SimFs) -> (Db, Arc<Told>) {
    let (env, told) = with_events(env(fs));
    let db = Db::open(dir(), quiet(), env).unwrap();
    (db, told)
}

fn key(number: u32) -> Vec<u8> {
    format!("key{number:04}").into_bytes()
}

/// A closed store of several tables in several levels, some of them over others.
fn store() -> (SimFs, Contents) {
    let fs = SimFs::new();
    let mut contents = Contents::new();
    let mut random = fastrand::Rng::with_seed(5);
    let mut larger = Options::tiny();
    larger.table_bytes = 2 << 10;
    for (options, count) in [(larger, 600), (quiet(), 340)] {
        let db = Db::open(dir(), options, env(&fs)).unwrap();
        for number in 0..count {
            // Not all keys, so that scans also begin between them.
            let key = key(random.u32(..200) * 2);
            let value: String = (0..random.usize(..60))
                .map(|_| random.alphanumeric())
                .collect();
            let value = format!("{number} {value}").into_bytes();
            db.blocking().put(&key, &value).unwrap();
            contents.insert(key, value);
        }
        db.flush().unwrap();
        db.close().unwrap();
    }
    (fs, contents)
}

fn tables(fs: &SimFs) -> Vec<(PathBuf, Vec<u8>)> {
    let is_table = |path: &Path| path.extension().is_some_and(|ending| ending == "sst");
    let all = fs.dump().into_iter();
    all.filter(|(path, _)| is_table(path)).collect()
}

/// Where a handle of the footer points to: 0 is the filter, 1 the index, 2 the properties.
fn block_of(bytes: &[u8], handle: usize) -> usize {
    let at = bytes.len() - 92 + 20 * handle;
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

fn range_of(error: &Error, file: &Path, what: &str) -> KeyRange {
    match error {
        Error::Corrupt {
            file: found, range, ..
        } if found == file => range.clone(),
        other => panic!("{what}: {other}"),
    }
}

/// Reads everything in all ways. What is answered must be right, and what is not must lie in the range
/// of the error. Returns the keys that could not be answered.
fn check(db: &Db, contents: &Contents, file: &Path, what: &str) -> Vec<Vec<u8>> {
    let mut fenced = Vec::new();
    let mut ranges = Vec::new();
    for key in (0..402).map(key) {
        match db.blocking().get(&key) {
            Ok(found) => assert_eq!(
                found.map(|found| found.value.to_vec()).as_ref(),
                contents.get(&key),
                "{what}"
            ),
            Err(error) => {
                let range = range_of(&error, file, what);
                assert!(range.contains(&key), "{what}: {error}");
                fenced.push(key);
                ranges.push(range);
            }
        }
    }
    let expected = |range: (Bound<Vec<u8>>, Bound<Vec<u8>>)| -> Vec<Vec<u8>> {
        contents.range(range).map(|(key, _)| key.clone()).collect()
    };
    for start in (0..402).step_by(23).map(key) {
        let from = (Bound::Included(start.clone()), Bound::Unbounded);
        let (found, error) = scan(db, from.clone(), false, contents);
        match error {
            None => assert_eq!(found, expected(from), "{what}"),
            Some(error) => {
                let KeyRange::Between { first, last } = range_of(&error, file, what) else {
                    panic!("{what}: {error}")
                };
                // All keys in front of the damage came.
                let all = expected((Bound::Included(start.clone()), Bound::Unbounded));
                let in_front = all.iter().filter(|key| ***key < *first).count();
                assert!(found.len() >= in_front, "{what} from {start:?}: {error}");
                assert!(*start <= *last, "{what}: the scan began behind the damage");
                // A scan that ends in front of it does not hear of it.
                let bound = Bound::Excluded(first.to_vec());
                if *start < *first {
                    let (found, error) = scan(db, (Bound::Included(start), bound), false, contents);
                    assert!(
                        error.is_none() && found.len() == in_front,
                        "{what}: {error:?}"
                    );
                }
            }
        }
    }
    for end in (0..402).step_by(29).map(key) {
        let to = (Bound::Unbounded, Bound::Excluded(end.clone()));
        let (found, error) = scan(db, to.clone(), true, contents);
        match error {
            None => assert_eq!(found.len(), expected(to).len(), "{what}"),
            Some(error) => {
                let KeyRange::Between { first, last } = range_of(&error, file, what) else {
                    panic!("{what}: {error}")
                };
                let behind = expected(to).iter().filter(|key| ***key > *last).count();
                assert!(found.len() >= behind, "{what} back from {end:?}: {error}");
                assert!(*end > *first, "{what}");
                if *end > *last {
                    let bounds = (Bound::Excluded(last.to_vec()), Bound::Excluded(end));
                    let (found, error) = scan(db, bounds, true, contents);
                    assert!(
                        error.is_none() && found.len() == behind,
                        "{what}: {error:?}"
                    );
                }
            }
        }
    }
    fenced
}

/// The keys that a scan gave, and its error. Values are checked.
fn scan(
    db: &Db,
    range: (Bound<Vec<u8>>, Bound<Vec<u8>>),
    backward: bool,
    contents: &Contents,
) -> (Vec<Vec<u8>>, Option<Error>) {
    let mut keys = Vec::new();
    let snapshot = db.snapshot();
    let iter = snapshot.iter(range);
    let entries: Vec<_> = if backward {
        iter.rev().collect()
    } else {
        iter.collect()
    };
    for entry in entries {
        match entry {
            Ok(entry) => {
                let value = contents.get(&entry.key[..]);
                assert_eq!(value.map(|value| &value[..]), Some(&entry.value[..]));
                keys.push(entry.key.to_vec());
            }
            Err(error) => return (keys, Some(error)),
        }
    }
    (keys, None)
}

fn with(fs: &SimFs, path: &Path, bytes: Vec<u8>) -> SimFs {
    let fs = fs.fork();
    fs.overwrite(path, bytes).unwrap();
    fs
}

#[test]
fn damage_in_any_part_of_a_table_fences_only_the_keys_of_that_part() {
    let (fs, contents) = store();
    let tables = tables(&fs);
    assert!(tables.len() > 3, "{}", tables.len());
    let mut partly = 0;
    for (path, bytes) in &tables {
        let flip = |at: usize| {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            with(&fs, path, bad)
        };
        let missing = fs.fork();
        missing.remove(path).unwrap();
        let footer = bytes.len() - 50;
        let kinds = [
            ("a block", flip(10)),
            ("the last block", flip(block_of(bytes, 0) - 3)),
            ("the index", flip(block_of(bytes, 1) + 2)),
            ("the properties", flip(block_of(bytes, 2) + 2)),
            ("the footer", flip(footer)),
            ("the magic", flip(bytes.len() - 1)),
            (
                "the end",
                with(&fs, path, bytes[..bytes.len() / 2].to_vec()),
            ),
            ("everything", with(&fs, path, Vec::new())),
            ("the file", missing),
        ];
        for (part, fs) in kinds {
            let what = format!("{part} of {}", path.display());
            let (db, told) = open(&fs);
            let fenced = check(&db, &contents, path, &what);
            assert!(fenced.len() < 402, "{what}: everything is fenced");
            partly += usize::from(!fenced.is_empty());
            // Told once, with the keys.
            let told = told.damaged.lock().unwrap();
            assert_eq!(
                told.len(),
                usize::from(!told.is_empty()),
                "{what}: {told:?}"
            );
            assert!(
                told.iter()
                    .all(|damage| damage.hides_data && damage.file == *path)
            );
            let is_told = |key: &Vec<u8>| told.iter().any(|damage| damage.range.contains(key));
            assert!(fenced.iter().all(is_told), "{what}: {told:?}");
            assert_eq!(db.stats().damaged_places, told.len());
            // What is written now is newer than the damage, and can be answered.
            for key in &fenced {
                db.blocking().put(key, b"new").unwrap();
                let found = db.blocking().get(key).unwrap().unwrap();
                assert_eq!(found.value, "new", "{what}");
            }
            db.flush().unwrap();
            for key in &fenced {
                assert_eq!(db.blocking().get(key).unwrap().unwrap().value, "new");
            }
        }
    }
    assert!(partly > 10, "{partly}");
}

#[test]
fn a_damaged_filter_costs_only_speed_and_is_told() {
    let (fs, contents) = store();
    let mut told_of = 0;
    for (path, bytes) in tables(&fs) {
        let mut bad = bytes.clone();
        bad[block_of(&bytes, 0) + 1] ^= 1;
        let (db, told) = open(&with(&fs, &path, bad));
        let told_at_open = told.damaged.lock().unwrap().clone();
        assert_eq!(told_at_open.len(), 1);
        assert!(!told_at_open[0].hides_data && told_at_open[0].file == path);
        assert_eq!(
            check(&db, &contents, &path, "filter"),
            Vec::<Vec<u8>>::new()
        );
        told_of += told.damaged.lock().unwrap().len();
    }
    assert_eq!(told_of, tables(&fs).len());
}

#[test]
fn an_error_names_the_keys_readably() {
    let (fs, _) = store();
    let (path, mut bytes) = tables(&fs).pop().unwrap();
    bytes[10] ^= 1;
    let (db, told) = open(&with(&fs, &path, bytes));
    let error = (0..400).find_map(|number| db.blocking().get(&key(number)).err());
    let message = error.unwrap().to_string();
    assert!(
        message.contains("the keys \"key0") && message.contains(".sst"),
        "{message}"
    );
    assert_eq!(told.damaged.lock().unwrap().len(), 1);
}
