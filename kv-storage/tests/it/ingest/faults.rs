//! Ingests beside power cuts, full and failing disks, damage, copies, and a lost manifest.

use super::{Map, get, ingest, key, push_all, quiet, rows, tables};
use crate::support::{ManualJobs, contents, dir, env, env_with, open, put};
use kv_storage::fs::Fs;
use kv_storage::sim::{Fault, SimFs};
use kv_storage::tools;
use kv_storage::{Db, Durability, Error, IngestError, JobClass, KeyRange, Options, WriteError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a run told of the steps that it took.
struct Ran {
    states: Vec<Map>,
    /// The last state that was acknowledged, and the last one that was tried.
    acked: usize,
    tried: usize,
}

/// Overwrites, an ingest between them that began early, and overwrites again; flushes in between.
fn run(fs: &SimFs, options: Options) -> Ran {
    let mut ran = Ran {
        states: vec![Map::new()],
        acked: 0,
        tried: 0,
    };
    let Ok(db) = Db::open(dir(), options, env(fs)) else {
        return ran;
    };
    // Errors end the run; what was tried last is in doubt.
    let _ = try_run(&db, &mut ran);
    ran
}

fn try_run(db: &Db, ran: &mut Ran) -> Result<(), Box<dyn std::error::Error>> {
    fn step(
        ran: &mut Ran,
        rows: &Map,
        write: impl FnOnce() -> Result<(), Box<dyn std::error::Error>>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let mut next = ran.states[ran.tried].clone();
        next.extend(rows.clone());
        ran.states.push(next);
        ran.tried += 1;
        write()?;
        ran.acked = ran.tried;
        Ok(())
    }
    let overwrite = |ran: &mut Ran, number: u32, what: &str| {
        let rows = rows([number], what);
        step(ran, &rows, || {
            db.blocking().put(&key(number), &rows[&key(number)])?;
            Ok(())
        })
    };
    for round in 0..2u32 {
        let new = rows(0..60, &format!("ingest {round}"));
        let mut early = db.ingest()?;
        for (number, (key, value)) in new.iter().enumerate() {
            early.push(key, value)?;
            if number % 12 == 0 {
                overwrite(ran, number as u32, &format!("before {round}"))?;
            }
            if number == 30 {
                db.flush()?;
            }
        }
        step(ran, &new, || {
            early.commit(Durability::Sync)?.wait()?;
            Ok(())
        })?;
        for number in 0..6 {
            overwrite(ran, number * 10, &format!("after {round}"))?;
        }
        if round == 0 {
            db.flush()?;
        }
    }
    db.close()?;
    Ok(())
}

#[test]
fn a_power_cut_at_any_call_leaves_all_rows_or_none_in_their_place() {
    let fs = SimFs::new();
    let whole = run(&fs, Options::tiny());
    assert_eq!(whole.acked, whole.states.len() - 1);
    let mut found_states = std::collections::BTreeSet::new();
    for cut in 0..fs.calls() {
        let fs = SimFs::new();
        fs.plan(cut, Fault::PowerCut);
        let ran = run(&fs, Options::tiny());
        for seed in 0..4 {
            let mut fs = fs.fork().power_loss(seed);
            let mut reached = None;
            // The second start finds what the first one left, also after a flush.
            for start in 0..3 {
                let db = open(&fs)
                    .unwrap_or_else(|error| panic!("cut {cut}, loss {seed}, {start}: {error}"));
                let found = contents(&db).unwrap();
                let state = (ran.acked..=ran.tried).find(|state| ran.states[*state] == found);
                let state = state.unwrap_or_else(|| {
                    panic!("cut {cut}, loss {seed}, start {start}: no state of the run")
                });
                assert_eq!(
                    *reached.get_or_insert(state),
                    state,
                    "cut {cut}, loss {seed}"
                );
                for (key, value) in &found {
                    let found = db.blocking().get(key).unwrap();
                    assert_eq!(found.unwrap().value, *value);
                }
                if start == 1 {
                    db.flush().unwrap();
                }
                drop(db);
                let report = tools::verify(Arc::new(fs.clone()), dir()).unwrap();
                assert!(report.findings.is_empty(), "{:?}", report.findings);
                assert!(report.leftovers.iter().all(|name| !name.ends_with(".sst")));
                fs = if start == 0 {
                    fs.kill()
                } else {
                    fs.power_loss(seed)
                };
            }
            found_states.insert(reached);
        }
    }
    assert_eq!(found_states.len(), whole.states.len());
}

#[test]
fn a_disk_that_is_full_at_any_call_loses_nothing_and_leaves_no_files() {
    let whole = SimFs::new();
    run(&whole, Options::tiny());
    for fault in [Fault::NoSpace, Fault::TornNoSpace] {
        for call in 0..whole.calls() {
            let fs = SimFs::new();
            fs.plan(call, fault);
            let ran = run(&fs, Options::tiny());
            let Ok(db) = open(&fs) else {
                panic!("{fault:?} at {call}: does not open");
            };
            let found = contents(&db).unwrap();
            assert!(
                (ran.acked..=ran.tried).any(|state| ran.states[state] == found),
                "{fault:?} at {call}: no state of the run"
            );
            let new = rows(0..40, "again");
            ingest(&db, &new).unwrap_or_else(|error| panic!("{fault:?} at {call}: {error}"));
            db.flush().unwrap();
            let mut expected = found;
            expected.extend(new);
            assert_eq!(contents(&db).unwrap(), expected);
        }
    }
}

#[test]
fn tables_of_an_edit_in_doubt_are_kept_until_it_is_made() {
    let fs = SimFs::new();
    let jobs = Arc::new(ManualJobs::default());
    let db = Db::open(dir(), quiet(), env_with(&fs, jobs.clone())).unwrap();
    let new = rows(0..100, "ingested");
    ingest(&db, &new).unwrap();
    // The edit that enters the tables, and the fresh manifest after it, meet a full disk.
    let mut torn = 0;
    loop {
        let fork = fs.fork();
        drop(fork);
        let call = fs.calls() + torn;
        fs.plan(call, Fault::TornNoSpace);
        fs.plan(call + 1, Fault::NoSpace);
        fs.plan(call + 2, Fault::NoSpace);
        if db.flush().is_ok() || torn > 20 {
            break;
        }
        torn += 1;
        assert_eq!(contents(&db).unwrap(), new);
    }
    assert!(torn > 0 && torn < 20, "{torn}");
    db.blocking().put(&key(5), b"newer").unwrap();
    db.flush().unwrap();
    jobs.run_all();
    let mut expected = new;
    expected.insert(key(5), b"newer".to_vec());
    assert_eq!(contents(&db).unwrap(), expected);
    drop(db);
    assert_eq!(
        contents(&open(&fs.power_loss(1)).unwrap()).unwrap(),
        expected
    );
}

#[test]
fn another_edit_that_ends_the_doubt_leaves_queued_tables_alone() {
    let fs = SimFs::new();
    let jobs = Arc::new(ManualJobs::default());
    let db = Db::open(dir(), Options::tiny(), env_with(&fs, jobs.clone())).unwrap();
    // A compaction is due.
    for number in 0..4 {
        db.blocking().put(&key(200 + number), b"older").unwrap();
        db.flush().unwrap();
    }
    let new = rows(0..100, "ingested");
    ingest(&db, &new).unwrap();
    // The append of the edit, and the manifest in its place.
    let call = fs.calls();
    (call..call + 3).for_each(|call| fs.plan(call, Fault::TornNoSpace));
    assert!(db.flush().is_err());
    assert_eq!(db.stats().waiting_ingests, 1);
    while jobs.run_one_of(JobClass::Compaction) {}
    let stats = db.stats();
    assert!(
        stats.compactions > 0 && stats.waiting_ingests == 1,
        "{stats:?}"
    );
    let mut expected = new;
    expected.extend((0..4).map(|number| (key(200 + number), b"older".to_vec())));
    assert_eq!(contents(&db).unwrap(), expected);
    drop(db);
    drop(jobs);
    assert_eq!(contents(&open(&fs.kill()).unwrap()).unwrap(), expected);
}

#[test]
fn a_poisoned_store_refuses_and_an_ingest_in_doubt_is_whole_or_not_there() {
    let new = rows(0..100, "ingested");
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    let mut waiting = db.ingest().unwrap();
    push_all(&mut waiting, &new).unwrap();
    fs.plan(fs.calls(), Fault::Io);
    assert!(db.blocking().put(b"a", b"lost").is_err());
    assert!(db.stats().poisoned);
    assert!(matches!(db.ingest(), Err(WriteError::Poisoned { .. })));
    assert!(matches!(
        waiting.commit(Durability::Sync),
        Err(IngestError::Storage(Error::Poisoned { .. }))
    ));
    drop(db);
    assert!(get(&open(&fs.power_loss(2)).unwrap(), 5).is_none());

    // A failure at any call of the commit.
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    drop(db);
    for call in 0.. {
        let fs = fs.fork();
        let db = open(&fs).unwrap();
        let mut ingest = db.ingest().unwrap();
        push_all(&mut ingest, &new).unwrap();
        let failing = fs.calls() + call;
        fs.plan(failing, Fault::Io);
        let outcome = ingest
            .commit(Durability::Sync)
            .and_then(|commit| Ok(commit.wait()?));
        if fs.calls() <= failing {
            assert!(outcome.is_ok() && call > 10, "{call}");
            break;
        }
        let poisoned = db.stats().poisoned;
        if outcome.is_ok() {
            assert_eq!(contents(&db).unwrap(), new, "call {call}");
        } else {
            assert!(contents(&db).unwrap().is_empty(), "call {call}");
        }
        drop(db);
        for seed in 0..4 {
            let found = contents(&open(&fs.fork().power_loss(seed)).unwrap()).unwrap();
            assert!(
                found == new || outcome.is_err() && found.is_empty(),
                "{call}"
            );
            seen.insert((outcome.is_ok(), poisoned, found.is_empty()));
        }
    }
    assert!(seen.iter().any(|(acked, _, _)| *acked), "{seen:?}");
    assert!(seen.contains(&(false, false, true)), "{seen:?}");
    assert!(
        seen.iter().any(|(acked, poisoned, _)| !acked && *poisoned),
        "{seen:?}"
    );
}

#[test]
fn a_full_disk_refuses_ingests_until_there_is_room() {
    let fs = SimFs::new();
    let mut options = Options::tiny();
    options.min_free_bytes = 64 << 10;
    let db = Db::open(dir(), options, env(&fs)).unwrap();
    let new = rows(0..100, "ingested");
    fs.set_capacity(80 << 10);
    let mut refused = 0;
    for _ in 0..40 {
        match ingest(&db, &new) {
            Ok(_) => {}
            Err(IngestError::Refused(WriteError::Full { .. })) => refused += 1,
            Err(IngestError::Storage(Error::Io { .. })) => {}
            Err(other) => panic!("{other}"),
        }
        // Puts ask for a look at the disk.
        let _ = db.blocking().put(b"a", b"1");
        let _ = db.flush();
    }
    assert!(refused > 0);
    fs.set_capacity(u64::MAX);
    let mut done = false;
    for _ in 0..10 {
        done |= ingest(&db, &new).is_ok();
    }
    assert!(done, "{:?}", db.stats());
    assert!(!db.stats().poisoned);
}

#[test]
fn damage_in_an_ingested_table_fences_its_keys_only() {
    for flushed in [false, true] {
        let fs = SimFs::new();
        let db = Db::open(dir(), quiet(), env(&fs)).unwrap();
        for number in 0..300 {
            db.blocking().put(&key(number), b"older").unwrap();
        }
        db.flush().unwrap();
        let before = tables(&fs);
        let new = rows(100..200, "ingested");
        ingest(&db, &new).unwrap();
        let ingested: Vec<PathBuf> = tables(&fs)
            .into_iter()
            .filter(|table| !before.contains(table))
            .collect();
        assert!(ingested.len() > 1);
        if flushed {
            db.flush().unwrap();
        }
        drop(db);
        let fs = fs.kill();
        // A data block, the outline, and the whole file.
        for damage in [damage_data, damage_outline, remove] {
            let fs = fs.fork();
            damage(&fs, &ingested[0]);
            let db = open(&fs).unwrap();
            assert_eq!(db.stats().waiting_ingests, 0, "jobs run at once");
            let (mut lost, mut found) = (0, 0);
            for number in 0..300 {
                match db.blocking().get(&key(number)) {
                    Ok(value) => {
                        let expected = new.get(&key(number)).map_or(&b"older"[..], |value| value);
                        assert_eq!(value.unwrap().value, expected);
                        found += 1;
                    }
                    Err(Error::Corrupt { range, file, .. }) => {
                        assert_eq!(file, ingested[0]);
                        assert!(range.contains(&key(number)) && range != KeyRange::All);
                        assert!(new.contains_key(&key(number)), "{number}");
                        lost += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            assert!(lost > 0 && lost < 100 && found > 200, "{lost}, {found}");
        }
    }
}

fn damage_data(fs: &SimFs, path: &Path) {
    let mut bytes = fs.dump()[path].clone();
    bytes[20] ^= 1;
    fs.overwrite(path, bytes).unwrap();
}

fn damage_outline(fs: &SimFs, path: &Path) {
    let mut bytes = fs.dump()[path].clone();
    let end = bytes.len() - 20;
    bytes[end] ^= 1;
    fs.overwrite(path, bytes).unwrap();
}

fn remove(fs: &SimFs, path: &Path) {
    fs.remove(path).unwrap();
}

#[test]
fn checkpoints_and_tools_know_ingested_rows_that_are_only_named_by_the_log() {
    let fs = SimFs::new();
    let jobs = Arc::new(ManualJobs::default());
    let db = Db::open(dir(), quiet(), env_with(&fs, jobs)).unwrap();
    drop(db.write(put(key(0), b"older"), Durability::Sync).unwrap());
    let new = rows(0..80, "ingested");
    ingest(&db, &new).unwrap();
    db.blocking().put(&key(1), b"newer").unwrap();
    let mut expected = new.clone();
    expected.insert(key(1), b"newer".to_vec());
    let copy = fs.fork();
    db.checkpoint(Path::new("/copy")).unwrap();
    drop(db);
    let db = Db::open(Path::new("/copy"), quiet(), env(&fs)).unwrap();
    assert_eq!(contents(&db).unwrap(), expected);
    drop(db);

    let shared: Arc<dyn Fs> = Arc::new(copy.clone());
    let report = tools::verify(shared.clone(), dir()).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!((report.log_writes, report.entries), (3, 80));
    assert!(report.leftovers.is_empty(), "{:?}", report.leftovers);
    let dump = |file: Option<&str>| {
        let mut out = Vec::new();
        tools::dump(shared.clone(), dir(), file, true, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(dump(None).lines().count(), 80);
    let logs = copy.dump().into_keys().filter_map(|path| {
        let name = path.file_name()?.to_str()?.to_owned();
        name.ends_with(".log").then_some(name)
    });
    let lines: String = logs.map(|name| dump(Some(&name))).collect();
    assert!(lines.contains("2 ingest "), "{lines}");
    let target = Path::new("/saved");
    let report = tools::repair(shared.clone(), dir(), target, &Options::tiny()).unwrap();
    assert_eq!(report.keys, 80);
    let saved = Db::open(target, Options::tiny(), env(&copy)).unwrap();
    assert_eq!(contents(&saved).unwrap(), expected);
    drop(saved);

    // Without the manifest the log still says which number they have.
    lose_manifest(&copy);
    let target = Path::new("/saved2");
    let report = tools::repair(shared.clone(), dir(), target, &Options::tiny()).unwrap();
    assert_eq!(report.keys, 80);
    let saved = Db::open(target, Options::tiny(), env(&copy)).unwrap();
    assert_eq!(contents(&saved).unwrap(), expected);
}

fn lose_manifest(fs: &SimFs) {
    for (path, _) in fs.dump() {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.starts_with(dir()) && (name.starts_with("MANIFEST") || name == "CURRENT") {
            fs.remove(&path).unwrap();
        }
    }
}

#[test]
fn rows_whose_number_was_lost_with_the_manifest_are_saved_and_named_as_a_loss() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    ingest(&db, &rows(0..20, "ingested")).unwrap();
    db.flush().unwrap();
    db.close().unwrap();
    lose_manifest(&fs);
    for (path, _) in fs.dump() {
        if path.extension().is_some_and(|ending| ending == "log") {
            fs.remove(&path).unwrap();
        }
    }
    let target = Path::new("/saved");
    let shared: Arc<dyn Fs> = Arc::new(fs.clone());
    let report = tools::repair(shared, dir(), target, &Options::tiny()).unwrap();
    assert_eq!(report.keys, 20);
    let losses: Vec<String> = report.losses.iter().map(ToString::to_string).collect();
    assert!(
        losses
            .iter()
            .any(|loss| loss.contains("number of an ingest")),
        "{losses:?}"
    );
}
