//! Bounds: on requests under way, on sizes, and on what a role may ask.

use std::sync::Arc;

use crate::support::*;
use kv_net::message::{
    AnswerWhen, BallotV1, ChangeKind, ChangeV1, CompareV1, FateV1, FloorV1, HintsV1, MetricsV1,
    RememberV1, ReplicaListV1, ReplicaReadV1, ReplicaWriteV1, StandInReadV1, StandInWriteV1,
    StatusV1, TopologyV1, TreeKeysV1, TreeNodesV1, TreeObjectsV1, TreeRootsV1, VoteStep, VoteV1,
    WatermarkStep, WatermarkV1, WatermarksV1,
};
use kv_net::{
    BindError, CallError, Endpoint, EndpointConfig, ErrorCode, Method, Peer, Request, Response,
    Role,
};
use kv_types::{BucketId, Epoch, Hlc, Key, NodeId, Outcome};

fn error_code(response: Response) -> (ErrorCode, Outcome) {
    match response {
        Response::Error(error) => (error.code, error.outcome),
        other => panic!("not an error: {other:?}"),
    }
}

#[tokio::test]
async fn requests_above_the_bound_are_turned_away_and_room_comes_back() {
    let issuer = Issuer::new();
    let (handler, mut seen) = Echo::new(Behaviour::Hang);
    let config = EndpointConfig {
        max_requests_per_client: 4,
        ..EndpointConfig::node()
    };
    let (server, peer) = listen_with(issuer.node(1), handler.clone(), config);
    let client = dialler(issuer.client());
    let spawn_call = || {
        let client = client.clone();
        tokio::spawn(async move { client.call(&peer, put("x"), LONG).await })
    };
    let mut hanging: Vec<_> = (0..4).map(|_| spawn_call()).collect();
    for _ in 0..4 {
        seen.started.recv().await.expect("let in");
    }
    for length in [1, 100_000] {
        let response = client
            .call(&peer, put(vec![0; length]), LONG)
            .await
            .expect("answered");
        assert_eq!(
            error_code(response),
            (ErrorCode::Overloaded, Outcome::NotApplied)
        );
    }
    assert_eq!(server.stats().overloaded, 2);
    assert_eq!(server.stats().requests_in_flight, 4);

    // Another connection has a bound of its own.
    *handler.behaviour.lock().expect("not poisoned") = Behaviour::Answer;
    let other = dialler(issuer.client());
    assert_eq!(
        acked_length(&other.call(&peer, put("x"), LONG).await.expect("answered")),
        1
    );

    hanging.pop().expect("four").abort();
    seen.dropped.recv().await.expect("cancelled");
    eventually(|| server.stats().requests_in_flight == 3).await;
    assert_eq!(
        acked_length(&client.call(&peer, put("x"), LONG).await.expect("let in")),
        1
    );
}

#[tokio::test]
async fn large_requests_share_a_budget_of_bytes() {
    let issuer = Issuer::new();
    let (handler, mut seen) = Echo::new(Behaviour::Hang);
    let config = EndpointConfig {
        max_large_request_bytes: 3 << 20,
        ..EndpointConfig::node()
    };
    let (_server, peer) = listen_with(issuer.node(1), handler.clone(), config);
    let (client, node) = (dialler(issuer.client()), dialler(issuer.node(2)));
    let caller = client.clone();
    let _hanging =
        tokio::spawn(async move { caller.call(&peer, put(vec![0; 2 << 20]), LONG).await });
    seen.started.recv().await.expect("let in");
    *handler.behaviour.lock().expect("not poisoned") = Behaviour::Answer;
    let response = client
        .call(&peer, put(vec![0; 2 << 20]), LONG)
        .await
        .expect("answered");
    assert_eq!(
        error_code(response),
        (ErrorCode::Overloaded, Outcome::NotApplied)
    );
    // Small requests of clients, and large ones of nodes, are not touched by that.
    client.call(&peer, put("x"), LONG).await.expect("answered");
    let response = node
        .call(&peer, put(vec![0; 2 << 20]), LONG)
        .await
        .expect("answered");
    assert_eq!(acked_length(&response), 2 << 20);
}

