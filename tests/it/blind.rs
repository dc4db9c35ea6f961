//! Writes without a context that are sent more than once.

use std::time::Duration;

use kv_net::message::{ReadOptions, WriteKind};
use kv_types::{Level, NodeId};

use crate::client::{Client, with_cluster};

/// Far more than clients' clocks should be apart.
const AHEAD_MS: i64 = 5_000;

/// What goes on from a write is not hidden by a repetition of it, though the clock of its writer says that it was made
/// before.
#[test]
fn what_goes_on_from_a_write_outlives_its_repetition() {
    let shown = with_cluster(51, |cluster, mut client, handle| async move {
        let [a, b, alone] = [1, 2, 3].map(NodeId);
        let links = [(a, alone), (alone, a), (b, alone), (alone, b)];
        cluster.network.block(&links);
        let mut ahead = Client::numbered(handle.clone(), 1).ahead_by(AHEAD_MS);
        let mut first = ahead.put_request("k", None, WriteKind::Put);
        first.options.level = Level::Weak;
        let sent = ahead.send_put(&cluster, alone, first.clone(), "first");
        sent.await.expect("one is enough");

        let options = ReadOptions {
            level: Level::Weak,
            ..ReadOptions::default()
        };
        let read = client.get_with(&cluster, alone, "k", options).await;
        let (_, read) = read.expect("one is enough");
        let mut next = client.put_request("k", Some(read.context), WriteKind::Put);
        next.options.level = Level::Weak;
        let sent = client.send_put(&cluster, a, next, "next");
        sent.await.expect("one is enough");
        handle.sleep(Duration::from_secs(1)).await;

        // The answer to the first one was lost.
        first.since_first_ms = 1_050;
        let sent = ahead.send_put(&cluster, b, first, "first");
        sent.await.expect("one is enough");
        cluster.network.unblock(&links);
        // Within this those that know both copies have told the others: what is young is compared later.
        handle.sleep(Duration::from_secs(30)).await;
        let read = client.get(&cluster, a, "k").await;
        read.expect("all are up").0
    });
    assert_eq!(shown, ["next"]);
}

/// In the ordinary case it replaces what was there before it, as if it had been sent once.
#[test]
fn a_write_that_is_repeated_replaces_what_was_there_before_it() {
    let shown = with_cluster(52, |cluster, mut client, handle| async move {
        let old = client.put(&cluster, NodeId(1), "k", "old").await;
        old.expect("all are up");
        handle.sleep(Duration::from_secs(1)).await;
        let mut repeated = client.put_request("k", None, WriteKind::Put);
        handle.sleep(Duration::from_millis(300)).await;
        repeated.since_first_ms = 300;
        let sent = client.send_put(&cluster, NodeId(2), repeated, "new");
        sent.await.expect("all are up");
        let read = client.get(&cluster, NodeId(3), "k").await;
        read.expect("all are up").0
    });
    assert_eq!(shown, ["new"]);
}
