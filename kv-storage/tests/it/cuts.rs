//! What is damaged is cut out when the caller can do without it, and the store is sound again.

use crate::support::{dir, env};
use kv_storage::sim::SimFs;
use kv_storage::{CutReport, Db, Error, KeyRange, Options};
use std::path::PathBuf;
use std::sync::mpsc::channel;

const KEYS: u32 = 300;

fn options() -> Options {
    let mut options = Options::tiny();
    options.table_bytes = 2 << 10;
    options
}

/// Every seventh value is large enough for a file of its own.
fn value(number: u32, round: u8) -> Vec<u8> {
    let size = if number.is_multiple_of(7) { 400 } else { 100 };
    let mut random = fastrand::Rng::with_seed(u64::from(number) << 8 | u64::from(round));
    (0..size).map(|_| random.u8(..)).collect()
}

fn fill(db: &Db, round: u8) {
    for number in 0..KEYS {
        let put = db
            .blocking()
            .put(&number.to_be_bytes(), &value(number, round));
        put.unwrap();
    }
    db.flush().unwrap();
}

fn files(fs: &SimFs, ending: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let all = fs.dump().into_iter();
    all.filter(|(path, _)| path.to_string_lossy().ends_with(ending))
        .collect()
}

fn cut_out(db: &Db, may_be_lost: &[KeyRange]) -> Result<CutReport, Error> {
    let (done, report) = channel();
    db.cut_out(may_be_lost.to_vec(), move |cut| done.send(cut).unwrap());
    report.recv().unwrap()
}

fn range_of(error: &Error) -> KeyRange {
    match error {
        Error::Corrupt { range, .. } => range.clone(),
        other => panic!("{other}"),
    }
}

/// Of each key that may be lost an older value or nothing is left, and of all others the newest; says how many are not
/// the newest.
fn check(db: &Db, lost: &[KeyRange], newest: u8) -> usize {
    let snapshot = db.snapshot();
    let rows = snapshot.iter::<&[u8]>(..).map(|row| row.unwrap());
    let rows: Vec<_> = rows.collect();
    let mut older = 0;
    for number in 0..KEYS {
        let key = number.to_be_bytes();
        let found = db.blocking().get(&key).unwrap().map(|found| found.value);
        let scanned = rows.iter().find(|row| *row.key == key);
        assert_eq!(scanned.map(|row| row.value.clone()), found, "{number}");
        let is_newest = found.as_deref() == Some(&value(number, newest)[..]);
        let may_be_lost = lost.iter().any(|range| range.contains(&key));
        let is_old = found.is_none_or(|found| (0..newest).any(|r| found == value(number, r)));
        assert!(is_newest || may_be_lost && is_old, "{number}");
        older += usize::from(!is_newest);
    }
    older
}

#[test]
fn damage_is_cut_out_only_where_keys_may_be_lost() {
    for (ending, spoils) in [
        (".sst", false),
        (".blob", false),
        (".sst", true),
        (".blob", true),
    ] {
        let sound = SimFs::new();
        let db = Db::open(dir(), options(), env(&sound)).unwrap();
        fill(&db, 0);
        fill(&db, 1);
        db.close().unwrap();
        drop(db);
        let places = [0.1, 0.5, 0.99];
        let paths = files(&sound, ending);
        assert!(!paths.is_empty());
        let mut older = 0;
        for (path, bytes) in &paths {
            for place in places {
                let fs = sound.fork();
                let at = (bytes.len() as f64 * place) as usize;
                if spoils {
                    fs.spoil(path, at).unwrap();
                } else {
                    let mut bad = bytes.clone();
                    bad[at] ^= 16;
                    fs.overwrite(path, bad).unwrap();
                }
                let what = format!("{} byte {at}", path.display());
                let db = Db::open(dir(), options(), env(&fs)).unwrap();
                let found = db.blocking().scrub().found;
                let lost: Vec<KeyRange> = found.iter().map(range_of).collect();

                let kept = cut_out(&db, &[]).unwrap();
                assert!(kept.lost.is_empty(), "{what}");
                let report = cut_out(&db, &lost).unwrap();
                assert!(report.left.is_empty() && report.busy == 0, "{what}");
                // A sector touches several blocks of a table.
                let tables = kept.tables + report.tables;
                assert!(spoils || tables >= lost.len() as u64, "{what}");
                assert!(db.blocking().scrub().found.is_empty(), "{what}");
                older += check(&db, &report.lost, 1);
                db.close().unwrap();
                drop(db);

                let db = Db::open(dir(), options(), env(&fs)).unwrap();
                check(&db, &report.lost, 1);
                fill(&db, 2);
                assert_eq!(check(&db, &[], 2), 0, "{what}");
                assert_eq!(db.stats().fenced_tables, 0, "{what}");
                assert!(db.blocking().scrub().found.is_empty(), "{what}");
            }
        }
        assert!(older > 0, "something was lost");
    }
}
