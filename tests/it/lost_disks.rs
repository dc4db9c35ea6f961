//! A node whose disk was put back from a copy, or emptied, does not count until it has fetched what it lacks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kv_net::message::{
    AnswerWhen, BallotV1, ChangeKind, ChangeV1, CompareV1, MemberChangesV1, PlaceV1, ReadOptions,
    ReplicaReadV1, ReplicaWriteV1, Request, Response, VoteAnswer, VoteStep, VoteV1, WatermarksV1,
    WriteKind,
};
use kv_net::{ErrorCode, Role};
use kv_node::changes::member_changes;
use kv_node::replica::PageLimits;
use kv_node::tombstones::DeleteOptions;
use kv_ring::{ChainEntry, Topology};
use kv_storage::sim::SimFs;
use kv_tests::sim::cluster::data;
use kv_tests::sim::{Handle, SimCluster};
use kv_types::{BucketName, BucketProperties, Key, Level, NodeId, Outcome};

use crate::client::{BUCKET, BUDGET, Client, metric, options, with, with_cluster};
use crate::members::{JOINING, join, topology};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);
/// Within this the others learn of a later boot counter.
const TOLD: Duration = Duration::from_secs(11);
const KEEP: Duration = Duration::from_secs(4);

fn three(handle: Handle) -> SimCluster {
    SimCluster::new(handle, 3, 3, options()).with_deletes(DeleteOptions { keep: KEEP })
}

/// Stops a node and starts it from another disk.
pub(crate) async fn start_from(cluster: &SimCluster, node: NodeId, disk: SimFs) {
    if cluster.has_process(node) {
        cluster.kill(node);
    }
    cluster.put_in_disk(node, disk);
    cluster.start(node).await.expect("it starts");
}

/// The disk of a node, without what it has stored.
pub(crate) fn emptied(cluster: &SimCluster, node: NodeId) -> SimFs {
    let disk = cluster.fs(node).fork();
    for path in disk.dump().into_keys() {
        if path.starts_with(data().join("store")) {
            kv_storage::fs::Fs::remove(&disk, &path).expect("a healthy disk");
        }
    }
    disk
}

/// A simulated day found it.
#[test]
fn what_only_a_member_remembers_that_came_later_is_not_missed_at_a_start() {
    with_cluster(62, |cluster, _, handle| async move {
        handle.sleep(TOLD).await;
        let copy = cluster.fs(N1).fork();
        join(&cluster).await;
        handle.sleep(Duration::from_millis(500)).await;
        assert!(topology(&cluster, N1).member(JOINING).is_some());
        let across = |one: NodeId| [(one, N2), (N2, one), (one, N3), (N3, one)];
        cluster.network.block(&across(N1));
        cluster.network.block(&across(JOINING));
        handle.sleep(TOLD * 5).await;
        cluster.network.unblock(&across(N1));
        start_from(&cluster, N1, copy.power_loss(handle.seed())).await;
        let missing = metric(&cluster, N1, "kv_incomplete_partitions ");
        assert!(missing > 0, "it may have acknowledged what it lacks");
    });
}

/// Has a bucket made, and says whether the voters have decided it.
async fn create_bucket(cluster: &SimCluster, via: NodeId, name: &str) -> bool {
    let change = ChangeKind::CreateBucket {
        name: BucketName::new(name).expect("a good name"),
        properties: BucketProperties::majority_of(3).expect("three"),
    };
    let request = Request::Change(ChangeV1 { change });
    let role = Role::Admin("a".to_owned());
    let changed = cluster.network.call(role, via, &request, BUDGET * 5).await;
    matches!(changed, Ok(Response::Change(_)))
}

