//! Deletions are forgotten when every replica has them, and what they deleted stays deleted.

use std::time::Duration;

use bytes::Bytes;
use kv_net::Role;
use kv_net::message::{
    AnswerWhen, FloorReplyV1, FloorV1, PlaceV1, ReadOptions, ReplicaReadV1, ReplicaWriteV1,
    Request, Response, WatermarkStep, WatermarkV1, WriteKind,
};
use kv_node::replica::PageLimits;
use kv_node::tombstones::DeleteOptions;
use kv_tests::sim::{Handle, SimCluster};
use kv_types::{ActorId, Clock, Dot, Hlc, Key, Level, NodeId, Object, Outcome, Payload, Write};

use crate::anti_entropy::compare_all;
use crate::client::{BUCKET, BUDGET, Client, key, metric, options, with};

const KEEP: Duration = Duration::from_secs(4);
/// Some rounds.
const ROUNDS: Duration = Duration::from_secs(12);
const VIA: NodeId = NodeId(1);
const KEY: &str = "k";

fn nodes(handle: Handle, count: u128) -> SimCluster {
    SimCluster::new(handle, count, 3, options()).with_deletes(DeleteOptions { keep: KEEP })
}

fn three(handle: Handle) -> SimCluster {
    nodes(handle, 3)
}

/// What a node holds of the key.
async fn held(cluster: &SimCluster, client: &mut Client, node: NodeId) -> Option<Bytes> {
    let request = Request::ReplicaRead(ReplicaReadV1 {
        head: client.head(),
        bucket: BUCKET,
        key: key(KEY),
        digest_only: false,
    });
    let asking = Role::Node(NodeId(node.0 % 3 + 1));
    let answer = cluster.network.call(asking, node, &request, BUDGET).await;
    match answer {
        Ok(Response::ReplicaRead(reply, object)) => reply.digest.map(|_| object),
        other => panic!("{other:?}"),
    }
}

async fn nobody_holds_it(cluster: &SimCluster, client: &mut Client) -> bool {
    for node in cluster.nodes() {
        if held(cluster, client, node).await.is_some() {
            return false;
        }
    }
    true
}

async fn delete(cluster: &SimCluster, client: &mut Client) {
    let request = client.put_request(KEY, None, WriteKind::Delete);
    let deleted = client.send_put(cluster, VIA, request, "").await;
    deleted.expect("a quorum is up");
}

/// What one node alone shows.
async fn shown(cluster: &SimCluster, client: &mut Client, via: NodeId) -> Vec<String> {
    let weak = ReadOptions {
        level: Level::Weak,
        ..ReadOptions::default()
    };
    let read = client.get_with(cluster, via, KEY, weak).await;
    read.expect("one answer is enough").0
}

#[test]
fn a_deletion_that_all_have_is_forgotten_and_a_late_copy_of_the_value_does_not_bring_it_back() {
    with(1, three, |cluster, mut client, handle| async move {
        client
            .put(&cluster, VIA, KEY, "v")
            .await
            .expect("all are up");
        let late = held(&cluster, &mut client, VIA).await.expect("it is there");
        delete(&cluster, &mut client).await;
        handle.sleep(KEEP / 2).await;
        assert!(
            held(&cluster, &mut client, VIA).await.is_some(),
            "too early"
        );
        handle.sleep(ROUNDS).await;
        assert!(nobody_holds_it(&cluster, &mut client).await);

        // What comes sooner may have been on its way.
        handle.sleep(ROUNDS).await;
        let repair = |client: &mut Client| {
            let head = client.head();
            let message = ReplicaWriteV1 {
                head,
                bucket: BUCKET,
                key: key(KEY),
                answer: AnswerWhen::Synced,
            };
            Request::Repair(message, late.clone())
        };
        let (from, to) = (Role::Node(NodeId(2)), NodeId(3));
        for count in [1, 2] {
            let request = repair(&mut client);
            let answer = cluster
                .network
                .call(from.clone(), to, &request, BUDGET)
                .await;
            assert!(matches!(answer, Ok(Response::Repair(_))), "{answer:?}");
            assert_eq!(metric(&cluster, to, "kv_late_values "), count);
            assert!(shown(&cluster, &mut client, to).await.is_empty());
            // After a restart it does not show either: the watermark is durable.
            cluster.cut_power(to);
            cluster.start(to).await.expect("it starts again");
            let request = repair(&mut client);
            let answer = cluster
                .network
                .call(from.clone(), to, &request, BUDGET)
                .await;
            assert!(matches!(answer, Ok(Response::Repair(_))), "{answer:?}");
            assert!(shown(&cluster, &mut client, to).await.is_empty());
        }
        // The key is as good as new.
        client
            .put(&cluster, VIA, KEY, "again")
            .await
            .expect("all are up");
        handle.sleep(ROUNDS).await;
        for node in cluster.nodes() {
            assert_eq!(shown(&cluster, &mut client, node).await, ["again"]);
            let object = held(&cluster, &mut client, node)
                .await
                .expect("it is there");
            let object = Object::decode(&object).expect("an object");
            assert_eq!(object.siblings().count(), 1);
        }
    });
}

