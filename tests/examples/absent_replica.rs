//! What clients notice of a node that is away for long, and what becomes of what is kept for it.
//!
//! `cargo run -p kv-tests --example absent_replica -- 60`: five real processes, each keeping at most 16 MiB for others. One
//! of them is killed; for so many minutes clients write and read at level `eventual`, some 150 writes of 1 KiB a second, so
//! that there is no room for most of what it misses. Then it is started again, until all replicas of all keys are equal. It
//! prints what clients were refused, how much was kept, and how long it took.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kv_client::{Client, Level, NodeId};
use kv_tests::processes::ProcessCluster;

const CAP_MIB: u64 = 16;
const AWAY: usize = 4;
const WRITERS: u64 = 6;
const REST: Duration = Duration::from_millis(40);
const VALUE_BYTES: usize = 1_024;
const PATIENCE: Duration = Duration::from_secs(5);

/// What clients have done.
#[derive(Default)]
struct Done {
    writes: AtomicU64,
    reads: AtomicU64,
    errors: AtomicU64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let minutes = std::env::args().nth(1);
    let minutes: u64 = minutes.and_then(|text| text.parse().ok()).unwrap_or(60);
    let mut cluster = ProcessCluster::set_up(5);
    cluster.add_arguments(&["--hints-mib", &CAP_MIB.to_string()]);
    for index in 0..5 {
        cluster.start_node(index);
    }
    let client = cluster.client(&[0, 1, 2, 3]).await;
    let admin = cluster.admin(&[0, 1, 2, 3]).await;
    let nodes: Vec<NodeId> = client
        .topology()
        .members()
        .iter()
        .map(|member| member.node)
        .collect();

    cluster.kill(AWAY);
    let done = Arc::new(Done::default());
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(work(client.clone(), writer, Arc::clone(&done), until)))
        .collect();
    let mut most = 0;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_secs(10).min(until - Instant::now())).await;
        let kept = figures(&admin, &nodes, "kv_hint_bytes").await;
        most = kept.iter().copied().max().unwrap_or(0).max(most);
        eprintln!(
            "{} writes, {} reads, {} errors; kept for it: {kept:?} bytes",
            done.writes.load(Ordering::Relaxed),
            done.reads.load(Ordering::Relaxed),
            done.errors.load(Ordering::Relaxed)
        );
    }
    let mut written = Vec::new();
    for task in tasks {
        written.push(task.await.expect("no panic"));
    }
    println!(
        "{minutes} min without one of five nodes: {} writes, {} reads, {} errors",
        done.writes.load(Ordering::Relaxed),
        done.reads.load(Ordering::Relaxed),
        done.errors.load(Ordering::Relaxed)
    );
    println!(
        "one node kept {:.2} MiB at most, of {CAP_MIB}; refused to keep: {}",
        most as f64 / f64::from(1 << 20),
        figures(&admin, &nodes, "kv_hints_refused")
            .await
            .iter()
            .sum::<u64>()
    );

    let back = Instant::now();
    cluster.start_node(AWAY);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let kept = figures(&admin, &nodes, "kv_hint_objects").await;
        if kept.len() == nodes.len() && kept.iter().sum::<u64>() == 0 {
            break;
        }
    }
    println!(
        "everything kept was delivered {:.0?} after its start",
        back.elapsed()
    );
    let mut different = u64::MAX;
    while different > 0 {
        let before = repairs(&admin, &nodes).await;
        let missing = verify(&client, &written).await;
        assert_eq!(missing, 0, "acknowledged and gone");
        different = repairs(&admin, &nodes).await - before;
        println!(
            "{:.0?} after its start: all keys read, {different} copies were behind",
            back.elapsed()
        );
    }
}

/// Writes keys of its own, and reads them, until the time has come. Gives the numbers of those that were acknowledged.
async fn work(client: Client, writer: u64, done: Arc<Done>, until: Instant) -> Vec<String> {
    let bucket = client.bucket("default").expect("it is there");
    let mut written = Vec::new();
    for number in 0.. {
        if Instant::now() > until {
            break;
        }
        tokio::time::sleep(REST).await;
        let key = format!("w{writer}-{number}");
        let put = bucket
            .put(&*key, vec![b'v'; VALUE_BYTES])
            .level(Level::Eventual);
        match put.await {
            Ok(_) => {
                done.writes.fetch_add(1, Ordering::Relaxed);
                written.push(key.clone());
            }
            Err(error) => refused(&done, &error),
        }
        match bucket.get(&*key).level(Level::Eventual).await {
            Ok(_) => drop(done.reads.fetch_add(1, Ordering::Relaxed)),
            Err(error) => refused(&done, &error),
        }
    }
    written
}

fn refused(done: &Done, error: &kv_client::Error) {
    eprintln!("{error}");
    done.errors.fetch_add(1, Ordering::Relaxed);
}

/// Reads all keys at all replicas. Gives how many are not there.
async fn verify(client: &Client, written: &[Vec<String>]) -> usize {
    let bucket = client.bucket("default").expect("it is there");
    let reads = futures::stream::iter(written.iter().flatten()).map(|key| {
        let read = bucket.get(&**key).level(Level::All).deadline(PATIENCE);
        async move { read.await.is_ok_and(|found| found.is_found()) }
    });
    let found = reads.buffer_unordered(32);
    found
        .filter(|is_there| std::future::ready(!is_there))
        .count()
        .await
}

async fn repairs(admin: &Client, nodes: &[NodeId]) -> u64 {
    figures(admin, nodes, "kv_read_repairs").await.iter().sum()
}

/// A figure of all nodes that answer.
async fn figures(admin: &Client, nodes: &[NodeId], name: &str) -> Vec<u64> {
    let mut figures = Vec::new();
    for node in nodes {
        let Ok(text) = admin.node_metrics(*node, PATIENCE).await else {
            continue;
        };
        let named = text.lines().filter_map(|line| line.strip_prefix(name));
        let value =
            named.filter_map(|rest| rest.trim_start_matches("_total").trim().parse::<u64>().ok());
        figures.extend(value.max());
    }
    figures
}
