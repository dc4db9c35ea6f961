//! Nodes are killed while clients read and write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kv_client::Client;
use kv_tests::processes::ProcessCluster;

/// What one loop of puts and gets saw.
#[derive(Default)]
struct Seen {
    requests: usize,
    failed: Vec<String>,
    slowest: Duration,
    acked: BTreeMap<String, String>,
}

/// Puts and gets keys of its own until told to stop.
async fn work(client: Client, name: usize, stop: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    let mut round = 0;
    while !stop.load(Ordering::SeqCst) {
        let (key, value) = (format!("w{name}-{}", round % 50), format!("{round}"));
        let begun = Instant::now();
        match client.put(key.as_str(), value.clone()).w(2).await {
            Ok(_) => {
                seen.acked.insert(key.clone(), value.clone());
            }
            Err(error) => seen.failed.push(format!("put {key}: {error}")),
        }
        match client.get(key.as_str()).r(2).await {
            Ok(read) => match read.one() {
                Ok(Some(found))
                    if seen
                        .acked
                        .get(&key)
                        .is_some_and(|acked| found == acked.as_bytes()) => {}
                other => seen
                    .failed
                    .push(format!("get {key}: {value} expected, found {other:?}")),
            },
            Err(error) => seen.failed.push(format!("get {key}: {error}")),
        }
        seen.slowest = seen.slowest.max(begun.elapsed());
        seen.requests += 2;
        round += 1;
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_any_one_node_is_killed_and_comes_back() {
    let mut cluster = ProcessCluster::start(3);
    let client = cluster.client(&[0, 1, 2]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..4)
        .map(|name| tokio::spawn(work(client.clone(), name, Arc::clone(&stop))))
        .collect();
    for victim in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.kill(victim);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        cluster.start_node(victim);
        // It serves again once a client that knows only this node is answered.
        drop(cluster.client(&[victim]).await);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    stop.store(true, Ordering::SeqCst);
    let (mut requests, mut slowest, mut failed, mut acked) =
        (0, Duration::ZERO, Vec::new(), BTreeMap::new());
    for worker in workers {
        let seen = worker.await.expect("a worker does not panic");
        requests += seen.requests;
        slowest = slowest.max(seen.slowest);
        failed.extend(seen.failed);
        acked.extend(seen.acked);
    }
    println!(
        "{requests} requests at r=w=2 over three kills, {} failed, slowest pair {slowest:?}",
        failed.len()
    );
    assert!(
        failed.is_empty(),
        "{} of {requests}: {:#?}",
        failed.len(),
        &failed[..failed.len().min(10)]
    );
    assert!(requests > 200, "only {requests} requests were made");
    for (key, value) in acked {
        let found = client
            .get(key.as_str())
            .await
            .expect("all nodes are up")
            .one()
            .expect("one value");
        assert_eq!(found.as_deref(), Some(value.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_every_node_at_once_loses_nothing_that_was_acked() {
    let mut cluster = ProcessCluster::start(3);
    let client = cluster.client(&[0, 1, 2]).await;
    let mut acked = Vec::new();
    for n in 0..300 {
        let (key, value) = (format!("k{n}"), format!("value {n}"));
        client
            .put(key.as_str(), value.clone())
            .await
            .expect("a healthy cluster");
        acked.push((key, value));
    }
    for index in 0..3 {
        cluster.kill(index);
    }
    for index in 0..3 {
        cluster.start_node(index);
    }
    let client = cluster.client(&[0, 1, 2]).await;
    for (key, value) in acked {
        let read = client
            .get(key.as_str())
            .deadline(Duration::from_secs(5))
            .await
            .expect("all nodes are back");
        assert_eq!(
            read.one().expect("one value").as_deref(),
            Some(value.as_bytes())
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_needs_only_one_living_seed_and_a_told_node_stops_in_good_order() {
    let mut cluster = ProcessCluster::start(3);
    let client = cluster.client(&[0, 1, 2]).await;
    client.put("k", "v").await.expect("a healthy cluster");
    // The other two may have answered so far.
    drop(cluster.client(&[0]).await);
    cluster.stop(0);
    assert!(cluster.log(0).contains("stopped"), "{}", cluster.log(0));
    let one_of_two = cluster.client(&[0, 2]).await;
    assert_eq!(
        one_of_two
            .get("k")
            .await
            .expect("two are up")
            .one()
            .expect("one value")
            .as_deref(),
        Some(&b"v"[..])
    );
    client.put("k2", "v2").await.expect("two are up");
    cluster.start_node(0);
    drop(cluster.client(&[0]).await);
}