#[test]
fn while_a_member_is_away_nothing_is_forgotten_so_it_brings_nothing_back() {
    for count in [3, 5] {
        let make = move |handle| nodes(handle, count);
        with(2, make, move |cluster, mut client, handle| async move {
            client
                .put(&cluster, VIA, KEY, "v")
                .await
                .expect("all are up");
            // Of five, one that holds nothing of the key may keep something for others.
            let away = NodeId(count);
            handle.sleep(Duration::from_secs(3)).await;
            cluster.kill(away);
            handle.sleep(Duration::from_secs(3)).await;
            delete(&cluster, &mut client).await;
            handle.sleep(Duration::from_secs(600)).await;
            let topology = cluster.topology();
            let (_, partition) = topology.locate(BUCKET, KEY.as_bytes());
            let owners = topology.replicas(partition, 3);
            let up = owners.nodes().filter(|owner| *owner != away);
            for owner in up.collect::<Vec<_>>() {
                assert!(held(&cluster, &mut client, owner).await.is_some());
            }
            let overdue = owners.nodes().filter(|owner| *owner != away);
            let overdue =
                overdue.map(|node| metric(&cluster, node, "kv_deletions_overdue_seconds "));
            assert!(overdue.max() > Some(500), "people are told");
            let of_place = format!(
                "kv_partition_deletions_overdue_seconds{{bucket=\"default\",partition=\"{}\"}} ",
                partition.0
            );
            let says_place = |node: NodeId| {
                let metrics = cluster.node(node).map(|node| node.metrics());
                let value = |line: &str| line.strip_prefix(of_place.as_str())?.parse::<u64>().ok();
                metrics.and_then(|metrics| metrics.lines().find_map(value))
            };
            let where_it_waits = owners.nodes().filter(|owner| *owner != away);
            let where_it_waits = where_it_waits.map(says_place);
            assert!(where_it_waits.max().flatten() > Some(500), "and where");

            cluster.start(away).await.expect("it starts again");
            handle.sleep(ROUNDS * 3).await;
            for node in cluster.nodes() {
                assert!(shown(&cluster, &mut client, node).await.is_empty());
                if owners.contains(node) {
                    assert_eq!(held(&cluster, &mut client, node).await, None);
                    assert_eq!(metric(&cluster, node, "kv_deletions_overdue_seconds "), 0);
                    assert_eq!(says_place(node), None);
                }
            }
        });
    }
}

#[test]
fn what_was_written_again_is_not_forgotten() {
    with(3, three, |cluster, mut client, handle| async move {
        client
            .put(&cluster, VIA, KEY, "v")
            .await
            .expect("all are up");
        delete(&cluster, &mut client).await;
        client
            .put(&cluster, VIA, KEY, "w")
            .await
            .expect("all are up");
        handle.sleep(ROUNDS).await;
        for node in cluster.nodes() {
            assert_eq!(shown(&cluster, &mut client, node).await, ["w"]);
            assert_eq!(metric(&cluster, node, "kv_deletions_forgotten "), 0);
        }
        delete(&cluster, &mut client).await;
        handle.sleep(ROUNDS).await;
        assert!(nobody_holds_it(&cluster, &mut client).await);
    });
}