#[test]
fn what_was_lost_is_fetched_no_faster_than_the_node_may() {
    let slow = |handle| three(handle).with_fetch_bytes_per_s(32 << 10);
    with(10, slow, |cluster, mut client, handle| async move {
        let bytes = 512 << 10;
        for number in 0..64 {
            let key = format!("k{number}");
            let put = client
                .put(&cluster, N1, &key, &"v".repeat(bytes / 64))
                .await;
            put.expect("all are up");
        }
        handle.sleep(TOLD).await;
        let disk = emptied(&cluster, N3);
        let begun = handle.now();
        start_from(&cluster, N3, disk).await;
        while missing(&cluster, N3) > 0 {
            handle.sleep(Duration::from_millis(100)).await;
            assert!(
                handle.now() - begun < Duration::from_mins(2),
                "it never ends"
            );
        }
        let took = handle.now() - begun;
        assert!(
            took > Duration::from_secs(5),
            "512 KiB by three nodes at 32 KiB a second each, not in {took:?}"
        );
    });
}

#[test]
fn a_new_machine_for_an_old_member_knows_that_it_lacks_something_though_nobody_tells_it() {
    with(9, three, |cluster, mut client, handle| async move {
        let put = client.put(&cluster, N1, "k", "v").await;
        put.expect("all are up");
        assert!(create_bucket(&cluster, N1, "b").await);
        handle.sleep(TOLD).await;
        // What a member needs that is set up again from the papers of another one.
        let disk = emptied(&cluster, N3);
        for path in disk.dump().into_keys() {
            if !path.starts_with(data().join("topology")) {
                kv_storage::fs::Fs::remove(&disk, &path).expect("a healthy disk");
            }
        }
        cluster.kill(N1);
        cluster.kill(N2);
        start_from(&cluster, N3, disk).await;
        assert!(missing(&cluster, N3) > 0);
        let weak = shown(&cluster, &mut client, N3, "k", Level::Weak).await;
        assert_eq!(weak, None, "it cannot say that there is nothing");
        for other in [N1, N2] {
            cluster.start(other).await.expect("a healthy disk");
        }
        handle.sleep(TOLD).await;
        assert_eq!(missing(&cluster, N3), 0);
    });
}

/// A write that went through two coordinators has two dots. Who had read it under one of them supersedes that one only; those
/// that know both tell the others. If a disk is lost that alone knew the one which was read, nobody does.
#[test]
fn what_was_read_from_a_disk_that_is_lost_may_stay_beside_its_successor() {
    for is_lost in [false, true] {
        with(10, three, move |cluster, mut client, handle| async move {
            handle.sleep(TOLD).await;
            let links: Vec<_> = [N2, N3]
                .iter()
                .flat_map(|other| [(N1, *other), (*other, N1)])
                .collect();
            cluster.network.block(&links);
            let mut write = client.put_request("k", None, WriteKind::Put);
            // So that its coordinator asks nobody before.
            write.options.level = Level::Eventual;
            let first = client.send_put(&cluster, N1, write.clone(), "v").await;
            let (_, outcome) = first.expect_err("it cannot reach another one");
            assert_eq!(outcome, Outcome::Unknown);
            let second = client.send_put(&cluster, N2, write, "v").await;
            second.expect("two of three can be reached");
            let weak = ReadOptions {
                level: Level::Weak,
                ..ReadOptions::default()
            };
            let read = client.get_with(&cluster, N1, "k", weak).await;
            let (values, read) = read.expect("it answers alone");
            assert_eq!(values, ["v"]);
            let next = client.put_request("k", Some(read.context), WriteKind::Put);
            let next = client.send_put(&cluster, N2, next, "next").await;
            next.expect("two of three can be reached");
            if is_lost {
                start_from(&cluster, N1, emptied(&cluster, N1)).await;
            }
            cluster.network.unblock(&links);
            handle.sleep(TOLD * 3).await;
            let seen = shown(&cluster, &mut client, N2, "k", Level::Quorum).await;
            let mut seen = seen.expect("all are up");
            seen.sort();
            let expected: &[&str] = match is_lost {
                false => &["next"],
                true => &["next", "v"],
            };
            assert_eq!(seen, expected);
        });
    }
}

fn missing(cluster: &SimCluster, node: NodeId) -> u64 {
    metric(cluster, node, "kv_incomplete_partitions ")
}

async fn shown(
    cluster: &SimCluster,
    client: &mut Client,
    via: NodeId,
    key: &str,
    level: Level,
) -> Option<Vec<String>> {
    let read = ReadOptions {
        level,
        ..ReadOptions::default()
    };
    let read = client.get_with(cluster, via, key, read).await;
    read.ok().map(|(values, _)| values)
}

