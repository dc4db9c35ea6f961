//! What of a write is on disks when it is acknowledged, and where.

use std::time::Duration;

use kv_net::ErrorCode;
use kv_net::message::{ReadOptions, WriteKind, WriteOptions};
use kv_storage::sim::Fault;
use kv_tests::sim::{Handle, SimCluster};
use kv_types::{Durability, Level, NodeId, Outcome};

use crate::client::{Client, options, with, with_cluster};

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const NOTICE: Duration = Duration::from_secs(8);
const HANGS: Duration = Duration::from_secs(20);

async fn put(
    cluster: &SimCluster,
    client: &mut Client,
    name: &str,
    options: WriteOptions,
) -> Result<Vec<NodeId>, (ErrorCode, Outcome)> {
    let mut request = client.put_request(name, None, WriteKind::Put);
    request.options = options;
    let put = client.send_put(cluster, NODES[0], request, "v").await;
    put.map(|reply| reply.acked)
}

fn synced(durability: Durability) -> WriteOptions {
    WriteOptions {
        level: Level::Quorum,
        durability: Some(durability),
        ..WriteOptions::default()
    }
}

fn in_zones(zones: u8, level: Level) -> WriteOptions {
    WriteOptions {
        level,
        distinct_zones: zones,
        ..WriteOptions::default()
    }
}

async fn read(cluster: &SimCluster, client: &mut Client, name: &str, r: u8) -> Vec<String> {
    let options = ReadOptions {
        level: Level::Quorum,
        r: Some(r),
        headers_only: false,
    };
    let read = client.get_with(cluster, NODES[0], name, options).await;
    read.expect("all are up").0
}

fn hang(cluster: &SimCluster, handle: &Handle, nodes: &[NodeId]) {
    for node in nodes {
        let until = handle.now() + HANGS;
        cluster.conditions(*node).hang_until(until);
    }
}

async fn lose_power(cluster: &SimCluster, nodes: &[NodeId]) {
    for node in nodes {
        cluster.cut_power(*node);
        cluster.conditions(*node).mend_disk();
    }
    for node in nodes {
        cluster.start(*node).await.expect("it starts");
    }
}

#[test]
fn memory_waits_for_no_disk_and_is_gone_if_all_lose_power_at_once() {
    let is_gone = |seed| {
        with_cluster(seed, |cluster, mut client, handle| async move {
            // The first write of a node reserves time on its disk, to date writes by.
            let first = put(&cluster, &mut client, "first", synced(Durability::Quorum)).await;
            first.expect("all are up");
            hang(&cluster, &handle, &NODES);
            let begun = handle.now();
            let acked = put(&cluster, &mut client, "a", synced(Durability::Memory)).await;
            assert!(acked.expect("no disk is waited for").len() >= 2);
            assert!(handle.now() - begun < Duration::from_millis(100));
            let asked = put(&cluster, &mut client, "b", synced(Durability::Quorum)).await;
            assert_eq!(asked.map_err(|(_, outcome)| outcome), Err(Outcome::Unknown));

            lose_power(&cluster, &NODES).await;
            handle.sleep(NOTICE).await;
            read(&cluster, &mut client, "a", 3).await.is_empty()
        })
    };
    // A disk may have it all the same.
    let gone = (0..30).filter(|seed| is_gone(*seed)).count();
    assert!((1..30).contains(&gone), "{gone}");
}

#[test]
fn memory_is_synced_soon_without_anyone_waiting_for_it() {
    with_cluster(2, |cluster, mut client, handle| async move {
        let acked = put(&cluster, &mut client, "a", synced(Durability::Memory)).await;
        acked.expect("all are up");
        handle.sleep(Duration::from_millis(100)).await;
        lose_power(&cluster, &NODES).await;
        handle.sleep(NOTICE).await;
        assert_eq!(read(&cluster, &mut client, "a", 3).await, ["v"]);
    });
}

#[test]
fn one_waits_for_the_disk_of_the_coordinator_only() {
    with_cluster(3, |cluster, mut client, handle| async move {
        // All know of each other.
        handle.sleep(NOTICE).await;
        hang(&cluster, &handle, &NODES[1..]);
        let acked = put(&cluster, &mut client, "a", synced(Durability::One)).await;
        assert!(acked.expect("its disk is well").contains(&NODES[0]));
        // The others forget it; their reads may miss it, until they have it again.
        lose_power(&cluster, &NODES[1..]).await;
        handle.sleep(NOTICE).await;
        assert_eq!(read(&cluster, &mut client, "a", 3).await, ["v"]);

        hang(&cluster, &handle, &NODES[..1]);
        let asked = put(&cluster, &mut client, "b", synced(Durability::One)).await;
        assert_eq!(asked.map_err(|(_, outcome)| outcome), Err(Outcome::Unknown));
    });
}

