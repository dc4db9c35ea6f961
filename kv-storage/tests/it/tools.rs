//! Verify, dump and repair, over stores with damage of every kind.

use crate::support::{contents, dir, env, put};
use kv_storage::fs::Fs;
use kv_storage::sim::{Fault, SimFs};
use kv_storage::tools::{self, ToolError};
use kv_storage::{Db, Durability, OpenError, Options, WriteBatch};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// Every value that a key ever had.
type History = BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>;

fn saved_dir() -> &'static Path {
    Path::new("/saved")
}

fn quiet() -> Options {
    let mut options = Options::tiny();
    options.level0_trigger = 11;
    options
}

/// A closed or killed store with tables in several levels, deletions, and writes that are only in the log.
fn store(closed: bool) -> (SimFs, Contents, History) {
    let fs = SimFs::new();
    let (mut contents, mut history) = (Contents::new(), History::new());
    let mut random = fastrand::Rng::with_seed(9);
    let mut larger = Options::tiny();
    larger.table_bytes = 1 << 10;
    let mut last = quiet();
    // The newest writes stay in the log.
    last.memtable_bytes = 1 << 20;
    for (options, count) in [(larger, 300), (quiet(), 120), (last, 40)] {
        let db = Db::open(dir(), options, env(&fs)).unwrap();
        for number in 0..count {
            let key = format!("key{:03}", random.u32(..90)).into_bytes();
            if random.u32(..5) == 0 {
                db.blocking().delete(&key).unwrap();
                contents.remove(&key);
                continue;
            }
            let text: String = (0..random.usize(1..150))
                .map(|_| random.alphanumeric())
                .collect();
            let value = format!("{count}.{number} {text}").into_bytes();
            db.blocking().put(&key, &value).unwrap();
            history
                .entry(key.clone())
                .or_default()
                .insert(value.clone());
            contents.insert(key, value);
        }
        if count != 40 {
            db.flush().unwrap();
        }
        if closed || count != 40 {
            db.close().unwrap();
        }
    }
    (fs.kill(), contents, history)
}

fn arc(fs: &SimFs) -> Arc<dyn Fs> {
    Arc::new(fs.clone())
}

fn with(fs: &SimFs, path: &Path, bytes: &[u8]) -> SimFs {
    let fs = fs.fork();
    fs.overwrite(path, bytes.to_vec()).unwrap();
    fs
}

fn open(fs: &SimFs, dir: &Path) -> Result<Db, OpenError> {
    Db::open(dir, quiet(), env(fs))
}

#[test]
fn a_sound_store_verifies_and_no_byte_of_it_changes() {
    for closed in [true, false] {
        let (fs, contents, _) = store(closed);
        let before = fs.dump();
        let result = tools::verify(arc(&fs), dir()).unwrap();
        assert_eq!(result.findings, []);
        let (tables, blocks, writes) = (result.tables, result.blocks, result.log_writes);
        assert!(
            tables > 2 && blocks > tables && writes > 10,
            "{tables} {blocks} {writes}"
        );
        assert!(result.entries > 50 && !contents.is_empty());
        assert_eq!(fs.dump(), before);
    }
}

