//! Whole nodes in one process, one thread and virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kv_net::message::{ListV1, ReadOptions, Request, Response, RowsV1, WriteKind};
use kv_net::{ErrorCode, Role};
use kv_tests::sim::SimCluster;
use kv_types::{BucketId, Key, Level, NodeId, Object, Outcome};

use crate::client::{BUCKET, BUDGET, Client, with_cluster};

#[test]
fn a_healthy_cluster_serves_through_every_node() {
    with_cluster(11, |cluster, mut client, _| async move {
        let nodes: Vec<NodeId> = cluster.nodes().collect();
        for n in 0..300_usize {
            let (name, via) = (format!("k{}", n % 60), nodes[n % 3]);
            client
                .put(&cluster, via, &name, &format!("v{n}"))
                .await
                .expect("a healthy cluster takes writes");
        }
        for n in 0..60_usize {
            let (shown, _) = client
                .get(&cluster, nodes[n % 3], &format!("k{n}"))
                .await
                .expect("and reads");
            assert_eq!(shown, [format!("v{}", 240 + n)]);
        }
    });
}

#[test]
fn acked_writes_survive_the_death_and_return_of_any_one_node() {
    for seed in 0..12 {
        with_cluster(seed, move |cluster, mut client, handle| async move {
            let victim = NodeId(u128::from(seed % 3) + 1);
            let others: Vec<NodeId> = cluster.nodes().filter(|node| *node != victim).collect();
            let mut acked: BTreeMap<String, String> = BTreeMap::new();
            for n in 0..120_usize {
                match n {
                    40 if seed % 2 == 0 => cluster.kill(victim),
                    40 => cluster.cut_power(victim),
                    80 => cluster.start(victim).await.expect("it starts again"),
                    _ => {}
                }
                let (name, value) = (format!("k{}", n % 30), format!("v{n}"));
                let via = if !(40..=110).contains(&n) {
                    NodeId(n as u128 % 3 + 1)
                } else {
                    others[n % 2]
                };
                client
                    .put(&cluster, via, &name, &value)
                    .await
                    .unwrap_or_else(|error| panic!("write {n}: {error:?}"));
                acked.insert(name, value);
            }
            // The one that was away holds old values; reads through it must not show them.
            handle.sleep(Duration::from_secs(2)).await;
            for via in cluster.nodes() {
                for (name, value) in &acked {
                    let (shown, reply) = client
                        .get(&cluster, via, name)
                        .await
                        .expect("all nodes are back");
                    assert_eq!(
                        shown,
                        std::slice::from_ref(value),
                        "seed {seed}, {name} via {via}"
                    );
                    assert!(reply.answered.len() >= 2);
                }
            }
        });
    }
}

#[test]
fn reads_repair_a_replica_that_was_away() {
    with_cluster(5, |cluster, mut client, handle| async move {
        cluster.kill(NodeId(3));
        handle.sleep(Duration::from_secs(3)).await;
        client
            .put(&cluster, NodeId(1), "k", "new")
            .await
            .expect("two of three are enough");
        cluster.start(NodeId(3)).await.expect("it starts again");
        let weak = ReadOptions {
            level: Level::Weak,
            ..ReadOptions::default()
        };
        let (before, _) = client
            .get_with(&cluster, NodeId(3), "k", weak)
            .await
            .expect("one answer is enough");
        assert!(before.is_empty(), "the third was away");
        client
            .get_with(
                &cluster,
                NodeId(3),
                "k",
                ReadOptions {
                    level: Level::All,
                    ..weak
                },
            )
            .await
            .expect("all are up");
        handle.sleep(Duration::from_millis(100)).await;
        let (after, _) = client
            .get_with(&cluster, NodeId(3), "k", weak)
            .await
            .expect("one answer is enough");
        assert_eq!(after, ["new"]);
    });
}