async fn put_for(cluster: &SimCluster, client: &mut Client, ttl: Duration, value: &str) {
    let mut request = client.put_request(KEY, None, WriteKind::Put);
    request.options.ttl_ms = Some(u64::try_from(ttl.as_millis()).expect("short"));
    let put = client.send_put(cluster, VIA, request, value).await;
    put.expect("a quorum is up");
}

#[test]
fn a_value_that_expires_is_gone_at_its_time_and_forgotten_later() {
    with(4, three, |cluster, mut client, handle| async move {
        put_for(&cluster, &mut client, Duration::from_secs(30), "v").await;
        handle.sleep(Duration::from_secs(29)).await;
        for node in cluster.nodes() {
            assert_eq!(shown(&cluster, &mut client, node).await, ["v"]);
            assert_eq!(metric(&cluster, node, "kv_deletions_forgotten "), 0);
        }
        handle.sleep(Duration::from_secs(2)).await;
        for node in cluster.nodes() {
            assert!(shown(&cluster, &mut client, node).await.is_empty());
        }
        assert!(
            held(&cluster, &mut client, VIA).await.is_some(),
            "too early"
        );
        handle.sleep(KEEP + ROUNDS).await;
        assert!(nobody_holds_it(&cluster, &mut client).await);
        let fetched = |node| metric(&cluster, node, "kv_anti_entropy_fetched ");
        assert_eq!(
            cluster.nodes().map(fetched).sum::<u64>(),
            0,
            "no repair traffic"
        );
    });
}

#[test]
fn a_value_that_is_written_again_lives_as_long_as_its_last_writer_said() {
    with(5, three, |cluster, mut client, handle| async move {
        put_for(&cluster, &mut client, Duration::from_secs(5), "v").await;
        client
            .put(&cluster, VIA, KEY, "for ever")
            .await
            .expect("all are up");
        handle.sleep(KEEP + ROUNDS).await;
        for node in cluster.nodes() {
            assert_eq!(shown(&cluster, &mut client, node).await, ["for ever"]);
        }
        put_for(&cluster, &mut client, Duration::from_secs(5), "short").await;
        put_for(&cluster, &mut client, Duration::ZERO, "for ever").await;
        put_for(&cluster, &mut client, Duration::from_secs(40), "long").await;
        handle.sleep(KEEP + ROUNDS).await;
        assert_eq!(shown(&cluster, &mut client, VIA).await, ["long"]);
        handle.sleep(Duration::from_secs(60)).await;
        assert!(nobody_holds_it(&cluster, &mut client).await);
    });
}

async fn call(cluster: &SimCluster, to: NodeId, request: &Request) -> Response {
    let from = Role::Node(NodeId(to.0 % 3 + 1));
    let answer = cluster.network.call(from, to, request, BUDGET).await;
    answer.expect("it answers")
}

async fn floor(cluster: &SimCluster, to: NodeId, promise: Option<Hlc>) -> FloorReplyV1 {
    match call(
        cluster,
        to,
        &Request::Floor(FloorV1 {
            promise,
            settle: None,
        }),
    )
    .await
    {
        Response::Floor(reply) => reply,
        other => panic!("{other:?}"),
    }
}

/// A copy of a write that was minted at a point, as its coordinator sends it.
fn copy_of(client: &mut Client, dot: Hlc) -> (ReplicaWriteV1, Bytes) {
    let head = client.head();
    let write = Write {
        write_id: head.write_id,
        payload: Payload::Value("v".into()),
        expires_ms: None,
    };
    let mut object = Object::new();
    let dot = Dot::new(ActorId(1), dot);
    let written = object.write(write, &Clock::new(), dot, Hlc(u64::MAX), 0);
    written.expect("small");
    let message = ReplicaWriteV1 {
        head,
        bucket: BUCKET,
        key: key(KEY),
        answer: AnswerWhen::Synced,
    };
    (message, object.encode())
}

