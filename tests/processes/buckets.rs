//! A bucket is created while a cluster of three runs, and outlives all of its processes.

use std::time::{Duration, Instant};

use kv_client::cluster::ChangeKind;
use kv_client::{BucketName, BucketProperties, Client, Level, Outcome};
use kv_tests::processes::ProcessCluster;

const LIMIT: Duration = Duration::from_secs(5);

/// Puts into the new bucket, as soon as the client's node has learnt of it.
async fn put(client: &Client, value: &'static str) {
    let begun = Instant::now();
    loop {
        let done = match client.bucket("beds") {
            Ok(beds) => beds
                .put("a", value)
                // At level eventual a node that was away replaces only what it holds itself.
                .level(Level::Quorum)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match done {
            Ok(_) => return,
            Err(error) => assert!(begun.elapsed() < LIMIT, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_created_by_the_votes_of_two_of_three_and_outlives_them_all() {
    let mut cluster = ProcessCluster::start(3);
    let admin = cluster.admin(&[0, 1, 2]).await;
    let members: Vec<_> = admin.topology().members().to_vec();
    let at = |index: usize| {
        let is_it = |member: &&kv_client::ring::Member| member.address == cluster.address(index);
        members.iter().find(is_it).expect("a member").node
    };
    let (first, second) = (at(0), at(1));
    cluster.kill(2);
    let create = || ChangeKind::CreateBucket {
        name: BucketName::new("beds").expect("a good name"),
        properties: BucketProperties::majority_of(3).expect("a possible number"),
    };
    let epoch = admin.change_topology(first, create(), LIMIT).await;
    assert_eq!(epoch.expect("two of three voters").0, 2);
    let twice = admin.change_topology(second, create(), LIMIT).await;
    let twice = twice.expect_err("it is there");
    assert_eq!(twice.outcome, Outcome::NotApplied, "{twice}");
    assert!(
        twice
            .to_string()
            .contains("there is a bucket `beds` already"),
        "{twice}"
    );
    put(&cluster.client(&[1]).await, "before").await;
    // Without a majority of the voters nothing is decided.
    cluster.kill(1);
    let other = ChangeKind::CreateBucket {
        name: BucketName::new("pots").expect("a good name"),
        properties: BucketProperties::majority_of(3).expect("a possible number"),
    };
    let alone = admin
        .change_topology(first, other, Duration::from_secs(2))
        .await;
    assert!(alone.is_err(), "one of three voters decided");
    cluster.kill(0);
    for index in 0..3 {
        cluster.start_node(index);
    }
    put(&cluster.client(&[2]).await, "after").await;
    let client = cluster.client(&[0]).await;
    let read = client.bucket("beds").expect("it is there").get("a").await;
    let value = read.expect("all are back").one().expect("one value");
    assert_eq!(value.as_deref(), Some(&b"after"[..]));
}