#[test]
fn without_a_quorum_a_request_says_so_with_numbers_and_nothing_is_applied() {
    with_cluster(6, |cluster, mut client, handle| async move {
        client
            .put(&cluster, NodeId(1), "k", "old")
            .await
            .expect("healthy");
        cluster.kill(NodeId(2));
        cluster.kill(NodeId(3));
        handle.sleep(Duration::from_secs(5)).await;
        let refused = client
            .put(&cluster, NodeId(1), "k", "new")
            .await
            .expect_err("one of three");
        assert_eq!(refused, (ErrorCode::NotEnoughReplicas, Outcome::NotApplied));
        let refused = client
            .get(&cluster, NodeId(1), "k")
            .await
            .expect_err("one of three");
        assert_eq!(refused.0, ErrorCode::NotEnoughReplicas);
        cluster.start(NodeId(2)).await.expect("it starts again");
        cluster.start(NodeId(3)).await.expect("it starts again");
        handle.sleep(Duration::from_secs(5)).await;
        let (shown, _) = client
            .get(&cluster, NodeId(2), "k")
            .await
            .expect("healthy again");
        assert_eq!(shown, ["old"]);
    });
}

#[test]
fn concurrent_writes_through_two_nodes_become_siblings_and_a_context_resolves_them() {
    with_cluster(7, |cluster, mut client, _| async move {
        let (_, empty) = client.get(&cluster, NodeId(1), "k").await.expect("healthy");
        let first = client.put_request("k", Some(empty.context.clone()), WriteKind::Put);
        let second = client.put_request("k", Some(empty.context), WriteKind::Put);
        let send = |via, request, value: &'static str| {
            cluster.network.call_as_client(
                NodeId(via),
                Request::Put(request, Bytes::from_static(value.as_bytes())),
                BUDGET,
            )
        };
        let (a, b) = futures::join!(send(1, first, "a"), send(2, second, "b"));
        assert!(matches!(
            (a, b),
            (Ok(Response::Put(_)), Ok(Response::Put(_)))
        ));
        let (mut shown, reply) = client.get(&cluster, NodeId(3), "k").await.expect("healthy");
        shown.sort();
        assert_eq!(shown, ["a", "b"], "neither had read the other");
        let resolved = client.put_request("k", Some(reply.context), WriteKind::Put);
        client
            .send_put(&cluster, NodeId(2), resolved, "ab")
            .await
            .expect("healthy");
        let (shown, reply) = client.get(&cluster, NodeId(1), "k").await.expect("healthy");
        assert_eq!(shown, ["ab"]);
        let deleted = client.put_request("k", Some(reply.context), WriteKind::Delete);
        client
            .send_put(&cluster, NodeId(3), deleted, "")
            .await
            .expect("healthy");
        let (shown, reply) = client.get(&cluster, NodeId(2), "k").await.expect("healthy");
        assert!(shown.is_empty() && reply.siblings.iter().all(|sibling| sibling.tombstone));
    });
}

#[test]
fn the_context_of_a_put_covers_what_its_writer_had_read_and_nothing_beside() {
    with_cluster(12, |cluster, mut client, _| async move {
        let via = NodeId(1);
        let (_, empty) = client.get(&cluster, via, "k").await.expect("healthy");
        let theirs = client.put_request("k", Some(empty.context.clone()), WriteKind::Put);
        client
            .send_put(&cluster, via, theirs, "theirs")
            .await
            .expect("healthy");
        let mine = client.put_request("k", Some(empty.context), WriteKind::Put);
        let written = client
            .send_put(&cluster, via, mine.clone(), "mine")
            .await
            .expect("healthy");
        // A repetition is answered with no more than the first attempt was.
        let again = client
            .send_put(&cluster, via, mine, "mine")
            .await
            .expect("known already");
        for (context, value) in [(written.context, "mine 2"), (again.context, "mine 3")] {
            let next = client.put_request("k", Some(context), WriteKind::Put);
            client
                .send_put(&cluster, via, next, value)
                .await
                .expect("healthy");
        }
        let (mut shown, _) = client.get(&cluster, via, "k").await.expect("healthy");
        shown.sort();
        assert_eq!(
            shown,
            ["mine 2", "mine 3", "theirs"],
            "what the writer never saw is still there"
        );
    });
}