fn is_refused(answer: &Response) -> bool {
    match answer {
        Response::Error(error) => {
            assert_eq!(error.outcome, Outcome::NotApplied);
            true
        }
        _ => false,
    }
}

#[test]
fn a_promise_is_told_only_once_it_is_durable() {
    with(12, three, |cluster, _, handle| async move {
        handle.sleep(KEEP * 2).await;
        let node = NodeId(3);
        let told = floor(&cluster, node, None).await;
        let hangs = handle.now() + BUDGET * 3;
        cluster.conditions(node).hang_until(hangs);
        let promise = Request::Floor(FloorV1 {
            promise: Some(told.reading),
            settle: None,
        });
        let from = Role::Node(NodeId(1));
        let answer = cluster.network.call(from, node, &promise, BUDGET).await;
        assert!(answer.is_err(), "its disk hangs: {answer:?}");
        assert_eq!(floor(&cluster, node, None).await.floor, told.floor);
        handle.sleep(BUDGET * 3).await;
        assert_eq!(floor(&cluster, node, None).await.floor, told.reading);
    });
}

/// What was forgotten by the higher one would be taken for new by the lower one. A simulated day found it.
#[test]
fn of_two_rises_of_a_watermark_at_once_the_higher_one_is_kept() {
    with(14, three, |cluster, _, handle| async move {
        handle.sleep(KEEP * 2).await;
        let node = NodeId(3);
        let told = floor(&cluster, node, None).await;
        // So that no round of theirs comes in between.
        for other in cluster.nodes().filter(|other| *other != node) {
            cluster.kill(other);
        }
        let through = floor(&cluster, node, Some(told.reading)).await.floor;
        assert_eq!(through, told.reading);
        let topology = cluster.topology();
        let (_, partition) = topology.locate(BUCKET, KEY.as_bytes());
        let raise = |through| {
            Request::Watermark(WatermarkV1 {
                epoch: topology.epoch(),
                boot: told.boot,
                through,
                step: WatermarkStep::Raise,
                places: vec![PlaceV1 {
                    bucket: BUCKET,
                    partition: partition.0,
                }],
            })
        };
        let hangs = BUDGET / 4;
        cluster.conditions(node).hang_until(handle.now() + hangs);
        let lower = async {
            handle.sleep(hangs / 2).await;
            call(&cluster, node, &raise(Hlc(through.0 - 1))).await
        };
        let higher = raise(through);
        let both = futures::join!(call(&cluster, node, &higher), lower);
        for answer in [both.0, both.1] {
            assert!(matches!(answer, Response::Watermark(_)), "{answer:?}");
        }
        cluster.cut_power(node);
        let image = cluster.image(node).expect("a whole disk");
        let kept = image.watermark(BUCKET, partition).expect("a whole disk");
        assert_eq!(kept, through);
    });
}

#[test]
fn a_clock_has_few_intervals_however_often_its_writers_were_started() {
    with(13, three, |cluster, mut client, handle| async move {
        let mut most = 0;
        for round in 0..60 {
            // Nobody ever deletes.
            let put = client.put(&cluster, VIA, KEY, "v").await;
            put.expect("all are up");
            let object = held(&cluster, &mut client, VIA).await.expect("it is there");
            let object = Object::decode(&object).expect("an object");
            most = object.clock().intervals().len().max(most);
            cluster.kill(VIA);
            cluster.start(VIA).await.expect("it starts again");
            // Some of its runs are too short for a promise.
            handle
                .sleep(if round % 3 == 0 { KEEP * 3 } else { KEEP / 2 })
                .await;
        }
        assert!((9..=14).contains(&most), "{most} intervals");
        let all = ReadOptions {
            level: Level::All,
            ..ReadOptions::default()
        };
        let (values, _) = client
            .get_with(&cluster, VIA, KEY, all)
            .await
            .expect("all are up");
        assert_eq!(values, ["v"]);
    });
}

