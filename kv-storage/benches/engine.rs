//! Single-threaded costs of the main calls, with jobs run inline on real files in a temporary directory.

use criterion::{Criterion, criterion_group, criterion_main};
use kv_storage::{Db, Durability, Env, Options, WriteBatch};
use std::hint::black_box;
use std::ops::ControlFlow;

const KEYS: u64 = 100_000;

fn key(number: u64) -> [u8; 16] {
    let mut key = [b'k'; 16];
    key[8..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

fn put(number: u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(&key(number), &[number as u8; 100]);
    batch
}

fn engine(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let db = Db::open(dir.path(), Options::default(), Env::embedded(1)).expect("a new store opens");
    let mut number = 0;
    criterion.bench_function("put 100 B, process durability", |bencher| {
        bencher.iter(|| {
            number += 1;
            db.blocking()
                .write(put(number % KEYS), Durability::Process)
                .expect("a put succeeds")
        });
    });
    for number in 0..KEYS {
        db.blocking()
            .write(put(number), Durability::Process)
            .expect("a put succeeds");
    }
    db.flush().expect("a flush succeeds");
    let mut get = |name: &str, offset: u64| {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                number = number
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                black_box(
                    db.blocking()
                        .get(&key((number >> 33) % KEYS + offset))
                        .expect("a get succeeds"),
                )
            });
        });
    };
    get("get hit, cached", 0);
    get("get miss", KEYS);
    criterion.bench_function("scan 100, lent", |bencher| {
        let snapshot = db.snapshot();
        bencher.iter(|| {
            let mut left = 100;
            snapshot.for_each(key(7).as_slice().., |key, value| {
                black_box((key, value));
                left -= 1;
                if left > 0 {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })
        });
    });
    criterion.bench_function("scan 100, copied", |bencher| {
        let snapshot = db.snapshot();
        bencher.iter(|| {
            snapshot
                .iter(key(7)..)
                .take(100)
                .filter(|entry| entry.is_ok())
                .count()
        });
    });
}

criterion_group!(benches, engine);
criterion_main!(benches);
