//! Peers with good certificates and bad manners: they lose their connection, and nobody else's.

use std::time::{Duration, SystemTime};

use crate::raw::{self, Pem, close_code, header, hello, open_control_lane, read_frame};
use crate::support::*;
use kv_net::codec::decode_response;
use kv_net::frame::{Kind, MAX_CLIENT_PAYLOAD_BYTES, MAX_LANE_PAYLOAD_BYTES};
use kv_net::{
    ALPN, CallError, Class, CloseCode, Endpoint, EndpointConfig, ErrorCode, Identity, KeyPair,
    Method, Peer, Response, Validity,
};
use kv_types::{NodeId, Outcome};
use quinn::Connection;

/// A node with impatient limits, a well-mannered client of it, and an ill-mannered one's papers.
struct Stage {
    server: Endpoint,
    peer: Peer,
    good: Endpoint,
    pem: Pem,
}

fn pem(issuer: &Issuer, identity: &Identity) -> Pem {
    let key = KeyPair::generate().expect("a key");
    let valid = Validity::starting(SystemTime::now(), SECOND * 3600);
    let certificate = issuer
        .0
        .issue(identity, &key.public_key(), valid)
        .expect("issued");
    Pem {
        certificate,
        key: key.to_pem(),
    }
}

impl Stage {
    fn new() -> Self {
        let issuer = Issuer::new();
        let impatient = EndpointConfig {
            handshake_timeout: Duration::from_millis(500),
            partial_frame_timeout: Duration::from_millis(100),
            ..EndpointConfig::node()
        };
        let (server, peer) = listen_with(issuer.node(1), Echo::answering(), impatient);
        let good = dialler(issuer.client());
        let pem = pem(&issuer, &Identity::client(CLUSTER, "rude"));
        Self {
            server,
            peer,
            good,
            pem,
        }
    }

    async fn connect(&self) -> Connection {
        raw::dial(self.peer.address, Some(&self.pem), ALPN)
            .await
            .expect("a good certificate")
    }

    async fn others_are_served(&self) {
        let response = self
            .good
            .call(&self.peer, put("abc"), LONG)
            .await
            .expect("served");
        assert_eq!(acked_length(&response), 3);
        assert_eq!(self.good.stats().dialled, 1, "over the connection it had");
    }
}

const PROTOCOL: u64 = CloseCode::Protocol as u64;
const TOO_SLOW: u64 = CloseCode::TooSlow as u64;

#[tokio::test]
async fn whatever_is_not_a_hello_first_closes_the_connection() {
    let stage = Stage::new();
    stage.others_are_served().await;
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..30 {
        let connection = stage.connect().await;
        let (mut send, _receive) = connection.open_bi().await.expect("a stream");
        let garbage: Vec<u8> = (0..random.usize(16..200)).map(|_| random.u8(..)).collect();
        send.write_all(&garbage).await.expect("open");
        assert_eq!(close_code(&connection).await, PROTOCOL);
        stage.others_are_served().await;
    }
    assert_eq!(stage.server.stats().broken, 30);
}

#[tokio::test]
async fn garbage_after_a_good_hello_closes_the_connection() {
    let stage = Stage::new();
    stage.others_are_served().await;
    for garbage in [
        header(Kind::Response, 1, 0).to_bytes().to_vec(),
        header(Kind::Hello, 0, 0).to_bytes().to_vec(),
        vec![0xff; 64],
        // One byte above what a lane takes; nothing of it is sent.
        header(Kind::Request, 1, MAX_LANE_PAYLOAD_BYTES as u32 + 1)
            .to_bytes()
            .to_vec(),
    ] {
        let connection = stage.connect().await;
        let (mut send, _receive) = open_control_lane(&connection).await;
        send.write_all(&garbage).await.expect("open");
        assert_eq!(close_code(&connection).await, PROTOCOL);
        stage.others_are_served().await;
    }
}

#[tokio::test]
async fn a_stream_of_its_own_takes_a_request_within_the_limit_and_nothing_else() {
    let stage = Stage::new();
    for bytes in [
        header(Kind::Request, 2, MAX_CLIENT_PAYLOAD_BYTES as u32 + 1)
            .to_bytes()
            .to_vec(),
        header(Kind::Gossip, 0, 0).to_bytes().to_vec(),
        hello(Class::Control), // a second lane of the class
    ] {
        let connection = stage.connect().await;
        let (_send, _receive) = open_control_lane(&connection).await;
        let (mut send, _receive) = connection.open_bi().await.expect("a stream");
        send.write_all(&bytes).await.expect("open");
        assert_eq!(close_code(&connection).await, PROTOCOL);
    }
    stage.others_are_served().await;
}

#[tokio::test]
async fn a_datagram_that_is_not_a_frame_closes_the_connection() {
    let stage = Stage::new();
    let connection = stage.connect().await;
    let (_send, _receive) = open_control_lane(&connection).await;
    connection
        .send_datagram(vec![1, 2, 3].into())
        .expect("taken");
    assert_eq!(close_code(&connection).await, PROTOCOL);
    stage.others_are_served().await;
}