#[test]
fn what_a_restored_node_no_longer_knows_is_not_missed_by_a_quorum() {
    with(1, three, |cluster, mut client, handle| async move {
        client
            .put(&cluster, N1, "k", "old")
            .await
            .expect("all are up");
        handle.sleep(TOLD).await;
        let copy = cluster.fs(N3).fork();
        cluster.kill(N2);
        handle.sleep(TOLD).await;
        client
            .put(&cluster, N1, "new", "v")
            .await
            .expect("two are up");

        start_from(&cluster, N3, copy).await;
        assert!(missing(&cluster, N3) > 0);
        let asked = CompareV1 {
            bucket: None,
            first: 0,
            last: u16::MAX,
        };
        let (role, request) = (Role::Admin("a".to_owned()), Request::Compare(asked));
        match cluster.network.call(role, N3, &request, BUDGET).await {
            Ok(Response::Error(error)) => assert_eq!(error.code, ErrorCode::Incomplete),
            other => panic!("its copies are nothing to compare with: {other:?}"),
        }
        cluster.kill(N1);
        cluster.start(N2).await.expect("a healthy disk");
        for via in [N2, N3] {
            let seen = shown(&cluster, &mut client, via, "new", Level::Quorum).await;
            assert_eq!(seen, None, "neither of the two knows, and one knows that");
        }
        let weak = shown(&cluster, &mut client, N3, "k", Level::Weak).await;
        assert_eq!(weak, Some(vec!["old".to_owned()]), "the other one answers");

        cluster.start(N1).await.expect("a healthy disk");
        handle.sleep(TOLD).await;
        assert_eq!(missing(&cluster, N3), 0);
        cluster.kill(N1);
        let seen = shown(&cluster, &mut client, N3, "new", Level::Quorum).await;
        assert_eq!(seen, Some(vec!["v".to_owned()]));
    });
}

#[test]
fn a_restored_node_mints_under_an_actor_that_only_voters_who_remember_grant() {
    with(2, three, |cluster, mut client, handle| async move {
        handle.sleep(TOLD).await;
        let copy = cluster.fs(N3).fork();
        handle.sleep(TOLD).await;
        let before = cluster.node(N1).expect("it runs").topology();
        cluster.kill(N2);
        start_from(&cluster, N3, copy).await;
        handle.sleep(TOLD).await;
        let same = cluster.node(N1).expect("it runs").topology();
        assert_eq!(
            same.epoch(),
            before.epoch(),
            "one of two voters is no majority of three"
        );
        assert_eq!(
            missing(&cluster, N3),
            256,
            "one of two others is not enough"
        );

        cluster.start(N2).await.expect("a healthy disk");
        handle.sleep(TOLD).await;
        let after = cluster.node(N3).expect("it runs").topology();
        assert_eq!(after.epoch(), before.epoch().next());
        assert_ne!(after.actor_of(N3), before.actor_of(N3));
        assert_eq!(missing(&cluster, N3), 0);
        client
            .put(&cluster, N3, "k", "v")
            .await
            .expect("it is whole");

        let copy = cluster.fs(N3).fork();
        start_from(&cluster, N3, copy).await;
        assert_eq!(missing(&cluster, N3), 0, "a restart is no loss");
        client
            .put(&cluster, N3, "k", "w")
            .await
            .expect("it is whole");
    });
}

#[test]
fn what_was_deleted_and_forgotten_does_not_come_back_with_a_restored_disk() {
    with(3, three, |cluster, mut client, handle| async move {
        client
            .put(&cluster, N1, "k", "v")
            .await
            .expect("all are up");
        handle.sleep(TOLD).await;
        let copy = cluster.fs(N3).fork();
        let request = client.put_request("k", None, WriteKind::Delete);
        let deleted = client.send_put(&cluster, N1, request, "").await;
        deleted.expect("all are up");
        handle.sleep(TOLD * 2).await;

        start_from(&cluster, N3, copy).await;
        for _ in 0..2 {
            for via in [N1, N2, N3] {
                for level in [Level::Weak, Level::Eventual, Level::Quorum] {
                    let seen = shown(&cluster, &mut client, via, "k", level).await;
                    assert_eq!(seen, Some(Vec::new()), "{via} {level:?}");
                }
            }
            handle.sleep(TOLD).await;
        }
        assert_eq!(missing(&cluster, N3), 0);
        // Nobody is left that could bring it.
        cluster.kill(N1);
        cluster.kill(N2);
        let seen = shown(&cluster, &mut client, N3, "k", Level::Weak).await;
        assert_eq!(seen, Some(Vec::new()));
    });
}

