//! What replication adds to a write: the Merkle tree's share, and merging.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use kv_node::anti_entropy::trees::Trees;
use kv_node::storage_key;
use kv_ring::{HashSecret, KeyHash, PartitionCount};
use kv_storage::Seq;
use kv_types::{ActorId, BucketId, Dot, Hlc, Key, Object, Payload, Write, WriteId};

const SECRET: HashSecret = HashSecret([7; 16]);
const BUCKET: BucketId = BucketId(1);

fn object(writes: u64) -> Object {
    let mut object = Object::new();
    for n in 1..=writes {
        let write = Write {
            write_id: WriteId::new(1_000 + n, [n as u8; 10]),
            payload: Payload::Value(Bytes::from(vec![n as u8; 100])),
            expires_ms: None,
        };
        let read = object.clock().clone();
        let dot = Dot::new(ActorId(1), Hlc(n << 16));
        object
            .write(write, &read, dot, Hlc::ZERO, 2_000)
            .expect("within limits");
    }
    object
}

fn merkle(c: &mut Criterion) {
    let key = Key::new("user:1024:profile").expect("short");
    let stored = storage_key::encode(BUCKET, KeyHash(1 << 40), &key);
    let encoded = object(2).encode();
    c.bench_function("merkle: the item of a write", |b| {
        b.iter(|| {
            let header = Object::header_of(black_box(&encoded)).expect("whole");
            SECRET.item(black_box(&stored), SECRET.digest(header))
        });
    });
    let trees = Trees::new(PartitionCount::default(), 1);
    trees.begin();
    assert!(trees.end(Seq(0)));
    let mut n = 0_u64;
    c.bench_function("merkle: the tree takes in a write", |b| {
        b.iter(|| {
            n += 1;
            let hash = KeyHash(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            trees.take_in(Seq(n), BUCKET, hash, (0, n));
        });
    });
}

fn merge(c: &mut Criterion) {
    let (old, new) = (object(1), object(2));
    c.bench_function("merge: one sibling, the other side is newer", |b| {
        b.iter(|| black_box(&old).merged(black_box(&new)));
    });
    c.bench_function("merge: one sibling, equal", |b| {
        b.iter(|| black_box(&new).merged(black_box(&new)));
    });
    let (old, new) = (object(63), object(64));
    c.bench_function("merge: as much as an object remembers", |b| {
        b.iter(|| black_box(&old).merged(black_box(&new)));
    });
}

criterion_group!(benches, merkle, merge);
criterion_main!(benches);
