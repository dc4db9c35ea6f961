//! What goes bad on one disk is found, cut out, and comes back from the other owners.

use std::path::PathBuf;
use std::time::Duration;

use kv_net::message::{
    ReadOptions, Request, Response, TreeKeysV1, TreeNodesV1, WatermarksV1, WriteKind,
};
use kv_net::{ErrorCode, Role};
use kv_node::tombstones::DeleteOptions;
use kv_ring::PartitionId;
use kv_tests::sim::SimCluster;
use kv_types::{Hlc, Level, NodeId};

use crate::client::{BUCKET, BUDGET, Client, metric, options, with, with_cluster};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);
/// Within this everything has been read again, and what was damaged is fetched.
const HEALED: Duration = Duration::from_secs(30);

/// Flips two bytes in each file of large values on a node's disk; says how many there are.
pub(crate) fn damage(cluster: &SimCluster, node: NodeId) -> usize {
    let fs = cluster.fs(node);
    let files = fs.dump().into_iter();
    let blobs: Vec<(PathBuf, Vec<u8>)> = files
        .filter(|(path, _)| path.extension().is_some_and(|ending| ending == "blob"))
        .collect();
    for (path, bytes) in &blobs {
        let mut bad = bytes.clone();
        bad[bytes.len() / 4] ^= 4;
        bad[bytes.len() * 3 / 4] ^= 4;
        fs.overwrite(path, bad).expect("it is there");
    }
    blobs.len()
}

async fn shown(cluster: &SimCluster, client: &mut Client, via: NodeId, key: &str) -> Vec<String> {
    let read = ReadOptions {
        level: Level::Weak,
        ..ReadOptions::default()
    };
    let read = client.get_with(cluster, via, key, read).await;
    read.expect("it answers").0
}

#[test]
fn damaged_values_come_back_from_the_other_owners() {
    with_cluster(1, |cluster, mut client, handle| async move {
        let value = |number: u32| format!("{number}").repeat(200);
        for number in 0..200 {
            let key = format!("k{number}");
            let put = client.put(&cluster, N1, &key, &value(number)).await;
            put.expect("all are up");
        }
        handle.sleep(HEALED).await;
        assert!(damage(&cluster, N3) > 3, "values lie in files of their own");
        handle.sleep(HEALED).await;
        assert!(metric(&cluster, N3, "kv_storage_damaged_places ") > 3);
        assert_eq!(metric(&cluster, N3, "kv_incomplete_partitions "), 0);
        let brought = [
            (N3, "kv_anti_entropy_fetched "),
            (N1, "kv_anti_entropy_sent "),
            (N2, "kv_anti_entropy_sent "),
        ];
        let brought = brought.map(|(node, name)| metric(&cluster, node, name));
        assert!(brought.iter().sum::<u64>() > 3, "{brought:?}");
        cluster.kill(N1);
        cluster.kill(N2);
        for number in 0..200 {
            let key = format!("k{number}");
            let seen = shown(&cluster, &mut client, N3, &key).await;
            assert_eq!(seen, [value(number)], "{key}");
        }
    });
}

#[test]
fn what_went_bad_while_a_node_was_down_comes_back_as_well() {
    with_cluster(3, |cluster, mut client, handle| async move {
        for number in 0..200 {
            let (key, value) = (format!("k{number}"), "v".repeat(300));
            let put = client.put(&cluster, N1, &key, &value).await;
            put.expect("all are up");
        }
        handle.sleep(HEALED).await;
        cluster.kill(N3);
        assert!(damage(&cluster, N3) > 3);
        cluster.start(N3).await.expect("its own records are whole");
        // What is met first keeps the trees from being made, and each try meets one more.
        handle.sleep(HEALED * 4).await;
        assert!(metric(&cluster, N3, "kv_damage_cut_out ") > 3);
        assert_eq!(metric(&cluster, N3, "kv_incomplete_partitions "), 0);
        cluster.kill(N1);
        cluster.kill(N2);
        for number in 0..200 {
            let seen = shown(&cluster, &mut client, N3, &format!("k{number}")).await;
            assert_eq!(seen, ["v".repeat(300)], "k{number}");
        }
    });
}

