//! Real stores, one of whose files is damaged and read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fastrand::Rng;
use kv_storage::sim::SimFs;
use kv_storage::{Compression, Db, Durability, Env, Options, TableOptions, WriteBatch, tools};

use super::checksums::File;
use super::mutation;

/// The kinds of files that are damaged.
pub const KINDS: [&str; 5] = ["log", "manifest", "table", "blob", "format"];

/// A file of a real store.
#[derive(Debug)]
pub struct Sample {
    store: Arc<Store>,
    path: PathBuf,
    /// What kind of file it is, one of [`KINDS`].
    pub kind: &'static str,
    /// Its bytes, undamaged.
    pub bytes: Vec<u8>,
    file: File,
}

#[derive(Debug)]
struct Store {
    disk: SimFs,
    options: Options,
}

/// What became of reading a damaged store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was read.
    Read,
    /// It was refused by a checksum, or before one was looked at.
    Refused,
    /// It passed checksums and versions, and was refused for what it says.
    RefusedWithin(String),
}

impl Sample {
    /// Damaged bytes of the file, whose checksums are right again more often than not.
    #[must_use]
    pub fn damage(&self, rng: &mut Rng, other: &Self) -> Vec<u8> {
        let covered = self.file.covered();
        if covered.is_empty() || rng.u8(0..8) == 0 {
            return mutation::mutate(rng, &self.bytes, &other.bytes);
        }
        let mut damaged = self.bytes.clone();
        let chosen = &covered[rng.usize(0..covered.len())];
        let part = chosen.parts[rng.usize(0..chosen.parts.len())].clone();
        mutation::mutate_in_place(rng, &mut damaged[part]);
        self.repair(&mut damaged);
        damaged
    }

    /// Bytes of the file that are damaged as a script says, within one checksum, which is right again.
    #[must_use]
    pub fn damage_by(&self, script: &[u8]) -> Vec<u8> {
        let mut damaged = self.bytes.clone();
        let Some((chosen, script)) = script.split_first() else {
            return damaged;
        };
        let covered = self.file.covered();
        match covered.get(usize::from(*chosen) % (covered.len() + 1)) {
            Some(covered) => {
                let part = covered.parts.last().cloned().unwrap_or_default();
                mutation::follow(script, &mut damaged[part]);
                self.repair(&mut damaged);
            }
            None => mutation::follow(script, &mut damaged),
        }
        damaged
    }

    /// Makes the checksums of damaged bytes right, if they are as many as there were.
    pub fn repair(&self, damaged: &mut [u8]) {
        if damaged.len() == self.bytes.len() {
            self.file.repair(damaged);
        }
    }

    /// Opens the store with these bytes in place of the file's, reads everything, and has it verified.
    #[must_use]
    pub fn read(&self, bytes: &[u8]) -> Outcome {
        let disk = self.store.disk.fork();
        if disk.overwrite(&self.path, bytes.to_vec()).is_err() {
            return Outcome::Refused;
        }
        let verified = tools::verify(Arc::new(disk.clone()), dir());
        let mut problems = match verified {
            Ok(result) => result.findings.iter().map(ToString::to_string).collect(),
            Err(error) => vec![error.to_string()],
        };
        if let Err(error) = read_all(disk, &self.store.options) {
            problems.push(error);
        }
        match problems.pop() {
            None => Outcome::Read,
            Some(last) if problems.iter().chain([&last]).any(is_before) => Outcome::Refused,
            Some(last) => Outcome::RefusedWithin(last),
        }
    }
}

/// What is said of bytes that do not pass a checksum, a version, or a name.
const BEFORE: [&str; 9] = [
    "checksum",
    "version",
    "magic",
    "store format",
    "damaged format file",
    "belongs to another store",
    "damaged frame",
    "ends before",
    "header of a needed",
];

#[expect(clippy::ptr_arg, reason = "it is mapped over strings")]
fn is_before(problem: &String) -> bool {
    BEFORE.iter().any(|words| problem.contains(words))
}

