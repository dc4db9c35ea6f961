//! What became of a write is told truly: that it never will be applied only when nothing of it can be on its way.

use std::time::Duration;

use kv_net::message::{ReadOptions, WriteFate, WriteKind};
use kv_node::tombstones::DeleteOptions;
use kv_tests::sim::{Handle, SimCluster};
use kv_types::{Level, NodeId, WriteId};

use crate::client::{BUCKET, Client, options, with};

const KEEP: Duration = Duration::from_secs(4);
const KEY: &str = "k";
const VIA: NodeId = NodeId(1);
/// Time for everyone to notice that nodes are gone, or back.
const NOTICE: Duration = Duration::from_secs(8);

fn nodes(handle: Handle, count: u128) -> SimCluster {
    SimCluster::new(handle, count, 3, options()).with_deletes(DeleteOptions { keep: KEEP })
}

fn three(handle: Handle) -> SimCluster {
    nodes(handle, 3)
}

/// Until what was created now can be settled.
fn settling() -> Duration {
    Duration::from_millis(WriteId::HORIZON_MS) + KEEP + Duration::from_secs(3)
}

async fn fate(
    cluster: &SimCluster,
    client: &mut Client,
    via: NodeId,
    write_id: WriteId,
) -> WriteFate {
    let told = client.fate(cluster, via, KEY, write_id).await;
    told.expect("enough are up")
}

/// Blocks or opens all links between a node and others.
fn links(node: NodeId, others: &[NodeId]) -> Vec<(NodeId, NodeId)> {
    let both = |other: &NodeId| [(node, *other), (*other, node)];
    others.iter().flat_map(both).collect()
}

#[test]
fn a_write_that_one_replica_took_is_brought_to_a_quorum_before_it_is_said_to_be_applied() {
    with(1, three, |cluster, mut client, handle| async move {
        // All know of each other.
        handle.sleep(Duration::from_secs(1)).await;
        let (two, three) = (NodeId(2), NodeId(3));
        let cut = links(VIA, &[two, three]);
        cluster.network.block(&cut);
        let mut request = client.put_request(KEY, None, WriteKind::Put);
        request.options.level = Level::Weak;
        let id = request.head.write_id;
        client
            .send_put(&cluster, VIA, request, "v")
            .await
            .expect("one is enough");
        // Those who have not got it cannot say.
        let unknown = fate(&cluster, &mut client, two, id).await;
        assert!(matches!(unknown, WriteFate::Unknown { .. }), "{unknown:?}");
        cluster.network.unblock(&cut);
        let told = fate(&cluster, &mut client, two, id).await;
        assert_eq!(told, WriteFate::Applied { shows: true });
        cluster.cut_power(VIA);
        let (values, _) = client.get(&cluster, three, KEY).await.expect("two are up");
        assert_eq!(values, ["v"]);
        // Who replaces it leaves it applied.
        client
            .put(&cluster, three, KEY, "x")
            .await
            .expect("two are up");
        let told = fate(&cluster, &mut client, two, id).await;
        assert_eq!(told, WriteFate::Applied { shows: false });
    });
}

#[test]
fn a_write_that_nobody_has_is_unknown_until_it_can_come_no_more() {
    with(2, three, |cluster, mut client, handle| async move {
        client
            .put(&cluster, VIA, KEY, "before")
            .await
            .expect("all are up");
        let request = client.put_request(KEY, None, WriteKind::Put);
        let id = request.head.write_id;
        let unknown = fate(&cluster, &mut client, VIA, id).await;
        let WriteFate::Unknown { settles_ms } = unknown else {
            panic!("too early: {unknown:?}");
        };
        let expected = id.latest_dot().plus(KEEP).millis();
        assert_eq!(settles_ms, expected);

        handle.sleep(settling()).await;
        // All must be there, not only the owners' quorum.
        cluster.kill(NodeId(3));
        handle.sleep(NOTICE).await;
        let unknown = fate(&cluster, &mut client, VIA, id).await;
        assert!(matches!(unknown, WriteFate::Unknown { .. }), "{unknown:?}");
        cluster.start(NodeId(3)).await.expect("it starts again");
        // A node that was just started has no reading of its clock that is old enough.
        handle.sleep(NOTICE).await;
        let told = fate(&cluster, &mut client, NodeId(2), id).await;
        assert_eq!(told, WriteFate::NotApplied);

        for node in cluster.nodes() {
            // By clocks that jump back it is young again, also after a restart.
            let back = i64::try_from(settling().as_millis()).expect("short");
            cluster.conditions(node).set_skew(-back);
            cluster.cut_power(node);
            cluster.start(node).await.expect("it starts again");
        }
        handle.sleep(NOTICE).await;
        for via in cluster.nodes() {
            let late = client
                .send_put(&cluster, via, request.clone(), "late")
                .await;
            assert!(late.is_err(), "{late:?}");
        }
        let (values, _) = client.get(&cluster, VIA, KEY).await.expect("all are up");
        assert_eq!(values, ["before"]);
    });
}

