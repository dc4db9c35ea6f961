//! Buckets with properties of their own, and their end.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kv_net::message::{
    ChangeKind, ChangeV1, GetV1, PutV1, ReadOptions, Request, Response, WriteKind, WriteOptions,
};
use kv_net::{ErrorCode, Role};
use kv_storage::Db;
use kv_tests::sim::SimCluster;
use kv_types::{
    BlindPut, BucketId, BucketMode, BucketName, BucketProperties, Durability, Level, NodeId,
    Outcome, Quorum,
};

use crate::anti_entropy::compare_all;
use crate::client::{BUDGET, Client, key, options, with_cluster};

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

async fn ask_for(cluster: &SimCluster, change: ChangeKind) -> Response {
    let request = Request::Change(ChangeV1 { change });
    let role = Role::Admin("operator".to_owned());
    let answer = cluster.network.call(role, NODES[0], &request, BUDGET).await;
    answer.expect("it is up")
}

async fn change(cluster: &SimCluster, change: ChangeKind) {
    let answer = ask_for(cluster, change).await;
    let Response::Change(made) = answer else {
        panic!("{answer:?}");
    };
    for node in NODES {
        let topology = cluster.node(node).expect("it runs").topology();
        assert_eq!(topology.epoch(), made.epoch, "{node} knows of it at once");
    }
}

pub(crate) async fn create(cluster: &SimCluster, name: &str, mode: BucketMode) -> BucketId {
    let properties = BucketProperties {
        mode,
        ..BucketProperties::majority_of(3).expect("three")
    };
    create_with(cluster, name, properties).await
}

async fn create_with(cluster: &SimCluster, name: &str, properties: BucketProperties) -> BucketId {
    let name = BucketName::new(name).expect("a good name");
    let creation = ChangeKind::CreateBucket {
        name: name.clone(),
        properties,
    };
    change(cluster, creation).await;
    let topology = cluster.node(NODES[0]).expect("it runs").topology();
    topology.bucket_by_name(&name).expect("created").id
}

pub(crate) async fn put(
    cluster: &SimCluster,
    client: &mut Client,
    via: NodeId,
    bucket: BucketId,
    name: &str,
    w: u8,
    value: &str,
) -> Result<(), ErrorCode> {
    let request = PutV1 {
        bucket,
        options: WriteOptions {
            level: Level::Quorum,
            w: Some(w),
            ..WriteOptions::default()
        },
        ..client.put_request(name, None, WriteKind::Put)
    };
    let put = client.send_put(cluster, via, request, value).await;
    put.map(drop).map_err(|(code, _)| code)
}