#[test]
fn what_is_damaged_takes_the_memory_of_deletions_there_with_it() {
    let keep = Duration::from_secs(4);
    let nodes =
        |handle| SimCluster::new(handle, 3, 3, options()).with_deletes(DeleteOptions { keep });
    with(4, nodes, |cluster, mut client, handle| async move {
        for number in 0..200 {
            let (key, value) = (format!("k{number}"), "v".repeat(300));
            let put = client.put(&cluster, N1, &key, &value).await;
            put.expect("all are up");
        }
        for number in 0..600 {
            let deleted = format!("d{number}");
            let request = client.put_request(&deleted, None, WriteKind::Delete);
            let deleted = client.send_put(&cluster, N1, request, "").await;
            deleted.expect("all are up");
        }
        handle.sleep(HEALED).await;
        let marks = |partitions: Vec<u16>| -> usize {
            let image = cluster.image(N3).expect("a disk");
            let mark = |partition| image.watermark(BUCKET, PartitionId(partition));
            let marks = partitions.into_iter().map(mark);
            marks.filter(|mark| *mark != Ok(Hlc::ZERO)).count()
        };
        assert!(marks((0..256).collect()) > 200, "most partitions have one");
        cluster.kill(N1);
        cluster.kill(N2);
        assert!(damage(&cluster, N3) > 3);
        handle.sleep(HEALED).await;
        let image = cluster.image(N3).expect("a disk");
        let incomplete = image.incomplete().expect("its own records are whole");
        assert!(incomplete.len() > 3, "{incomplete:?}");
        assert_eq!(marks(incomplete.into_iter().collect()), 0);
    });
}

#[test]
fn while_the_others_are_away_what_is_damaged_is_not_missed() {
    with_cluster(2, |cluster, mut client, handle| async move {
        for number in 0..200 {
            let (key, value) = (format!("k{number}"), "v".repeat(300));
            let put = client.put(&cluster, N1, &key, &value).await;
            put.expect("all are up");
        }
        handle.sleep(HEALED).await;
        cluster.kill(N1);
        cluster.kill(N2);
        assert!(damage(&cluster, N3) > 3);
        handle.sleep(HEALED).await;
        assert!(metric(&cluster, N3, "kv_incomplete_partitions ") > 0);
        let weak = ReadOptions {
            level: Level::Weak,
            ..ReadOptions::default()
        };
        let mut refused = 0;
        for number in 0..200 {
            let key = format!("k{number}");
            match client.get_with(&cluster, N3, &key, weak).await {
                Ok((values, _)) => assert_eq!(values, ["v".repeat(300)], "{key}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 3, "{refused}");
        cluster.start(N1).await.expect("a healthy disk");
        cluster.start(N2).await.expect("a healthy disk");
        handle.sleep(HEALED).await;
        assert_eq!(metric(&cluster, N3, "kv_incomplete_partitions "), 0);
    });
}

/// What a node says of the keys of a place, if it has been whole since it told a number of its losses.
async fn keys_of_one_that_is_whole(
    cluster: &SimCluster,
    node: NodeId,
    partition: u16,
    since: u64,
) -> Result<Response, ErrorCode> {
    let epoch = cluster.node(node).expect("it runs").topology().epoch();
    let keys = TreeKeysV1 {
        under: TreeNodesV1 {
            epoch,
            bucket: BUCKET,
            partition,
            depth: 0,
            nodes: vec![0],
            whole_since: Some(since),
        },
        after: None,
        until: None,
    };
    let request = Request::TreeKeys(keys);
    let answer = cluster.network.call(Role::Node(N1), node, &request, BUDGET);
    match answer.await.expect("it runs") {
        Response::Error(error) => Err(error.code),
        other => Ok(other),
    }
}

/// Whoever compares may take what such a node does not have for deleted.
#[test]
fn who_has_lost_something_since_it_said_that_it_is_whole_answers_no_comparison_as_such() {
    with_cluster(5, |cluster, mut client, handle| async move {
        for number in 0..200 {
            let (key, value) = (format!("k{number}"), "v".repeat(300));
            let put = client.put(&cluster, N1, &key, &value).await;
            put.expect("all are up");
        }
        handle.sleep(HEALED).await;
        let losses = async || {
            let epoch = cluster.node(N3).expect("it runs").topology().epoch();
            let places = Vec::new();
            let request = Request::Watermarks(WatermarksV1 { epoch, places });
            let answer = cluster.network.call(Role::Node(N1), N3, &request, BUDGET);
            match answer.await {
                Ok(Response::Watermarks(reply)) => reply.losses,
                other => panic!("{other:?}"),
            }
        };
        let before = losses().await;
        let answer = keys_of_one_that_is_whole(&cluster, N3, 0, before).await;
        assert!(answer.is_ok(), "{answer:?}");
        assert!(damage(&cluster, N3) > 3);
        handle.sleep(HEALED * 2).await;
        assert!(metric(&cluster, N3, "kv_damage_cut_out ") > 3);
        assert_eq!(
            metric(&cluster, N3, "kv_incomplete_partitions "),
            0,
            "it is whole again"
        );
        let answer = keys_of_one_that_is_whole(&cluster, N3, 0, before).await;
        assert_eq!(answer, Err(ErrorCode::Incomplete));
        let since = losses().await;
        let answer = keys_of_one_that_is_whole(&cluster, N3, 0, since).await;
        assert!(answer.is_ok(), "{answer:?}");
    });
}
