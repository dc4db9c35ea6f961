//! A node whose clock is wrong leaves writing to the others.

use std::time::Duration;

use kv_net::ErrorCode;
use kv_net::message::WriteKind;
use kv_node::tombstones::DeleteOptions;
use kv_tests::sim::{Handle, SimCluster};
use kv_types::{Level, NodeId, Outcome};

use crate::client::{Client, metric, options, with, with_cluster};

const HOUR_MS: i64 = 3_600_000;
/// Within this a node has compared its clock with those of the others.
const COMPARED: Duration = Duration::from_secs(6);

/// Three nodes that forget what was deleted after a while.
fn three_that_keep(keep: Duration) -> impl FnOnce(Handle) -> SimCluster {
    move |handle| SimCluster::new(handle, 3, 3, options()).with_deletes(DeleteOptions { keep })
}

#[test]
fn a_node_whose_clock_is_ahead_passes_writes_on_until_it_is_set() {
    with_cluster(1, |cluster, mut client, handle| async move {
        let ahead = NodeId(2);
        let knows = |node: NodeId| {
            let metrics = cluster.node(node).expect("it runs").metrics();
            let mut lines = metrics.lines();
            let behind = lines.find_map(|line| line.strip_prefix("kv_clock_behind_ms "));
            let behind: i64 = behind.expect("it is there").parse().expect("a number");
            (behind + HOUR_MS).abs() < 50
        };
        handle.sleep(COMPARED).await;
        cluster.conditions(ahead).set_skew(HOUR_MS);
        handle.sleep(COMPARED).await;
        assert!(knows(ahead), "it has compared");

        let request = client.put_request("k", None, WriteKind::Put);
        let mut forwarded = request.clone();
        forwarded.forwarded = true;
        let refused = client.send_put(&cluster, ahead, forwarded, "v").await;
        let (code, outcome) = refused.expect_err("it must not pass it on twice");
        assert_eq!((code, outcome), (ErrorCode::ClockSkew, Outcome::NotApplied));
        let put = client.send_put(&cluster, ahead, request, "v").await;
        put.expect("another owner coordinates it");

        cluster.conditions(ahead).set_skew(0);
        handle.sleep(COMPARED).await;
        let mut forwarded = client.put_request("k", None, WriteKind::Put);
        forwarded.forwarded = true;
        let put = client.send_put(&cluster, ahead, forwarded, "w").await;
        put.expect("its clock is right again");
    });
}

#[test]
fn readers_are_shown_what_has_not_expired_by_the_clocks_of_most() {
    with_cluster(2, |cluster, mut client, handle| async move {
        let (via, ahead) = (NodeId(1), NodeId(2));
        let mut put = client.put_request("k", None, WriteKind::Put);
        put.options.ttl_ms = Some(600_000);
        let put = client.send_put(&cluster, via, put, "for ten minutes").await;
        put.expect("all are up");
        handle.sleep(COMPARED).await;
        cluster.conditions(ahead).set_skew(HOUR_MS);
        handle.sleep(COMPARED).await;
        for node in [via, ahead] {
            let read = client.get(&cluster, node, "k").await;
            let (values, _) = read.expect("all are up");
            assert_eq!(values, ["for ten minutes"], "through {node}");
        }
    });
}

/// Floors are points of hybrid time, and may be far ahead of all clocks.
#[test]
fn a_cluster_whose_clocks_were_all_ahead_takes_writes_when_they_are_right() {
    with(
        31,
        three_that_keep(Duration::from_secs(4)),
        |cluster, mut client, handle| async move {
            let delete = client.put_request("gone", None, WriteKind::Delete);
            let deleted = client.send_put(&cluster, NodeId(1), delete, "").await;
            deleted.expect("all are up");
            for node in cluster.nodes() {
                cluster.conditions(node).set_skew(HOUR_MS);
            }
            handle.sleep(Duration::from_secs(40)).await;
            let forgotten = metric(&cluster, NodeId(1), "kv_deletions_forgotten ");
            assert_eq!(forgotten, 1, "a floor rose by clocks that were ahead");
            for node in cluster.nodes() {
                cluster.conditions(node).set_skew(0);
            }
            handle.sleep(Duration::from_secs(10)).await;
            for via in cluster.nodes() {
                let put = client.put(&cluster, via, "k", "v").await;
                put.expect("clocks are right");
            }
        },
    );
}

