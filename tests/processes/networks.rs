//! Five nodes, each in a network of its own: packets are dropped by the kernel, processes stand still and are killed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kv_client::{Client, Read};
use kv_tests::namespaces::{Namespaces, skip};
use kv_tests::processes::ProcessCluster;

const NODES: usize = 5;
const WORKERS: usize = 4;
/// Keys of each worker.
const KEYS: u64 = 20;
/// A request must be answered within this time once all is well.
const SERVE_LIMIT: Duration = Duration::from_secs(15);

/// The last acknowledged round of each key.
type Acked = Arc<Mutex<BTreeMap<String, u64>>>;

/// What the workers did.
#[derive(Default)]
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
}

/// Writes one round after another to keys of its own, and reads them, until told to stop.
async fn work(
    client: Client,
    name: usize,
    acked: Acked,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
) {
    for round in 1.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let key = format!("w{name}-{}", round % KEYS);
        let deadline = Duration::from_secs(1);
        let put = client.put(key.as_str(), round.to_string()).w(2);
        let is_acked = put.deadline(deadline).await.is_ok();
        if is_acked {
            acked.lock().expect("no panic").insert(key.clone(), round);
        }
        let read = client.get(key.as_str()).r(2).deadline(deadline).await;
        if let Ok(read) = &read
            && is_acked
        {
            let newest = newest(read);
            assert!(
                newest >= Some(round),
                "{key}: {round} was acked, {newest:?} is read"
            );
        }
        for is_ok in [is_acked, read.is_ok()] {
            let count = if is_ok { &counts.done } else { &counts.failed };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The highest round among the siblings of a key.
fn newest(read: &Read) -> Option<u64> {
    let rounds = read
        .siblings()
        .iter()
        .filter_map(|sibling| std::str::from_utf8(sibling.value()?).ok()?.parse().ok());
    rounds.max()
}

/// What goes wrong, one thing after another.
async fn torment(cluster: &mut ProcessCluster) {
    let rest = |millis| tokio::time::sleep(Duration::from_millis(millis));
    // One node is cut off from the others, which still hear it.
    for other in 1..NODES {
        cluster.namespaces().block(other, 0);
    }
    rest(3_000).await;
    cluster.namespaces().calm();
    // Two nodes and three, and nothing between them.
    for (left, right) in (0..2).flat_map(|left| (2..NODES).map(move |right| (left, right))) {
        cluster.namespaces().block(left, right);
        cluster.namespaces().block(right, left);
    }
    rest(7_000).await;
    cluster.namespaces().calm();
    rest(500).await;
    // A fifth of all packets is lost.
    for index in 0..NODES {
        cluster.namespaces().lose(index, 20);
    }
    rest(3_000).await;
    // Meanwhile a process stands still for longer than it takes to be given up.
    cluster.set_paused(1, true);
    rest(4_000).await;
    cluster.set_paused(1, false);
    cluster.namespaces().calm();
    rest(500).await;
    for cycle in 0..12 {
        let victim = (cycle * 3) % NODES;
        cluster.kill(victim);
        rest(40 * (cycle as u64 % 4)).await;
        cluster.start_node(victim);
        rest(300).await;
    }
}

/// Reads until it is answered.
async fn read(client: &Client, key: &str) -> Read {
    let begun = Instant::now();
    loop {
        match client.get(key).r(2).deadline(Duration::from_secs(2)).await {
            Ok(read) => return read,
            Err(error) => assert!(begun.elapsed() < SERVE_LIMIT, "{key}: {error}"),
        }
    }
}

#[expect(
    clippy::print_stdout,
    reason = "tests tell what they did to whoever wants to see it"
)]
async fn scenario(mut cluster: ProcessCluster) {
    let client = cluster.client(&[0, 1, 2, 3, 4]).await;
    let (acked, counts, stop) = (
        Acked::default(),
        Arc::new(Counts::default()),
        Arc::new(AtomicBool::new(false)),
    );
    let workers: Vec<_> = (0..WORKERS)
        .map(|name| {
            let (acked, counts, stop) =
                (Arc::clone(&acked), Arc::clone(&counts), Arc::clone(&stop));
            tokio::spawn(work(client.clone(), name, acked, counts, stop))
        })
        .collect();
    torment(&mut cluster).await;
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await.expect("a worker does not panic");
    }
    let acked = std::mem::take(&mut *acked.lock().expect("no panic"));
    for (key, round) in &acked {
        let left = read(&client, key).await;
        assert!(
            newest(&left) >= Some(*round),
            "{key}: {round} was acked, {left:?} is left"
        );
    }
    for index in 0..NODES {
        assert!(
            !cluster.log(index).contains("panicked"),
            "{}",
            cluster.log(index)
        );
    }
    let (done, failed) = (
        counts.done.load(Ordering::Relaxed),
        counts.failed.load(Ordering::Relaxed),
    );
    println!(
        "{done} requests done and {failed} failed over two partitions, a fifth of packets lost, a pause and 12 kills; {} keys checked",
        acked.len()
    );
    assert_eq!(acked.len() as u64, WORKERS as u64 * KEYS);
    assert!(failed > 0, "nothing that went wrong was felt");
}

#[test]
fn partitions_lost_packets_pauses_and_kills_lose_nothing_that_was_acked() {
    let namespaces = match Namespaces::create(NODES) {
        Ok(namespaces) => namespaces,
        Err(reason) => return skip(&format!("this needs networks of its own: {reason}")),
    };
    // A thread of its own, for it moves to where the clients are.
    let ended = std::thread::spawn(move || {
        namespaces.enter();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(scenario(ProcessCluster::start_in(namespaces)));
    });
    ended.join().expect("the scenario");
}
