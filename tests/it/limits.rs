//! What is too large is refused with the limit in the message, at the limit and one above it.

use std::time::Duration;

use kv_net::ErrorCode;
use kv_net::message::WriteKind;
use kv_tests::sim::SimCluster;
use kv_types::{Level, NodeId, Object, Outcome};

use crate::client::{options, with, with_cluster};

#[test]
fn a_value_is_taken_at_the_limit_and_refused_one_byte_above() {
    with_cluster(21, |cluster, mut client, _| async move {
        let largest = "x".repeat(Object::MAX_VALUE_BYTES);
        let via = cluster.nodes().next().expect("three nodes");
        client
            .put(&cluster, via, "k", &largest)
            .await
            .expect("at the limit");
        let refused = client.put(&cluster, via, "k", &format!("{largest}x")).await;
        assert_eq!(
            refused.expect_err("above it"),
            (ErrorCode::TooLarge, Outcome::NotApplied)
        );
        let (shown, _) = client.get(&cluster, via, "k").await.expect("healthy");
        assert!(shown == [largest], "the first value is still there");
    });
}

#[test]
fn a_key_takes_as_many_siblings_as_the_limit_and_a_resolving_write_clears_them() {
    with_cluster(22, |cluster, mut client, _| async move {
        let via = cluster.nodes().next().expect("three nodes");
        // Every write carries the context of the empty key: none has read another.
        let (_, empty) = client.get(&cluster, via, "k").await.expect("healthy");
        for n in 0..Object::MAX_SIBLINGS {
            let request = client.put_request("k", Some(empty.context.clone()), WriteKind::Put);
            client
                .send_put(&cluster, via, request, &n.to_string())
                .await
                .expect("up to the limit");
        }
        let one_more = client.put_request("k", Some(empty.context), WriteKind::Put);
        let refused = client
            .send_put(&cluster, via, one_more, "more")
            .await
            .expect_err("above it");
        assert_eq!(refused, (ErrorCode::TooManySiblings, Outcome::NotApplied));
        let (shown, reply) = client.get(&cluster, via, "k").await.expect("healthy");
        assert_eq!(shown.len(), Object::MAX_SIBLINGS);
        let resolving = client.put_request("k", Some(reply.context), WriteKind::Put);
        client
            .send_put(&cluster, via, resolving, "one")
            .await
            .expect("it replaces them all");
        let (shown, _) = client.get(&cluster, via, "k").await.expect("healthy");
        assert_eq!(shown, ["one"]);
    });
}

/// Each side of a split lets the values of a key grow to the limit; what they are together must still travel.
#[test]
fn values_that_grew_to_the_limit_apart_from_each_other_come_together() {
    let make = |handle| {
        let mut options = options();
        options.memtable_bytes = 64 << 20;
        options.log_segment_bytes = 32 << 20;
        SimCluster::new(handle, 3, 3, options)
    };
    with(23, make, |cluster, mut client, handle| async move {
        let nodes: Vec<NodeId> = cluster.nodes().collect();
        let links: Vec<(NodeId, NodeId)> = nodes
            .iter()
            .flat_map(|from| nodes.iter().map(move |to| (*from, *to)))
            .filter(|(from, to)| from != to)
            .collect();
        let (_, empty) = client.get(&cluster, nodes[0], "k").await.expect("healthy");
        cluster.network.block(&links);
        let per_side = Object::MAX_VALUES_BYTES / Object::MAX_VALUE_BYTES;
        for (side, via) in nodes.iter().enumerate() {
            for number in 0..per_side {
                // Every write carries the context of the empty key: none has read another.
                let context = Some(empty.context.clone());
                let mut request = client.put_request("k", context, WriteKind::Put);
                request.options.level = Level::Weak;
                let value = format!(
                    "{side} {number} {}",
                    "x".repeat(Object::MAX_VALUE_BYTES - 4)
                );
                loop {
                    let sent = client.send_put(&cluster, *via, request.clone(), &value);
                    match sent.await {
                        // Its memtables are small.
                        Err((ErrorCode::Overloaded, Outcome::NotApplied)) => {
                            handle.sleep(Duration::from_millis(50)).await;
                        }
                        sent => break drop(sent.expect("one is enough")),
                    }
                }
            }
        }
        cluster.network.unblock(&links);
        handle.sleep(Duration::from_secs(30)).await;
        for via in &nodes {
            let (shown, _) = client.get(&cluster, *via, "k").await.expect("healthy");
            assert_eq!(shown.len(), nodes.len() * per_side, "through {via}");
        }
        let (_, reply) = client.get(&cluster, nodes[1], "k").await.expect("healthy");
        let resolving = client.put_request("k", Some(reply.context), WriteKind::Put);
        let sent = client.send_put(&cluster, nodes[2], resolving, "one");
        sent.await.expect("it replaces them all");
        let (shown, _) = client.get(&cluster, nodes[0], "k").await.expect("healthy");
        assert_eq!(shown, ["one"]);
    });
}
