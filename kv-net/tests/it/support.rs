//! A cluster's certificates, endpoints on loopback, and a handler whose answers tests decide.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use kv_net::message::{
    DataHead, ErrorReplyV1, GetReplyV1, GetV1, PutReplyV1, PutV1, ReadOptions, StatusV1, WriteKind,
    WriteOptions,
};
use kv_net::{
    CertificateAuthority, Credentials, Endpoint, EndpointConfig, ErrorCode, Handler, Identity,
    KeyPair, Peer, Request, Response, Validity,
};
use kv_types::{BucketId, ClusterId, Context, Epoch, Key, NodeId, Outcome, WriteId};
use tokio::sync::mpsc;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// A budget that no test reaches unless something is wrong.
pub(crate) const LONG: Duration = Duration::from_secs(20);
pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A cluster's authority, and what it issues.
pub(crate) struct Issuer(pub(crate) CertificateAuthority);

impl Issuer {
    pub(crate) fn new() -> Self {
        Self::of(CLUSTER)
    }

    pub(crate) fn of(cluster: ClusterId) -> Self {
        let valid = Validity::starting(SystemTime::now(), 10 * YEAR);
        Self(CertificateAuthority::create(cluster, "test authority", valid).expect("an authority"))
    }

    pub(crate) fn credentials(&self, identity: &Identity) -> Credentials {
        self.credentials_for(identity, Validity::starting(SystemTime::now(), YEAR))
    }

    pub(crate) fn credentials_for(&self, identity: &Identity, valid: Validity) -> Credentials {
        let key = KeyPair::generate().expect("a key");
        let certificate = self
            .0
            .issue(identity, &key.public_key(), valid)
            .expect("issued");
        Credentials::from_pem(self.0.certificate_pem(), &certificate, &key.to_pem())
            .expect("what was just issued")
    }

    /// Credentials of this authority that believe the authorities in `ca`.
    pub(crate) fn credentials_believing(&self, ca: &str, identity: &Identity) -> Credentials {
        let key = KeyPair::generate().expect("a key");
        let valid = Validity::starting(SystemTime::now(), YEAR);
        let certificate = self
            .0
            .issue(identity, &key.public_key(), valid)
            .expect("issued");
        Credentials::from_pem(ca, &certificate, &key.to_pem()).expect("what was just issued")
    }

    pub(crate) fn node(&self, id: u128) -> Credentials {
        self.credentials(&Identity::node(self.0.cluster(), NodeId(id)))
    }

    pub(crate) fn client(&self) -> Credentials {
        self.credentials(&Identity::client(self.0.cluster(), "tester"))
    }

    pub(crate) fn admin(&self) -> Credentials {
        self.credentials(&Identity::admin(self.0.cluster(), "operator"))
    }
}

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// An endpoint that listens on loopback and serves `handler`.
pub(crate) fn listen(credentials: Credentials, handler: Arc<dyn Handler>) -> (Endpoint, Peer) {
    listen_with(credentials, handler, EndpointConfig::node())
}

pub(crate) fn listen_with(
    credentials: Credentials,
    handler: Arc<dyn Handler>,
    config: EndpointConfig,
) -> (Endpoint, Peer) {
    let node = credentials.identity().node_id();
    let endpoint = Endpoint::bind(loopback(), credentials, config).expect("a free port");
    endpoint.serve(handler);
    let address = endpoint.local_addr().expect("bound");
    (endpoint, Peer { node, address })
}

pub(crate) fn dialler(credentials: Credentials) -> Endpoint {
    Endpoint::client(credentials, EndpointConfig::node()).expect("a socket")
}

/// Echoes the value of a put back as a get's, and counts; `Never` requests stay open.
pub(crate) struct Echo {
    pub(crate) gossip: mpsc::UnboundedSender<(NodeId, Bytes)>,
    pub(crate) started: mpsc::UnboundedSender<Request>,
    pub(crate) dropped: mpsc::UnboundedSender<()>,
    pub(crate) behaviour: Mutex<Behaviour>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Behaviour {
    /// Answers at once.
    Answer,
    /// Never answers.
    Hang,
    /// Panics.
    Panic,
}

pub(crate) struct Seen {
    pub(crate) gossip: mpsc::UnboundedReceiver<(NodeId, Bytes)>,
    pub(crate) started: mpsc::UnboundedReceiver<Request>,
    pub(crate) dropped: mpsc::UnboundedReceiver<()>,
}

impl Echo {
    pub(crate) fn new(behaviour: Behaviour) -> (Arc<Self>, Seen) {
        let (gossip, seen_gossip) = mpsc::unbounded_channel();
        let (started, seen_started) = mpsc::unbounded_channel();
        let (dropped, seen_dropped) = mpsc::unbounded_channel();
        let behaviour = Mutex::new(behaviour);
        let seen = Seen {
            gossip: seen_gossip,
            started: seen_started,
            dropped: seen_dropped,
        };
        (
            Arc::new(Self {
                gossip,
                started,
                dropped,
                behaviour,
            }),
            seen,
        )
    }

