//! The engine starts no thread, and the same calls write the same bytes in every process.

use crate::support::{contents, dir, env};
use kv_storage::sim::SimFs;
use kv_storage::{Db, Durability, Options, WriteBatch};
use std::process::Command;

const CHILD: &str = "KV_STORAGE_DETERMINISM_CHILD";

fn threads() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"))
        .unwrap();
    line.trim().parse().unwrap()
}

/// 100,000 operations; returns a digest of all files and of all answers.
fn run() -> (u64, kv_storage::Stats) {
    let fs = SimFs::new();
    let mut options = Options::tiny();
    options.memtable_bytes = 64 << 10;
    options.table_bytes = 64 << 10;
    options.bottom_tables.block_bytes = 4 << 10;
    options.upper_tables.block_bytes = 4 << 10;
    options.cache_bytes = 256 << 10;
    let db = Db::open(dir(), options, env(&fs)).unwrap();
    let mut random = fastrand::Rng::with_seed(99);
    let mut digest = Vec::new();
    for number in 0..100_000u32 {
        let key = random.u32(..20_000).to_be_bytes();
        match random.u32(..10) {
            0..=5 => {
                let mut batch = WriteBatch::new();
                batch.put(&key, &vec![number as u8; random.usize(..100)]);
                let need = if number % 7 == 0 {
                    Durability::Sync
                } else {
                    Durability::Process
                };
                db.blocking().write(batch, need).unwrap();
            }
            6 => drop(db.blocking().delete(&key).unwrap()),
            7..=8 => {
                if let Some(found) = db.blocking().get(&key).unwrap() {
                    digest.extend_from_slice(&found.seq.0.to_le_bytes());
                }
            }
            _ => {
                let snapshot = db.snapshot();
                for entry in snapshot.iter(key..).take(3) {
                    digest.extend_from_slice(&entry.unwrap().key);
                }
            }
        }
    }
    let stats = db.stats();
    contents(&db).unwrap();
    db.close().unwrap();
    for (path, bytes) in fs.dump() {
        digest.extend_from_slice(path.to_string_lossy().as_bytes());
        digest.extend_from_slice(&bytes);
    }
    (fnv(&digest), stats)
}

/// FNV-1a, enough to compare two runs.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[test]
fn the_same_operations_start_no_thread_and_write_the_same_bytes_in_every_process() {
    if std::env::var_os(CHILD).is_some() {
        let before = threads();
        let (digest, stats) = run();
        assert!(stats.flushes > 10 && stats.compactions > 10, "{stats:?}");
        println!("digest {digest:016x} threads {before} {}", threads());
        return;
    }
    let child = || {
        let name = "determinism::the_same_operations_start_no_thread_and_write_the_same_bytes_in_every_process";
        let output = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        let at = text
            .find("digest ")
            .unwrap_or_else(|| panic!("no digest in {text}"));
        let words: Vec<String> = text[at..]
            .split_whitespace()
            .take(5)
            .map(str::to_owned)
            .collect();
        assert_eq!(words[3], words[4], "a thread was started");
        words[1].clone()
    };
    assert_eq!(child(), child());
}