#[tokio::test]
async fn who_stays_silent_or_stops_in_the_middle_is_thrown_out() {
    let stage = Stage::new();
    let silent = stage.connect().await;
    let halfway = stage.connect().await;
    let (mut send, _receive) = open_control_lane(&halfway).await;
    send.write_all(&header(Kind::Request, 1, 100).to_bytes()[..9])
        .await
        .expect("open");
    assert_eq!(close_code(&halfway).await, TOO_SLOW);
    assert_eq!(close_code(&silent).await, TOO_SLOW);
    stage.others_are_served().await;
}

#[tokio::test]
async fn a_malformed_request_is_answered_and_the_connection_goes_on() {
    let stage = Stage::new();
    let connection = stage.connect().await;
    let (mut send, mut receive) = open_control_lane(&connection).await;
    for (method, version, expected) in [
        (Method::Get.number(), 1, ErrorCode::BadRequest),
        (Method::Get.number(), 2, ErrorCode::Unsupported),
        (999, 1, ErrorCode::Unsupported),
        (0, 1, ErrorCode::Unsupported),
        (Method::ReplicaWrite.number(), 1, ErrorCode::Denied),
    ] {
        let mut bytes = header(Kind::Request, method, 3).to_bytes().to_vec();
        bytes[5] = version;
        bytes.extend_from_slice(&[0xff; 3]);
        send.write_all(&bytes).await.expect("open");
        let (head, payload) = read_frame(&mut receive).await.expect("answered");
        assert_eq!((head.kind, head.id), (Kind::Response, 5));
        let answer = decode_response(Method::Get, head.method, &payload.into()).expect("an error");
        let Response::Error(error) = answer else {
            panic!("not an error")
        };
        assert_eq!((error.code, error.outcome), (expected, Outcome::NotApplied));
    }
    assert!(connection.close_reason().is_none());
}

#[tokio::test]
async fn a_request_that_is_reset_halfway_reaches_nobody() {
    let stage = Stage::new();
    let connection = stage.connect().await;
    let (_send, _receive) = open_control_lane(&connection).await;
    let (mut send, _receive) = connection.open_bi().await.expect("a stream");
    send.write_all(&header(Kind::Request, 2, 1 << 20).to_bytes())
        .await
        .expect("open");
    send.write_all(&[0; 1000]).await.expect("open");
    send.reset(1_u32.into()).expect("open");
    // Finished early, it is no request either.
    let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
    send.write_all(&header(Kind::Request, 2, 1 << 20).to_bytes())
        .await
        .expect("open");
    send.finish().expect("open");
    assert!(
        read_frame(&mut receive).await.is_none(),
        "nothing is answered"
    );
    stage.others_are_served().await;
    assert_eq!(stage.server.stats().requests, 1, "only the other one's");
    assert!(connection.close_reason().is_none());
}

#[tokio::test]
async fn packets_that_are_not_quic_are_ignored() {
    let stage = Stage::new();
    let socket = tokio::net::UdpSocket::bind(loopback())
        .await
        .expect("a free port");
    let mut random = fastrand::Rng::with_seed(2);
    for length in 0..200 {
        let garbage: Vec<u8> = (0..length * 6).map(|_| random.u8(..)).collect();
        socket
            .send_to(&garbage, stage.peer.address)
            .await
            .expect("sent");
    }
    stage.others_are_served().await;
}

#[tokio::test]
async fn a_node_that_answers_nonsense_is_not_believed() {
    let issuer = Issuer::new();
    let node = raw::listen(&pem(&issuer, &Identity::node(CLUSTER, NodeId(9))));
    let peer = Peer {
        node: Some(NodeId(9)),
        address: node.local_addr().expect("bound"),
    };
    tokio::spawn(async move {
        let connection = node
            .accept()
            .await
            .expect("a dialler")
            .await
            .expect("a handshake");
        let (mut send, mut receive) = connection.accept_bi().await.expect("a lane");
        read_frame(&mut receive).await.expect("its hello");
        send.write_all(&hello(Class::Control)).await.expect("open");
        let (request, _) = read_frame(&mut receive).await.expect("a request");
        // An answer whose body is not one.
        let mut answer = header(Kind::Response, request.method, 2);
        answer.id = request.id;
        send.write_all(&answer.to_bytes()).await.expect("open");
        send.write_all(&[0xff; 2]).await.expect("open");
        read_frame(&mut receive).await.expect("another request");
        send.write_all(&[0xff; 40]).await.expect("open");
        connection.closed().await;
    });
    let client = dialler(issuer.client());
    let error = client
        .call(&peer, status(), LONG)
        .await
        .expect_err("nonsense");
    assert!(matches!(error, CallError::BadResponse { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    let error = client
        .call(&peer, status(), LONG)
        .await
        .expect_err("not even a frame");
    assert!(matches!(error, CallError::Lost { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown);
}
