//! Three whole nodes, their engines and their clients run in one thread, and a seed repeats a run
//! bit for bit, in this process and in another.
//!
//! Without the test harness, so that nothing else starts or ends threads here.

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use kv_net::message::{DataHead, PutV1, Request, Response, WriteKind, WriteOptions};
use kv_storage::Options;
use kv_tests::sim::host::WALL_START_MS;
use kv_tests::sim::{Executor, SimCluster};
use kv_types::{BucketId, Epoch, Key, NodeId, WriteId};

/// Given to a second process, which prints its trace and ends.
const SECOND_PROCESS: &str = "--print-trace";
const SEED: u64 = 42;

#[expect(
    clippy::print_stdout,
    reason = "a test program without a harness reports by itself"
)]
fn main() {
    if std::env::args().any(|argument| argument == SECOND_PROCESS) {
        println!("{:016x}", run(SEED));
        return;
    }
    let before = threads();
    assert_eq!(before, 1, "this process has one thread");
    let first = run(SEED);
    assert_eq!(threads(), before, "nodes start no threads");
    assert_eq!(run(SEED), first, "a seed repeats its run");
    assert_ne!(run(SEED + 1), first, "another seed gives another run");
    let again = Command::new(std::env::current_exe().expect("this program"))
        .arg(SECOND_PROCESS)
        .output();
    let printed = String::from_utf8(again.expect("it runs").stdout).expect("text");
    assert_eq!(
        printed.trim(),
        format!("{first:016x}"),
        "another process repeats the run"
    );
    // The words of the usual harness, for whoever counts tests.
    println!(
        "running 1 test\ntest three_nodes_run_in_one_thread_and_a_seed_repeats_a_run ... ok\n"
    );
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

/// Writes through three nodes while one dies and comes back; returns the trace of all that happened.
fn run(seed: u64) -> u64 {
    let mut executor = Executor::new(seed);
    let handle = executor.handle();
    let inner = handle.clone();
    executor.run(async move {
        let cluster = SimCluster::new(inner.clone(), 3, 3, Options::tiny());
        cluster.start_all().await.expect("the nodes start");
        let mut done = 0;
        for n in 0..400_u64 {
            match n {
                150 => cluster.cut_power(NodeId(2)),
                250 => cluster.start(NodeId(2)).await.expect("it starts again"),
                _ => {}
            }
            let mut random = [0; 10];
            random[..8].copy_from_slice(&n.to_le_bytes());
            let created_ms =
                WALL_START_MS + u64::try_from(inner.now().as_millis()).expect("a short run");
            let put = PutV1 {
                head: DataHead {
                    epoch: Epoch(1),
                    trace: n,
                    write_id: WriteId::new(created_ms, random),
                },
                bucket: BucketId(1),
                key: Key::new(format!("k{}", n % 50)).expect("a short key"),
                kind: WriteKind::Put,
                context: None,
                options: WriteOptions::default(),
                forwarded: false,
                since_first_ms: 0,
            };
            let value = Bytes::from(vec![n as u8; 200]);
            let via = if n % 2 == 0 { NodeId(1) } else { NodeId(3) };
            if let Ok(Response::Put(_)) = cluster
                .network
                .call_as_client(via, Request::Put(put, value), Duration::from_secs(1))
                .await
            {
                done += 1;
            }
        }
        assert_eq!(done, 400, "two of three nodes are enough");
        for node in cluster.nodes() {
            let stats = cluster.node(node).expect("it runs").metrics();
            assert!(stats.contains("kv_storage_entries"), "flushes happened");
        }
    });
    handle.trace()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("Linux").count()
}