#[test]
fn siblings_beyond_the_limit_of_one_coordinator_stay_readable_and_resolvable() {
    with_cluster(13, |cluster, mut client, _| async move {
        let (_, empty) = client.get(&cluster, NodeId(1), "k").await.expect("healthy");
        cluster.network.cut_off(NodeId(3), true);
        let mut count = 0;
        for (via, number) in [(NodeId(1), 60), (NodeId(3), 10)] {
            if via == NodeId(3) {
                cluster.network.cut_off(NodeId(3), false);
                cluster.network.cut_off(NodeId(1), true);
            }
            for n in 0..number {
                let mut request =
                    client.put_request("k", Some(empty.context.clone()), WriteKind::Put);
                request.options.w = Some(1);
                if client
                    .send_put(&cluster, via, request, &n.to_string())
                    .await
                    .is_ok()
                {
                    count += 1;
                }
            }
        }
        cluster.network.cut_off(NodeId(1), false);
        // Each write is on one node only, so the read must ask all.
        let all = ReadOptions {
            level: Level::All,
            ..ReadOptions::default()
        };
        let (shown, reply) = client
            .get_with(&cluster, NodeId(2), "k", all)
            .await
            .expect("healed");
        assert_eq!(shown.len(), count);
        assert!(
            count > Object::MAX_SIBLINGS,
            "each coordinator stayed within its limit"
        );
        let resolving = client.put_request("k", Some(reply.context), WriteKind::Put);
        client
            .send_put(&cluster, NodeId(2), resolving, "one")
            .await
            .expect("it replaces what was read");
    });
}

#[test]
fn a_repeated_write_is_applied_once() {
    with_cluster(8, |cluster, mut client, _| async move {
        let request = client.put_request("k", None, WriteKind::Put);
        client
            .send_put(&cluster, NodeId(1), request.clone(), "v1")
            .await
            .expect("healthy");
        client
            .put(&cluster, NodeId(2), "k", "v2")
            .await
            .expect("healthy");
        // The reply of the first was lost; the client tries again elsewhere.
        for via in [1, 2, 3] {
            client
                .send_put(&cluster, NodeId(via), request.clone(), "v1")
                .await
                .expect("answered as applied");
        }
        let (shown, _) = client.get(&cluster, NodeId(3), "k").await.expect("healthy");
        assert_eq!(shown, ["v2"], "the superseded write did not come back");
    });
}

#[test]
fn contexts_of_other_keys_and_impossible_quorums_are_refused() {
    with_cluster(9, |cluster, mut client, _| async move {
        let written = client
            .put(&cluster, NodeId(1), "a", "v")
            .await
            .expect("healthy");
        let wrong = client.put_request("b", Some(written.context), WriteKind::Put);
        let refused = client
            .send_put(&cluster, NodeId(1), wrong, "x")
            .await
            .expect_err("a's context");
        assert_eq!(refused, (ErrorCode::WrongContext, Outcome::NotApplied));

        let mut impossible = client.put_request("a", None, WriteKind::Put);
        impossible.options.w = Some(4);
        let refused = client
            .send_put(&cluster, NodeId(1), impossible, "x")
            .await
            .expect_err("w > n");
        assert_eq!(refused, (ErrorCode::BadRequest, Outcome::NotApplied));

        let mut unknown = client.put_request("a", None, WriteKind::Put);
        unknown.bucket = BucketId(99);
        let refused = client
            .send_put(&cluster, NodeId(1), unknown, "x")
            .await
            .expect_err("no such bucket");
        assert_eq!(refused, (ErrorCode::UnknownBucket, Outcome::NotApplied));

        let (shown, _) = client.get(&cluster, NodeId(2), "a").await.expect("healthy");
        assert_eq!(shown, ["v"], "nothing of that was applied");
    });
}

#[test]
fn a_bucket_is_listed_whole_in_pages() {
    with_cluster(10, |cluster, mut client, _| async move {
        for n in 0..400 {
            client
                .put(&cluster, NodeId(1), &format!("k{n}"), "v")
                .await
                .expect("healthy");
        }
        let mut seen = Vec::new();
        for partition in 0..256_u16 {
            let mut after = None;
            loop {
                let list = ListV1 {
                    head: client.head(),
                    bucket: BUCKET,
                    partition,
                    rows: None,
                    after: after.take(),
                    max_items: 1,
                    options: ReadOptions::default(),
                };
                match cluster
                    .network
                    .call_as_client(NodeId(2), Request::List(list), BUDGET)
                    .await
                {
                    Ok(Response::List(page, _)) => {
                        seen.extend(page.entries.into_iter().map(|entry| entry.key.to_string()));
                        after = page.next_after;
                    }
                    other => panic!("{other:?}"),
                }
                if after.is_none() {
                    break;
                }
            }
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 400);
    });
}