#[test]
fn an_emptied_disk_is_filled_again() {
    with(4, three, |cluster, mut client, handle| async move {
        let keys: Vec<String> = (0..200).map(|number| format!("k{number}")).collect();
        for key in &keys {
            client
                .put(&cluster, N1, key, "v")
                .await
                .expect("all are up");
        }
        handle.sleep(TOLD).await;
        start_from(&cluster, N3, emptied(&cluster, N3)).await;
        assert!(missing(&cluster, N3) > 0);
        handle.sleep(TOLD).await;
        assert_eq!(missing(&cluster, N3), 0);
        cluster.kill(N1);
        cluster.kill(N2);
        for key in &keys {
            let seen = shown(&cluster, &mut client, N3, key, Level::Weak).await;
            assert_eq!(seen, Some(vec!["v".to_owned()]), "{key}");
        }
    });
}

#[test]
fn a_restored_disk_is_noticed_also_if_all_nodes_start_at_once() {
    with(5, three, |cluster, mut client, handle| async move {
        client
            .put(&cluster, N1, "k", "old")
            .await
            .expect("all are up");
        handle.sleep(TOLD).await;
        let copy = cluster.fs(N3).fork();
        handle.sleep(TOLD).await;
        cluster.kill(N2);
        client
            .put(&cluster, N1, "new", "v")
            .await
            .expect("two are up");
        cluster.kill(N1);
        cluster.kill(N3);
        cluster.put_in_disk(N3, copy);
        for started in [N1, N2, N3].map(|node| cluster.launch(node)) {
            started.await.expect("nobody kills it").expect("it starts");
        }
        assert_eq!(missing(&cluster, N3), 0, "nobody could be asked");
        handle.sleep(TOLD).await;
        assert_eq!(missing(&cluster, N3), 0, "it has fetched what it lacked");
        cluster.kill(N1);
        let seen = shown(&cluster, &mut client, N3, "new", Level::Quorum).await;
        assert_eq!(seen, Some(vec!["v".to_owned()]));
    });
}

#[test]
fn what_was_deleted_does_not_come_back_with_two_restored_disks() {
    with(6, three, |cluster, mut client, handle| async move {
        client
            .put(&cluster, N1, "k", "v")
            .await
            .expect("all are up");
        handle.sleep(TOLD).await;
        let copies = [N1, N3].map(|node| (node, cluster.fs(node).fork()));
        let request = client.put_request("k", None, WriteKind::Delete);
        let deleted = client.send_put(&cluster, N1, request, "").await;
        deleted.expect("all are up");
        handle.sleep(TOLD * 2).await;
        for (node, copy) in copies {
            start_from(&cluster, node, copy).await;
        }
        handle.sleep(TOLD * 2).await;
        for via in [N1, N2, N3] {
            assert_eq!(missing(&cluster, via), 0);
            let seen = shown(&cluster, &mut client, via, "k", Level::Weak).await;
            assert_eq!(seen, Some(Vec::new()), "{via}");
        }
    });
}

/// Keys of one partition, with partition keys of their own or under a single one.
fn crowd(cluster: &SimCluster, count: usize, has_one_partition_key: bool) -> Vec<Key> {
    let topology = cluster.topology();
    let partition = |key: &Key| topology.locate(BUCKET, key.partition_key()).1;
    let keys = (0_u32..).map(|number| {
        let (partition, sort) = match has_one_partition_key {
            true => ("p".to_owned(), number.to_string()),
            false => (number.to_string(), String::new()),
        };
        Key::with_sort(partition, sort).expect("a short key")
    });
    let mut keys = keys.peekable();
    let first = partition(keys.peek().expect("there is no end of them"));
    keys.filter(|key| partition(key) == first)
        .take(count)
        .collect()
}

