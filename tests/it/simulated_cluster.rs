//! Three whole nodes in one process, one thread and virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kv_net::ErrorCode;
use kv_net::message::{
    DataHead, GetReplyV1, GetV1, ListV1, PutReplyV1, PutV1, ReadOptions, Request, Response, WriteKind, WriteOptions,
};
use kv_storage::Options;
use kv_tests::sim::host::WALL_START_MS;
use kv_tests::sim::{Executor, Handle, SimCluster};
use kv_types::{BucketId, Context, Epoch, Key, Level, NodeId, Outcome, WriteId};

const BUCKET: BucketId = BucketId(1);
const BUDGET: Duration = Duration::from_secs(1);

/// A client that talks to nodes of its choice.
struct Client {
    handle: Handle,
    writes: u64,
}

type Refused = (ErrorCode, Outcome);

impl Client {
    fn new(handle: Handle) -> Self {
        Self { handle, writes: 0 }
    }

    fn head(&mut self) -> DataHead {
        self.writes += 1;
        let created_ms = WALL_START_MS + u64::try_from(self.handle.now().as_millis()).expect("a short run");
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.writes.to_le_bytes());
        DataHead { epoch: Epoch(1), trace: self.writes, write_id: WriteId::new(created_ms, random) }
    }

    fn put_request(&mut self, name: &str, context: Option<Context>, kind: WriteKind) -> PutV1 {
        PutV1 {
            head: self.head(),
            bucket: BUCKET,
            key: key(name),
            kind,
            context,
            options: WriteOptions::default(),
            forwarded: false,
        }
    }

    async fn put(&mut self, cluster: &SimCluster, via: NodeId, name: &str, value: &str) -> Result<PutReplyV1, Refused> {
        let request = self.put_request(name, None, WriteKind::Put);
        self.send_put(cluster, via, request, value).await
    }

    async fn send_put(
        &mut self,
        cluster: &SimCluster,
        via: NodeId,
        request: PutV1,
        value: &str,
    ) -> Result<PutReplyV1, Refused> {
        let request = Request::Put(request, Bytes::from(value.to_owned()));
        match cluster.call(via, request, BUDGET).await {
            Ok(Response::Put(reply)) => Ok(reply),
            other => Err(refused(other)),
        }
    }

    async fn get(&mut self, cluster: &SimCluster, via: NodeId, name: &str) -> Result<(Vec<String>, GetReplyV1), Refused> {
        let options = ReadOptions { level: Level::Quorum, ..ReadOptions::default() };
        self.get_with(cluster, via, name, options).await
    }

    async fn get_with(
        &mut self,
        cluster: &SimCluster,
        via: NodeId,
        name: &str,
        options: ReadOptions,
    ) -> Result<(Vec<String>, GetReplyV1), Refused> {
        let request = GetV1 { head: self.head(), bucket: BUCKET, key: key(name), options, forwarded: false };
        match cluster.call(via, Request::Get(request), BUDGET).await {
            Ok(Response::Get(reply, tail)) => Ok((values(&reply, tail), reply)),
            other => Err(refused(other)),
        }
    }
}

fn refused(answer: Result<Response, kv_node::transport::CallFailure>) -> Refused {
    match answer {
        Ok(Response::Error(error)) => (error.code, error.outcome),
        Ok(other) => panic!("an unexpected answer: {other:?}"),
        Err(failure) => (ErrorCode::Timeout, failure.outcome),
    }
}

fn values(reply: &GetReplyV1, mut tail: Bytes) -> Vec<String> {
    let live = reply.siblings.iter().filter(|sibling| !sibling.tombstone);
    live.map(|sibling| String::from_utf8(tail.split_to(sibling.value_bytes as usize).to_vec()).expect("text")).collect()
}

fn key(name: &str) -> Key {
    Key::new(name.to_owned()).expect("a short key")
}

/// Runs a scenario on a fresh cluster of three.
fn with_cluster<T: Send + 'static, F>(seed: u64, scenario: impl FnOnce(SimCluster, Client, Handle) -> F + Send + 'static) -> T
where
    F: Future<Output = T> + Send + 'static,
{
    let mut executor = Executor::new(seed);
    let handle = executor.handle();
    let inner = handle.clone();
    executor.run(async move {
        let mut cluster = SimCluster::new(inner.clone(), 3, 3, Options::tiny());
        cluster.start_all().await.expect("the nodes start");
        let client = Client::new(inner.clone());
        scenario(cluster, client, inner).await
    })
}