#[tokio::test]
async fn calls_above_the_own_bound_are_refused_unsent() {
    let issuer = Issuer::new();
    let (handler, mut seen) = Echo::new(Behaviour::Hang);
    let (server, peer) = listen(issuer.node(1), handler);
    let config = EndpointConfig {
        max_calls_per_peer: 1,
        ..EndpointConfig::node()
    };
    let client = Endpoint::client(issuer.client(), config).expect("a socket");
    let caller = client.clone();
    let _hanging = tokio::spawn(async move { caller.call(&peer, put("x"), LONG).await });
    seen.started.recv().await.expect("under way");
    let error = client.call(&peer, put("x"), LONG).await.expect_err("busy");
    assert!(
        matches!(error, CallError::Busy { waiting: 1, .. }),
        "{error}"
    );
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert_eq!(server.stats().requests, 1);
}

#[tokio::test]
async fn a_request_above_the_limit_is_refused_unsent() {
    let issuer = Issuer::new();
    let client = dialler(issuer.client());
    let peer = Peer {
        node: None,
        address: loopback(),
    };
    let error = client
        .call(&peer, put(vec![0; 20 << 20]), LONG)
        .await
        .expect_err("too large");
    assert!(
        matches!(error, CallError::TooLarge { size, limit } if size > limit && limit == 20 << 20),
        "{error}"
    );
    assert_eq!(error.outcome(), Outcome::NotApplied);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let issuer = Issuer::new();
    let (_first, peer) = listen(issuer.node(1), Echo::answering());
    let refused = Endpoint::bind(peer.address, issuer.node(2), EndpointConfig::node());
    let error = refused.expect_err("taken");
    assert!(matches!(error, BindError::Taken { address } if address == peer.address));
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("{} is taken by another program", peer.address)),
        "{text}"
    );
}

/// A request of every method.
fn requests() -> Vec<Request> {
    let (head, bucket, key) = (head(), BucketId(0), Key::new("k").expect("short"));
    let replica_write = || ReplicaWriteV1 {
        head: head.clone(),
        bucket,
        key: key.clone(),
        answer: AnswerWhen::Synced,
    };
    let nodes = || TreeNodesV1 {
        epoch: Epoch(1),
        bucket,
        partition: 0,
        depth: 0,
        nodes: vec![0],
        whole_since: None,
    };
    let keys = || TreeKeysV1 {
        under: nodes(),
        after: None,
        until: None,
    };
    let (write, repair) = (replica_write(), replica_write());
    let explain_get = || match get(1) {
        Request::Get(get) => Request::ExplainGet(get),
        other => other,
    };
    let explain_put = || match put("x") {
        Request::Put(put, value) => Request::ExplainPut(put, value),
        other => other,
    };
    let requests = vec![
        get(1),
        put("x"),
        Request::List(kv_net::message::ListV1 {
            head: head.clone(),
            bucket,
            partition: 0,
            rows: None,
            after: None,
            max_items: 1,
            options: kv_net::message::ReadOptions::default(),
        }),
        Request::Topology(TopologyV1 { known: Epoch(0) }),
        Request::Status(StatusV1 {}),
        Request::Metrics(MetricsV1 {}),
        Request::Change(ChangeV1 {
            change: ChangeKind::GrantActor { node: NodeId(1) },
        }),
        Request::Hints(HintsV1 {}),
        explain_get(),
        explain_put(),
        Request::Compare(CompareV1 {
            bucket: None,
            first: 0,
            last: 0,
        }),
        Request::Fate(FateV1 {
            head: head.clone(),
            bucket,
            key: key.clone(),
            write_id: head.write_id,
        }),
        Request::ReplicaWrite(write, "object".into()),
        Request::ReplicaRead(ReplicaReadV1 {
            head: head.clone(),
            bucket,
            key: key.clone(),
            digest_only: true,
        }),
        Request::ReplicaList(ReplicaListV1 {
            head: head.clone(),
            bucket,
            partition: 0,
            rows: None,
            after: None,
            max_items: 1,
            max_bytes: 1,
        }),
        Request::Vote(
            VoteV1 {
                epoch: Epoch(2),
                previous: [0; 16],
                ballot: BallotV1 {
                    round: 1,
                    proposer: NodeId(2),
                },
                step: VoteStep::Prepare,
            },
            bytes::Bytes::new(),
        ),
        Request::StandInWrite(
            StandInWriteV1 {
                head: head.clone(),
                bucket,
                key: key.clone(),
                owner: NodeId(2),
                obligation: true,
                answer: AnswerWhen::Synced,
            },
            "object".into(),
        ),
        Request::StandInRead(StandInReadV1 {
            head,
            bucket,
            key,
            owner: NodeId(2),
            digest_only: true,
        }),
        Request::Repair(repair, "object".into()),
        Request::TreeRoots(TreeRootsV1 {
            epoch: Epoch(1),
            sum: 1,
        }),
        Request::TreeNodes(nodes()),
        Request::TreeKeys(keys()),
        Request::TreeObjects(TreeObjectsV1 {
            stretch: keys(),
            ids: vec![1],
        }),
        Request::Floor(FloorV1 {
            promise: None,
            settle: None,
        }),
        Request::Watermark(WatermarkV1 {
            epoch: Epoch(1),
            boot: 1,
            through: Hlc(1),
            step: WatermarkStep::Seal,
            places: Vec::new(),
        }),
        Request::Remember(RememberV1::default()),
        Request::Watermarks(WatermarksV1 {
            epoch: Epoch(1),
            places: Vec::new(),
        }),
    ];
    let methods: Vec<_> = requests.iter().map(Request::method).collect();
    assert_eq!(methods, Method::ALL, "a request of every method");
    requests
}

