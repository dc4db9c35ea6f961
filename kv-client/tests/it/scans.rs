//! Listing whole buckets.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use kv_client::{Change, Cursor, ErrorCode, Key, Outcome};

use crate::cluster::{Cluster, Mood};

fn filled(keys: usize) -> (Cluster, BTreeSet<String>) {
    let cluster = Cluster::of(5);
    let names: BTreeSet<String> = (0..keys).map(|n| format!("key {n}")).collect();
    for name in &names {
        cluster.store(name, &[Some(name)]);
    }
    (cluster, names)
}

fn name(entry: &kv_client::Entry) -> String {
    String::from_utf8_lossy(entry.key.partition_key()).into_owned()
}

#[test]
fn a_scan_lists_every_key_once_in_the_order_of_hashes() {
    let (cluster, names) = filled(2000);
    let client = cluster.client();
    let topology = client.topology();
    let bucket = topology.buckets()[0].id;
    let mut listed = Vec::new();
    cluster.world.run(async {
        let mut scan = client.default_bucket().scan();
        while let Some(entry) = scan.next().await {
            let entry = entry.unwrap();
            let value = entry.read.clone().one().unwrap().unwrap();
            assert_eq!(name(&entry).as_bytes(), value);
            listed.push((
                topology.locate(bucket, entry.key.partition_key()).0,
                name(&entry),
            ));
        }
        assert!(scan.cursor().is_end());
        assert!(scan.next().await.is_none());
        assert_eq!(scan.progress(), (256, 256));
    });
    assert!(listed.is_sorted());
    assert_eq!(listed.len(), names.len());
    let listed: BTreeSet<_> = listed.into_iter().map(|(_, name)| name).collect();
    assert_eq!(listed, names);
}

#[test]
fn rows_of_a_partition_key_are_listed_in_a_range_of_their_sort_keys_and_from_a_cursor() {
    let (cluster, _) = filled(50);
    for sort in ["", "a", "b", "b2", "c", "d"] {
        let key = Key::with_sort("key 1", sort).unwrap();
        cluster.store_key(key, &[Some(sort)]);
    }
    let client = cluster.client();
    let bucket = client.default_bucket();
    let sort = |name: &'static str| Bytes::from_static(name.as_bytes());
    let listed = |mut scan: kv_client::scan::Scan| {
        let mut listed = Vec::new();
        cluster.world.run(async {
            while let Some(entry) = scan.next().await {
                let key = entry.unwrap().key;
                assert_eq!(key.partition_key(), b"key 1");
                listed.push(String::from_utf8(key.sort_key().to_vec()).unwrap());
            }
            assert!(scan.cursor().is_end());
        });
        listed
    };
    let of_key = |range: (Bound<Bytes>, Bound<Bytes>)| listed(bucket.scan_rows("key 1", range));
    let all = listed(bucket.scan_rows("key 1", ..));
    assert_eq!(all, ["", "a", "b", "b2", "c", "d"]);
    let some = of_key((Bound::Included(sort("b")), Bound::Excluded(sort("c"))));
    assert_eq!(some, ["b", "b2"]);
    let others = of_key((Bound::Excluded(sort("b")), Bound::Included(sort("c"))));
    assert_eq!(others, ["b2", "c"]);
    assert!(listed(bucket.scan_rows("nobody", ..)).is_empty());

    let mut scan = bucket.scan_rows("key 1", ..);
    cluster.world.run(async {
        for _ in 0..3 {
            scan.next().await.unwrap().unwrap();
        }
    });
    let rest = bucket.scan_rows("key 1", ..).from(scan.cursor().clone());
    assert_eq!(listed(rest), ["b2", "c", "d"]);
}

#[test]
fn an_empty_bucket_has_no_entries() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    cluster
        .world
        .run(async { assert!(client.default_bucket().scan().next().await.is_none()) });
}

#[test]
fn a_scan_continues_from_its_cursor_wherever_it_was_left() {
    let (cluster, names) = filled(300);
    let client = cluster.client();
    let mut listed = Vec::new();
    let mut cursor = Cursor::start();
    while !cursor.is_end() {
        cluster.world.run(async {
            let text = cursor.to_string();
            let mut scan = client.default_bucket().scan().from(text.parse().unwrap());
            for _ in 0..7 {
                let Some(entry) = scan.next().await else {
                    break;
                };
                listed.push(name(&entry.unwrap()));
            }
            cursor = scan.cursor().clone();
        });
    }
    assert_eq!(listed.len(), names.len());
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), names);
}

#[test]
fn a_scan_survives_a_hung_node_and_a_new_epoch() {
    let (cluster, names) = filled(300);
    let client = cluster.client();
    cluster.set(crate::cluster::node(2), Mood::Hung);
    let count = cluster.world.run(async {
        let mut scan = client.default_bucket().scan_digests();
        let mut count = 0;
        while let Some(entry) = scan.next().await {
            assert!(entry.unwrap().read.one().unwrap().unwrap().size_bytes > 0);
            count += 1;
            if count == 100 {
                cluster.advance_epoch();
            }
        }
        count
    });
    assert_eq!(count, names.len());
}

#[test]
fn an_error_ends_a_scan_and_the_cursor_keeps_its_place() {
    let (cluster, names) = filled(300);
    let client = cluster.client();
    let mut listed = BTreeSet::new();
    let cursor = cluster.world.run(async {
        let mut scan = client.default_bucket().scan();
        for _ in 0..100 {
            listed.insert(name(&scan.next().await.unwrap().unwrap()));
        }
        cluster.set_all(Mood::Refuses(ErrorCode::Denied, Outcome::NotApplied));
        while let Some(entry) = scan.next().await {
            match entry {
                Ok(entry) => drop(listed.insert(name(&entry))),
                Err(error) => assert_eq!(error.code(), "denied"),
            }
        }
        scan.cursor().clone()
    });
    cluster.set_all(Mood::Well);
    cluster.world.run(async {
        let mut scan = client.default_bucket().scan().from(cursor);
        while let Some(entry) = scan.next().await {
            assert!(listed.insert(name(&entry.unwrap())), "no key comes twice");
        }
        client.update("key 0", |_| Change::Keep).await.unwrap();
    });
    assert_eq!(listed, names);
}
