//! Replicas become equal by themselves.

use std::time::Duration;

use kv_net::message::{CompareReplyV1, CompareV1, ReadOptions, Request, Response, WriteKind};
use kv_net::{Method, Role};
use kv_node::replica::PageLimits;
use kv_tests::sim::SimCluster;
use kv_tests::sim::network::Recorded;
use kv_types::{Key, Level, NodeId};

use crate::client::{BUCKET, options, with, with_cluster};

#[test]
fn a_replica_that_was_away_gets_what_it_missed_though_nobody_reads_it() {
    for seed in 0..4 {
        with_cluster(seed, move |cluster, mut client, handle| async move {
            let (away, via) = (NodeId(3), NodeId(1));
            for n in 0..400 {
                let name = format!("k{n}");
                client
                    .put(&cluster, via, &name, "old")
                    .await
                    .expect("all are up");
            }
            cluster.kill(away);
            handle.sleep(Duration::from_secs(3)).await;
            let kept = |n: usize| n.is_multiple_of(3);
            for n in (0..400).filter(|n| !kept(*n)) {
                let kind = if n % 3 == 1 {
                    WriteKind::Put
                } else {
                    WriteKind::Delete
                };
                let request = client.put_request(&format!("k{n}"), None, kind);
                let value = if n % 3 == 1 { "new" } else { "" };
                let put = client.send_put(&cluster, via, request, value).await;
                put.expect("two of three are up");
            }
            for n in 400..450 {
                let name = format!("k{n}");
                client
                    .put(&cluster, via, &name, "added")
                    .await
                    .expect("two of three are up");
            }
            cluster.start(away).await.expect("it starts again");
            handle.sleep(Duration::from_secs(30)).await;
            let weak = ReadOptions {
                level: Level::Weak,
                ..ReadOptions::default()
            };
            for n in 0..450 {
                let name = format!("k{n}");
                let read = client.get_with(&cluster, away, &name, weak).await;
                let (values, _) = read.expect("one answer is enough");
                let expected: &[&str] = match n {
                    400.. => &["added"],
                    _ if kept(n) => &["old"],
                    _ if n % 3 == 1 => &["new"],
                    _ => &[],
                };
                assert_eq!(values, expected, "{name} at {away} alone");
            }
        });
    }
}

#[test]
fn what_differs_is_found_by_trees_that_only_followed_the_log() {
    with_cluster(7, |cluster, mut client, handle| async move {
        let [first, second, cut_off] = [NodeId(1), NodeId(2), NodeId(3)];
        handle.sleep(Duration::from_secs(3)).await;
        let links = [
            (first, cut_off),
            (cut_off, first),
            (second, cut_off),
            (cut_off, second),
        ];
        cluster.network.block(&links);
        for n in 0..200 {
            let name = format!("k{n}");
            let put = client.put(&cluster, first, &name, "v").await;
            put.expect("two of three are enough");
        }
        cluster.network.unblock(&links);
        handle.sleep(Duration::from_secs(40)).await;
        let weak = ReadOptions {
            level: Level::Weak,
            ..ReadOptions::default()
        };
        for n in 0..200 {
            let name = format!("k{n}");
            let read = client.get_with(&cluster, cut_off, &name, weak).await;
            let (values, _) = read.expect("one answer is enough");
            assert_eq!(values, ["v"], "{name}");
        }
    });
}

#[test]
fn scattered_differences_are_found_with_few_bytes() {
    // In some of these worlds two peers find them at the same time, and ask for some of them twice.
    let of_each = [1, 4, 8, 9].map(bytes_for_each_scattered_difference);
    println!("{of_each:?} bytes of questions and answers for each difference");
    assert!(
        of_each.iter().sum::<usize>() <= 600 * of_each.len(),
        "{of_each:?}"
    );
}

/// Ten thousand differences in a million keys of 4,096 partitions are as dense as these.
fn bytes_for_each_scattered_difference(seed: u64) -> usize {
    const PARTITIONS: u16 = 16;
    const KEYS: usize = 244 * PARTITIONS as usize;
    with_cluster(seed, |cluster, mut client, handle| async move {
        let [first, second, away] = [NodeId(1), NodeId(2), NodeId(3)];
        let topology = cluster.topology();
        let is_in = |name: &String| {
            let key = crate::client::key(name);
            topology.locate(BUCKET, key.partition_key()).1.0 < PARTITIONS
        };
        let names = (0..).map(|n| format!("k{n}")).filter(is_in);
        let names: Vec<String> = names.take(KEYS).collect();
        for name in &names {
            let put = client.put(&cluster, first, name, "v").await;
            put.expect("all are up");
        }
        handle.sleep(Duration::from_secs(15)).await;
        let links: Vec<_> = [first, second]
            .iter()
            .flat_map(|node| [(*node, away), (away, *node)])
            .collect();
        cluster.network.block(&links);
        let differing = names.iter().step_by(100);
        for name in differing.clone() {
            let put = client.put(&cluster, first, name, "w").await;
            put.expect("two of three are enough");
        }
        // What is younger is left alone.
        handle.sleep(Duration::from_secs(11)).await;
        cluster.network.record();
        cluster.network.unblock(&links);
        handle.sleep(Duration::from_secs(20)).await;
        let mut asked = 0;
        for message in cluster.network.take_recorded() {
            asked += match message {
                Recorded::Request(
                    Method::TreeRoots | Method::TreeNodes | Method::TreeKeys | Method::TreeObjects,
                    bytes,
                )
                | Recorded::Response(
                    Method::TreeRoots | Method::TreeNodes | Method::TreeKeys,
                    _,
                    bytes,
                ) => bytes.len(),
                _ => 0,
            };
        }
        let weak = ReadOptions {
            level: Level::Weak,
            ..ReadOptions::default()
        };
        for name in differing.clone() {
            let read = client.get_with(&cluster, away, name, weak).await;
            let (values, _) = read.expect("one answer is enough");
            assert_eq!(values, ["w"], "{name}");
        }
        asked / differing.count()
    })
}