/// The sort keys that a node lists of rows, each page with at most so many, and how many pages that took.
async fn rows_listed(
    cluster: &SimCluster,
    client: &mut Client,
    rows: &RowsV1,
    max_items: u32,
) -> (Vec<u32>, usize) {
    let (_, partition) = cluster.topology().locate(BUCKET, &rows.partition_key);
    let (mut after, mut sort_keys, mut pages) = (None, Vec::new(), 0);
    loop {
        let from = (partition.0, Some(rows.clone()), after);
        let options = ReadOptions::default();
        let page = client.list(cluster, NodeId(2), from, max_items, options);
        let (page, _) = page.await.expect("healthy");
        pages += 1;
        for entry in page.entries {
            assert_eq!(entry.key.partition_key(), &rows.partition_key);
            let sort = entry.key.sort_key().try_into().expect("four bytes");
            sort_keys.push(u32::from_be_bytes(sort));
        }
        after = page.next_after;
        if after.is_none() {
            return (sort_keys, pages);
        }
    }
}

#[test]
fn rows_of_one_partition_key_are_listed_in_order_within_their_bounds() {
    with_cluster(13, |cluster, mut client, _| async move {
        // A zero byte is escaped where they are stored.
        let names: [&[u8]; 4] = [b"sensor", b"sensor\0", b"sensor\0\xff", b"senso"];
        let sort_key = |n: u32| Bytes::copy_from_slice(&n.to_be_bytes());
        for n in 0..120 {
            for name in names {
                let mut put = client.put_request("k", None, WriteKind::Put);
                put.key = Key::with_sort(name.to_vec(), sort_key(n)).expect("short");
                let put = client.send_put(&cluster, NodeId(1), put, "v").await;
                put.expect("healthy");
            }
        }
        for name in names {
            let mut rows = RowsV1 {
                partition_key: Bytes::copy_from_slice(name),
                from: Bytes::new(),
                until: None,
            };
            let (all, pages) = rows_listed(&cluster, &mut client, &rows, 50).await;
            assert_eq!(all, (0..120).collect::<Vec<_>>());
            assert_eq!(pages, 3);
            (rows.from, rows.until) = (sort_key(17), Some(sort_key(101)));
            let (some, _) = rows_listed(&cluster, &mut client, &rows, 50).await;
            assert_eq!(some, (17..101).collect::<Vec<_>>());
        }
        let mut elsewhere = RowsV1 {
            partition_key: Bytes::from_static(b"sensor"),
            from: Bytes::new(),
            until: None,
        };
        let (_, partition) = cluster.topology().locate(BUCKET, b"sensor");
        let other = (partition.0 ^ 1, Some(elsewhere.clone()), None);
        let options = ReadOptions::default();
        let refused = client.list(&cluster, NodeId(2), other, 50, options).await;
        let refused = refused.expect_err("they are not there");
        assert_eq!(refused.0, ErrorCode::BadRequest);
        elsewhere.from = Bytes::from(vec![0; Key::MAX_SORT_BYTES + 2]);
        let long = (partition.0, Some(elsewhere), None);
        let refused = client.list(&cluster, NodeId(2), long, 50, options).await;
        assert_eq!(refused.expect_err("too long").0, ErrorCode::BadRequest);
    });
}

#[test]
fn a_write_whose_deadline_has_passed_is_not_applied() {
    with_cluster(12, |cluster, mut client, _handle| async move {
        let via = NodeId(1);
        client
            .put(&cluster, via, "k", "old")
            .await
            .expect("all is well");
        let (_, read) = client.get(&cluster, via, "k").await.expect("all is well");
        let late = client.put_request("k", Some(read.context), WriteKind::Put);
        let late = Request::Put(late, Bytes::from_static(b"late"));
        let node = cluster.node(via).expect("it runs");
        let from = Role::Client("late".to_owned());
        let Response::Error(refused) = node.handle(from, late, Duration::ZERO).await else {
            panic!("nothing can be done in no time");
        };
        assert_eq!(refused.outcome, Outcome::NotApplied, "{refused:?}");
        let (values, _) = client.get(&cluster, via, "k").await.expect("all is well");
        assert_eq!(values, ["old"]);
    });
}
