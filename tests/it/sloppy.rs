//! Sloppy quorums and what is kept for those that are away.

use std::time::Duration;

use kv_net::ErrorCode;
use kv_net::Role;
use kv_net::message::{
    ChangeKind, ChangeV1, HintsReplyV1, HintsV1, PutReplyV1, ReadOptions, Request, Response,
    WriteKind,
};
use kv_node::hints::HintOptions;
use kv_ring::ClusterMode;
use kv_tests::sim::{Handle, SimCluster};
use kv_types::{BucketProperties, Level, NodeId, Outcome};

use crate::client::{BUCKET, BUDGET, Client, options, with};

/// Time for everyone to notice that nodes are gone, or back.
const NOTICE: Duration = Duration::from_secs(8);
const KEY: &str = "k";

fn five(handle: Handle) -> SimCluster {
    SimCluster::new(handle, 5, 3, options())
}

/// The owners of the key, and the others.
fn owners(cluster: &SimCluster) -> (Vec<NodeId>, Vec<NodeId>) {
    let topology = cluster.topology();
    let (_, partition) = topology.locate(BUCKET, KEY.as_bytes());
    let replicas = topology.replicas(partition, 3);
    cluster.nodes().partition(|node| replicas.contains(*node))
}

async fn put(
    cluster: &SimCluster,
    client: &mut Client,
    via: NodeId,
    level: Level,
    value: &str,
) -> Result<PutReplyV1, (ErrorCode, Outcome)> {
    let mut request = client.put_request(KEY, None, WriteKind::Put);
    request.options.level = level;
    client.send_put(cluster, via, request, value).await
}

/// The same of a request that names no level, in a bucket that has one.
#[test]
fn a_bucket_has_a_level_of_its_own() {
    with(9, five, |cluster, mut client, handle| async move {
        let (owners, _) = owners(&cluster);
        let mut of_bucket = async |level: Level, expected: Result<(), ErrorCode>| {
            let topology = cluster.node(owners[0]).expect("it runs").topology();
            let bucket = topology.bucket(BUCKET).expect("it is the default one");
            let request = Request::Change(ChangeV1 {
                change: ChangeKind::SetBucket {
                    id: BUCKET,
                    was: bucket.properties,
                    properties: BucketProperties {
                        level,
                        ..bucket.properties
                    },
                    repaired: None,
                },
            });
            let role = Role::Admin("operator".to_owned());
            let made = cluster
                .network
                .call(role, owners[0], &request, BUDGET)
                .await;
            assert!(matches!(made, Ok(Response::Change(_))), "{made:?}");
            let written = put(&cluster, &mut client, owners[0], Level::Usual, "v").await;
            assert_eq!(
                written.map(drop).map_err(|(code, _)| code),
                expected,
                "{level:?}"
            );
        };
        of_bucket(Level::All, Ok(())).await;
        cluster.kill(owners[2]);
        handle.sleep(NOTICE).await;
        of_bucket(Level::All, Err(ErrorCode::NotEnoughReplicas)).await;
        of_bucket(Level::Quorum, Ok(())).await;
        cluster.kill(owners[1]);
        handle.sleep(NOTICE).await;
        of_bucket(Level::Quorum, Err(ErrorCode::NotEnoughReplicas)).await;
        of_bucket(Level::Usual, Ok(())).await;
        of_bucket(Level::Eventual, Ok(())).await;
    });
}

async fn get(
    cluster: &SimCluster,
    client: &mut Client,
    via: NodeId,
    level: Level,
) -> Result<Vec<String>, (ErrorCode, Outcome)> {
    let options = ReadOptions {
        level,
        ..ReadOptions::default()
    };
    let read = client.get_with(cluster, via, KEY, options).await;
    read.map(|(values, _)| values)
}