#[test]
fn a_healthy_cluster_serves_through_every_node() {
    with_cluster(11, |cluster, mut client, _| async move {
        let nodes: Vec<NodeId> = cluster.nodes().collect();
        for n in 0..300_usize {
            let (name, via) = (format!("k{}", n % 60), nodes[n % 3]);
            client.put(&cluster, via, &name, &format!("v{n}")).await.expect("a healthy cluster takes writes");
        }
        for n in 0..60_usize {
            let (shown, _) = client.get(&cluster, nodes[n % 3], &format!("k{n}")).await.expect("and reads");
            assert_eq!(shown, [format!("v{}", 240 + n)]);
        }
    });
}

#[test]
fn acked_writes_survive_the_death_and_return_of_any_one_node() {
    for seed in 0..12 {
        with_cluster(seed, move |mut cluster, mut client, handle| async move {
            let victim = NodeId(u128::from(seed % 3) + 1);
            let others: Vec<NodeId> = cluster.nodes().filter(|node| *node != victim).collect();
            let mut acked: BTreeMap<String, String> = BTreeMap::new();
            for n in 0..120_usize {
                match n {
                    40 if seed % 2 == 0 => cluster.kill(victim),
                    40 => cluster.cut_power(victim),
                    80 => cluster.start(victim).await.expect("it starts again"),
                    _ => {}
                }
                let (name, value) = (format!("k{}", n % 30), format!("v{n}"));
                let via = if n < 40 || n > 110 { NodeId(n as u128 % 3 + 1) } else { others[n % 2] };
                client.put(&cluster, via, &name, &value).await.unwrap_or_else(|error| panic!("write {n}: {error:?}"));
                acked.insert(name, value);
            }
            // The one that was away holds old values; reads through it must not show them.
            handle.sleep(Duration::from_secs(2)).await;
            for via in cluster.nodes().collect::<Vec<_>>() {
                for (name, value) in &acked {
                    let (shown, reply) = client.get(&cluster, via, name).await.expect("all nodes are back");
                    assert_eq!(shown, [value.clone()], "seed {seed}, {name} via {via}");
                    assert!(reply.answered.len() >= 2);
                }
            }
        });
    }
}

#[test]
fn reads_repair_a_replica_that_was_away() {
    with_cluster(5, |mut cluster, mut client, handle| async move {
        cluster.kill(NodeId(3));
        handle.sleep(Duration::from_secs(3)).await;
        client.put(&cluster, NodeId(1), "k", "new").await.expect("two of three are enough");
        cluster.start(NodeId(3)).await.expect("it starts again");
        handle.sleep(Duration::from_secs(5)).await;
        let weak = ReadOptions { level: Level::Weak, ..ReadOptions::default() };
        let (before, _) = client.get_with(&cluster, NodeId(3), "k", weak).await.expect("one answer is enough");
        assert!(before.is_empty(), "the third was away");
        client.get_with(&cluster, NodeId(1), "k", ReadOptions { level: Level::All, ..weak }).await.expect("all are up");
        handle.sleep(Duration::from_millis(100)).await;
        let (after, _) = client.get_with(&cluster, NodeId(3), "k", weak).await.expect("one answer is enough");
        assert_eq!(after, ["new"]);
    });
}

#[test]
fn without_a_quorum_a_request_says_so_with_numbers_and_nothing_is_applied() {
    with_cluster(6, |mut cluster, mut client, handle| async move {
        client.put(&cluster, NodeId(1), "k", "old").await.expect("healthy");
        cluster.kill(NodeId(2));
        cluster.kill(NodeId(3));
        handle.sleep(Duration::from_secs(5)).await;
        let refused = client.put(&cluster, NodeId(1), "k", "new").await.expect_err("one of three");
        assert_eq!(refused, (ErrorCode::NotEnoughReplicas, Outcome::NotApplied));
        let refused = client.get(&cluster, NodeId(1), "k").await.expect_err("one of three");
        assert_eq!(refused.0, ErrorCode::NotEnoughReplicas);
        cluster.start(NodeId(2)).await.expect("it starts again");
        cluster.start(NodeId(3)).await.expect("it starts again");
        handle.sleep(Duration::from_secs(5)).await;
        let (shown, _) = client.get(&cluster, NodeId(2), "k").await.expect("healthy again");
        assert_eq!(shown, ["old"]);
    });
}

