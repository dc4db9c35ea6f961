//! What requests do when nothing is wrong with the cluster.

use bytes::Bytes;
use kv_client::{Change, Digest, Error, ErrorCode, Key, Level};

use crate::cluster::{Cluster, ROUND_TRIP};

#[test]
fn a_value_that_was_put_is_got() {
    let cluster = Cluster::of(5);
    let client = cluster.client();
    cluster.world.run(async {
        client.put("hello", "world").await.unwrap();
        let read = client.get("hello").await.unwrap();
        assert!(read.is_found());
        assert_eq!(read.one().unwrap().as_deref(), Some(&b"world"[..]));
        let absent = client.get("nope").await.unwrap();
        assert!(!absent.is_found());
        assert_eq!(absent.one().unwrap(), None);
    });
    assert_eq!(cluster.seen().len(), 3, "one message each");
    assert_eq!(
        cluster.world.now(),
        ROUND_TRIP * 4,
        "with the one for connecting"
    );
}

#[test]
fn puts_go_to_the_first_slot_and_gets_to_any_replica() {
    let cluster = Cluster::of(7);
    let client = cluster.client();
    for number in 0..50 {
        let key = format!("key {number}");
        let replicas = cluster.replicas(&key);
        cluster.world.run(async {
            client.put(&key, "v").await.unwrap();
            client.get(&key).await.unwrap();
        });
        let seen = cluster.seen();
        assert_eq!(seen[0].node, replicas[0], "{key}");
        assert!(replicas.contains(&seen[1].node), "{key}");
    }
}

#[test]
fn writes_are_named_by_the_time_of_the_nodes_where_the_own_clock_is_far_off() {
    let created_ms = |ahead_ms| {
        let cluster = Cluster::of(3);
        cluster.be_ahead(ahead_ms);
        let put = cluster.client().put("k", "v");
        put.write_id().created_ms()
    };
    let right_ms = created_ms(0);
    assert_eq!(created_ms(50), right_ms, "nearly right");
    // Half a round trip is taken for the way of the answer.
    let half_ms = u64::try_from(ROUND_TRIP.as_millis()).unwrap() / 2;
    assert!(created_ms(5_000).abs_diff(right_ms + 5_000) <= half_ms + 1);
}

#[test]
fn siblings_surface_and_the_context_replaces_them() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    cluster.store("cart", &[Some("milk"), Some("bread"), None]);
    cluster.world.run(async {
        let read = client.get("cart").await.unwrap();
        assert!(read.is_conflict());
        let values: Vec<_> = read.siblings().iter().map(|s| s.value().cloned()).collect();
        assert_eq!(values, [Some("milk".into()), Some("bread".into()), None]);
        let context = read.context().clone();
        let conflict = read.one().unwrap_err();
        assert_eq!(Error::from(conflict).exit_code(), 4);
        client
            .put("cart", "milk, bread")
            .context(context)
            .await
            .unwrap();
        let value = client.get("cart").await.unwrap().one().unwrap();
        assert_eq!(value.as_deref(), Some(&b"milk, bread"[..]));
    });
}

#[test]
fn a_context_does_not_replace_what_its_read_did_not_see() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    cluster.world.run(async {
        let early = client.get("k").await.unwrap();
        client.put("k", "other").await.unwrap();
        client
            .put("k", "mine")
            .context(early.context().clone())
            .await
            .unwrap();
    });
    assert_eq!(cluster.values("k"), ["other", "mine"]);
}

#[test]
fn a_deleted_key_is_not_found_but_has_a_context() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    cluster.world.run(async {
        client.put("k", "v").await.unwrap();
        client.delete("k").await.unwrap();
        let read = client.get("k").await.unwrap();
        assert!(!read.is_found());
        assert_eq!(read.siblings().len(), 1);
        assert!(read.siblings()[0].is_deletion());
        assert!(!read.context().as_bytes().is_empty());
        client.put("k", "").await.unwrap();
        assert_eq!(
            client.get("k").await.unwrap().one().unwrap(),
            Some(Bytes::new())
        );
    });
}

#[test]
fn digests_come_without_values() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    cluster.store("k", &[Some("value")]);
    let digest = cluster.world.run(async {
        client
            .default_bucket()
            .digest("k")
            .await
            .unwrap()
            .one()
            .unwrap()
    });
    assert_eq!(digest, Some(Digest::of(&Bytes::from_static(b"value"))));
}

