//! What requests do when nodes are slow, dead, or refuse.

use std::time::Duration;

use kv_client::{Error, ErrorCode, Options, Outcome, WriteId};

use crate::cluster::{Cluster, Mood, ROUND_TRIP, Seen};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn write_ids(seen: &[Seen]) -> Vec<WriteId> {
    seen.iter()
        .filter(|seen| seen.kind == "put")
        .filter_map(|seen| seen.write_id)
        .collect()
}

#[test]
fn the_outcome_is_the_worst_over_all_attempts() {
    let cluster = Cluster::of(5);
    let client = cluster.client();
    let replicas = cluster.replicas("k");
    cluster.set_all(Mood::Refuses(
        ErrorCode::NotEnoughReplicas,
        Outcome::NotApplied,
    ));
    let error = cluster
        .world
        .run(async { client.put("k", "v").await.unwrap_err() });
    assert_eq!(
        (error.code(), error.outcome()),
        ("unavailable", Outcome::NotApplied)
    );

    cluster.set(replicas[0], Mood::Breaks);
    let error = cluster
        .world
        .run(async { client.put("k", "v").await.unwrap_err() });
    assert!(
        matches!(
            error,
            Error::Unavailable {
                needed: 2,
                got: 1,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(
        error.outcome(),
        Outcome::Unknown,
        "the first attempt may have been applied"
    );
    assert_eq!(cluster.values("k"), ["v"], "and it was");
}

#[test]
fn a_write_keeps_its_id_over_all_attempts() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    let replicas = cluster.replicas("k");
    cluster.set(replicas[0], Mood::Breaks);
    cluster.set(replicas[1], Mood::Dead);
    let written = cluster
        .world
        .run(async { client.put("k", "v").await.unwrap() });
    let seen = cluster.seen();
    let nodes: Vec<_> = seen.iter().map(|seen| seen.node).collect();
    assert_eq!(nodes, replicas, "each attempt at another replica");
    assert_eq!(write_ids(&seen), [written.write_id; 3]);
    assert_eq!(
        cluster.values("k"),
        ["v"],
        "a retry makes no second sibling"
    );

    let other = cluster
        .world
        .run(async { client.put("k", "v").await.unwrap() });
    assert_ne!(other.write_id, written.write_id);
}

#[test]
fn a_write_says_how_long_ago_it_was_sent_in_a_way_that_may_have_been_applied() {
    let since = |seen: &[Seen]| -> Vec<u32> {
        let seen = seen.iter().filter_map(|seen| seen.since_first_ms);
        seen.collect()
    };
    let cluster = Cluster::of(3);
    let client = cluster.client();
    let replicas = cluster.replicas("k");
    cluster.set(replicas[0], Mood::Hung);
    cluster
        .world
        .run(async { client.put("k", "v").await.unwrap() });
    assert_eq!(
        since(&cluster.seen()),
        [0, 250],
        "the first may come to pass"
    );

    let cluster = Cluster::of(3);
    let client = cluster.client();
    cluster.refuse_puts(1, ErrorCode::Overloaded);
    cluster
        .world
        .run(async { client.put("k", "v").await.unwrap() });
    assert_eq!(since(&cluster.seen()), [0, 0], "the first did nothing");
}

#[test]
fn a_hung_node_costs_the_patience_once() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    let first = cluster.replicas("k")[0];
    cluster.set(first, Mood::Hung);
    let begin = cluster.world.now();
    cluster
        .world
        .run(async { client.put("k", "v").await.unwrap() });
    assert_eq!(cluster.world.now() - begin, ms(250) + ROUND_TRIP);
    for _ in 0..100 {
        let begin = cluster.world.now();
        cluster
            .world
            .run(async { client.put("k", "v").await.unwrap() });
        assert_eq!(
            cluster.world.now() - begin,
            ROUND_TRIP,
            "the node is ranked last now"
        );
    }
}

#[test]
fn a_node_that_comes_back_is_probed_and_used_again() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    let first = cluster.replicas("k")[0];
    cluster.set(first, Mood::Hung);
    cluster
        .world
        .run(async { client.put("k", "v").await.unwrap() });
    cluster.world.skip(ms(600));
    let begin = cluster.world.now();
    cluster
        .world
        .run(async { client.put("k", "v").await.unwrap() });
    assert_eq!(
        cluster.world.now() - begin,
        ms(100) + ROUND_TRIP,
        "a probe costs less"
    );

    cluster.set(first, Mood::Well);
    cluster.world.skip(ms(1100));
    cluster.seen();
    cluster.world.run(async {
        client.put("k", "v").await.unwrap();
        client.put("k", "v").await.unwrap();
    });
    assert!(cluster.seen().iter().all(|seen| seen.node == first));
}