#[test]
fn below_its_floor_a_node_takes_nothing_new_also_after_it_has_lost_power() {
    with(6, three, |cluster, mut client, handle| async move {
        handle.sleep(KEEP * 2).await;
        let node = NodeId(3);
        let told = floor(&cluster, node, None).await;
        assert_eq!(told.floor, Hlc::ZERO);
        let above = Hlc(told.reading.0 + (1 << 40));
        assert_eq!(
            floor(&cluster, node, Some(above)).await.floor,
            Hlc::ZERO,
            "too young"
        );
        let promised = floor(&cluster, node, Some(told.reading)).await;
        assert_eq!(promised.floor, told.reading);
        for has_lost_power in [false, true] {
            if has_lost_power {
                cluster.cut_power(node);
                cluster.start(node).await.expect("it starts again");
                assert_eq!(floor(&cluster, node, None).await.floor, told.reading);
            }
            let (message, object) = copy_of(&mut client, told.reading);
            let write = Request::ReplicaWrite(message, object);
            assert!(is_refused(&call(&cluster, node, &write).await));
            let (message, object) = copy_of(&mut client, told.reading.next());
            let write = Request::ReplicaWrite(message, object);
            assert!(!is_refused(&call(&cluster, node, &write).await), "above");
            let (message, object) = copy_of(&mut client, told.reading);
            let repair = Request::Repair(message, object);
            assert!(
                !is_refused(&call(&cluster, node, &repair).await),
                "from a replica"
            );
        }
        // Its own writes are above, whatever its clock says.
        cluster.conditions(node).set_skew(-30_000);
        cluster.cut_power(node);
        cluster.start(node).await.expect("it starts again");
        client
            .put(&cluster, node, "other", "w")
            .await
            .expect("it mints");
    });
}

#[test]
fn what_is_kept_for_others_keeps_the_floor_below_it() {
    with(
        7,
        |handle| nodes(handle, 5),
        |cluster, mut client, handle| async move {
            handle.sleep(KEEP * 2).await;
            let topology = cluster.topology();
            let (_, partition) = topology.locate(BUCKET, KEY.as_bytes());
            let owners: Vec<NodeId> = topology.replicas(partition, 3).nodes().collect();
            cluster.kill(owners[1]);
            handle.sleep(Duration::from_secs(8)).await;
            let mut request = client.put_request(KEY, None, WriteKind::Put);
            request.options.level = Level::Eventual;
            let put = client.send_put(&cluster, owners[0], request, "v").await;
            put.expect("others stand in");
            handle.sleep(KEEP * 2).await;
            let keepers: Vec<NodeId> = cluster
                .nodes()
                .filter(|node| {
                    cluster
                        .node(*node)
                        .is_some_and(|node| !node.kept_for_others().is_empty())
                })
                .collect();
            assert_eq!(keepers.len(), 1);
            let told = floor(&cluster, keepers[0], None).await;
            let asked = Some(told.reading);
            assert!(floor(&cluster, keepers[0], asked).await.floor < told.reading);
            // Before the write there was nothing.
            let earlier = Hlc::from_millis(told.reading.millis() - 15_000);
            assert_eq!(
                floor(&cluster, keepers[0], Some(earlier)).await.floor,
                earlier
            );
            cluster.start(owners[1]).await.expect("it starts again");
            handle.sleep(Duration::from_secs(10)).await;
            assert_eq!(floor(&cluster, keepers[0], asked).await.floor, told.reading);
        },
    );
}

#[test]
fn a_watermark_rises_only_where_its_floor_is_above_and_in_the_run_that_promised_it() {
    with(8, three, |cluster, mut client, handle| async move {
        client
            .put(&cluster, VIA, KEY, "v")
            .await
            .expect("all are up");
        handle.sleep(KEEP * 2).await;
        let node = NodeId(3);
        let told = floor(&cluster, node, None).await;
        let topology = cluster.topology();
        let (_, partition) = topology.locate(BUCKET, KEY.as_bytes());
        let raise = |boot, through, partition| {
            Request::Watermark(WatermarkV1 {
                epoch: topology.epoch(),
                boot,
                through,
                step: WatermarkStep::Raise,
                places: vec![PlaceV1 {
                    bucket: BUCKET,
                    partition,
                }],
            })
        };
        let (boot, through) = (told.boot, told.reading);
        let early = raise(boot, through, partition.0);
        assert!(
            is_refused(&call(&cluster, node, &early).await),
            "not promised"
        );
        floor(&cluster, node, Some(through)).await;
        let other_run = raise(boot + 1, through, partition.0);
        assert!(is_refused(&call(&cluster, node, &other_run).await));
        let nowhere = raise(boot, through, 60_000);
        assert!(is_refused(&call(&cluster, node, &nowhere).await));
        let good = raise(boot, through, partition.0);
        assert!(!is_refused(&call(&cluster, node, &good).await));
    });
}

