//! What is kept of a key besides its value.

use std::time::Duration;

use kv_net::Role;
use kv_net::message::{ReplicaReadV1, Request, Response, WriteKind};
use kv_tests::sim::{Handle, SimCluster};
use kv_types::{NodeId, Object};

use crate::client::{BUCKET, BUDGET, Client, key, options, with};

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const KEYS: usize = 1_500;
/// How often each key is written.
const ROUNDS: usize = 4;
/// Each key is written every two and a half minutes: what was replaced need not be remembered any more.
const REST: Duration = Duration::from_millis(100);
const VALUE: &str = "a value of some forty bytes, as many have";

fn three(handle: Handle) -> SimCluster {
    SimCluster::new(handle, 3, 3, options())
}

/// The bytes of clock and siblings in a node's copy.
async fn besides(cluster: &SimCluster, client: &mut Client, node: NodeId, name: &str) -> usize {
    let request = Request::ReplicaRead(ReplicaReadV1 {
        head: client.head(),
        bucket: BUCKET,
        key: key(name),
        digest_only: false,
    });
    let other = NODES[usize::from(node == NODES[0])];
    let role = Role::Node(other);
    match cluster.network.call(role, node, &request, BUDGET).await {
        Ok(Response::ReplicaRead(_, bytes)) => Object::header_of(&bytes).expect("an object").len(),
        other => panic!("{other:?}"),
    }
}

fn first_owner(cluster: &SimCluster, name: &str) -> NodeId {
    let topology = cluster.newest();
    let (_, partition) = topology.locate(BUCKET, key(name).partition_key());
    let owners = topology.replicas(partition, 3);
    owners.nodes().next().expect("three own it")
}

#[test]
fn of_a_key_that_is_written_now_and_then_forty_bytes_are_kept_besides_its_value() {
    with(1, three, |cluster, mut client, handle| async move {
        let mut numbers = fastrand::Rng::with_seed(1);
        for number in 0..ROUNDS * KEYS {
            let name = format!("k{}", number % KEYS);
            // As clients do.
            let via = first_owner(&cluster, &name);
            // Half of the writers have read before.
            let context = match numbers.bool() {
                false => None,
                true => {
                    let read = client.get(&cluster, via, &name).await;
                    Some(read.expect("all are up").1.context)
                }
            };
            let put = client.put_request(&name, context, WriteKind::Put);
            let put = client.send_put(&cluster, via, put, VALUE).await;
            put.expect("all are up");
            handle.sleep(REST).await;
        }
        handle.sleep(Duration::from_secs(1)).await;
        let mut sizes = Vec::new();
        for number in 0..KEYS {
            let name = format!("k{number}");
            for node in NODES {
                sizes.push(besides(&cluster, &mut client, node, &name).await);
            }
        }
        sizes.sort_unstable();
        let at = |permille: usize| sizes[(sizes.len() - 1) * permille / 1_000];
        println!("p50 {} B, p99 {} B, most {} B", at(500), at(990), at(1_000));
        assert!(at(990) <= 40, "{} B at p99", at(990));
    });
}
