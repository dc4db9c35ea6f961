//! Stores written in older formats open, read right, and are taken over by later writes.

use crate::support::contents;
use kv_storage::{Db, Durability, Env, Options, WriteBatch};
use std::collections::BTreeMap;
use std::path::Path;

/// Copies a store of `tests/fixtures`, which opening would change.
fn fixture(name: &str) -> tempfile::TempDir {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let from = fixtures.join(name);
    let to = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
    }
    to
}

/// What was written to each of them: three rounds, of which the last lies in the log alone.
fn expected() -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut expected = BTreeMap::new();
    for round in 0..3usize {
        for number in (round..250).step_by(round + 1) {
            let key = format!("key{number:05}").into_bytes();
            if number % 7 == round {
                expected.remove(&key);
            } else {
                let value = format!("{round}/{number} ").repeat(number % 9);
                expected.insert(key, value.into_bytes());
            }
        }
    }
    expected
}

#[test]
fn stores_of_older_formats_read_right_before_and_after_they_are_rewritten() {
    for name in ["v1", "v2"] {
        rewrite(name);
    }
}

fn rewrite(name: &str) {
    let dir = fixture(name);
    let mut expected = expected();
    let db = Db::open(dir.path(), Options::tiny(), Env::embedded(1)).unwrap();
    assert_eq!(contents(&db).unwrap(), expected);
    for number in 0..250 {
        let key = format!("key{number:05}").into_bytes();
        let found = db.blocking().get(&key).unwrap();
        assert_eq!(
            found.map(|found| found.value.to_vec()).as_ref(),
            expected.get(&key)
        );
    }

    // Enough writes to have every old table compacted.
    for round in 0..40u32 {
        let mut batch = WriteBatch::new();
        for number in (0..250).step_by(3) {
            let key = format!("key{number:05}").into_bytes();
            let value = vec![round as u8; 40];
            batch.put(&key, &value);
            expected.insert(key, value);
        }
        db.blocking().write(batch, Durability::Process).unwrap();
    }
    db.flush().unwrap();
    assert!(db.stats().compactions > 0);
    assert_eq!(contents(&db).unwrap(), expected);
    db.close().unwrap();
    let db = Db::open(dir.path(), Options::tiny(), Env::embedded(1)).unwrap();
    assert_eq!(contents(&db).unwrap(), expected);
}
