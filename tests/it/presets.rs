//! The presets of the field, each with what it promises and what it does not.

use std::time::Duration;

use kv_net::ErrorCode;
use kv_net::message::{ReadOptions, WriteKind};
use kv_tests::sim::SimCluster;
use kv_types::{Level, NodeId, Outcome};

use crate::client::{BUDGET, Client, with_cluster};
use crate::lost_disks::{emptied, start_from};

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
/// Between the first node and the others, both ways.
const AROUND_THE_FIRST: [(NodeId, NodeId); 4] = [
    (NODES[0], NODES[1]),
    (NODES[1], NODES[0]),
    (NODES[0], NODES[2]),
    (NODES[2], NODES[0]),
];
const NOTICE: Duration = Duration::from_secs(8);
/// Comparisons have made all replicas equal within this time.
const CONVERGED: Duration = Duration::from_secs(30);

async fn put(
    cluster: &SimCluster,
    client: &mut Client,
    via: NodeId,
    w: u8,
    value: &str,
) -> Result<(), (ErrorCode, Outcome)> {
    let mut request = client.put_request("k", None, WriteKind::Put);
    request.options.w = Some(w);
    client
        .send_put(cluster, via, request, value)
        .await
        .map(drop)
}

async fn get(
    cluster: &SimCluster,
    client: &mut Client,
    via: NodeId,
    r: u8,
) -> Result<Vec<String>, (ErrorCode, Outcome)> {
    let options = ReadOptions {
        level: Level::Quorum,
        r: Some(r),
        headers_only: false,
    };
    let read = client.get_with(cluster, via, "k", options).await;
    read.map(|(values, _)| values)
}

/// Has the first node acknowledge `v` while nobody else hears of it.
async fn write_at_the_first_only(cluster: &SimCluster, client: &mut Client) {
    cluster.network.block(&AROUND_THE_FIRST);
    let put = put(cluster, client, NODES[0], 1, "v").await;
    put.expect("one is enough");
    cluster.network.unblock(&AROUND_THE_FIRST);
}

const TOO_FEW: (ErrorCode, Outcome) = (ErrorCode::NotEnoughReplicas, Outcome::NotApplied);

#[test]
fn r1_wn_reads_are_fast_and_fresh_and_writes_need_all() {
    with_cluster(1, |cluster, mut client, handle| async move {
        put(&cluster, &mut client, NODES[0], 3, "v")
            .await
            .expect("all are up");
        for via in NODES {
            let read = get(&cluster, &mut client, via, 1).await;
            assert_eq!(read, Ok(vec!["v".to_owned()]), "any one replica is enough");
        }
        cluster.kill(NODES[2]);
        handle.sleep(NOTICE).await;
        assert_eq!(
            put(&cluster, &mut client, NODES[0], 3, "w").await,
            Err(TOO_FEW)
        );
        cluster.kill(NODES[1]);
        handle.sleep(NOTICE).await;
        let read = get(&cluster, &mut client, NODES[0], 1).await;
        assert_eq!(read, Ok(vec!["v".to_owned()]), "and survives the others");
    });
}

#[test]
fn w1_rn_writes_are_fast_and_reads_need_all() {
    with_cluster(2, |cluster, mut client, handle| async move {
        // Nobody hears of it but its coordinator.
        write_at_the_first_only(&cluster, &mut client).await;
        let two = get(&cluster, &mut client, NODES[1], 2).await;
        assert_eq!(two, Ok(vec![]), "two of three may miss it");
        handle.sleep(NOTICE).await;
        let read = get(&cluster, &mut client, NODES[1], 3).await;
        assert_eq!(read, Ok(vec!["v".to_owned()]), "three do not");
        cluster.kill(NODES[2]);
        handle.sleep(NOTICE).await;
        assert_eq!(get(&cluster, &mut client, NODES[1], 3).await, Err(TOO_FEW));
    });
}