#[test]
fn updates_see_all_siblings_and_write_with_their_context() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    cluster.store("set", &[Some("a"), Some("b")]);
    cluster.world.run(async {
        let union = |read: kv_client::Read| {
            let values: Vec<_> = read.into_siblings().into_iter().collect();
            let live = values.iter().filter_map(|sibling| sibling.value());
            Change::Put(
                live.flat_map(|value| value.to_vec())
                    .collect::<Vec<u8>>()
                    .into(),
            )
        };
        assert!(client.update("set", union).await.unwrap().is_some());
        assert!(
            client
                .update("set", |_| Change::Keep)
                .await
                .unwrap()
                .is_none()
        );
    });
    assert_eq!(cluster.values("set"), ["ab"]);
    cluster
        .world
        .run(async { client.update("set", |_| Change::Delete).await.unwrap() });
    assert!(cluster.values("set").is_empty());
}

#[test]
fn updates_read_again_when_the_context_is_refused() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    cluster.refuse_puts(2, ErrorCode::WrongContext);
    let mut calls = 0;
    let written = cluster.world.run(async {
        client
            .update("k", move |_| {
                calls += 1;
                Change::Put(format!("call {calls}").into())
            })
            .await
    });
    assert!(written.unwrap().is_some());
    assert_eq!(cluster.values("k"), ["call 3"]);

    cluster.refuse_puts(100, ErrorCode::TooManySiblings);
    let error = cluster
        .world
        .run(async { client.update("k", |_| Change::Delete).await });
    assert_eq!(error.unwrap_err().code(), "too-many-siblings");
}

#[test]
fn impossible_requests_are_refused_before_anything_is_sent() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    cluster.world.run(async {
        let error = client.get("k").r(4).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "r=4 is not possible with n=3 replicas; r is 1 to 3"
        );
        assert_eq!(
            client.put("k", "v").w(0).await.unwrap_err().code(),
            "bad-quorum"
        );
        assert_eq!(client.get("").await.unwrap_err().code(), "bad-key");
        let long = vec![b'k'; Key::MAX_PARTITION_BYTES + 1];
        assert_eq!(client.get(long).await.unwrap_err().code(), "bad-key");
        let limit = 4 << 20;
        client
            .put("k", vec![0; limit])
            .level(Level::All)
            .await
            .unwrap();
        let error = client.put("k", vec![0; limit + 1]).await.unwrap_err();
        assert_eq!((error.code(), error.exit_code()), ("too-large", 2));
        assert!(error.to_string().contains("4194305"), "{error}");
        assert_eq!(client.bucket("No").unwrap_err().code(), "bad-bucket-name");
    });
    assert_eq!(cluster.seen().len(), 1, "only the put at the limit");
}

#[test]
fn a_bucket_can_be_used_through_one_node() {
    let cluster = Cluster::of(7);
    let client = cluster.client();
    let key = (0..).map(|n| format!("key {n}"));
    let via = crate::cluster::node(3);
    let key = key
        .into_iter()
        .find(|key| !cluster.replicas(key).contains(&via))
        .unwrap();
    let bucket = client.default_bucket().via(via);
    cluster.world.run(async {
        bucket.put(&key, "v").await.unwrap();
        bucket.get(&key).await.unwrap();
    });
    assert!(cluster.seen().iter().all(|seen| seen.node == via));
}

#[test]
fn many_keys_give_a_result_each_in_their_order() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    let bucket = client.default_bucket();
    cluster.world.run(async {
        let pairs = (0..300).map(|n| (format!("k{n}"), format!("v{n}")));
        let written = bucket.put_many(pairs).each(|put| put.w(3)).await;
        assert_eq!(written.len(), 300);
        assert!(written.iter().all(Result::is_ok));
        let names: Vec<String> = (0..300).rev().map(|n| format!("k{n}")).collect();
        let read = bucket.get_many(&names).at_once(7).await;
        for (n, one) in (0..300).rev().zip(read) {
            let value = one.unwrap().one().unwrap();
            assert_eq!(value.as_deref(), Some(format!("v{n}").as_bytes()));
        }
        // One that makes no sense leaves the others alone.
        let read = bucket.get_many(["k1", "", "k2"]).await;
        let outcomes: Vec<bool> = read.iter().map(Result::is_ok).collect();
        assert_eq!(outcomes, [true, false, true]);
        assert!(bucket.get_many(Vec::<String>::new()).await.is_empty());
    });
}