#[test]
fn an_operator_has_copies_compared_at_once() {
    with_cluster(8, |cluster, mut client, handle| async move {
        let [first, second, away] = [NodeId(1), NodeId(2), NodeId(3)];
        handle.sleep(Duration::from_secs(3)).await;
        cluster.kill(away);
        handle.sleep(Duration::from_secs(3)).await;
        for n in 0..100 {
            let put = client.put(&cluster, first, &format!("k{n}"), "v").await;
            put.expect("two of three are up");
        }
        let ask = |node| compare_all(&cluster, node);
        let alone = ask(second).await;
        assert_eq!(
            (alone.shared, alone.settled),
            (512, 256),
            "one of the two others is away"
        );

        cluster.start(away).await.expect("a healthy disk");
        // So that its trees are made, and no comparison has come round yet.
        handle.sleep(Duration::from_millis(1_500)).await;
        let compared = ask(away).await;
        assert_eq!((compared.shared, compared.settled), (512, 512));
        // What others bring in the same moment is counted as well.
        assert!(compared.fetched >= 100, "{compared:?}");
        cluster.kill(first);
        cluster.kill(second);
        for n in 0..100 {
            let weak = ReadOptions {
                level: Level::Weak,
                ..ReadOptions::default()
            };
            let read = client
                .get_with(&cluster, away, &format!("k{n}"), weak)
                .await;
            assert_eq!(read.expect("it is up").0, ["v"], "k{n}");
        }
    });
}

/// All rows of a partition key lie under the same node of the Merkle tree, which no tree divides.
#[test]
fn a_partition_key_of_any_length_is_compared_to_its_end() {
    const ROWS: u32 = 2_000;
    let [first, second, cut_off] = [NodeId(1), NodeId(2), NodeId(3)];
    let nodes = |handle| {
        let pages = PageLimits {
            copies: 100,
            bytes: 4 << 10,
            visited: 90,
        };
        SimCluster::new(handle, 3, 3, options()).with_pages(pages)
    };
    // Of those that are told to compare, one has more rows, and the other one fewer.
    for asked in [Some(first), Some(cut_off), None] {
        with(10, nodes, move |cluster, mut client, handle| async move {
            handle.sleep(Duration::from_secs(3)).await;
            let links: Vec<_> = [first, second]
                .iter()
                .flat_map(|node| [(*node, cut_off), (cut_off, *node)])
                .collect();
            cluster.network.block(&links);
            let row = |n: u32| Key::with_sort("sensor", n.to_be_bytes().to_vec()).expect("short");
            for n in 0..ROWS {
                // Most on one side, every tenth on the other, and the last ones there alone.
                let (via, level) = match n % 10 == 0 || n >= ROWS - 300 {
                    true => (cut_off, Level::Weak),
                    false => (first, Level::Quorum),
                };
                let mut put = client.put_request("row", None, WriteKind::Put);
                (put.key, put.options.level) = (row(n), level);
                let put = client.send_put(&cluster, via, put, "v").await;
                put.expect("enough can be reached");
            }
            cluster.network.unblock(&links);
            // So that they know of each other again.
            handle.sleep(Duration::from_millis(1_500)).await;
            match asked {
                None => handle.sleep(Duration::from_secs(60)).await,
                Some(node) => {
                    let compared = compare_all(&cluster, node).await;
                    assert_eq!(compared.shared, compared.settled, "{compared:?}");
                }
            }
            for alone in [first, cut_off] {
                for other in [first, second, cut_off] {
                    cluster.kill(other);
                }
                cluster.start(alone).await.expect("a healthy disk");
                let weak = ReadOptions {
                    level: Level::Weak,
                    ..ReadOptions::default()
                };
                for n in 0..ROWS {
                    let read = client.get_key(&cluster, alone, row(n), weak).await;
                    let (values, _) = read.expect("one answer is enough");
                    assert_eq!(values, ["v"], "row {n} at {alone} alone, {asked:?} asked");
                }
            }
        });
    }
}

/// What comes of having a node compare all that it holds with the others.
pub(crate) async fn compare_all(cluster: &SimCluster, node: NodeId) -> CompareReplyV1 {
    let request = Request::Compare(CompareV1 {
        bucket: None,
        first: 0,
        last: u16::MAX,
    });
    let role = Role::Admin("a".to_owned());
    let patience = Duration::from_secs(20);
    match cluster.network.call(role, node, &request, patience).await {
        Ok(Response::Compare(compared)) => compared,
        other => panic!("{other:?}"),
    }
}