#[test]
fn a_slow_cluster_is_waited_for() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    cluster.set_all(Mood::Slow(800));
    let begin = cluster.world.now();
    cluster
        .world
        .run(async { client.put("k", "v").await.unwrap() });
    assert_eq!(
        cluster.world.now() - begin,
        ms(800),
        "the first attempt was not cut off"
    );
    assert_eq!(cluster.values("k"), ["v"]);
}

#[test]
fn retries_are_a_share_of_requests_when_everything_is_slow() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    cluster.set_all(Mood::Slow(800));
    let all = futures::future::join_all((0..1000).map(|n| {
        let get = client.get(format!("key {n}"));
        async move { get.await.is_ok() }
    }));
    assert!(
        cluster.world.run(all).into_iter().all(|ok| ok),
        "nobody fails for want of a retry"
    );
    let sent = cluster.seen().len();
    assert!(
        (1100..1250).contains(&sent),
        "{sent} messages for 1000 requests"
    );
}

#[test]
fn when_all_is_silent_the_deadline_holds_and_the_outcome_is_unknown() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    cluster.set_all(Mood::Hung);
    for deadline in [ms(1), ms(50), ms(1000), ms(20_000)] {
        let begin = cluster.world.now();
        let put = client.put("k", "v").deadline(deadline);
        let error = cluster.world.run(async { put.await.unwrap_err() });
        let took = cluster.world.now() - begin;
        assert!(
            took <= deadline && took >= deadline * 9 / 10,
            "{took:?} of {deadline:?}"
        );
        assert_eq!((error.code(), error.exit_code()), ("timeout", 7));
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert!(error.to_string().contains("no answer from n"), "{error}");
    }
    let error = cluster
        .world
        .run(async { client.get("k").await.unwrap_err() });
    assert_eq!(
        error.outcome(),
        Outcome::NotApplied,
        "a read changes nothing"
    );
}

#[test]
fn without_a_quorum_the_refusal_comes_at_once_when_the_dead_are_known() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    let replicas = cluster.replicas("k");
    cluster.set(replicas[0], Mood::Unconnected);
    cluster.set(
        replicas[1],
        Mood::Refuses(ErrorCode::NotEnoughReplicas, Outcome::NotApplied),
    );
    cluster.set(replicas[2], Mood::Unconnected);
    let put = || async { client.put("k", "v").await.unwrap_err() };
    let error = cluster.world.run(put());
    let text = error.to_string();
    assert!(text.contains("needed 2, got 1 (n"), "{text}");
    assert_eq!(
        (error.exit_code(), error.outcome()),
        (6, Outcome::NotApplied),
        "nothing was sent to the dead"
    );

    let begin = cluster.world.now();
    let error = cluster.world.run(put());
    assert_eq!(error.exit_code(), 6);
    assert!(cluster.world.now() - begin <= ROUND_TRIP + ms(5));
}

#[test]
fn requests_survive_the_death_of_all_replicas_but_one() {
    let cluster = Cluster::of(5);
    let client = cluster.client();
    let replicas = cluster.replicas("k");
    cluster.set(replicas[0], Mood::Dead);
    cluster.set(replicas[1], Mood::Hung);
    let begin = cluster.world.now();
    cluster.world.run(async {
        client.put("k", "v").await.unwrap();
        client.get("k").await.unwrap();
    });
    assert!(cluster.world.now() - begin < ms(400));
}

#[test]
fn when_all_replicas_are_dead_other_members_are_asked() {
    let cluster = Cluster::of(5);
    let client = cluster.client();
    for node in cluster.replicas("k") {
        cluster.set(node, Mood::Dead);
    }
    cluster
        .world
        .run(async { client.put("k", "v").await.unwrap() });
    cluster.set_all(Mood::Dead);
    let error = cluster
        .world
        .run(async { client.put("k", "v").await.unwrap_err() });
    assert_eq!((error.code(), error.exit_code()), ("unreachable", 8));
    assert_eq!(error.outcome(), Outcome::NotApplied);
}

