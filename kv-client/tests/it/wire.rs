//! Clients over real QUIC and TLS on loopback, against endpoints that answer from a shared map.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use kv_client::{Client, Target};
use kv_net::{
    CertificateAuthority, Credentials, Endpoint, EndpointConfig, Handler, Identity, KeyPair,
    Request, Response, Validity,
};
use kv_types::{ClusterId, NodeId};

use crate::cluster::{Cluster, node};

const CLUSTER: ClusterId = ClusterId(1);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

struct Authority(CertificateAuthority);

impl Authority {
    fn new() -> Self {
        let valid = Validity::starting(SystemTime::now(), 2 * YEAR);
        Self(CertificateAuthority::create(CLUSTER, "test", valid).expect("an authority"))
    }

    /// Certificate and key in PEM.
    fn issue(&self, identity: &Identity, from: SystemTime, lifetime: Duration) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let valid = Validity::starting(from, lifetime);
        let certificate = self.0.issue(identity, &key.public_key(), valid);
        (certificate.expect("issued"), key.to_pem())
    }

    fn node(&self, id: NodeId) -> Credentials {
        let identity = Identity::node(CLUSTER, id);
        let (certificate, key) = self.issue(&identity, SystemTime::now(), YEAR);
        Credentials::from_pem(self.0.certificate_pem(), &certificate, &key).expect("just issued")
    }

    /// The files of a client that believes in `ca`, under a name of their own.
    fn client_files(&self, name: &str, ca: &Self, from: SystemTime, lifetime: Duration) -> Files {
        let identity = Identity::client(CLUSTER, "tester");
        let (certificate, key) = self.issue(&identity, from, lifetime);
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&directory).expect("a directory for tests");
        let files = Files { directory };
        fs::write(files.path("ca.pem"), ca.0.certificate_pem()).expect("written");
        fs::write(files.path("cert.pem"), certificate).expect("written");
        kv_net::write_private(&files.path("key.pem"), &key).expect("written");
        files
    }
}

struct Files {
    directory: PathBuf,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn target(&self, seeds: &[String]) -> Target {
        let file = |name| self.path(name);
        Target::files(
            seeds.iter().cloned(),
            file("ca.pem"),
            file("cert.pem"),
            file("key.pem"),
        )
    }
}

/// One node over the wire.
struct Server {
    node: NodeId,
    cluster: Cluster,
}

impl Handler for Server {
    fn handle(
        &self,
        _peer: &Identity,
        request: Request,
        _budget: Duration,
    ) -> BoxFuture<'static, Response> {
        let response = self.cluster.execute(self.node, request);
        Box::pin(async move { response })
    }

    fn gossip(&self, _from: NodeId, _bytes: Bytes) {}
}

/// Three nodes on loopback, with their addresses.
fn start(authority: &Authority) -> (Cluster, Vec<Endpoint>, Vec<String>) {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bind = |number| {
        let credentials = authority.node(node(number));
        Endpoint::bind(listen, credentials, EndpointConfig::node()).expect("a free port")
    };
    let endpoints: Vec<Endpoint> = (1..=3).map(bind).collect();
    let address = |endpoint: &Endpoint| endpoint.local_addr().expect("bound").to_string();
    let addresses: Vec<String> = endpoints.iter().map(address).collect();
    let cluster = Cluster::at(addresses.clone(), 1);
    for (number, endpoint) in (1..).zip(&endpoints) {
        let (node, cluster) = (node(number), cluster.clone());
        endpoint.serve(Arc::new(Server { node, cluster }));
    }
    (cluster, endpoints, addresses)
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(test);
}

#[test]
fn requests_travel_over_mutual_tls_and_survive_the_end_of_a_node() {
    run(async {
        let authority = Authority::new();
        let (_cluster, endpoints, addresses) = start(&authority);
        let now = SystemTime::now();
        let files = authority.client_files("wire-good", &authority, now, YEAR);
        // A seed where nobody listens, and one by its name.
        let port = addresses[1].rsplit_once(':').expect("host and port").1;
        let seeds = ["127.0.0.1:9".to_owned(), format!("localhost:{port}")];
        let client = Client::connect(files.target(&seeds)).await.unwrap();
        let large = vec![7; 300_000];
        client.put("large", large.clone()).await.unwrap();
        let read = client.get("large").await.unwrap();
        assert_eq!(read.one().unwrap().as_deref(), Some(&large[..]));

        endpoints[1].close(Duration::ZERO).await;
        for number in 0..30 {
            let key = format!("key {number}");
            client.put(&key, "v").await.unwrap();
            assert!(client.get(&key).await.unwrap().is_found());
        }
    });
}

#[test]
fn certificates_that_are_not_believed_are_named_as_the_reason() {
    run(async {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let (_cluster, _endpoints, addresses) = start(&ours);
        let now = SystemTime::now();
        let cases = [
            (
                "client of another authority",
                theirs.client_files("wire-theirs", &ours, now, YEAR),
            ),
            (
                "nodes of another authority",
                ours.client_files("wire-ours", &theirs, now, YEAR),
            ),
            (
                "certificate that has expired",
                ours.client_files("wire-expired", &ours, now - YEAR, YEAR / 2),
            ),
        ];
        for (case, files) in cases {
            let error = Client::connect(files.target(&addresses)).await.unwrap_err();
            assert_eq!(
                (error.code(), error.exit_code()),
                ("untrusted", 8),
                "{case}: {error}"
            );
            assert!(error.to_string().contains(&addresses[0]), "{case}: {error}");
        }
    });
}

#[test]
fn credentials_that_cannot_be_read_are_named() {
    run(async {
        let target = Target::files(["127.0.0.1:9"], "/nonexistent/ca.pem", "c", "k");
        let error = Client::connect(target).await.unwrap_err();
        assert_eq!(error.code(), "credentials");
        assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
    });
}
