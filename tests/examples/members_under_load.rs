//! What clients notice of nodes that join, leave, are replaced and restarted.
//!
//! `cargo run -p kv-tests --example members_under_load [PARTITIONS]`: real processes, eight tasks that read and four that write, each with a
//! short rest in between, at R=W=2. To three nodes comes a fourth; then the first leaves; then one is killed, given up and
//! replaced; two more come, and all five are restarted, one after the other. It prints how many requests failed in each phase, and the
//! ratios of the latencies to those at rest: of the nodes that were there before, and for a join also of as many as there are then. It fails if
//! any request did.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kv_client::Client;
use kv_client::ring::{Member, MemberState};
use kv_tests::processes::ProcessCluster;

const KEYS: u64 = 20_000;
/// As many as a cluster has whose operator asks for no other number.
const USUAL_PARTITIONS: u32 = 4_096;
const VALUE_BYTES: usize = 256;
const REST: Duration = Duration::from_millis(4);
const PHASE: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(300);

/// What clients have done in one phase.
#[derive(Default)]
struct Done {
    /// Latencies of reads and of writes, sorted.
    took: [Vec<Duration>; 2],
    failed: u64,
}

/// What clients do while nothing changes.
async fn at_rest(client: &Client, nodes: &str) -> Done {
    let load = Load::begin(client);
    tokio::time::sleep(PHASE).await;
    let rest = load.end().await;
    tell(&format!("{nodes} at rest"), &rest, &rest, PHASE);
    rest
}

/// Clients at work.
struct Load {
    is_over: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<(bool, Vec<Duration>)>>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let partitions = std::env::args().nth(1).map(|it| it.parse());
    let partitions = partitions.unwrap_or(Ok(USUAL_PARTITIONS));
    let partitions = partitions.expect("the argument is a number of partitions");
    let mut cluster = ProcessCluster::start_cut_into(partitions, 3);
    let client = cluster.client(&[0, 1, 2]).await;
    let bucket = client.bucket("default").expect("it is there");
    for n in 0..KEYS {
        let put = bucket.put(key(n), vec![b'v'; VALUE_BYTES]);
        put.await.expect("all are up");
    }
    let rest = at_rest(&client, "three nodes").await;
    let begun = Instant::now();
    let load = Load::begin(&client);
    let fourth = cluster.join("d");
    settle(&cluster, &[1, 2]).await;
    let (done, took) = (load.end().await, begun.elapsed());
    let mut failed = done.failed;
    tell("a node joins, beside the three at rest", &done, &rest, took);
    let rest = at_rest(&client, "four nodes").await;
    // All of them share this machine's processors, and four were running.
    tell("a node joins, beside four at rest", &done, &rest, took);

    let begun = Instant::now();
    let load = Load::begin(&client);
    cluster.change(&[1], &["leave", "n1"]);
    settle(&cluster, &[1, 2, fourth]).await;
    cluster.ends(0);
    let done = load.end().await;
    tell("a node leaves", &done, &rest, begun.elapsed());
    failed += done.failed;

    let rest = at_rest(&client, "three nodes again").await;
    let begun = Instant::now();
    let load = Load::begin(&client);
    cluster.kill(1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let fifth = cluster.replace(&[2], "n2", "b");
    settle(&cluster, &[2, fourth]).await;
    cluster.change_at_once(&[2], &["forget", "n2"]);
    let done = load.end().await;
    tell("a node is replaced", &done, &rest, begun.elapsed());
    failed += done.failed;

    let mut all = vec![2, fourth, fifth];
    for zone in ["e", "f"] {
        all.push(cluster.join(zone));
        settle(&cluster, &all).await;
    }
    let rest = at_rest(&client, "five nodes").await;
    let begun = Instant::now();
    let load = Load::begin(&client);
    for node in all {
        cluster.stop(node);
        cluster.start_node(node);
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let done = load.end().await;
    tell("all are restarted", &done, &rest, begun.elapsed());
    failed += done.failed;
    assert_eq!(failed, 0, "no request may fail");
}

fn key(n: u64) -> String {
    format!("k{}", n % KEYS)
}

impl Load {
    fn begin(client: &Client) -> Self {
        let (is_over, failed) = (Arc::default(), Arc::default());
        let tasks = (0..12).map(|task| {
            let (is_over, failed) = (Arc::clone(&is_over), Arc::clone(&failed));
            tokio::spawn(work(client.clone(), task, is_over, failed))
        });
        Self {
            tasks: tasks.collect(),
            is_over,
            failed,
        }
    }

    async fn end(self) -> Done {
        self.is_over.store(true, Ordering::Relaxed);
        let mut done = Done::default();
        for task in self.tasks {
            let (writes, took) = task.await.expect("no panic");
            done.took[usize::from(writes)].extend(took);
        }
        for one in &mut done.took {
            one.sort_unstable();
        }
        done.failed = self.failed.load(Ordering::Relaxed);
        done
    }
}

async fn work(
    client: Client,
    task: u64,
    is_over: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
) -> (bool, Vec<Duration>) {
    let bucket = client.bucket("default").expect("it is there");
    let writes = task >= 8;
    let mut took = Vec::new();
    let mut n = task * 7_919;
    while !is_over.load(Ordering::Relaxed) {
        tokio::time::sleep(REST).await;
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let begun = Instant::now();
        let error = if writes {
            bucket
                .put(key(n >> 33), vec![b'w'; VALUE_BYTES])
                .await
                .err()
        } else {
            bucket.get(key(n >> 33)).await.err()
        };
        took.push(begun.elapsed());
        if let Some(error) = error {
            eprintln!("{error}");
            failed.fetch_add(1, Ordering::Relaxed);
        }
    }
    (writes, took)
}

/// Waits until nothing is on its way any more.
async fn settle(cluster: &ProcessCluster, seeds: &[usize]) {
    let begun = Instant::now();
    let client = cluster.client(seeds).await;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let seen = client.topology().epoch();
        let topology = client.topology_since(seen.next(), PATIENCE).await;
        let leaves = |member: &Member| member.state == MemberState::Leaving;
        if topology.unsettled().next().is_none() && !topology.members().iter().any(leaves) {
            return;
        }
        assert!(begun.elapsed() < LONGEST, "at epoch {}", topology.epoch());
    }
}

fn tell(phase: &str, done: &Done, rest: &Done, took: Duration) {
    let count = done.took[0].len() + done.took[1].len();
    println!(
        "{phase}: {count} requests in {took:.0?}, {} failed",
        done.failed
    );
    for (what, (before, after)) in ["reads", "writes"]
        .iter()
        .zip(rest.took.iter().zip(&done.took))
    {
        for percent in [50, 99] {
            let (before, after) = (at(before, percent), at(after, percent));
            let ratio = after.as_secs_f64() / before.as_secs_f64();
            println!("  {what:6} p{percent}: {after:>9.2?}, {ratio:.2} times as long as at rest");
        }
        let longest = after.last().copied().unwrap_or_default();
        println!("  {what:6} longest: {longest:.2?}");
    }
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}