#[test]
fn a_partition_that_holds_more_than_one_answer_can_is_fetched_part_by_part() {
    for (has_one_partition_key, count) in [(false, 2_500), (true, 2_500)] {
        let nodes = |handle| {
            three(handle).with_pages(PageLimits {
                copies: 100,
                ..PageLimits::default()
            })
        };
        with(7, nodes, move |cluster, mut client, handle| async move {
            let keys = crowd(&cluster, count, has_one_partition_key);
            for key in &keys {
                let mut request = client.put_request("k", None, WriteKind::Put);
                request.key = key.clone();
                let put = client.send_put(&cluster, N1, request, "v").await;
                put.expect("all are up");
            }
            handle.sleep(TOLD).await;
            start_from(&cluster, N3, emptied(&cluster, N3)).await;
            assert!(missing(&cluster, N3) > 0);
            // Some disks are slow.
            let limit = handle.now() + TOLD * 10;
            while missing(&cluster, N3) > 0 && handle.now() < limit {
                handle.sleep(TOLD).await;
            }
            assert_eq!(missing(&cluster, N3), 0);
            cluster.kill(N1);
            cluster.kill(N2);
            for key in keys.iter().step_by(100) {
                let read = ReadOptions {
                    level: Level::Weak,
                    ..ReadOptions::default()
                };
                let read = client.get_key(&cluster, N3, key.clone(), read).await;
                assert_eq!(read.expect("it is whole").0, ["v"], "{key}");
            }
        });
    }
}

#[test]
fn a_lost_disk_of_many_buckets_is_filled_again() {
    with(18, three, |cluster, mut client, handle| async move {
        for number in 0..70 {
            assert!(create_bucket(&cluster, N1, &format!("b{number}")).await);
        }
        client.epoch = cluster.node(N1).expect("it runs").topology().epoch();
        let put = client.put(&cluster, N1, "k", "v").await;
        put.expect("all are up");
        handle.sleep(TOLD).await;
        start_from(&cluster, N3, emptied(&cluster, N3)).await;
        assert!(missing(&cluster, N3) > 0);
        handle.sleep(TOLD).await;
        assert_eq!(missing(&cluster, N3), 0);
    });
}

/// Lets a node be told of nothing that its old disk does not know: one of the others is down that was told, and the other one was out
/// of reach while it was.
async fn put_back_unnoticed(cluster: &SimCluster, client: &mut Client, handle: &Handle) {
    handle.sleep(TOLD).await;
    let copy = cluster.fs(N3).fork();
    let links = [(N2, N3), (N3, N2), (N1, N2), (N2, N1)];
    cluster.network.block(&links);
    handle.sleep(TOLD * 2).await;
    let put = client.put(cluster, N3, "new", "v").await;
    put.expect("two of three can be reached");
    cluster.kill(N1);
    cluster.kill(N3);
    cluster.network.unblock(&links);
    cluster.put_in_disk(N3, copy);
}

#[test]
fn a_restored_disk_is_noticed_though_its_counter_has_overtaken_what_is_remembered() {
    with(11, three, |cluster, mut client, handle| async move {
        put_back_unnoticed(&cluster, &mut client, &handle).await;
        let told = cluster.start(N3).await;
        told.expect("it starts");
        // Beside a member that is down the counter rises slowly.
        handle.sleep(TOLD * 10).await;
        assert_eq!(missing(&cluster, N3), 0, "nobody can know");
        let actor = || cluster.node(N2).expect("it runs").topology().actor_of(N3);
        let before = actor();
        cluster.start(N1).await.expect("a healthy disk");
        // It sees first whether another process runs as it.
        handle.sleep(TOLD * 4).await;
        assert_ne!(actor(), before, "it was noticed");
        assert_eq!(missing(&cluster, N3), 0, "it has fetched what it lacked");
        cluster.kill(N1);
        let seen = shown(&cluster, &mut client, N3, "new", Level::Quorum).await;
        assert_eq!(seen, Some(vec!["v".to_owned()]));
    });
}