#[test]
fn every_flipped_byte_is_found_or_changes_nothing() {
    let (fs, contents, _) = store(true);
    let mut found = 0;
    for (path, bytes) in fs.dump() {
        for at in (0..bytes.len()).step_by(7) {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            let what = format!("{} byte {at}", path.display());
            let fs = with(&fs, &path, &bad);
            match tools::verify(arc(&fs), dir()) {
                Ok(result) if result.findings.is_empty() => {
                    let db = open(&fs, dir()).unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert!(crate::support::contents(&db).unwrap() == contents, "{what}");
                }
                Ok(result) => {
                    assert!(
                        result
                            .findings
                            .iter()
                            .all(|finding| finding.file.starts_with(dir()))
                    );
                    found += 1;
                }
                // A format file that names a newer format.
                Err(ToolError::Open(OpenError::NewerFormat { .. })) => found += 1,
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }
    assert!(found > 500, "{found}");
}

/// What may happen to a file.
fn damages(fs: &SimFs) -> Vec<(String, SimFs)> {
    let mut all = Vec::new();
    for (path, bytes) in fs.dump() {
        if path.ends_with("LOCK") || bytes.is_empty() {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut add = |kind: &str, fs: SimFs| all.push((format!("{kind} {name}"), fs));
        for at in [
            0,
            10,
            bytes.len() / 3,
            bytes.len() / 2,
            bytes.len() - 60.min(bytes.len()),
        ] {
            let mut bad = bytes.clone();
            bad[at] ^= 2;
            add(&format!("byte {at} of"), with(fs, &path, &bad));
        }
        add("the end of", with(fs, &path, &bytes[..bytes.len() / 2]));
        add("all of", with(fs, &path, b""));
        let missing = fs.fork();
        missing.remove(&path).unwrap();
        add("missing", missing);
    }
    all
}

fn of_store(fs: &SimFs) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = fs.dump().into_iter();
    all.filter(|(path, _)| path.starts_with(dir())).collect()
}

#[test]
fn a_repair_saves_all_that_can_be_verified_names_the_rest_and_leaves_the_original_alone() {
    let (mut with_losses, mut whole, mut stale) = (0, 0, 0);
    for closed in [true, false] {
        let (fs, contents, history) = store(closed);
        for (what, fs) in damages(&fs) {
            let before = of_store(&fs);
            let outcome = tools::repair(arc(&fs), dir(), saved_dir(), &quiet());
            assert!(of_store(&fs) == before, "{what}: the original was changed");
            let report = outcome.unwrap_or_else(|error| panic!("{what}: {error}"));
            let fs = fs.power_loss(1);
            let db = open(&fs, saved_dir()).unwrap_or_else(|error| panic!("{what}: {error}"));
            let saved = crate::support::contents(&db).unwrap();
            assert_eq!(saved.len() as u64, report.keys, "{what}");
            let is_lossy = |key: &Vec<u8>| {
                let mut losses = report.losses.iter();
                losses.any(|loss| loss.range.contains(key)) || report.deleted_keys_may_be_back
            };
            for key in history.keys() {
                if saved.get(key) == contents.get(key) {
                    continue;
                }
                stale += 1;
                // In a killed store the end of the log may be torn, which is no loss that anybody can name.
                let is_at_end = !closed && what.contains(".log");
                assert!(is_lossy(key) || is_at_end, "{what}: key {key:?}");
                if let Some(value) = saved.get(key) {
                    assert!(history[key].contains(value), "{what}: an invented value");
                }
            }
            assert!(saved.keys().all(|key| history.contains_key(key)), "{what}");
            with_losses += usize::from(!report.losses.is_empty());
            whole += usize::from(saved == contents);
            // It is a store like any other, and its numbers go on.
            let seq = db.blocking().put(b"new", b"1").unwrap();
            assert!(seq > report.newest);
            db.close().unwrap();
            assert_eq!(
                tools::verify(arc(&fs), saved_dir()).unwrap().findings,
                [],
                "{what}"
            );
        }
    }
    assert!(
        with_losses > 20 && whole > 10 && stale > 20,
        "{with_losses} {whole} {stale}"
    );
}

#[test]
fn a_repair_that_fails_or_loses_its_power_leaves_no_half_store() {
    let (fs, contents, _) = store(true);
    let calls = {
        let fs = fs.fork();
        let before = fs.calls();
        tools::repair(arc(&fs), dir(), saved_dir(), &quiet()).unwrap();
        fs.calls() - before
    };
    for call in 0..calls {
        for fault in [Fault::PowerCut, Fault::NoSpace] {
            let fs = fs.fork();
            fs.plan(fs.calls() + call, fault);
            let before = of_store(&fs);
            let outcome = tools::repair(arc(&fs), dir(), saved_dir(), &quiet());
            let what = format!("{fault:?} at call {call}");
            let fs = fs.power_loss(call);
            assert!(of_store(&fs) == before, "{what}");
            // Every empty directory opens as an empty store.
            if fs.list(saved_dir()).unwrap().is_empty() {
                assert!(outcome.is_err(), "{what}");
                continue;
            }
            match open(&fs, saved_dir()) {
                Ok(db) => {
                    assert!(crate::support::contents(&db).unwrap() == contents, "{what}");
                }
                Err(error) => assert!(outcome.is_err(), "{what}: {error}"),
            }
        }
    }
}

fn dumped(fs: &SimFs, file: Option<&str>, keys_only: bool) -> (Vec<String>, u64) {
    let mut out = Vec::new();
    let damaged = tools::dump(arc(fs), dir(), file, keys_only, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    (text.lines().map(str::to_owned).collect(), damaged)
}

#[test]
fn a_dump_shows_keys_values_files_and_damage() {
    let (fs, contents, history) = store(true);
    let (lines, damaged) = dumped(&fs, None, false);
    let expected: Vec<String> = contents
        .iter()
        .map(|(key, value)| format!("\"{}\" = \"{}\"", key.escape_ascii(), value.escape_ascii()))
        .collect();
    assert_eq!((lines, damaged), (expected, 0));
    let (keys, _) = dumped(&fs, None, true);
    assert_eq!(keys.len(), contents.len());
    let mut versions = 0;
    for (path, bytes) in fs.dump() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".sst") || name.ends_with(".log") {
            let (lines, damaged) = dumped(&fs, Some(&name), false);
            assert_eq!(damaged, 0);
            versions += lines.iter().filter(|line| line.contains(" = ")).count();
        }
        if name.starts_with("MANIFEST") {
            let (lines, _) = dumped(&fs, Some(&name), false);
            assert!(lines.iter().any(|line| line.contains(".sst")), "{lines:?}");
        }
        if name.ends_with(".sst") {
            let mut bad = bytes.clone();
            bad[12] ^= 1;
            let bad = with(&fs, &path, &bad);
            let (lines, damaged) = dumped(&bad, Some(&name), false);
            assert!(damaged == 1 && lines.iter().any(|line| line.starts_with("# ")));
            assert_eq!(dumped(&bad, None, true).1, 1);
        }
    }
    assert!(versions > history.len());
    let error = tools::dump(arc(&fs), dir(), Some("nothing"), false, &mut Vec::new());
    assert!(matches!(error, Err(ToolError::NoSuchFile { .. })));
}

#[test]
fn a_summary_names_store_files_and_levels() {
    let (fs, ..) = store(true);
    let mut out = Vec::new();
    assert_eq!(tools::summarize(arc(&fs), dir(), &mut out).unwrap(), 0);
    let text = String::from_utf8(out).unwrap();
    for part in [
        "store",
        "format   3",
        "tables",
        "level 6",
        "where the store was closed",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn an_open_store_an_empty_directory_and_a_full_target_are_refused() {
    let (fs, ..) = store(true);
    let db = open(&fs, dir()).unwrap();
    let error = tools::verify(arc(&fs), dir()).unwrap_err();
    assert!(
        matches!(error, ToolError::Open(OpenError::Locked { .. })),
        "{error}"
    );
    drop(db);
    let error = tools::verify(arc(&fs), Path::new("/nothing")).unwrap_err();
    assert!(matches!(error, ToolError::NoStore { .. }), "{error}");
    let error = tools::repair(arc(&fs), dir(), dir(), &quiet()).unwrap_err();
    assert!(matches!(error, ToolError::TargetNotEmpty { .. }), "{error}");
}

#[test]
fn the_program_verifies_shows_and_repairs() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store");
    let db = Db::open(&path, Options::tiny(), kv_storage::Env::embedded(3)).unwrap();
    for number in 0..200u32 {
        let key = format!("key{number:03}");
        db.blocking().put(key.as_bytes(), &[7; 100]).unwrap();
    }
    db.flush().unwrap();
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_kv-storage"))
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let store = path.to_str().unwrap();
    let (code, _, said) = run(&["verify", store]);
    assert_eq!(code, Some(2));
    assert!(
        said.contains(&format!("process {}", std::process::id())),
        "{said}"
    );
    db.close().unwrap();
    let (code, said, _) = run(&["verify", store]);
    assert!(code == Some(0) && said.contains("all is well"), "{said}");
    let (code, said, _) = run(&["dump", store, "--keys"]);
    assert!(code == Some(0) && said.lines().count() == 200);
    assert_eq!(run(&["stats", store]).0, Some(0));
    assert_eq!(run(&["dump", store, "--what"]).0, Some(2));
    assert_eq!(run(&["verify", home.path().to_str().unwrap()]).0, Some(2));

    let tables = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let table = tables
        .filter(|path| path.extension().is_some_and(|ending| ending == "sst"))
        .max()
        .unwrap();
    let mut bytes = std::fs::read(&table).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&table, bytes).unwrap();
    let (code, said, _) = run(&["verify", store]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains(table.to_str().unwrap()) && said.contains("\"key"),
        "{said}"
    );
    let saved = home.path().join("saved");
    let (code, said, _) = run(&["repair", store, "--to", saved.to_str().unwrap()]);
    assert!(
        code == Some(1) && said.contains("saved") && said.contains("losses: 1;"),
        "{said}"
    );
    let db = Db::open(&saved, Options::tiny(), kv_storage::Env::embedded(3)).unwrap();
    let found = contents(&db).unwrap().len();
    assert!((100..200).contains(&found), "{found}");
}

#[test]
fn deleted_ranges_stay_deleted_in_what_is_dumped_and_repaired() {
    let fs = SimFs::new();
    let db = open(&fs, dir()).unwrap();
    for number in 0..40u32 {
        let batch = put(format!("key{number:02}"), "value");
        db.blocking().write(batch, Durability::Sync).unwrap();
    }
    db.flush().unwrap();
    let snapshot = db.snapshot();
    for (range, is_flushed) in [("key05".."key10", true), ("key20".."key35", false)] {
        let mut batch = WriteBatch::new();
        batch.delete_range(range);
        batch.put(b"key07", b"new");
        db.blocking().write(batch, Durability::Sync).unwrap();
        if is_flushed {
            db.flush().unwrap();
        }
    }
    let expected = contents(&db).unwrap();
    assert_eq!(expected.len(), 21);
    drop((snapshot, db));
    let dump = |file: Option<&str>| {
        let mut out = Vec::new();
        let damaged = tools::dump(Arc::new(fs.clone()), dir(), file, false, &mut out).unwrap();
        assert_eq!(damaged, 0);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(dump(None).lines().count(), 21);
    assert!(dump(None).contains("\"key07\" = \"new\"") && !dump(None).contains("key21"));
    let files = fs.dump();
    let names = files.keys().filter_map(|path| path.file_name()?.to_str());
    let all: String = names
        .filter(|name| name.ends_with(".sst") || name.ends_with(".log"))
        .map(|name| dump(Some(name)))
        .collect();
    for range in [
        "\"key05\" up to \"key10\" deleted",
        "\"key20\" up to \"key35\" deleted",
    ] {
        assert!(all.contains(range), "{all}");
    }
    // Once with the manifest, once without.
    for is_lost in [false, true] {
        let fs = fs.fork();
        if is_lost {
            let manifest = fs
                .dump()
                .into_keys()
                .find(|path| path.to_string_lossy().contains("MANIFEST"));
            fs.overwrite(&manifest.unwrap(), b"lost".to_vec()).unwrap();
        }
        let target = saved_dir();
        let report = tools::repair(Arc::new(fs.clone()), dir(), target, &Options::tiny()).unwrap();
        assert_eq!(report.keys, 21);
        let saved = Db::open(target, Options::tiny(), env(&fs)).unwrap();
        assert_eq!(contents(&saved).unwrap(), expected);
    }
}

#[test]
fn a_store_that_never_flushed_and_lost_its_current_is_not_taken_for_an_empty_one() {
    let fs = SimFs::new();
    let db = open(&fs, dir()).unwrap();
    db.blocking().put(b"a", b"in the log").unwrap();
    db.close().unwrap();
    let fs = fs.kill();
    fs.remove(&dir().join("CURRENT")).unwrap();
    assert!(open(&fs, dir()).is_err());
    let findings = tools::verify(arc(&fs), dir()).unwrap().findings;
    assert_eq!(findings.len(), 1, "{findings:?}");
    tools::repair(arc(&fs), dir(), saved_dir(), &quiet()).unwrap();
    let db = open(&fs, saved_dir()).unwrap();
    assert_eq!(contents(&db).unwrap().len(), 1);
}