async fn get(
    cluster: &SimCluster,
    client: &mut Client,
    via: NodeId,
    bucket: BucketId,
    name: &str,
) -> Result<Vec<String>, ErrorCode> {
    let request = Request::Get(GetV1 {
        head: client.head(),
        bucket,
        key: key(name),
        options: ReadOptions {
            level: Level::Quorum,
            ..ReadOptions::default()
        },
        seen: None,
    });
    match cluster.network.call_as_client(via, request, BUDGET).await {
        Ok(Response::Get(reply, mut tail)) => {
            let siblings = reply.siblings.iter();
            let mut value = |bytes: u32| tail.split_to(bytes as usize).to_vec();
            let values = siblings.map(|sibling| value(sibling.value_bytes));
            Ok(values
                .map(|bytes| String::from_utf8(bytes).expect("text"))
                .collect())
        }
        Ok(Response::Error(error)) => Err(error.code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_two_writes_at_the_same_time_both_stay_or_the_last_one_wins() {
    for mode in [BucketMode::Siblings, BucketMode::Lww] {
        with_cluster(1, move |cluster, mut client, handle| async move {
            let bucket = create(&cluster, "b", mode).await;
            let apart: Vec<_> = NODES
                .into_iter()
                .flat_map(|one| NODES.into_iter().map(move |other| (one, other)))
                .filter(|(one, other)| one != other)
                .collect();
            cluster.network.block(&apart);
            for (via, value) in [(NODES[1], "first"), (NODES[0], "last")] {
                let put = put(&cluster, &mut client, via, bucket, "k", 1, value).await;
                put.expect("one is enough");
                handle.sleep(Duration::from_millis(20)).await;
            }
            cluster.network.unblock(&apart);
            handle.sleep(Duration::from_secs(30)).await;
            for via in NODES {
                let mut read = get(&cluster, &mut client, via, bucket, "k")
                    .await
                    .expect("all are up");
                read.sort_unstable();
                match mode {
                    BucketMode::Siblings => assert_eq!(read, ["first", "last"]),
                    BucketMode::Lww => assert_eq!(read, ["last"]),
                }
            }
        });
    }
}

#[test]
fn what_a_writer_does_not_say_its_bucket_says() {
    with_cluster(3, |cluster, mut client, handle| async move {
        let usual = BucketProperties::majority_of(3).expect("three");
        let short = BucketProperties { ttl_s: 2, ..usual };
        let hasty = BucketProperties {
            durability: Durability::Memory,
            ..usual
        };
        let usual = create_with(&cluster, "usual", usual).await;
        let short = create_with(&cluster, "short", short).await;
        let hasty = create_with(&cluster, "hasty", hasty).await;
        for bucket in [usual, short] {
            let options = [None, Some(600_000)].map(|ttl_ms| WriteOptions {
                ttl_ms,
                ..WriteOptions::default()
            });
            for (name, options) in ["k", "said"].into_iter().zip(options) {
                let request = PutV1 {
                    bucket,
                    options,
                    ..client.put_request(name, None, WriteKind::Put)
                };
                let put = client.send_put(&cluster, NODES[0], request, "v").await;
                put.expect("all are up");
                let shown = get(&cluster, &mut client, NODES[0], bucket, name).await;
                assert_eq!(shown, Ok(vec!["v".to_owned()]));
            }
        }
        handle.sleep(Duration::from_secs(3)).await;
        for (bucket, name, lives) in [
            (usual, "k", true),
            (usual, "said", true),
            (short, "k", false),
            (short, "said", true),
        ] {
            let shown = get(&cluster, &mut client, NODES[0], bucket, name).await;
            assert_eq!(shown.expect("all are up").len(), usize::from(lives));
        }
        // A node reserves time on its disk now and then, to date writes by.
        let put = put(&cluster, &mut client, NODES[0], usual, "k", 3, "v").await;
        put.expect("all are up");
        for node in NODES {
            let until = handle.now() + Duration::from_secs(20);
            cluster.conditions(node).hang_until(until);
        }
        for (bucket, waits) in [(hasty, false), (usual, true)] {
            let request = PutV1 {
                bucket,
                ..client.put_request("k", None, WriteKind::Put)
            };
            let put = client.send_put(&cluster, NODES[0], request, "w").await;
            let outcome = put.map(drop).map_err(|(_, outcome)| outcome);
            match waits {
                false => assert_eq!(outcome, Ok(())),
                true => assert_eq!(outcome, Err(Outcome::Unknown)),
            }
        }
    });
}

#[test]
fn a_dropped_bucket_goes_with_all_that_is_in_it_and_others_stay() {
    with_cluster(2, |cluster, mut client, handle| async move {
        let dropped = create(&cluster, "dropped", BucketMode::Siblings).await;
        let stays = create(&cluster, "stays", BucketMode::Siblings).await;
        for n in 0..60 {
            for bucket in [dropped, stays] {
                let put = put(
                    &cluster,
                    &mut client,
                    NODES[0],
                    bucket,
                    &format!("k{n}"),
                    3,
                    "v",
                )
                .await;
                put.expect("all are up");
            }
        }
        change(&cluster, ChangeKind::DropBucket { id: dropped }).await;
        handle.sleep(Duration::from_secs(10)).await;
        for via in NODES {
            let gone = get(&cluster, &mut client, via, dropped, "k1").await;
            assert_eq!(gone, Err(ErrorCode::UnknownBucket));
            let there = get(&cluster, &mut client, via, stays, "k1").await;
            assert_eq!(there, Ok(vec!["v".to_owned()]));
        }
        for node in NODES {
            cluster.kill(node);
            assert_eq!(rows(&cluster, node, dropped), 0, "at {node}");
            assert_eq!(rows(&cluster, node, stays), 60, "at {node}");
        }
    });
}

/// How many rows a node that is down has in a bucket.
/// What was written with w = 1 may be on one replica only, where reads of two out of three miss it.
#[test]
fn fewer_replicas_are_read_only_when_all_have_what_was_written_before() {
    with_cluster(4, |cluster, mut client, _| async move {
        let numbers = |r, w| BucketProperties {
            quorum: Quorum::new(3, r, w).expect("possible"),
            // So that a write asks nobody before.
            blind_put: BlindPut::Sibling,
            ..BucketProperties::majority_of(3).expect("three")
        };
        let name = BucketName::new("b").expect("a good name");
        let properties = numbers(3, 1);
        change(&cluster, ChangeKind::CreateBucket { name, properties }).await;
        let topology = cluster.node(NODES[0]).expect("it runs").topology();
        let id = topology.buckets().last().expect("created").id;
        client.epoch = topology.epoch();
        let [first, second, third] = NODES;
        let apart = [
            (first, second),
            (second, first),
            (first, third),
            (third, first),
        ];
        cluster.network.block(&apart);
        let written = put(&cluster, &mut client, first, id, "k", 1, "v").await;
        assert_eq!(written, Ok(()), "one replica is enough");
        cluster.network.unblock(&apart);
        let set = |was: (u8, u8), now: (u8, u8), repaired| ChangeKind::SetBucket {
            id,
            was: numbers(was.0, was.1),
            properties: numbers(now.0, now.1),
            repaired,
        };
        let Response::Error(refused) = ask_for(&cluster, set((3, 1), (2, 2), None)).await else {
            panic!("two of three could miss it");
        };
        assert_eq!(refused.outcome, Outcome::NotApplied);
        assert!(
            refused.message.contains("kv repair --bucket b"),
            "{refused:?}"
        );
        change(&cluster, set((3, 1), (3, 2), None)).await;
        let request = PutV1 {
            bucket: id,
            ..client.put_request("k2", None, WriteKind::Put)
        };
        let newest = cluster.node(first).expect("it runs").topology().epoch();
        assert!(client.epoch < newest);
        let written = client.send_put(&cluster, first, request, "v").await;
        let written = written.expect("served");
        assert_eq!(
            (written.needed, written.epoch),
            (2, newest),
            "nobody goes on with the old numbers"
        );
        for node in NODES {
            let compared = compare_all(&cluster, node).await;
            assert_eq!(compared.shared, compared.settled, "{node}: {compared:?}");
        }
        let repaired = cluster.node(first).expect("it runs").topology().epoch();
        change(&cluster, set((3, 2), (2, 2), Some(repaired))).await;
        client.epoch = cluster.node(first).expect("it runs").topology().epoch();
        cluster.network.block(&apart);
        let read = get(&cluster, &mut client, second, id, "k").await;
        assert_eq!(read, Ok(vec!["v".to_owned()]));
    });
}

fn rows(cluster: &SimCluster, node: NodeId, bucket: BucketId) -> usize {
    let mut env = kv_storage::Env::embedded(1);
    env.fs = Arc::new(cluster.fs(node));
    let db = Db::open(Path::new("/data/store"), options(), env).expect("it opens");
    let first = Bytes::copy_from_slice(&bucket.0.to_be_bytes());
    let end = Bytes::copy_from_slice(&(bucket.0 + 1).to_be_bytes());
    let snapshot = db.snapshot();
    let rows = snapshot.iter((Bound::Included(first), Bound::Excluded(end)));
    rows.inspect(|row| assert!(row.is_ok())).count()
}
