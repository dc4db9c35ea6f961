//! A client's session, over real nodes.

use std::time::{Duration, Instant};

use kv_client::{Bucket, Level, Outcome, SessionToken};
use kv_tests::processes::ProcessCluster;

const LIMIT: Duration = Duration::from_secs(20);

/// A new client that sends everything through one node.
async fn alone(cluster: &ProcessCluster, index: usize) -> Bucket {
    let client = cluster.client(&[index]).await;
    let topology = client.topology();
    let mut members = topology.members().iter();
    let at = members.find(|member| member.address == cluster.address(index));
    let bucket = client.bucket("default").expect("it is there");
    bucket.via(at.expect("a member").node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_reads_its_own_writes_at_weak_or_is_told_that_it_cannot() {
    let mut cluster = ProcessCluster::start(3);
    let first = alone(&cluster, 0).await;
    // Only the first node takes the write, and then it is away.
    cluster.kill(1);
    cluster.kill(2);
    let token = SessionToken::new();
    let written = first.session(&token).put("k", "v");
    written.level(Level::Weak).await.expect("one is enough");
    cluster.set_paused(0, true);
    cluster.start_node(1);
    let second = alone(&cluster, 1).await;
    let old = second.get("k").level(Level::Weak).await;
    assert!(
        !old.expect("one is enough").is_found(),
        "it has not heard of it"
    );
    let own = second.session(&token).get("k").level(Level::Weak).await;
    let refused = own.expect_err("what it would show is old");
    assert_eq!(refused.outcome(), Outcome::NotApplied, "{refused}");
    cluster.set_paused(0, false);
    cluster.start_node(2);
    let third = alone(&cluster, 2).await.session(&token);
    let begun = Instant::now();
    let own = loop {
        // As long as it has not met the first one again, it says that it cannot.
        match third.get("k").level(Level::Weak).await {
            Ok(read) => break read.one().expect("one value"),
            Err(error) => assert!(begun.elapsed() < LIMIT, "{error}"),
        }
    };
    assert_eq!(own.as_deref(), Some(&b"v"[..]));
}