/// What a node answers another one: what counts in a quorum of readers, in a majority of voters, and in a round of comparisons.
async fn what_counts(
    cluster: &SimCluster,
    client: &mut Client,
    node: NodeId,
) -> [Result<Response, ErrorCode>; 3] {
    let (epoch, chain_hash) = cluster.node(node).expect("it runs").topology_tip();
    let read = ReplicaReadV1 {
        head: client.head(),
        bucket: BUCKET,
        key: crate::client::key("k"),
        digest_only: false,
    };
    let vote = VoteV1 {
        epoch: epoch.next(),
        previous: chain_hash.0,
        ballot: BallotV1 {
            round: 1,
            proposer: N2,
        },
        step: VoteStep::Prepare,
    };
    let marks = WatermarksV1 {
        epoch,
        places: vec![PlaceV1 {
            bucket: BUCKET,
            partition: 0,
        }],
    };
    let requests = [
        Request::ReplicaRead(read),
        Request::Vote(vote, Bytes::new()),
        Request::Watermarks(marks),
    ];
    let mut answers = Vec::new();
    for request in requests {
        let answer = cluster.network.call(Role::Node(N2), node, &request, BUDGET);
        answers.push(match answer.await.expect("it runs") {
            Response::Error(error) => Err(error.code),
            other => Ok(other),
        });
    }
    answers.try_into().expect("as many")
}

#[test]
fn a_node_that_has_met_nobody_yet_counts_for_nobody() {
    with(12, three, |cluster, mut client, handle| async move {
        let put = client.put(&cluster, N1, "k", "v").await;
        put.expect("all are up");
        handle.sleep(TOLD).await;
        for node in [N1, N2, N3] {
            cluster.kill(node);
        }
        cluster.start(N3).await.expect("a healthy disk");
        // Its disk could be an old one.
        let [read, vote, marks] = what_counts(&cluster, &mut client, N3).await;
        assert_eq!(read, Err(ErrorCode::Incomplete));
        assert_eq!(vote, Err(ErrorCode::Incomplete));
        let Ok(Response::Watermarks(marks)) = marks else {
            panic!("{marks:?}");
        };
        assert_eq!(marks.marks, [None]);
        let weak = shown(&cluster, &mut client, N3, "k", Level::Weak).await;
        assert_eq!(
            weak,
            Some(vec!["v".to_owned()]),
            "of one node nothing else is promised"
        );

        cluster.start(N1).await.expect("a healthy disk");
        handle.sleep(TOLD / 10).await;
        let [read, vote, marks] = what_counts(&cluster, &mut client, N3).await;
        assert!(matches!(read, Ok(Response::ReplicaRead(reply, _)) if reply.digest.is_some()));
        assert!(
            matches!(vote, Ok(Response::Vote(reply, _)) if reply.answer == VoteAnswer::Promised(None))
        );
        assert!(matches!(marks, Ok(Response::Watermarks(reply)) if reply.marks[0].is_some()));
    });
}

/// Its store remembers a later vote only, and on what is open now it may have voted otherwise.
#[test]
fn a_voter_whose_topology_is_older_than_its_store_does_not_vote() {
    with(19, three, |cluster, mut client, handle| async move {
        handle.sleep(TOLD).await;
        let old = [N2, N3].map(|node| (node, cluster.fs(node).fork().dump()));
        for number in 0..2 {
            assert!(create_bucket(&cluster, N1, &format!("b{number}")).await);
            handle.sleep(TOLD).await;
        }
        for node in [N1, N2, N3] {
            cluster.kill(node);
        }
        for (node, old) in old {
            let disk = cluster.fs(node).fork();
            let topology = data().join("topology");
            for path in disk.dump().into_keys() {
                if path.starts_with(&topology) && !old.contains_key(&path) {
                    kv_storage::fs::Fs::remove(&disk, &path).expect("a healthy disk");
                }
            }
            cluster.put_in_disk(node, disk);
            cluster.start(node).await.expect("its topology is whole");
        }
        handle.sleep(TOLD).await;
        let [read, vote, _] = what_counts(&cluster, &mut client, N3).await;
        assert!(read.is_ok(), "{read:?}");
        assert_eq!(vote, Err(ErrorCode::Incomplete));
        cluster.start(N1).await.expect("a healthy disk");
        handle.sleep(TOLD).await;
        let [_, vote, _] = what_counts(&cluster, &mut client, N3).await;
        assert!(vote.is_ok(), "{vote:?}");
    });
}