#[tokio::test]
async fn every_method_is_denied_to_every_role_that_may_not_call_it() {
    let issuer = Issuer::new();
    let (handler, mut seen) = Echo::new(Behaviour::Answer);
    let (_server, peer) = listen(issuer.node(1), handler);
    for credentials in [issuer.node(2), issuer.client(), issuer.admin()] {
        let role = credentials.identity().role.clone();
        let caller = dialler(credentials);
        for request in requests() {
            let method = request.method();
            let response = caller.call(&peer, request, LONG).await.expect("answered");
            let is_denied = matches!(
                &response,
                Response::Error(error) if error.code == ErrorCode::Denied
                    && error.outcome == Outcome::NotApplied
            );
            assert_eq!(is_denied, !role.may_call(method), "{role} {method:?}");
            let has_reached = seen.started.try_recv().is_ok();
            assert_eq!(has_reached, role.may_call(method), "{role} {method:?}");
        }
    }
}

#[tokio::test]
async fn the_handler_is_told_who_asks() {
    struct WhoAsks;
    impl kv_net::Handler for WhoAsks {
        fn handle(
            &self,
            peer: &kv_net::Identity,
            request: Request,
            budget: std::time::Duration,
        ) -> futures::future::BoxFuture<'static, Response> {
            assert!(budget <= LONG && budget > LONG / 2, "{budget:?}");
            assert_eq!(request.method(), Method::Get);
            let is_expected = peer.role == Role::Node(NodeId(2)) && peer.cluster == CLUSTER;
            let value = value_of(usize::from(is_expected));
            Box::pin(async move { Response::Get(get_reply(value.len()), value) })
        }
        fn gossip(&self, _from: NodeId, _bytes: bytes::Bytes) {}
    }
    let issuer = Issuer::new();
    let (_server, peer) = listen(issuer.node(1), Arc::new(WhoAsks));
    let response = dialler(issuer.node(2))
        .call(&peer, get(0), LONG)
        .await
        .expect("answered");
    assert_eq!(response, Response::Get(get_reply(1), value_of(1)));
}
