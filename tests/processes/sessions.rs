//! A client's session, over real nodes.

use kv_client::{Level, SessionToken};
use kv_tests::processes::ProcessCluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_reads_its_own_writes_at_weak_or_is_told_that_it_cannot() {
    let cluster = ProcessCluster::start(3);
    let client = cluster.client(&[0, 1, 2]).await;
    let node = |index: usize| {
        let members = client.topology();
        let members = members.members().iter();
        let mut at = members.filter(|member| member.address == cluster.address(index));
        at.next().expect("a member").node
    };
    let bucket = |index| {
        let bucket = client.bucket("default").expect("it is there");
        bucket.via(node(index))
    };
    // Only the first node takes the write, and then it is away.
    cluster.set_paused(1, true);
    cluster.set_paused(2, true);
    let token = SessionToken::new();
    let written = bucket(0).session(&token).put("k", "v");
    written.level(Level::Weak).await.expect("one is enough");
    cluster.set_paused(0, true);
    cluster.set_paused(1, false);
    let alone = bucket(1).get("k").level(Level::Weak).await;
    assert!(
        !alone.expect("one is enough").is_found(),
        "it has not heard of it"
    );
    let own = bucket(1).session(&token).get("k").level(Level::Weak).await;
    let refused = own.expect_err("what it would show is old");
    assert_eq!(
        refused.outcome(),
        kv_client::Outcome::NotApplied,
        "{refused}"
    );
    cluster.set_paused(0, false);
    cluster.set_paused(2, false);
    let own = bucket(2).session(&token).get("k").level(Level::Weak).await;
    let own = own.expect("somebody has it").one().expect("one value");
    assert_eq!(own.as_deref(), Some(&b"v"[..]));
}