#[test]
fn voters_that_all_have_an_older_disk_but_one_go_on_by_an_operators_hand() {
    with(20, three, |cluster, mut client, handle| async move {
        let put = client.put(&cluster, N1, "k", "v").await;
        put.expect("all are up");
        let mut copies = Vec::new();
        for node in [N1, N2, N3] {
            handle.sleep(TOLD * 2).await;
            copies.push((node, cluster.fs(node).fork()));
        }
        for (node, copy) in copies {
            cluster.kill(node);
            cluster.put_in_disk(node, copy);
        }
        // The one that knows most comes first, so that each of the others hears of its loss before it votes.
        for node in [N3, N1, N2] {
            cluster.start(node).await.expect("its disk is whole");
            handle.sleep(TOLD).await;
        }
        assert!(
            !create_bucket(&cluster, N3, "a").await,
            "two of three cannot vote"
        );
        cluster.kill(N3);
        let without_vote = [N1, N2];
        let topology = cluster.newest();
        let recovered = topology.recovered(N3, &[], &without_vote);
        let recovered = recovered.expect("one is left");
        let previous = cluster.genesis().chain_hash();
        let entry = ChainEntry::snapshot(Arc::new(recovered), previous);
        cluster.install(N3, &entry.expect("it encodes"));
        cluster.start(N3).await.expect("its disk is whole");
        handle.sleep(TOLD * 3).await;
        assert!(create_bucket(&cluster, N3, "b").await, "one of one can");
        client.epoch = cluster.newest().epoch();
        cluster.kill(N3);
        let put = client.put(&cluster, N1, "k", "w").await;
        put.expect("both have an actor again");
    });
}