#[test]
fn what_others_keep_for_owners_may_still_come() {
    with(
        3,
        |handle| nodes(handle, 5),
        |cluster, mut client, handle| async move {
            let topology = cluster.topology();
            let (_, partition) = topology.locate(BUCKET, KEY.as_bytes());
            let replicas = topology.replicas(partition, 3);
            let (owners, others): (Vec<NodeId>, Vec<NodeId>) =
                cluster.nodes().partition(|node| replicas.contains(*node));
            for owner in &owners {
                cluster.kill(*owner);
            }
            handle.sleep(NOTICE).await;
            let mut request = client.put_request(KEY, None, WriteKind::Put);
            request.options.level = Level::Eventual;
            let id = request.head.write_id;
            client
                .send_put(&cluster, others[0], request, "kept")
                .await
                .expect("two stand in");
            // They go, and the owners come.
            for other in &others {
                cluster.kill(*other);
            }
            for owner in &owners {
                drop(cluster.launch(*owner));
            }
            handle.sleep(settling()).await;
            let unknown = fate(&cluster, &mut client, owners[0], id).await;
            assert!(matches!(unknown, WriteFate::Unknown { .. }), "{unknown:?}");

            for other in &others {
                cluster.start(*other).await.expect("it starts again");
            }
            handle.sleep(NOTICE + KEEP).await;
            let told = fate(&cluster, &mut client, owners[0], id).await;
            assert_eq!(told, WriteFate::Applied { shows: true });
        },
    );
}

#[test]
fn a_write_that_was_deleted_and_forgotten_is_gone() {
    with(4, three, |cluster, mut client, handle| async move {
        let request = client.put_request(KEY, None, WriteKind::Put);
        let id = request.head.write_id;
        client
            .send_put(&cluster, VIA, request, "v")
            .await
            .expect("all are up");
        let delete = client.put_request(KEY, None, WriteKind::Delete);
        client
            .send_put(&cluster, VIA, delete, "")
            .await
            .expect("all are up");
        let told = fate(&cluster, &mut client, VIA, id).await;
        assert_eq!(told, WriteFate::Applied { shows: false });
        handle.sleep(settling()).await;
        let told = fate(&cluster, &mut client, VIA, id).await;
        assert_eq!(told, WriteFate::Gone);
        let all = ReadOptions {
            level: Level::All,
            ..ReadOptions::default()
        };
        let read = client.get_with(&cluster, VIA, KEY, all).await;
        assert!(read.expect("all are up").1.siblings.is_empty());
    });
}

/// Clocks were an hour ahead, and are right again; a write is from that hour. What it could have become is decided when the hour is
/// over, and no other write waits for that.
#[test]
fn a_write_from_the_future_is_not_settled_before_its_time() {
    const HOUR_MS: u64 = 3_600_000;
    with(9, three, |cluster, mut client, handle| async move {
        let skew = |by_ms| {
            for node in cluster.nodes() {
                cluster.conditions(node).set_skew(by_ms);
            }
        };
        skew(i64::try_from(HOUR_MS).expect("an hour"));
        let mut request = client.put_request(KEY, None, WriteKind::Put);
        let created_ms = request.head.write_id.created_ms() + HOUR_MS;
        request.head.write_id = WriteId::new(created_ms, [7; 10]);
        let put = client.send_put(&cluster, VIA, request, "v").await;
        put.expect("all clocks are ahead");
        let lost = WriteId::new(created_ms, [8; 10]);
        handle.sleep(settling()).await;
        // What clocks showed some time ago is still what they showed when they were ahead.
        skew(0);
        let told = fate(&cluster, &mut client, VIA, lost).await;
        assert!(matches!(told, WriteFate::Unknown { .. }), "{told:?}");
        handle.sleep(NOTICE).await;
        for via in cluster.nodes() {
            let put = client.put(&cluster, via, KEY, "now").await;
            put.expect("clocks are right");
        }
    });
}