    pub(crate) fn answering() -> Arc<Self> {
        Self::new(Behaviour::Answer).0
    }
}

/// Says when a handler's future is gone.
struct Tell(mpsc::UnboundedSender<()>);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl Handler for Echo {
    fn handle(
        &self,
        _peer: &Identity,
        request: Request,
        _budget: Duration,
    ) -> BoxFuture<'static, Response> {
        let _ = self.started.send(request.clone());
        let tell = Tell(self.dropped.clone());
        let behaviour = *self.behaviour.lock().expect("not poisoned");
        async move {
            let _tell = tell;
            match behaviour {
                Behaviour::Answer => answer(request),
                Behaviour::Hang => futures::future::pending().await,
                Behaviour::Panic => panic!("as the test wants it"),
            }
        }
        .boxed()
    }

    fn gossip(&self, from: NodeId, bytes: Bytes) {
        let _ = self.gossip.send((from, bytes));
    }
}

/// The value that a get of this key is answered with: as many bytes as the key says.
pub(crate) fn value_of(length: usize) -> Bytes {
    (0..length)
        .map(|i| (i % 251) as u8)
        .collect::<Vec<_>>()
        .into()
}

fn answer(request: Request) -> Response {
    match request {
        Request::Put(put, value) => Response::Put(PutReplyV1 {
            context: Context::from_bytes(Bytes::new()),
            acked: vec![NodeId(value.len() as u128)],
            needed: put.options.w.unwrap_or(0),
            epoch: Epoch(1),
        }),
        Request::Get(get) => {
            let text = String::from_utf8_lossy(get.key.partition_key()).into_owned();
            let value = value_of(text.parse().unwrap_or(0));
            Response::Get(get_reply(value.len()), value)
        }
        _ => Response::Error(ErrorReplyV1 {
            code: ErrorCode::Internal,
            outcome: Outcome::NotApplied,
            message: "the echo knows only put and get".to_owned(),
            needed: 0,
            got: 0,
            epoch: Epoch(1),
        }),
    }
}

pub(crate) fn get_reply(value_bytes: usize) -> GetReplyV1 {
    let sibling = kv_net::message::SiblingHeadV1 {
        write_id: WriteId::from_bytes([1; 16]),
        dot: kv_types::Dot::new(kv_types::ActorId(1), kv_types::Hlc(2)),
        tombstone: false,
        value_bytes: value_bytes as u32,
        value_hash: 0,
        expires_ms: None,
    };
    let context = Context::from_bytes(Bytes::new());
    GetReplyV1 {
        siblings: vec![sibling],
        context,
        answered: vec![NodeId(1)],
        needed: 1,
        epoch: Epoch(1),
    }
}

pub(crate) fn head() -> DataHead {
    DataHead {
        epoch: Epoch(1),
        trace: 7,
        write_id: WriteId::from_bytes([9; 16]),
    }
}

/// A get that the echo answers with a value of `length` bytes.
pub(crate) fn get(length: usize) -> Request {
    Request::Get(GetV1 {
        head: head(),
        bucket: BucketId(0),
        key: Key::new(length.to_string()).expect("short"),
        options: ReadOptions::default(),
        seen: None,
    })
}

/// A put that the echo acknowledges with its length.
pub(crate) fn put(value: impl Into<Bytes>) -> Request {
    let put = PutV1 {
        head: head(),
        bucket: BucketId(0),
        key: Key::new("key").expect("short"),
        kind: WriteKind::Put,
        context: None,
        options: WriteOptions::default(),
        forwarded: false,
        since_first_ms: 0,
    };
    Request::Put(put, value.into())
}

pub(crate) fn status() -> Request {
    Request::Status(StatusV1 {})
}

/// The length that the echo acknowledged.
pub(crate) fn acked_length(response: &Response) -> usize {
    match response {
        Response::Put(reply) => usize::try_from(reply.acked[0].0).expect("a length"),
        other => panic!("not an acknowledgement: {other:?}"),
    }
}

/// Waits for what another task is about to do; fails when it never does.
pub(crate) async fn eventually(is_so: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + LONG;
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "it never came true");
        tokio::task::yield_now().await;
    }
}
