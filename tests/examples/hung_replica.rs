//! How much slower a cluster of three is while one node hangs.
//!
//! `cargo run -p kv-tests --example hung_replica`: three real processes, eight tasks that read and four that write, all at
//! once, at R=W=2; first while all is well, then with one node stopped where it stands (SIGSTOP), from a second after
//! that on. It prints the ratios of the latencies.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kv_client::Client;
use kv_tests::processes::ProcessCluster;

const KEYS: u64 = 2_000;
const PHASE: Duration = Duration::from_secs(10);

/// Latencies of reads and of writes, sorted.
type Latencies = [Vec<Duration>; 2];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let cluster = ProcessCluster::start(3);
    let client = cluster.client(&[0, 1, 2]).await;
    for n in 0..KEYS {
        put(&client, n).await;
    }
    let well = measure(&client).await;
    cluster.set_paused(2, true);
    let begun = Instant::now();
    measure_for(&client, Duration::from_secs(1)).await;
    println!(
        "one node hangs; measured from {:.1?} after that on",
        begun.elapsed()
    );
    let hung = measure(&client).await;
    cluster.set_paused(2, false);
    for (what, (well, hung)) in ["reads", "writes"].iter().zip(well.iter().zip(&hung)) {
        for percent in [50, 99] {
            let (before, after) = (at(well, percent), at(hung, percent));
            let ratio = after.as_secs_f64() / before.as_secs_f64();
            println!("{what:6} p{percent}: {before:>9.2?} well, {after:>9.2?} hung: {ratio:.2}");
        }
        println!("{what:6} done: {} well, {} hung", well.len(), hung.len());
    }
}

async fn put(client: &Client, n: u64) {
    let bucket = client.bucket("default").expect("it is there");
    let value = format!("value of {n}");
    if let Err(error) = bucket.put(format!("k{}", n % KEYS), value).await {
        eprintln!("{error}");
    }
}

async fn get(client: &Client, n: u64) {
    let bucket = client.bucket("default").expect("it is there");
    if let Err(error) = bucket.get(format!("k{}", n % KEYS)).await {
        eprintln!("{error}");
    }
}

async fn measure(client: &Client) -> Latencies {
    measure_for(client, PHASE).await
}

async fn measure_for(client: &Client, phase: Duration) -> Latencies {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for task in 0..12_u64 {
        let (client, is_over) = (client.clone(), Arc::clone(&is_over));
        tasks.push(tokio::spawn(async move {
            let writes = task >= 8;
            let mut took = Vec::new();
            let mut n = task * 7_919;
            while !is_over.load(Ordering::Relaxed) {
                n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let begun = Instant::now();
                if writes {
                    put(&client, n >> 33).await;
                } else {
                    get(&client, n >> 33).await;
                }
                took.push(begun.elapsed());
            }
            (writes, took)
        }));
    }
    tokio::time::sleep(phase).await;
    is_over.store(true, Ordering::Relaxed);
    let mut latencies = [Vec::new(), Vec::new()];
    for task in tasks {
        let (writes, took) = task.await.expect("no panic");
        latencies[usize::from(writes)].extend(took);
    }
    for one in &mut latencies {
        one.sort_unstable();
    }
    latencies
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}
