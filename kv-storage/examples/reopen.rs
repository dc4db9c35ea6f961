//! Measures opening a store again whose newest writes are only in its log.
//!
//! `cargo run --release -p kv-storage --example reopen DIRECTORY [VALUE_BYTES [ROWS [TIMES]]]`; the directory is
//! filled anew. Nothing is synced and the store is dropped without being closed, which is like killing the process.

use kv_storage::{Db, Durability, Env, Options, WriteBatch};
use std::path::Path;
use std::time::Instant;

fn key(number: u64) -> [u8; 20] {
    let mut key = *b"usr:                ";
    key[4..12].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[12..].copy_from_slice(&number.to_be_bytes());
    key
}

fn open(directory: &Path) -> Result<Db, Box<dyn std::error::Error>> {
    let mut options = Options::default();
    // So that everything stays in one memtable.
    options.memtable_bytes = 512 << 20;
    Ok(Db::open(directory, options, Env::embedded(1))?)
}

#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "an example measures and prints"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().expect("a directory is given");
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (value_bytes, rows, times) = (number(1024)?, number(180_000)?, number(5)?);
    let directory = Path::new(&directory);
    for _ in 0..times {
        if directory.exists() {
            std::fs::remove_dir_all(directory)?;
        }
        let db = open(directory)?;
        let mut value = vec![7; value_bytes];
        for number in 0..rows as u64 {
            value[..8].copy_from_slice(&number.to_le_bytes());
            let mut batch = WriteBatch::new();
            batch.put(&key(number), &value);
            db.blocking().write(batch, Durability::Process)?;
        }
        drop(db);
        let begin = Instant::now();
        let db = open(directory)?;
        let opened = begin.elapsed();
        let found = db.blocking().get(&key(rows as u64 / 2))?;
        assert!(found.is_some_and(|found| found.value.len() == value_bytes));
        println!("opened in {opened:.0?}");
        let begin = Instant::now();
        db.blocking().sync()?;
        println!("    first sync {:.0?}", begin.elapsed());
        for number in 0..rows as u64 {
            assert!(
                db.blocking().get(&key(number))?.is_some(),
                "{number} is lost"
            );
        }
        db.close()?;
    }
    Ok(())
}
