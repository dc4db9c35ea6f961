//! Which versions were compared: taken from the lock file that this program was built by.

use crate::engine::EngineName;

const LOCK: &str = include_str!("../../Cargo.lock");

/// An engine with its version: `RocksDB 11.8.1`.
pub(super) fn of(engine: EngineName) -> String {
    let version = match engine {
        // Its version is the revision of the source.
        EngineName::Kv => None,
        // The bindings name the version of the engine behind a plus sign.
        EngineName::RocksDb => {
            locked("librocksdb-sys").map(|version| version.rsplit('+').next().unwrap_or(version))
        }
        EngineName::Fjall => locked("fjall"),
        EngineName::Redb => locked("redb"),
        EngineName::Lmdb => locked("heed"),
    };
    match (engine, version) {
        (EngineName::Lmdb, Some(version)) => format!("{engine} (heed {version})"),
        (_, Some(version)) => format!("{engine} {version}"),
        (_, None) => engine.to_string(),
    }
}

/// The version of a package in the lock file.
fn locked(package: &str) -> Option<&'static str> {
    let mut lines = LOCK.lines();
    lines.find(|line| line.strip_prefix("name = ") == Some(&format!("{package:?}")))?;
    lines
        .next()?
        .strip_prefix("version = ")
        .map(|version| version.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        let rocksdb = of(EngineName::RocksDb);
        assert!(
            rocksdb.starts_with("RocksDB ") && !rocksdb.contains('+'),
            "{rocksdb}"
        );
        assert!(of(EngineName::Fjall).starts_with("fjall 3."));
        assert_eq!(of(EngineName::Kv), "kv-storage");
        assert_eq!(locked("no such package"), None);
    }
}