fn row(number: u32) -> Key {
    Key::with_sort("sensor", number.to_be_bytes().to_vec()).expect("short")
}

async fn write_row(cluster: &SimCluster, client: &mut Client, number: u32, kind: WriteKind) {
    let mut request = client.put_request("row", None, kind);
    request.key = row(number);
    let value = if kind == WriteKind::Put { "v" } else { "" };
    let written = client.send_put(cluster, VIA, request, value).await;
    written.expect("a quorum is up");
}

/// The store drops what is forgotten later. Until then it is gone through, a part of it for each answer.
#[test]
fn rows_among_many_forgotten_deletions_are_listed_and_compared_part_by_part() {
    const ROWS: u32 = 300;
    const EVERY: u32 = 100;
    let nodes = |handle| {
        let mut storage = options();
        // Nothing is written to tables, so nothing is dropped.
        storage.memtable_bytes = 64 << 20;
        let pages = PageLimits {
            visited: 20,
            ..PageLimits::default()
        };
        let cluster = SimCluster::new(handle, 3, 3, storage);
        let deletes = DeleteOptions { keep: KEEP };
        cluster.with_deletes(deletes).with_pages(pages)
    };
    with(6, nodes, |cluster, mut client, handle| async move {
        for number in 0..ROWS {
            write_row(&cluster, &mut client, number, WriteKind::Put).await;
        }
        let deleted = (0..ROWS).filter(|number| !number.is_multiple_of(EVERY));
        for number in deleted.clone() {
            write_row(&cluster, &mut client, number, WriteKind::Delete).await;
        }
        let limit = handle.now() + ROUNDS * 10;
        let forgotten = |node| metric(&cluster, node, "kv_deletions_forgotten ");
        let all = deleted.count() as u64;
        while cluster.nodes().any(|node| forgotten(node) < all) {
            assert!(handle.now() < limit, "they are not forgotten");
            handle.sleep(Duration::from_secs(1)).await;
        }
        let (_, partition) = cluster.topology().locate(BUCKET, b"sensor");
        let (mut listed, mut after, mut empty) = (Vec::new(), None, 0);
        loop {
            let from = (partition.0, None, after);
            let page = client.list(&cluster, VIA, from, 50, ReadOptions::default());
            let (page, _) = page.await.expect("all are up");
            empty += usize::from(page.entries.is_empty());
            listed.extend(page.entries.into_iter().map(|entry| entry.key));
            after = page.next_after;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed, [row(0), row(EVERY), row(2 * EVERY)]);
        assert!(empty > 10, "{empty} pages end with their work");

        let [first, second, cut_off] = [VIA, NodeId(2), NodeId(3)];
        let links: Vec<_> = [first, second]
            .iter()
            .flat_map(|node| [(*node, cut_off), (cut_off, *node)])
            .collect();
        cluster.network.block(&links);
        write_row(&cluster, &mut client, ROWS - 1, WriteKind::Put).await;
        cluster.network.unblock(&links);
        // So that they know of each other again.
        handle.sleep(Duration::from_millis(1_500)).await;
        let compared = compare_all(&cluster, cut_off).await;
        assert_eq!(compared.shared, compared.settled, "{compared:?}");
        cluster.kill(first);
        cluster.kill(second);
        let weak = ReadOptions {
            level: Level::Weak,
            ..ReadOptions::default()
        };
        let read = client.get_key(&cluster, cut_off, row(ROWS - 1), weak).await;
        assert_eq!(read.expect("one answer is enough").0, ["v"]);
    });
}
