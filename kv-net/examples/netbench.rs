//! How fast calls are on loopback: two endpoints in one process, one thread each.
//!
//! ```text
//! cargo run --release -p kv-net --example netbench [seconds per row]
//! ```
//! CPU is that of the whole process, so of both ends together.

#![expect(clippy::print_stdout, reason = "it prints a table")]
#![expect(
    clippy::disallowed_methods,
    reason = "it measures the real clock on real threads"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use kv_net::message::{DataHead, PutReplyV1, PutV1, WriteKind, WriteOptions};
use kv_net::{
    CertificateAuthority, Credentials, Endpoint, EndpointConfig, Handler, Identity, KeyPair, Peer,
    Request, Response, Validity,
};
use kv_types::{BucketId, ClusterId, Context, Epoch, Key, NodeId, WriteId};
use tokio::runtime::{Builder, Runtime};

const BUDGET: Duration = Duration::from_secs(10);

struct Acknowledge;

impl Handler for Acknowledge {
    fn handle(&self, _: &Identity, _: Request, _: Duration) -> BoxFuture<'static, Response> {
        let context = Context::from_bytes(Bytes::new());
        let reply = PutReplyV1 {
            context,
            acked: vec![NodeId(1)],
            needed: 1,
            epoch: Epoch(1),
        };
        async move { Response::Put(reply) }.boxed()
    }

    fn gossip(&self, _: NodeId, _: Bytes) {}
}

fn main() {
    let seconds = std::env::args()
        .nth(1)
        .map_or(3, |text| text.parse().expect("seconds"));
    let runtime = || {
        Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
    };
    let (server, peer) = start_server(runtime());
    let client_runtime = runtime();
    let client = {
        let _inside = client_runtime.enter();
        Endpoint::client(
            credentials(Identity::client(CLUSTER, "bench")),
            EndpointConfig::node(),
        )
        .expect("a socket")
    };
    println!(
        "{:>9} {:>5} {:>12} {:>9} {:>12} {:>9} {:>9}",
        "value", "c", "calls/s", "MB/s", "cpu us/call", "p50 us", "p99 us"
    );
    for (value_bytes, concurrency) in [
        (100, 1),
        (100, 16),
        (100, 256),
        (1 << 10, 256),
        (16 << 10, 64),
        (1 << 20, 1),
        (1 << 20, 4),
        (4 << 20, 4),
    ] {
        let row = measure(
            &client,
            peer,
            value_bytes,
            concurrency,
            Duration::from_secs(seconds),
        );
        client_runtime.block_on(row);
    }
    drop(server);
}

const CLUSTER: ClusterId = ClusterId(1);

fn authority() -> &'static CertificateAuthority {
    static AUTHORITY: std::sync::OnceLock<CertificateAuthority> = std::sync::OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let valid = Validity::starting(SystemTime::now(), Duration::from_secs(90_000));
        CertificateAuthority::create(CLUSTER, "bench", valid).expect("an authority")
    })
}

fn credentials(identity: Identity) -> Credentials {
    let key = KeyPair::generate().expect("a key");
    let valid = Validity::starting(SystemTime::now(), Duration::from_secs(86_400));
    let certificate = authority()
        .issue(&identity, &key.public_key(), valid)
        .expect("issued");
    Credentials::from_pem(authority().certificate_pem(), &certificate, &key.to_pem())
        .expect("what was just issued")
}

fn start_server(runtime: Runtime) -> (Endpoint, Peer) {
    let node = NodeId(1);
    let _inside = runtime.enter();
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let credentials = credentials(Identity::node(CLUSTER, node));
    let endpoint = Endpoint::bind(listen, credentials, EndpointConfig::node()).expect("a port");
    endpoint.serve(Arc::new(Acknowledge));
    let address = endpoint.local_addr().expect("bound");
    drop(_inside);
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    (
        endpoint,
        Peer {
            node: Some(node),
            address,
        },
    )
}

async fn measure(
    client: &Endpoint,
    peer: Peer,
    value_bytes: usize,
    concurrency: usize,
    time: Duration,
) {
    let value = Bytes::from(vec![7; value_bytes]);
    client.call(&peer, put(&value), BUDGET).await.expect("up");
    let calls = Arc::new(AtomicU64::new(0));
    let (begin, cpu) = (Instant::now(), cpu_time());
    let workers = (0..concurrency).map(|_| {
        let (client, calls, value) = (client.clone(), Arc::clone(&calls), value.clone());
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            while begin.elapsed() < time {
                let sent = Instant::now();
                client
                    .call(&peer, put(&value), BUDGET)
                    .await
                    .expect("answered");
                latencies.push(sent.elapsed());
                calls.fetch_add(1, Ordering::Relaxed);
            }
            latencies
        })
    });
    let mut latencies: Vec<_> = join_all(workers)
        .await
        .into_iter()
        .flat_map(|worker| worker.expect("no panic"))
        .collect();
    let (elapsed, cpu) = (
        begin.elapsed().as_secs_f64(),
        (cpu_time() - cpu).as_secs_f64(),
    );
    latencies.sort_unstable();
    let calls = latencies.len();
    let rate = calls as f64 / elapsed;
    println!(
        "{value_bytes:>9} {concurrency:>5} {rate:>12.0} {:>9.1} {:>12.2} {:>9} {:>9}",
        rate * value_bytes as f64 / 1e6,
        cpu * 1e6 / calls as f64,
        latencies[calls / 2].as_micros(),
        latencies[calls * 99 / 100].as_micros(),
    );
}

fn put(value: &Bytes) -> Request {
    let put = PutV1 {
        head: DataHead {
            epoch: Epoch(1),
            trace: 7,
            write_id: WriteId::from_bytes([9; 16]),
        },
        bucket: BucketId(0),
        key: Key::new("key").expect("short"),
        kind: WriteKind::Put,
        context: None,
        options: WriteOptions::default(),
        forwarded: false,
        since_first_ms: 0,
    };
    Request::Put(put, value.clone())
}

/// User and system time of this process, as Linux counts it in hundredths of a second.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit(')').next().expect("a name in brackets");
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}