fn read_all(disk: SimFs, options: &Options) -> Result<(), String> {
    let env = environment(disk);
    let db = Db::open(dir(), options.clone(), env).map_err(|error| error.to_string())?;
    let mut problem = None;
    for entry in db.snapshot().iter::<&[u8]>(..) {
        if let Err(error) = entry {
            problem = Some(error.to_string());
        }
    }
    for number in 0..KEYS {
        if let Err(error) = db.blocking().get(name(number).as_bytes()) {
            problem = Some(error.to_string());
        }
    }
    // It may have found damage, which it said already.
    let _ = db.close();
    problem.map_or(Ok(()), Err)
}

const KEYS: usize = 60;

fn dir() -> &'static Path {
    Path::new("/store")
}

fn name(number: usize) -> String {
    format!("key {number:03}")
}

fn environment(disk: SimFs) -> Env {
    Env {
        fs: Arc::new(disk),
        ..Env::embedded(7)
    }
}

/// Files of stores with all that a store can hold: compressed or not, closed or not.
///
/// # Panics
/// When a store cannot be made.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let mut all = Vec::new();
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd(1)] {
        for closes in [false, true] {
            let tables = TableOptions {
                block_bytes: 256,
                compression,
                filter_bits_per_key: 10,
            };
            let mut options = Options::tiny();
            options.upper_tables = tables;
            options.bottom_tables = tables;
            all.extend(files(fill(options, closes)));
        }
    }
    all
}

fn fill(options: Options, closes: bool) -> Store {
    let disk = SimFs::new();
    let db = Db::open(dir(), options.clone(), environment(disk.clone())).expect("an empty disk");
    let put = |batch: &mut WriteBatch, round: usize, number: usize| {
        let length = if number.is_multiple_of(9) { 300 } else { 20 };
        let value = format!("{round} of {number} ").repeat(length / 8);
        batch.put(name(number).as_bytes(), value.as_bytes());
    };
    for round in 0..4 {
        for number in (0..KEYS).step_by(3) {
            let mut batch = WriteBatch::new();
            put(&mut batch, round, number);
            put(&mut batch, round, (number + round) % KEYS);
            if number.is_multiple_of(12) {
                batch.delete(name((number + 5) % KEYS).as_bytes());
            }
            if number == 30 {
                batch.delete_range(name(40 + round).as_bytes()..name(43 + round).as_bytes());
            }
            db.blocking()
                .write(batch, Durability::Sync)
                .expect("a healthy disk");
        }
        let mut ingest = db.ingest().expect("an open store");
        for number in 0..4 {
            let key = format!("ingested {round} {number}");
            ingest.push(key.as_bytes(), b"row").expect("in order");
        }
        ingest
            .commit(Durability::Sync)
            .expect("a healthy disk")
            .wait()
            .expect("synced");
    }
    if closes {
        db.close().expect("a healthy disk");
    }
    let disk = disk.kill();
    drop(db);
    Store { disk, options }
}

fn files(store: Store) -> Vec<Sample> {
    let store = Arc::new(store);
    let files: BTreeMap<PathBuf, Vec<u8>> = store.disk.dump();
    let id = files
        .iter()
        .find(|(path, _)| path.ends_with("FORMAT"))
        .and_then(|(_, bytes)| bytes.get(20..28)?.try_into().ok())
        .map(u64::from_le_bytes)
        .expect("a store has an id");
    let sample = |(path, bytes): (PathBuf, Vec<u8>)| {
        let name = path.file_name()?.to_str()?.to_owned();
        let kind = match name.rsplit_once('.') {
            Some((_, "log")) => "log",
            Some((_, "sst")) => "table",
            Some((_, "blob")) => "blob",
            _ if name.starts_with("MANIFEST") => "manifest",
            _ if name == "FORMAT" || name == "CURRENT" => "format",
            _ => return None,
        };
        let file = File::parse(id, &name, &bytes);
        // A spare segment of the log says nothing.
        if kind == "log" && file.covered().is_empty() {
            return None;
        }
        let sample = Sample {
            store: Arc::clone(&store),
            path,
            kind,
            bytes,
            file,
        };
        Some(sample)
    };
    files.into_iter().filter_map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_of_every_kind_of_file_are_understood_and_undamaged_files_are_read() {
        for sample in samples() {
            assert_eq!(
                sample.read(&sample.bytes),
                Outcome::Read,
                "{}",
                sample.path.display()
            );
            let has_checksums = !sample.file.covered().is_empty();
            assert!(
                has_checksums || sample.path.ends_with("CURRENT"),
                "{}",
                sample.path.display()
            );
        }
    }
}
