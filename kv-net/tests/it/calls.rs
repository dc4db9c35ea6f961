//! What works: calls small and large, many at once, gossip, and saying who one is.

use crate::support::*;
use bytes::Bytes;
use futures::future::join_all;
use kv_net::{Peer, Response};
use kv_types::NodeId;

#[tokio::test]
async fn a_call_reaches_the_handler_and_its_response_comes_back() {
    let issuer = Issuer::new();
    let (_server, peer) = listen(issuer.node(1), Echo::answering());
    let client = dialler(issuer.client());
    let response = client
        .call(&peer, put("hello"), LONG)
        .await
        .expect("answered");
    assert_eq!(acked_length(&response), 5);
    let response = client.call(&peer, get(100), LONG).await.expect("answered");
    assert_eq!(response, Response::Get(get_reply(100), value_of(100)));
    let stats = client.stats();
    assert_eq!((stats.calls, stats.calls_failed, stats.dialled), (2, 0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_at_once_share_one_connection_and_get_their_own_answers() {
    let issuer = Issuer::new();
    let (server, peer) = listen(issuer.node(1), Echo::answering());
    let client = dialler(issuer.node(2));
    let calls = (0..1000).map(|length| {
        let client = client.clone();
        async move {
            let response = client
                .call(&peer, put(vec![7; length]), LONG)
                .await
                .expect("answered");
            assert_eq!(acked_length(&response), length);
        }
    });
    join_all(calls).await;
    assert_eq!(client.stats().dialled, 1);
    assert_eq!(server.stats().accepted, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_every_size_pass_in_both_directions() {
    let issuer = Issuer::new();
    let (_server, peer) = listen(issuer.node(1), Echo::answering());
    let client = dialler(issuer.client());
    // Around the limit of a lane's frame, then the largest value and the largest object.
    for length in [
        0,
        1,
        65_000,
        65_400,
        65_536,
        70_000,
        1 << 20,
        4 << 20,
        16 << 20,
    ] {
        let sent = client
            .call(&peer, put(value_of(length)), LONG)
            .await
            .expect("answered");
        assert_eq!(acked_length(&sent), length);
        let response = client
            .call(&peer, get(length), LONG)
            .await
            .expect("answered");
        assert_eq!(
            response,
            Response::Get(get_reply(length), value_of(length)),
            "{length}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_values_and_small_ones_travel_at_the_same_time() {
    let issuer = Issuer::new();
    let (_server, peer) = listen(issuer.node(1), Echo::answering());
    let client = dialler(issuer.node(2));
    let calls = (0..120).map(|i| {
        let (client, length) = (client.clone(), if i % 6 == 0 { 1 << 20 } else { 10 + i });
        async move {
            let response = client
                .call(&peer, get(length), LONG)
                .await
                .expect("answered");
            assert_eq!(response, Response::Get(get_reply(length), value_of(length)));
        }
    });
    join_all(calls).await;
}

#[tokio::test]
async fn a_seed_says_who_it_is_and_its_connection_is_used_for_the_node() {
    let issuer = Issuer::new();
    let (_server, peer) = listen(issuer.node(17), Echo::answering());
    let client = dialler(issuer.client());
    assert_eq!(
        client.identify(peer.address, LONG).await.expect("reached"),
        NodeId(17)
    );
    client.call(&peer, put("x"), LONG).await.expect("answered");
    client
        .call(&Peer { node: None, ..peer }, put("x"), LONG)
        .await
        .expect("answered");
    assert_eq!(client.stats().dialled, 1);
}

#[tokio::test]
async fn gossip_arrives_small_as_a_datagram_and_large_on_the_control_lane() {
    let issuer = Issuer::new();
    let (handler, mut seen) = Echo::new(Behaviour::Answer);
    let (_server, peer) = listen(issuer.node(1), handler);
    let node = dialler(issuer.node(2));
    for bytes in [Bytes::from_static(b"ping"), value_of(30_000)] {
        node.gossip(&peer, bytes.clone());
        assert_eq!(seen.gossip.recv().await, Some((NodeId(2), bytes)));
    }
    assert_eq!(node.stats().gossip_sent, 2);
}

#[tokio::test]
async fn gossip_of_clients_is_not_believed() {
    let issuer = Issuer::new();
    let (handler, mut seen) = Echo::new(Behaviour::Answer);
    let (server, peer) = listen(issuer.node(1), handler);
    let (client, node) = (dialler(issuer.client()), dialler(issuer.node(2)));
    client.gossip(&peer, value_of(20_000));
    // Both are up and the client's gossip is on its way before its call on the same lane is.
    client
        .call(&peer, status(), LONG)
        .await
        .expect("answered, if only with an error");
    node.gossip(&peer, Bytes::from_static(b"from a node"));
    assert_eq!(seen.gossip.recv().await.expect("gossip").0, NodeId(2));
    assert_eq!(server.stats().denied, 1);
}
