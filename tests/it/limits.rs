//! What is too large is refused with the limit in the message, at the limit and one above it.

use kv_net::ErrorCode;
use kv_net::message::WriteKind;
use kv_types::{Object, Outcome};

use crate::client::with_cluster;

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