#[test]
fn w1_rn_loses_a_write_with_the_one_disk_that_had_it() {
    with_cluster(5, |cluster, mut client, handle| async move {
        put(&cluster, &mut client, NODES[1], 3, "v")
            .await
            .expect("all are up");
        handle.sleep(NOTICE).await;
        cluster.network.block(&AROUND_THE_FIRST);
        put(&cluster, &mut client, NODES[0], 1, "w")
            .await
            .expect("one is enough");
        let disk = emptied(&cluster, NODES[0]);
        cluster.kill(NODES[0]);
        cluster.network.unblock(&AROUND_THE_FIRST);
        handle.sleep(NOTICE).await;
        start_from(&cluster, NODES[0], disk).await;
        handle.sleep(NOTICE).await;
        let read = get(&cluster, &mut client, NODES[1], 3).await;
        assert_eq!(read, Ok(vec!["v".to_owned()]), "nobody else had the other");
    });
}

#[test]
fn r2_w2_of_3_stops_without_any_two_and_decides_nothing_between_writers() {
    with_cluster(6, |cluster, mut client, handle| async move {
        // Two writers that do not hear of each other.
        cluster.network.block(&AROUND_THE_FIRST);
        for (via, value) in [(NODES[0], "v"), (NODES[1], "w")] {
            put(&cluster, &mut client, via, 1, value)
                .await
                .expect("one is enough");
        }
        cluster.network.unblock(&AROUND_THE_FIRST);
        handle.sleep(CONVERGED).await;
        let mut both = get(&cluster, &mut client, NODES[2], 2)
            .await
            .expect("all are up");
        both.sort_unstable();
        assert_eq!(both, ["v", "w"], "which of them stays is the application's");
        for lost in &NODES[1..] {
            cluster.kill(*lost);
        }
        handle.sleep(NOTICE).await;
        assert_eq!(get(&cluster, &mut client, NODES[0], 2).await, Err(TOO_FEW));
        assert_eq!(
            put(&cluster, &mut client, NODES[0], 2, "x").await,
            Err(TOO_FEW)
        );
    });
}

#[test]
fn r2_w2_of_3_is_fresh_and_goes_on_without_any_one() {
    for lost in NODES {
        with_cluster(3, move |cluster, mut client, handle| async move {
            let up: Vec<NodeId> = NODES.into_iter().filter(|node| *node != lost).collect();
            put(&cluster, &mut client, NODES[0], 2, "v")
                .await
                .expect("all are up");
            cluster.kill(lost);
            handle.sleep(NOTICE).await;
            for via in &up {
                let read = get(&cluster, &mut client, *via, 2).await;
                assert_eq!(read, Ok(vec!["v".to_owned()]));
            }
            put(&cluster, &mut client, up[0], 2, "w")
                .await
                .expect("two are up");
            cluster.start(lost).await.expect("it starts again");
            cluster.kill(up[0]);
            handle.sleep(NOTICE).await;
            for via in [lost, up[1]] {
                let read = get(&cluster, &mut client, via, 2).await;
                assert_eq!(
                    read,
                    Ok(vec!["w".to_owned()]),
                    "also with one that was away"
                );
            }
        });
    }
}

#[test]
fn a_read_at_quorum_shows_only_what_later_ones_show_and_fails_where_it_cannot() {
    with_cluster(4, |cluster, mut client, handle| async move {
        // One replica has a write that nobody else has.
        write_at_the_first_only(&cluster, &mut client).await;
        let options = ReadOptions {
            level: Level::Quorum,
            ..ReadOptions::default()
        };
        // The others can say that they hold nothing, and cannot sync what they are brought.
        for node in &NODES[1..] {
            let disk = cluster.conditions(*node);
            disk.hang_until(handle.now() + BUDGET);
        }
        let read = client.get_with(&cluster, NODES[0], "k", options).await;
        read.expect_err("a later read could miss it");
        handle.sleep(NOTICE).await;
        let (shown, _) = client
            .get_with(&cluster, NODES[0], "k", options)
            .await
            .expect("two can hold it now");
        assert_eq!(shown, ["v"]);
        // Whoever reads later sees it, even without the one that had it.
        cluster.kill(NODES[0]);
        handle.sleep(NOTICE).await;
        for via in &NODES[1..] {
            let read = client.get_with(&cluster, *via, "k", options).await;
            assert_eq!(read.expect("two are up").0, ["v"]);
        }
    });
}