#[test]
fn refusals_that_no_retry_helps_end_the_request_at_once() {
    use ErrorCode as E;
    for (code, name) in [
        (E::BadRequest, "bad-request"),
        (E::TooLarge, "too-large"),
        (E::WrongContext, "wrong-context"),
        (E::Denied, "denied"),
        (E::StaleWriteId, "stale-write-id"),
        (E::Unsupported, "unsupported"),
    ] {
        let cluster = Cluster::of(3);
        let client = cluster.client();
        cluster.set_all(Mood::Refuses(code, Outcome::NotApplied));
        let error = cluster
            .world
            .run(async { client.put("k", "v").await.unwrap_err() });
        assert_eq!(error.code(), name);
        assert_eq!(cluster.seen().len(), 1, "{name}");
    }
}

#[test]
fn requests_may_be_dropped_at_any_point() {
    let cluster = Cluster::of(3);
    let client = cluster.client();
    let first = cluster.replicas("k")[0];
    cluster.set(first, Mood::Slow(270));
    for polls in 0..12 {
        let put = client.put("k", format!("{polls}"));
        let _ = cluster.world.run_for(async { put.await }, polls);
    }
    cluster.set_all(Mood::Well);
    cluster.world.skip(ms(10_000));
    cluster
        .world
        .run(async { client.put("k", "last").await.unwrap() });
    assert_eq!(cluster.values("k"), ["last"]);
}

/// Any mixture of troubles: the deadline holds, sends are bounded, an answer is the truth, and
/// "not applied" is never said of a write that was.
#[test]
fn any_mixture_of_troubles_is_reported_truly() {
    let (mut good, mut not_applied, mut unknown) = (0, 0, 0);
    for seed in 0..3000 {
        let cluster = Cluster::seeded(5, seed);
        let client = cluster.client();
        let mut dice = fastrand::Rng::with_seed(seed);
        for node in 1..=5 {
            let outcome = if dice.bool() {
                Outcome::Unknown
            } else {
                Outcome::NotApplied
            };
            let codes = [
                ErrorCode::NotEnoughReplicas,
                ErrorCode::Overloaded,
                ErrorCode::Timeout,
            ];
            let mood = match dice.u8(0..8) {
                0 | 1 => Mood::Well,
                2 => Mood::Slow(dice.u64(1..1500)),
                3 => Mood::Hung,
                4 => Mood::Dead,
                5 => Mood::Breaks,
                _ => Mood::Refuses(codes[dice.usize(0..3)], outcome),
            };
            cluster.set(crate::cluster::node(node), mood);
        }
        let begin = cluster.world.now();
        let deadline = ms(dice.u64(1..3000));
        let put = client.put("k", "v").deadline(deadline);
        let result = cluster.world.run(async { put.await });
        assert!(cluster.world.now() - begin <= deadline, "seed {seed}");
        let seen = cluster.seen();
        let ids = write_ids(&seen);
        assert!((1..=4).contains(&ids.len()), "seed {seed}: {seen:?}");
        assert!(ids.iter().all(|id| *id == ids[0]), "seed {seed}");
        // What is still under way may yet be executed.
        cluster.world.skip(ms(10_000));
        let stored = cluster.values("k");
        match result {
            Ok(_) => {
                assert_eq!(stored, ["v"], "seed {seed}");
                good += 1;
            }
            Err(error) if error.outcome() == Outcome::NotApplied => {
                assert!(stored.is_empty(), "seed {seed}: {error}");
                not_applied += 1;
            }
            Err(_) => unknown += 1,
        }
    }
    assert!(
        good > 1000 && not_applied > 10 && unknown > 100,
        "{good} {not_applied} {unknown}"
    );
}

#[test]
fn a_single_attempt_can_be_asked_for() {
    let cluster = Cluster::of(3);
    let mut options = Options::default();
    options.attempts = 1;
    let client = cluster
        .world
        .run(cluster.try_client(&[1], options))
        .unwrap();
    cluster.seen();
    cluster.set_all(Mood::Dead);
    let error = cluster
        .world
        .run(async { client.put("k", "v").await.unwrap_err() });
    assert_eq!(error.code(), "unreachable");
    assert_eq!(write_ids(&cluster.seen()).len(), 1);
}