/// The bytes of what a node holds of a key.
async fn held_by(cluster: &SimCluster, client: &mut Client, node: NodeId) -> Bytes {
    let read = Request::ReplicaRead(ReplicaReadV1 {
        head: client.head(),
        bucket: BUCKET,
        key: crate::client::key("k"),
        digest_only: false,
    });
    let answer = cluster.network.call(Role::Node(N2), node, &read, BUDGET);
    match answer.await {
        Ok(Response::ReplicaRead(_, bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_may_lack_what_it_knew_of_the_topology_takes_in_nothing_that_is_counted() {
    with(13, three, |cluster, mut client, handle| async move {
        let first = client.put(&cluster, N1, "k", "u").await;
        let first = first.expect("all are up");
        handle.sleep(TOLD).await;
        let copy = cluster.fs(N3).fork();
        handle.sleep(TOLD).await;
        cluster.kill(N2);
        start_from(&cluster, N3, copy).await;
        handle.sleep(TOLD).await;
        // Before its disk was put back it may have answered that it takes in nothing more of this epoch.
        let put = client.put_request("k", Some(first.context), WriteKind::Put);
        let put = client.send_put(&cluster, N1, put, "v").await;
        let (code, _) = put.expect_err("the voters have granted nothing yet");
        let is_too_few = matches!(code, ErrorCode::NotEnoughReplicas | ErrorCode::Timeout);
        assert!(is_too_few, "{code:?}");
        // Nor may others bring it what they forget then, as it may have lost the partition.
        let held = held_by(&cluster, &mut client, N1).await;
        let mut bring = async |answer| {
            let write = ReplicaWriteV1 {
                head: client.head(),
                bucket: BUCKET,
                key: crate::client::key("k"),
                answer,
            };
            let request = Request::Repair(write, held.clone());
            let called = cluster.network.call(Role::Node(N1), N3, &request, BUDGET);
            match called.await.expect("it runs") {
                Response::Error(error) => Err(error.code),
                _ => Ok(()),
            }
        };
        assert_eq!(bring(AnswerWhen::Synced).await, Ok(()));
        assert_eq!(
            bring(AnswerWhen::Delivered).await,
            Err(ErrorCode::Incomplete)
        );
        cluster.start(N2).await.expect("a healthy disk");
        handle.sleep(TOLD).await;
        cluster.kill(N2);
        client.epoch = cluster.node(N1).expect("it runs").topology().epoch();
        let put = client.put(&cluster, N1, "k", "v").await;
        put.expect("it is a member as any other");
    });
}

/// Five nodes with three replicas of each key, which keep the last topology only.
fn five_that_forget(handle: Handle) -> SimCluster {
    SimCluster::new(handle, 5, 3, options()).with_history(1)
}

/// A key of which a node has become an owner.
fn gained_key(before: &Topology, after: &Topology, node: NodeId) -> Option<String> {
    let names = (0..2_000).map(|number| format!("k{number}"));
    let owns = |topology: &Topology, name: &String| {
        let key = crate::client::key(name);
        let (_, partition) = topology.locate(BUCKET, key.partition_key());
        let owners = topology.replicas(partition, 3);
        owners.contains(node) && !owners.is_joint()
    };
    let mut gained = names.filter(|name| owns(after, name) && !owns(before, name));
    gained.next()
}

#[test]
fn what_a_lost_disk_had_gained_is_not_whole_for_who_jumps_over_the_gain() {
    with(
        14,
        five_that_forget,
        |cluster, mut client, handle| async move {
            let (gaining, away) = (N2, NodeId(5));
            for number in 0..2_000 {
                let put = client.put(&cluster, N1, &format!("k{number}"), "v").await;
                put.expect("all are up");
            }
            handle.sleep(TOLD).await;
            let copy = cluster.fs(gaining).fork();
            let before = cluster.node(N1).expect("it runs").topology();
            // The last time that it tells its counter before it gains anything.
            let counter = || cluster.node(gaining).expect("it runs").boot_counter();
            let told = counter();
            while counter() == told {
                handle.sleep(TOLD / 100).await;
            }
            handle.sleep(TOLD / 10).await;
            let told = counter();
            // It remembers a later start of the other one, and nothing of what comes.
            cluster.kill(away);
            let wanted = MemberChangesV1 {
                weights: vec![(gaining, 4)],
                ..MemberChangesV1::default()
            };
            let plan = before.plan_members(&member_changes(wanted.clone()));
            let kind = ChangeKind::Members {
                changes: wanted,
                plan: plan.expect("possible").id.0,
                accepts_loss: false,
            };
            let request = Request::Change(ChangeV1 { change: kind });
            let role = Role::Admin("a".to_owned());
            let changed = cluster.network.call(role, N1, &request, BUDGET).await;
            assert!(matches!(changed, Ok(Response::Change(_))), "{changed:?}");
            let now = || cluster.node(N1).expect("it runs").topology();
            let limit = handle.now() + TOLD * 10;
            let gained = loop {
                assert!(handle.now() < limit);
                if let Some(gained) = gained_key(&before, &now(), gaining) {
                    break gained;
                }
                handle.sleep(TOLD / 100).await;
            };
            assert!(counter() <= told + 1, "else it is noticed once more");
            let others = [N1, N3, NodeId(4)];
            for other in others {
                cluster.kill(other);
            }
            cluster.kill(gaining);
            cluster.put_in_disk(gaining, copy);
            cluster.start(away).await.expect("a healthy disk");
            cluster.start(gaining).await.expect("it starts");
            assert!(missing(&cluster, gaining) > 0, "it is remembered");
            handle.sleep(TOLD * 8).await;
            for other in others {
                cluster.start(other).await.expect("a healthy disk");
            }
            client.epoch = now().epoch();
            let read = ReplicaReadV1 {
                head: client.head(),
                bucket: BUCKET,
                key: crate::client::key(&gained),
                digest_only: false,
            };
            let request = Request::ReplicaRead(read);
            let answer = cluster
                .network
                .call(Role::Node(N1), gaining, &request, BUDGET);
            match answer.await {
                Ok(Response::Error(error)) => assert_eq!(error.code, ErrorCode::Incomplete),
                other => panic!("it has compared with nobody: {other:?}"),
            }
            handle.sleep(TOLD * 2).await;
            assert_eq!(missing(&cluster, gaining), 0);
        },
    );
}