#[test]
fn one_waits_for_that_disk_though_others_stand_in() {
    let make = |handle| SimCluster::new(handle, 5, 3, options());
    with(6, make, |cluster, mut client, handle| async move {
        for n in 0..10 {
            let name = format!("w{n}");
            let first = put(&cluster, &mut client, &name, in_zones(0, Level::Quorum));
            first.await.expect("all are up");
        }
        let all: Vec<NodeId> = cluster.nodes().collect();
        hang(&cluster, &handle, &all);
        for n in 0..10 {
            let one = WriteOptions {
                level: Level::Eventual,
                ..synced(Durability::One)
            };
            let asked = put(&cluster, &mut client, &format!("k{n}"), one).await;
            assert!(asked.is_err(), "no disk has it");
        }
    });
}

#[test]
fn a_write_that_is_repeated_is_synced_as_its_repetition_asks() {
    with_cluster(7, |cluster, mut client, handle| async move {
        let first = put(&cluster, &mut client, "first", synced(Durability::Quorum)).await;
        first.expect("all are up");
        hang(&cluster, &handle, &NODES);
        let mut request = client.put_request("a", None, WriteKind::Put);
        request.options = synced(Durability::Memory);
        let sent = client.send_put(&cluster, NODES[0], request.clone(), "v");
        sent.await.expect("no disk is waited for");
        request.options = synced(Durability::Quorum);
        let sent = client.send_put(&cluster, NODES[0], request.clone(), "v");
        let code = sent.await.map(drop).map_err(|(code, _)| code);
        assert_eq!(code, Err(ErrorCode::Timeout), "no disk has it");
        handle.sleep(HANGS + NOTICE).await;
        let sent = client.send_put(&cluster, NODES[0], request, "v");
        sent.await.expect("the disks are well");
    });
}

#[test]
fn all_waits_for_every_replica_however_small_w_is() {
    with_cluster(4, |cluster, mut client, handle| async move {
        let all = WriteOptions {
            w: Some(1),
            ..synced(Durability::All)
        };
        let acked = put(&cluster, &mut client, "a", all).await;
        assert_eq!(acked.expect("all are up").len(), 3);
        cluster.kill(NODES[2]);
        handle.sleep(NOTICE).await;
        let refused = put(&cluster, &mut client, "b", all).await;
        assert_eq!(
            refused,
            Err((ErrorCode::NotEnoughReplicas, Outcome::NotApplied))
        );
    });
}

#[test]
fn replicas_can_be_asked_for_in_several_zones() {
    let make = |handle| SimCluster::new(handle, 5, 3, options());
    with(5, make, |cluster, mut client, handle| async move {
        let acked = put(&cluster, &mut client, "k", in_zones(3, Level::Quorum)).await;
        let owners = acked.expect("all are up");
        assert_eq!(owners.len(), 3, "each is in a zone of its own");
        let refused = put(&cluster, &mut client, "k", in_zones(4, Level::Quorum)).await;
        assert_eq!(refused, Err((ErrorCode::BadRequest, Outcome::NotApplied)));

        let away = *owners.iter().find(|node| **node != NODES[0]).expect("some");
        cluster.kill(away);
        handle.sleep(NOTICE).await;
        let refused = put(&cluster, &mut client, "k", in_zones(3, Level::Quorum)).await;
        assert_eq!(
            refused,
            Err((ErrorCode::NotEnoughReplicas, Outcome::NotApplied))
        );
        let acked = put(&cluster, &mut client, "k", in_zones(2, Level::Quorum)).await;
        assert!(acked.expect("two are up").len() >= 2);
        // One that stands in is in a zone, too.
        let acked = put(&cluster, &mut client, "k", in_zones(3, Level::Eventual)).await;
        assert_eq!(acked.expect("another stands in").len(), 3);
    });
}

#[test]
fn a_write_whose_log_fails_may_have_been_applied_and_nobody_says_that_it_was_not() {
    let alone = |handle| SimCluster::new(handle, 1, 1, options());
    with(8, alone, |cluster, mut client, _| async move {
        let via = NODES[0];
        let put = client.put(&cluster, via, "k", "before").await;
        put.expect("a healthy disk");
        let disk = cluster.fs(via);
        disk.plan(disk.calls(), Fault::LateIo);
        let (_, outcome) = client
            .put(&cluster, via, "k", "stored")
            .await
            .expect_err("the log fails");
        assert_eq!(outcome, Outcome::Unknown);
        cluster.kill(via);
        cluster.start(via).await.expect("a healthy disk");
        let (values, _) = client.get(&cluster, via, "k").await.expect("it runs");
        assert_eq!(values, ["stored"], "all of it was in the log");
    });
}