async fn hints(cluster: &SimCluster, node: NodeId) -> HintsReplyV1 {
    let request = Request::Hints(HintsV1 {});
    match cluster.network.call_as_client(node, request, BUDGET).await {
        Ok(Response::Hints(kept)) => kept,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_its_owners_a_key_is_written_and_read_and_they_get_it_when_they_are_back() {
    for away in 1..=3 {
        with(
            away as u64,
            five,
            move |cluster, mut client, handle| async move {
                let (owners, others) = owners(&cluster);
                // All have heard of all.
                handle.sleep(NOTICE).await;
                for owner in &owners[..away] {
                    cluster.kill(*owner);
                }
                handle.sleep(NOTICE).await;
                let all = owners[away..].iter().chain(&others);
                for (n, via) in all.clone().enumerate() {
                    let reply =
                        put(&cluster, &mut client, *via, Level::Usual, &format!("v{n}")).await;
                    let reply = reply.expect("others stand in");
                    assert!(reply.acked.len() >= 2, "{reply:?}");
                    assert!(
                        reply
                            .acked
                            .iter()
                            .all(|node| !owners[..away].contains(node))
                    );
                }
                for via in all.clone() {
                    let read = get(&cluster, &mut client, *via, Level::Eventual).await;
                    let read = read.expect("others answer");
                    assert!(
                        read.contains(&format!("v{}", 4 - away)),
                        "{read:?} via {via}"
                    );
                }
                // The quorum of the key's own replicas is another matter.
                let strict = put(&cluster, &mut client, others[0], Level::Quorum, "strict").await;
                assert_eq!(strict.is_ok(), away == 1, "{strict:?}");
                if let Err(refused) = strict {
                    assert_eq!(refused, (ErrorCode::NotEnoughReplicas, Outcome::NotApplied));
                }
                let read = get(&cluster, &mut client, others[0], Level::Eventual).await;
                let before = read.expect("others answer");

                for owner in &owners[..away] {
                    cluster.start(*owner).await.expect("it starts again");
                }
                handle.sleep(6 * NOTICE).await;
                for node in cluster.nodes() {
                    assert_eq!(hints(&cluster, node).await.pending, [], "at {node}");
                }
                // Two stood in for two owners; a third one compares with those.
                for owner in owners {
                    let read = get(&cluster, &mut client, owner, Level::Weak).await;
                    assert_eq!(read.as_deref(), Ok(&before[..]), "at {owner} alone");
                }
            },
        );
    }
}

#[test]
fn others_answer_for_owners_that_stand_still_before_anyone_knows_it() {
    with(21, five, |cluster, mut client, _| async move {
        let (owners, _) = owners(&cluster);
        put(&cluster, &mut client, owners[0], Level::Eventual, "v")
            .await
            .expect("all run");
        for owner in &owners[1..] {
            cluster.pause(*owner);
        }
        let begun = client.now();
        let values = get(&cluster, &mut client, owners[0], Level::Eventual)
            .await
            .expect("three run");
        assert_eq!(values, ["v"]);
        let took = client.now() - begun;
        assert!(took < Duration::from_millis(200), "{took:?}");
        // A strict read must not be answered by others.
        let strict = get(&cluster, &mut client, owners[0], Level::Quorum).await;
        assert!(strict.is_err(), "{strict:?}");
        for owner in &owners[1..] {
            cluster.resume(*owner);
        }
        let values = get(&cluster, &mut client, owners[0], Level::Quorum)
            .await
            .expect("all run");
        assert_eq!(values, ["v"]);
    });
}

#[test]
fn what_is_kept_survives_the_death_of_its_keeper() {
    with(9, five, |cluster, mut client, handle| async move {
        let (owners, others) = owners(&cluster);
        for owner in &owners {
            cluster.kill(*owner);
        }
        handle.sleep(NOTICE).await;
        let kept = put(&cluster, &mut client, others[0], Level::Eventual, "v").await;
        let mut acked = kept.expect("others stand in").acked;
        acked.sort_unstable();
        assert_eq!(acked, others);
        for node in &others {
            cluster.cut_power(*node);
        }
        for node in cluster.nodes() {
            cluster.start(node).await.expect("it starts again");
        }
        handle.sleep(2 * NOTICE).await;
        let read = get(&cluster, &mut client, owners[0], Level::Quorum).await;
        assert_eq!(read, Ok(vec!["v".to_owned()]));
    });
}

#[test]
fn in_mode_cp_nobody_stands_in() {
    let cp = |handle| SimCluster::in_mode(ClusterMode::Cp, handle, 5, 3, options());
    with(3, cp, |cluster, mut client, handle| async move {
        let (owners, others) = owners(&cluster);
        let refused = put(&cluster, &mut client, owners[0], Level::Eventual, "v").await;
        let expected = (ErrorCode::BadRequest, Outcome::NotApplied);
        assert_eq!(refused.expect_err("no such level"), expected);
        put(&cluster, &mut client, owners[0], Level::Usual, "v")
            .await
            .expect("all are up");
        for owner in &owners[1..] {
            cluster.kill(*owner);
        }
        handle.sleep(NOTICE).await;
        for via in [owners[0], others[0]] {
            let begun = handle.now();
            let refused = put(&cluster, &mut client, via, Level::Usual, "w").await;
            let expected = (ErrorCode::NotEnoughReplicas, Outcome::NotApplied);
            assert_eq!(refused.expect_err("one of three"), expected);
            let refused = get(&cluster, &mut client, via, Level::Usual).await;
            assert_eq!(refused.expect_err("one of three"), expected);
            assert!(handle.now() - begun < Duration::from_millis(50), "at once");
        }
    });
}

#[test]
fn where_there_is_no_room_sloppy_writes_are_refused_and_strict_ones_go_on() {
    let few = HintOptions {
        max_bytes: 2_000,
        ..HintOptions::default()
    };
    let make = move |handle| five(handle).with_hints(few);
    with(4, make, |cluster, mut client, handle| async move {
        let (owners, others) = owners(&cluster);
        cluster.kill(owners[2]);
        handle.sleep(NOTICE).await;
        let large = "x".repeat(1_900);
        // The owners that are there are enough, with a stand-in and without one.
        for _ in 0..3 {
            for level in [Level::Quorum, Level::Eventual] {
                let reply = put(&cluster, &mut client, owners[0], level, &large).await;
                reply.expect("two owners are up");
            }
        }
        cluster.kill(owners[1]);
        handle.sleep(NOTICE).await;
        let larger = "x".repeat(2_100);
        let refused = put(&cluster, &mut client, owners[0], Level::Eventual, &larger).await;
        assert_eq!(
            refused.expect_err("no room").1,
            Outcome::Unknown,
            "one owner has it"
        );
        let mut refusals = 0;
        for node in others {
            let kept = hints(&cluster, node).await;
            let bytes: u64 = kept.pending.iter().map(|kept| kept.bytes).sum();
            assert!(bytes <= kept.max_bytes, "{kept:?}");
            refusals += kept.refused;
        }
        assert!(refusals > 0);
    });
}

#[test]
fn an_owner_that_stays_away_is_not_waited_for_for_ever() {
    with(5, five, |cluster, mut client, handle| async move {
        let (owners, others) = owners(&cluster);
        // One write that an owner misses, and another takes in its place; then that owner is lost for good.
        for owner in &owners[1..] {
            cluster.kill(*owner);
        }
        handle.sleep(NOTICE).await;
        let reply = put(&cluster, &mut client, owners[0], Level::Eventual, "v").await;
        reply.expect("others stand in");
        cluster.start(owners[1]).await.expect("it starts again");
        handle.sleep(Duration::from_secs(60)).await;
        for node in others {
            assert_eq!(hints(&cluster, node).await.pending, [], "at {node}");
        }
        for owner in &owners[..2] {
            let read = get(&cluster, &mut client, *owner, Level::Weak).await;
            assert_eq!(read, Ok(vec!["v".to_owned()]), "at {owner} alone");
        }
    });
}

#[test]
fn who_names_a_number_means_the_keys_own_replicas() {
    with(6, five, |cluster, mut client, handle| async move {
        handle.sleep(NOTICE).await;
        let (owners, others) = owners(&cluster);
        for owner in &owners[1..] {
            cluster.kill(*owner);
        }
        handle.sleep(NOTICE).await;
        for (w, is_met) in [(None, true), (Some(1), true), (Some(2), false)] {
            let mut request = client.put_request(KEY, None, WriteKind::Put);
            request.options.level = Level::Usual;
            request.options.w = w;
            let put = client.send_put(&cluster, others[0], request, "v").await;
            assert_eq!(put.is_ok(), is_met, "w = {w:?}: {put:?}");
        }
        for (r, is_met) in [(None, true), (Some(1), true), (Some(2), false)] {
            let options = ReadOptions {
                r,
                ..ReadOptions::default()
            };
            let read = client.get_with(&cluster, others[0], KEY, options).await;
            assert_eq!(read.is_ok(), is_met, "r = {r:?}: {read:?}");
        }
    });
}

/// Who stands in for owners may write a key as often as they could: the key's clock does not grow with each write.
#[test]
fn one_stand_in_writes_a_key_as_often_as_it_likes() {
    with(17, five, |cluster, mut client, handle| async move {
        let (owners, others) = owners(&cluster);
        handle.sleep(NOTICE).await;
        for owner in &owners {
            cluster.network.cut_off(*owner, true);
        }
        handle.sleep(NOTICE).await;
        // Now and then through another one, so that neither has made all that lies between two writes of the other.
        for n in 0..400 {
            let via = others[usize::from(n % 100 == 99)];
            let value = format!("v{n}");
            let reply = put(&cluster, &mut client, via, Level::Usual, &value).await;
            reply.unwrap_or_else(|refused| panic!("write {n}: {refused:?}"));
        }
        for owner in &owners {
            cluster.network.cut_off(*owner, false);
        }
        handle.sleep(NOTICE * 3).await;
        for via in owners.iter().chain(&others) {
            let shown = get(&cluster, &mut client, *via, Level::Quorum).await;
            assert_eq!(shown.expect("all are up"), ["v399"], "through {via}");
        }
    });
}