#[test]
fn concurrent_writes_through_two_nodes_become_siblings_and_a_context_resolves_them() {
    with_cluster(7, |cluster, mut client, _| async move {
        let first = client.put_request("k", None, WriteKind::Put);
        let second = client.put_request("k", None, WriteKind::Put);
        let send = |via, request, value: &'static str| {
            cluster.call(NodeId(via), Request::Put(request, Bytes::from_static(value.as_bytes())), BUDGET)
        };
        let (a, b) = futures::join!(send(1, first, "a"), send(2, second, "b"));
        assert!(matches!((a, b), (Ok(Response::Put(_)), Ok(Response::Put(_)))));
        let (mut shown, reply) = client.get(&cluster, NodeId(3), "k").await.expect("healthy");
        shown.sort();
        assert_eq!(shown, ["a", "b"], "neither had read the other");
        let resolved = client.put_request("k", Some(reply.context), WriteKind::Put);
        client.send_put(&cluster, NodeId(2), resolved, "ab").await.expect("healthy");
        let (shown, reply) = client.get(&cluster, NodeId(1), "k").await.expect("healthy");
        assert_eq!(shown, ["ab"]);
        let deleted = client.put_request("k", Some(reply.context), WriteKind::Delete);
        client.send_put(&cluster, NodeId(3), deleted, "").await.expect("healthy");
        let (shown, reply) = client.get(&cluster, NodeId(2), "k").await.expect("healthy");
        assert!(shown.is_empty() && reply.siblings.iter().all(|sibling| sibling.tombstone));
    });
}

#[test]
fn a_repeated_write_is_applied_once() {
    with_cluster(8, |cluster, mut client, _| async move {
        let request = client.put_request("k", None, WriteKind::Put);
        client.send_put(&cluster, NodeId(1), request.clone(), "v1").await.expect("healthy");
        client.put(&cluster, NodeId(2), "k", "v2").await.expect("healthy");
        // The reply of the first was lost; the client tries again elsewhere.
        for via in [1, 2, 3] {
            client.send_put(&cluster, NodeId(via), request.clone(), "v1").await.expect("answered as applied");
        }
        let (shown, _) = client.get(&cluster, NodeId(3), "k").await.expect("healthy");
        assert_eq!(shown, ["v2"], "the superseded write did not come back");
    });
}

#[test]
fn contexts_of_other_keys_and_impossible_quorums_are_refused() {
    with_cluster(9, |cluster, mut client, _| async move {
        let written = client.put(&cluster, NodeId(1), "a", "v").await.expect("healthy");
        let wrong = client.put_request("b", Some(written.context), WriteKind::Put);
        let refused = client.send_put(&cluster, NodeId(1), wrong, "x").await.expect_err("a's context");
        assert_eq!(refused, (ErrorCode::WrongContext, Outcome::NotApplied));

        let mut impossible = client.put_request("a", None, WriteKind::Put);
        impossible.options.w = Some(4);
        let refused = client.send_put(&cluster, NodeId(1), impossible, "x").await.expect_err("w > n");
        assert_eq!(refused, (ErrorCode::BadRequest, Outcome::NotApplied));

        let mut unknown = client.put_request("a", None, WriteKind::Put);
        unknown.bucket = BucketId(99);
        let refused = client.send_put(&cluster, NodeId(1), unknown, "x").await.expect_err("no such bucket");
        assert_eq!(refused, (ErrorCode::UnknownBucket, Outcome::NotApplied));

        let (shown, _) = client.get(&cluster, NodeId(2), "a").await.expect("healthy");
        assert_eq!(shown, ["v"], "nothing of that was applied");
    });
}

#[test]
fn a_bucket_is_listed_whole_in_pages() {
    with_cluster(10, |cluster, mut client, _| async move {
        for n in 0..400 {
            client.put(&cluster, NodeId(1), &format!("k{n}"), "v").await.expect("healthy");
        }
        let mut seen = Vec::new();
        for partition in 0..256_u16 {
            let mut after = None;
            loop {
                let list = ListV1 {
                    head: client.head(),
                    bucket: BUCKET,
                    partition,
                    after: after.take(),
                    max_items: 1,
                    options: ReadOptions::default(),
                };
                match cluster.call(NodeId(2), Request::List(list), BUDGET).await {
                    Ok(Response::List(page, _)) => {
                        seen.extend(page.entries.into_iter().map(|entry| entry.key.to_string()));
                        after = page.next_after;
                    }
                    other => panic!("{other:?}"),
                }
                if after.is_none() {
                    break;
                }
            }
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 400);
    });
}