/// What was deleted is remembered for a while, by a time that no one can set.
#[test]
fn what_was_deleted_when_clocks_were_set_back_stays_deleted_though_its_write_is_repeated() {
    let keep = Duration::from_secs(8);
    let make =
        move |handle| SimCluster::new(handle, 1, 1, options()).with_deletes(DeleteOptions { keep });
    with(32, make, move |cluster, mut client, handle| async move {
        let node = NodeId(1);
        cluster.kill(node);
        cluster.conditions(node).set_skew(HOUR_MS);
        cluster.start(node).await.expect("a healthy disk");
        handle.sleep(keep * 2).await;
        cluster.conditions(node).set_skew(0);
        let write = client.put_request("k", None, WriteKind::Put);
        let put = client.send_put(&cluster, node, write.clone(), "v").await;
        put.expect("it is up");
        let delete = client.put_request("k", None, WriteKind::Delete);
        let deleted = client.send_put(&cluster, node, delete, "").await;
        deleted.expect("it is up");
        handle.sleep(keep / 2).await;
        // Its answer was lost.
        let _ = client.send_put(&cluster, node, write, "v").await;
        let (values, _) = client.get(&cluster, node, "k").await.expect("it is up");
        assert_eq!(values, Vec::<String>::new());
    });
}

#[test]
fn a_clock_that_was_ahead_for_a_while_leaves_nothing_behind_once_it_is_right() {
    let keep = Duration::from_secs(8);
    with(
        34,
        three_that_keep(keep),
        move |cluster, mut client, handle| async move {
            let (right, ahead) = (NodeId(1), NodeId(2));
            handle.sleep(COMPARED).await;
            cluster.conditions(ahead).set_skew(HOUR_MS);
            handle.sleep(keep * 4).await;
            cluster.conditions(ahead).set_skew(0);
            handle.sleep(COMPARED).await;
            let mut dots = Vec::new();
            for node in [right, ahead] {
                let key = format!("of {node}");
                let mut write = client.put_request(&key, None, WriteKind::Put);
                write.forwarded = true;
                let put = client.send_put(&cluster, node, write, "v").await;
                put.expect("its clock is right");
                let (_, read) = client.get(&cluster, node, &key).await.expect("all are up");
                dots.push(read.siblings[0].dot.hlc.millis());
            }
            assert!(dots[0].abs_diff(dots[1]) < 1_000, "{dots:?}");
        },
    );
}

/// When a value expires is a matter of clocks on the wall, and hybrid time may be ahead of them.
#[test]
fn what_is_to_live_for_a_while_lives_as_long_though_clocks_were_ahead() {
    let keep = Duration::from_secs(4);
    with(
        33,
        three_that_keep(keep),
        move |cluster, mut client, handle| async move {
            let ahead = |by| {
                for node in cluster.nodes() {
                    cluster.conditions(node).set_skew(by);
                }
            };
            ahead(HOUR_MS);
            let mut other = Client::numbered(handle.clone(), 1).ahead_by(HOUR_MS);
            let put = other.put(&cluster, NodeId(1), "other", "v").await;
            put.expect("all are up");
            handle.sleep(keep).await;
            ahead(0);
            handle.sleep(COMPARED).await;
            let mut put = client.put_request("k", None, WriteKind::Put);
            put.options.ttl_ms = Some(600_000);
            let put = client
                .send_put(&cluster, NodeId(1), put, "for ten minutes")
                .await;
            put.expect("all are up");
            handle.sleep(keep * 10).await;
            let (values, _) = client
                .get(&cluster, NodeId(2), "k")
                .await
                .expect("all are up");
            assert_eq!(values, ["for ten minutes"]);
        },
    );
}

#[test]
fn a_write_is_dated_later_than_what_it_replaces_also_after_a_start() {
    with_cluster(4, |cluster, mut client, handle| async move {
        let (right, behind) = (NodeId(1), NodeId(2));
        // By less than what keeps a node from coordinating.
        cluster.conditions(behind).set_skew(-400);
        handle.sleep(COMPARED).await;
        // Until when it may mint is on its disk now, half a second ahead of its clock.
        let other = client.put(&cluster, behind, "other", "v").await;
        other.expect("all are up");
        handle.sleep(Duration::from_millis(300)).await;
        let put = client.put(&cluster, right, "k", "v").await;
        put.expect("all are up");
        let (_, replaced) = client.get(&cluster, right, "k").await.expect("all are up");
        // It forgets what it has heard.
        cluster.kill(behind);
        cluster.start(behind).await.expect("its disk is whole");
        let mut blind = client.put_request("k", None, WriteKind::Put);
        blind.options.level = Level::Weak;
        let put = client.send_put(&cluster, behind, blind, "w").await;
        put.expect("it is an owner");
        let (values, replacing) = client.get(&cluster, behind, "k").await.expect("all are up");
        assert_eq!(values, ["w"]);
        let [one, other] = [replaced, replacing].map(|read| read.siblings[0].dot);
        assert_eq!(other.actor.0, 2, "it has coordinated the write");
        assert!(other.hlc > one.hlc, "{other:?} replaces {one:?}");
    });
}
