//! Connecting, and following the cluster as it changes.

use std::time::Duration;

use kv_client::{Epoch, ErrorCode, Options, Outcome};

use crate::cluster::{Cluster, Mood, ROUND_TRIP, node};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn one_living_seed_is_enough() {
    let cluster = Cluster::of(5);
    cluster.set_all(Mood::Hung);
    cluster.set(node(1), Mood::Dead);
    cluster.set(node(5), Mood::Well);
    let client = cluster
        .world
        .run(cluster.try_client(&[1, 2, 3, 5], Options::default()));
    assert_eq!(client.unwrap().topology().epoch(), Epoch::GENESIS);
    assert_eq!(
        cluster.world.now(),
        ROUND_TRIP,
        "seeds are raced, not tried one after another"
    );
}

#[test]
fn without_a_living_seed_connecting_ends_in_time_and_names_them_all() {
    let cluster = Cluster::of(3);
    cluster.set_all(Mood::Hung);
    cluster.set(node(1), Mood::Dead);
    let result = cluster
        .world
        .run(cluster.try_client(&[1, 2], Options::default()));
    let error = result.expect_err("nobody answers");
    assert_eq!(cluster.world.now(), ms(3000));
    let text = error.to_string();
    assert!(
        text.contains("10.0.0.1:7401") && text.contains("10.0.0.2:7401"),
        "{text}"
    );
    assert_eq!((error.code(), error.exit_code()), ("connect", 8));
    assert!(error.is_retryable());

    let result = cluster
        .world
        .run(cluster.try_client(&[], Options::default()));
    assert_eq!(result.expect_err("no seeds").code(), "no-context");
}

#[test]
fn requests_go_on_when_all_seeds_are_dead_and_others_live() {
    let cluster = Cluster::of(5);
    let client = cluster
        .world
        .run(cluster.try_client(&[1, 2], Options::default()))
        .unwrap();
    cluster.set(node(1), Mood::Dead);
    cluster.set(node(2), Mood::Dead);
    cluster.world.run(async {
        for number in 0..50 {
            let key = format!("key {number}");
            client.put(&key, "v").await.unwrap();
            assert!(client.get(&key).await.unwrap().is_found());
        }
    });
    let epoch = cluster.advance_epoch();
    cluster
        .world
        .run(async { client.put("k", "v").await.unwrap() });
    assert_eq!(
        client.topology().epoch(),
        epoch,
        "the members tell of changes too"
    );
}

#[test]
fn a_stale_epoch_is_refreshed_and_the_request_sent_again() {
    let cluster = Cluster::of(5);
    let client = cluster.client();
    let epoch = cluster.advance_epoch();
    cluster
        .world
        .run(async { client.put("k", "v").await.unwrap() });
    let seen = cluster.seen();
    let puts: Vec<_> = seen.iter().filter(|seen| seen.kind == "put").collect();
    assert_eq!(puts.len(), 2);
    assert_eq!(
        (puts[0].epoch, puts[1].epoch),
        (Some(Epoch::GENESIS), Some(epoch))
    );
    assert_eq!(puts[0].node, puts[1].node, "it is not the node's fault");
    assert_eq!(puts[0].write_id, puts[1].write_id);
    assert_eq!(puts[1].at - puts[0].at, ROUND_TRIP * 2);
    cluster.world.run(async { client.get("k").await.unwrap() });
    assert_eq!(cluster.seen().len(), 1, "the new topology is kept");
}

#[test]
fn a_newer_topology_is_learnt_beside_requests_that_are_served_all_the_same() {
    let cluster = Cluster::of(5);
    let client = cluster.client();
    let mut epoch = cluster.advance_epoch_quietly();
    let begin = cluster.world.now();
    let requests = async {
        for number in 0..4 {
            client.put(format!("k{number}"), "v").await.unwrap();
        }
    };
    cluster.world.run(requests);
    assert_eq!(cluster.world.now() - begin, ROUND_TRIP * 4, "none waited");
    assert_eq!(client.topology().epoch(), epoch);
    let questions = |cluster: &Cluster| {
        let seen = cluster.seen();
        seen.iter().filter(|seen| seen.kind == "topology").count()
    };
    assert_eq!(questions(&cluster), 1, "the node that told of it");
    // The next ones come fast, and are learnt together.
    for _ in 0..10 {
        epoch = cluster.advance_epoch_quietly();
        cluster.world.run(async { client.get("k").await.unwrap() });
    }
    assert_eq!(questions(&cluster), 0, "one has just been asked for");
    cluster.world.skip(Duration::from_secs(1));
    cluster.world.run(async {
        for _ in 0..3 {
            client.get("k").await.unwrap();
        }
    });
    assert_eq!(client.topology().epoch(), epoch);
}

#[test]
fn a_client_that_is_many_epochs_behind_learns_the_newest_at_once() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    let epochs: Vec<Epoch> = (0..10).map(|_| cluster.advance_epoch()).collect();
    cluster
        .world
        .run(async { client.put("k", "v").await.unwrap() });
    assert_eq!(Some(&client.topology().epoch()), epochs.last());
    let seen = cluster.seen();
    let puts = seen.iter().filter(|seen| seen.kind == "put");
    assert_eq!(
        puts.count(),
        2,
        "one that was refused, and one that was done"
    );
}

#[test]
fn many_requests_share_one_refresh() {
    let cluster = Cluster::of(5);
    let client = cluster.client();
    cluster.advance_epoch();
    let all = futures::future::join_all((0..100).map(|n| {
        let get = client.get(format!("key {n}"));
        async move { get.await.is_ok() }
    }));
    assert!(cluster.world.run(all).into_iter().all(|ok| ok));
    let asked = cluster
        .seen()
        .iter()
        .filter(|seen| seen.kind == "topology")
        .count();
    assert!(asked <= 5, "{asked} questions about the topology");
}

#[test]
fn a_node_that_claims_an_epoch_nobody_has_cannot_hold_a_request_up() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    cluster.set_all(Mood::Refuses(ErrorCode::StaleEpoch, Outcome::NotApplied));
    let begin = cluster.world.now();
    let error = cluster
        .world
        .run(async { client.put("k", "v").await.unwrap_err() });
    assert_eq!(
        (error.code(), error.outcome()),
        ("stale-epoch", Outcome::NotApplied)
    );
    assert!(cluster.world.now() - begin < ms(100));
}

#[test]
fn an_unknown_bucket_is_looked_for_once() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    let bucket = client.bucket("carts").unwrap();
    let error = cluster
        .world
        .run(async { bucket.get("k").await.unwrap_err() });
    assert_eq!((error.code(), error.exit_code()), ("unknown-bucket", 2));
    assert!(
        error.to_string().contains("`carts` in topology epoch 1"),
        "{error}"
    );
    let seen = cluster.seen();
    assert!(seen.iter().all(|seen| seen.kind == "topology"));
    assert!(seen.len() <= 3, "{seen:?}");
}
