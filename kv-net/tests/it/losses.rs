//! What happens when an answer does not come: deadlines, cancels, deaths, restarts.

use std::time::Duration;

use crate::proxy::Proxy;
use crate::support::*;
use kv_net::{CallError, DialError, EndpointConfig, ErrorCode, Peer, Response};
use kv_types::Outcome;
use tokio::time::Instant;

const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn past_the_deadline_the_outcome_is_unknown_and_the_node_works_no_more() {
    let issuer = Issuer::new();
    let (handler, mut seen) = Echo::new(Behaviour::Hang);
    let (server, peer) = listen(issuer.node(1), handler);
    let client = dialler(issuer.client());
    client.identify(peer.address, LONG).await.expect("up");
    // On a lane, and on a stream of its own.
    for (nth, length) in [(1, 10), (2, 100_000)] {
        let error = client
            .call(&peer, put(vec![0; length]), SHORT)
            .await
            .expect_err("no answer");
        assert!(matches!(error, CallError::Deadline { .. }), "{error}");
        assert_eq!(error.outcome(), Outcome::Unknown);
        seen.dropped
            .recv()
            .await
            .expect("the handler's future is dropped");
        let stats = server.stats();
        assert_eq!(stats.expired + stats.cancelled, nth, "{stats:?}");
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled_at_the_node() {
    let issuer = Issuer::new();
    let (handler, mut seen) = Echo::new(Behaviour::Hang);
    let (server, peer) = listen(issuer.node(1), handler);
    let client = dialler(issuer.client());
    for (nth, length) in [(1, 10), (2, 100_000)] {
        let caller = client.clone();
        let call =
            tokio::spawn(async move { caller.call(&peer, put(vec![0; length]), LONG).await });
        seen.started
            .recv()
            .await
            .expect("it has reached the handler");
        call.abort();
        seen.dropped
            .recv()
            .await
            .expect("the handler's future is dropped");
        // The counter follows the drop, perhaps on another thread.
        eventually(|| server.stats().cancelled == nth).await;
    }
    eventually(|| server.stats().requests_in_flight == 0).await;
}

#[tokio::test]
async fn when_the_node_closes_its_waiting_calls_end_at_once_with_an_unknown_outcome() {
    let issuer = Issuer::new();
    for length in [10, 100_000] {
        let (handler, mut seen) = Echo::new(Behaviour::Hang);
        let (server, peer) = listen(issuer.node(1), handler);
        let client = dialler(issuer.client());
        let call =
            tokio::spawn(async move { client.call(&peer, put(vec![0; length]), LONG).await });
        seen.started
            .recv()
            .await
            .expect("it has reached the handler");
        server.close(Duration::ZERO).await;
        let error = call.await.expect("no panic").expect_err("gone");
        assert!(matches!(error, CallError::Lost { .. }), "{error}");
        assert_eq!(error.outcome(), Outcome::Unknown);
    }
}

#[tokio::test]
async fn a_node_that_falls_silent_is_noticed_by_the_idle_timeout() {
    let issuer = Issuer::new();
    let (handler, mut seen) = Echo::new(Behaviour::Hang);
    let (_server, peer) = listen(issuer.node(1), handler);
    let proxy = Proxy::to(peer.address).await;
    let config = EndpointConfig {
        idle_timeout: Duration::from_millis(300),
        keep_alive: Duration::from_millis(50),
        ..EndpointConfig::node()
    };
    let client = kv_net::Endpoint::client(issuer.client(), config).expect("a socket");
    let through = Peer {
        address: proxy.address(),
        ..peer
    };
    let call = tokio::spawn(async move { client.call(&through, put("x"), LONG).await });
    seen.started
        .recv()
        .await
        .expect("it has reached the handler");
    let before = Instant::now();
    proxy.lead_to(None);
    let error = call.await.expect("no panic").expect_err("dead");
    assert!(
        matches!(&error, CallError::Lost { reason, .. } if reason == "timed out"),
        "{error}"
    );
    assert!(before.elapsed() < LONG / 4, "long before the budget");
}

#[tokio::test]
async fn a_peer_that_cannot_disown_a_connection_is_dialled_anew_after_one_silent_call() {
    let issuer = Issuer::new();
    let (_before, peer) = listen(issuer.node(1), Echo::answering());
    let proxy = Proxy::to(peer.address).await;
    // Silence alone would not be noticed within this test.
    let config = EndpointConfig {
        idle_timeout: Duration::from_secs(600),
        ..EndpointConfig::client()
    };
    let client = kv_net::Endpoint::client(issuer.client(), config).expect("a socket");
    let through = Peer {
        address: proxy.address(),
        ..peer
    };
    client.call(&through, put("x"), LONG).await.expect("up");
    proxy.lead_to(None);
    let error = client.call(&through, put("x"), SHORT).await;
    assert!(
        matches!(error, Err(CallError::Deadline { .. })),
        "{error:?}"
    );
    // With another key it cannot say that it knows nothing of the connection.
    let (_after, restarted) = listen(issuer.node(1), Echo::answering());
    proxy.lead_to(Some(restarted.address));
    let silent = client.call(&through, put("x"), 4 * SHORT).await;
    assert!(
        matches!(silent, Err(CallError::Deadline { .. })),
        "{silent:?}"
    );
    client
        .call(&through, put("x"), LONG)
        .await
        .expect("dialled anew");
}

#[tokio::test]
async fn a_restarted_node_disowns_its_old_connections_at_once() {
    let issuer = Issuer::new();
    let credentials = issuer.node(1);
    let (handler, mut seen) = Echo::new(Behaviour::Hang);
    let (_before, peer) = listen(credentials.clone(), handler);
    let proxy = Proxy::to(peer.address).await;
    // Silence alone would not be noticed within this test.
    let config = EndpointConfig {
        idle_timeout: Duration::from_secs(600),
        keep_alive: Duration::from_millis(50),
        ..EndpointConfig::node()
    };
    let client = kv_net::Endpoint::client(issuer.client(), config).expect("a socket");
    let through = Peer {
        address: proxy.address(),
        ..peer
    };
    let caller = client.clone();
    let call = tokio::spawn(async move { caller.call(&through, put("x"), LONG).await });
    seen.started
        .recv()
        .await
        .expect("it has reached the handler");

    // The next process has the same key, and knows nothing of the connection.
    let (_after, restarted) = listen(credentials, Echo::answering());
    proxy.lead_to(Some(restarted.address));
    let error = call.await.expect("no panic").expect_err("lost");
    assert!(
        matches!(&error, CallError::Lost { reason, .. } if reason == "reset by peer"),
        "{error}"
    );
    // It lived too short to be dialled again without a pause.
    let response = loop {
        match client.call(&through, put("x"), LONG).await {
            Ok(response) => break response,
            Err(error) => assert_eq!(error.outcome(), Outcome::NotApplied, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(acked_length(&response), 1);
}

#[tokio::test]
async fn where_nobody_listens_nothing_is_applied_and_the_back_off_answers_at_once() {
    let issuer = Issuer::new();
    let socket = std::net::UdpSocket::bind(loopback()).expect("a free port");
    let peer = Peer {
        node: None,
        address: socket.local_addr().expect("bound"),
    };
    let config = EndpointConfig {
        handshake_timeout: 4 * SHORT,
        backoff_min: Duration::from_secs(60),
        backoff_max: Duration::from_secs(60),
        ..EndpointConfig::node()
    };
    let client = kv_net::Endpoint::client(issuer.client(), config).expect("a socket");

    let error = client
        .call(&peer, put("x"), SHORT / 3)
        .await
        .expect_err("no time to connect");
    assert!(matches!(error, CallError::NotSent { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    for _ in 0..3 {
        let error = client
            .call(&peer, put("x"), LONG)
            .await
            .expect_err("nobody is there");
        let CallError::Connect {
            reason: DialError::NoAnswer { waited },
            ..
        } = &error
        else {
            panic!("another error: {error}");
        };
        assert_eq!(*waited, 4 * SHORT);
        assert_eq!(error.outcome(), Outcome::NotApplied);
        assert!(
            error.to_string().contains("is kv-node running there"),
            "{error}"
        );
    }
    assert_eq!(client.stats().dials_failed, 1, "one dial for four calls");
}

#[tokio::test]
async fn a_panic_in_the_handler_is_answered_and_harms_nobody_else() {
    let issuer = Issuer::new();
    let (handler, _seen) = Echo::new(Behaviour::Panic);
    let (_server, peer) = listen(issuer.node(1), handler.clone());
    let client = dialler(issuer.client());
    let response = client.call(&peer, put("x"), LONG).await.expect("answered");
    let Response::Error(error) = response else {
        panic!("not an error")
    };
    assert_eq!(
        (error.code, error.outcome),
        (ErrorCode::Internal, Outcome::Unknown)
    );
    *handler.behaviour.lock().expect("not poisoned") = Behaviour::Answer;
    assert_eq!(
        acked_length(&client.call(&peer, put("xy"), LONG).await.expect("answered")),
        2
    );
}

#[tokio::test]
async fn a_closing_node_answers_what_is_under_way_and_refuses_the_rest() {
    let issuer = Issuer::new();
    let (handler, mut seen) = Echo::new(Behaviour::Hang);
    let (server, peer) = listen(issuer.node(1), handler.clone());
    let client = dialler(issuer.client());
    let caller = client.clone();
    let hanging = tokio::spawn(async move { caller.call(&peer, put("x"), LONG).await });
    seen.started.recv().await.expect("under way");
    let closing = {
        let server = server.clone();
        tokio::spawn(async move { server.close(LONG).await })
    };
    // Once the drain has begun, new requests are refused; before that, they hang until dropped.
    loop {
        match client.call(&peer, put("x"), SHORT).await {
            Ok(Response::Error(error)) if error.code == ErrorCode::ShuttingDown => {
                assert_eq!(error.outcome, Outcome::NotApplied);
                break;
            }
            Err(CallError::Deadline { .. }) => {}
            other => panic!("neither refused nor hanging: {other:?}"),
        }
    }
    assert!(
        !closing.is_finished(),
        "the grace lasts while a request is under way"
    );
    hanging.abort();
    closing
        .await
        .expect("the last request is gone, so it closes");
    let error = server
        .call(&peer, put("x"), LONG)
        .await
        .expect_err("closed");
    assert!(matches!(error, CallError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_closes_delivers_what_it_has_answered() {
    let issuer = Issuer::new();
    for length in [100, 60_000, 3 << 20] {
        let (handler, mut seen) = Echo::new(Behaviour::Answer);
        let (server, peer) = listen(issuer.node(1), handler);
        let client = dialler(issuer.client());
        let calls: Vec<_> = (0..6)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.call(&peer, get(length), LONG).await })
            })
            .collect();
        for _ in 0..calls.len() {
            seen.started
                .recv()
                .await
                .expect("all have reached the handler");
        }
        server.close(LONG).await;
        for call in calls {
            let response = call
                .await
                .expect("no panic")
                .expect("answered before the end");
            assert_eq!(response, Response::Get(get_reply(length), value_of(length)));
        }
        // Whoever comes now is told at once, and nothing is applied.
        let error = client
            .call(&peer, put("x"), SHORT)
            .await
            .expect_err("closed");
        assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
    }
}
