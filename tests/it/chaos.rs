//! Clients read and write while nodes crash, lose power and are cut off; afterwards every acked
//! write must be there, or superseded by one that had read it.
//!
//! Every write carries the context of a read, so what it may supersede is known exactly: the writes
//! that its client had been shown. A write whose fate its client does not know may supersede too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use kv_net::message::{PutV1, ReadOptions, WriteKind};
use kv_storage::Options;
use kv_tests::sim::executor::OUTSIDE;
use kv_tests::sim::network::SimNetwork;
use kv_tests::sim::{Executor, SimCluster};
use kv_types::{Context, Level, NodeId, Outcome, WriteId};

use crate::client::Client;

const KEYS: usize = 2;
const CLIENTS: u64 = 6;
const NODES: u128 = 3;

/// What one write was, and what its client knows of it.
#[derive(Debug, Clone)]
struct Written {
    key: String,
    read: BTreeSet<WriteId>,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Acked,
    NotApplied,
    Unknown,
}

type History = Arc<Mutex<BTreeMap<WriteId, Written>>>;

/// Reads and writes keys through random nodes until told to stop.
async fn work(
    network: SimNetwork,
    mut client: Client,
    seed: u64,
    until: Duration,
    history: History,
) {
    let mut rng = Rng::with_seed(seed);
    while client.now() < until {
        client.sleep(Duration::from_millis(rng.u64(0..20))).await;
        let key = format!("k{}", rng.usize(0..KEYS));
        let via = NodeId(rng.u128(1..=NODES));
        let owed = acked(&history, &key);
        let Ok((_, reply)) = client.get(&network, via, &key).await else {
            continue;
        };
        let read: BTreeSet<WriteId> = reply
            .siblings
            .iter()
            .map(|sibling| sibling.write_id)
            .collect();
        sees_what_it_owes(&history, &owed, &read);
        let (mut read, mut context) = (read, reply.context);
        // Now and then a writer goes on from its own write, without reading again.
        for _ in 0..rng.u8(1..4) {
            let kind = if rng.u8(0..8) == 0 {
                WriteKind::Delete
            } else {
                WriteKind::Put
            };
            let request = client.put_request(&key, Some(context), kind);
            let write_id = request.head.write_id;
            let written = Written {
                key: key.clone(),
                read: read.clone(),
                fate: Fate::Unknown,
            };
            history
                .lock()
                .expect("not poisoned")
                .insert(write_id, written);
            let (fate, next) = send(&network, &mut client, &mut rng, request).await;
            history
                .lock()
                .expect("not poisoned")
                .get_mut(&write_id)
                .expect("it was inserted")
                .fate = fate;
            let Some(next) = next else { break };
            read.insert(write_id);
            context = next;
        }
    }
}

/// Sends a write up to three times, through random nodes. The worst over all attempts counts: a late
/// "not applied" says nothing of an earlier one.
async fn send(
    network: &SimNetwork,
    client: &mut Client,
    rng: &mut Rng,
    request: PutV1,
) -> (Fate, Option<Context>) {
    let value = match request.kind {
        WriteKind::Put => format!("{:?}", request.head.write_id),
        WriteKind::Delete => String::new(),
    };
    let mut fate = Fate::NotApplied;
    for _ in 0..3 {
        let via = NodeId(rng.u128(1..=NODES));
        match client.send_put(network, via, request.clone(), &value).await {
            Ok(reply) => return (Fate::Acked, Some(reply.context)),
            Err((_, Outcome::Unknown)) => fate = Fate::Unknown,
            Err((_, Outcome::NotApplied)) => {}
        }
    }
    (fate, None)
}

/// The writes of a key that were acked by now.
fn acked(history: &History, key: &str) -> Vec<WriteId> {
    let history = history.lock().expect("not poisoned");
    let acked = history
        .iter()
        .filter(|(_, written)| written.key == key && written.fate == Fate::Acked);
    acked.map(|(id, _)| *id).collect()
}

/// A quorum read sees every quorum write that was acked before it began, unless someone who had
/// read that write may have replaced it.
fn sees_what_it_owes(history: &History, owed: &[WriteId], read: &BTreeSet<WriteId>) {
    let history = history.lock().expect("not poisoned");
    let replaced: BTreeSet<WriteId> = history
        .values()
        .flat_map(|written| written.read.iter().copied())
        .collect();
    for id in owed {
        assert!(
            read.contains(id) || replaced.contains(id),
            "a quorum read misses {id:?}, acked before it began"
        );
    }
}

/// Crashes, power cuts and partitions, one after another and now and then together.
async fn torment(cluster: &SimCluster, client: Client, seed: u64, until: Duration) {
    let mut rng = Rng::with_seed(seed);
    while client.now() < until {
        client.sleep(Duration::from_millis(rng.u64(20..600))).await;
        let victim = NodeId(rng.u128(1..=NODES));
        match rng.u8(0..10) {
            0..3 => cluster.kill(victim),
            3..6 => cluster.cut_power(victim),
            6 => {
                for node in cluster.nodes() {
                    cluster.cut_power(node);
                }
            }
            _ => cluster.network.cut_off(victim, rng.bool()),
        }
        if rng.u8(0..3) > 0 {
            heal(cluster, rng.bool()).await;
        }
    }
}

/// Starts what does not run; with `network`, also ends all partitions.
async fn heal(cluster: &SimCluster, network: bool) {
    for node in cluster.nodes() {
        if network {
            cluster.network.cut_off(node, false);
        }
        if cluster.node(node).is_none() {
            cluster
                .start(node)
                .await
                .expect("a node starts after any crash");
        }
    }
}

/// How many writes a run made, and how many were acked.
fn run(seed: u64) -> (usize, usize) {
    let mut executor = Executor::new(seed);
    let handle = executor.handle();
    executor.run(async move {
        let cluster = SimCluster::new(handle.clone(), NODES, 3, Options::tiny());
        cluster.start_all().await.expect("the nodes start");
        let history = History::default();
        let until = Duration::from_secs(15);
        for n in 0..CLIENTS {
            let client = Client::numbered(handle.clone(), n + 1);
            let work = work(
                cluster.network.clone(),
                client,
                seed * 31 + n,
                until,
                Arc::clone(&history),
            );
            handle.spawn(OUTSIDE, work);
        }
        let nemesis = Client::numbered(handle.clone(), 99);
        torment(&cluster, nemesis, seed, until).await;
        handle.sleep(Duration::from_secs(10)).await;

        heal(&cluster, true).await;
        handle.sleep(Duration::from_secs(10)).await;
        let mut client = Client::numbered(handle.clone(), 100);
        let mut shown = BTreeMap::new();
        for n in 0..KEYS {
            let key = format!("k{n}");
            let all = ReadOptions {
                level: Level::All,
                ..ReadOptions::default()
            };
            let (_, reply) = client
                .get_with(&cluster, NodeId(1), &key, all)
                .await
                .expect("all is healed");
            handle.sleep(Duration::from_millis(200)).await;
            let ids: BTreeSet<WriteId> = reply
                .siblings
                .iter()
                .map(|sibling| sibling.write_id)
                .collect();
            for node in cluster.nodes() {
                let weak = ReadOptions {
                    level: Level::Weak,
                    ..all
                };
                let (_, own) = client
                    .get_with(&cluster, node, &key, weak)
                    .await
                    .expect("all is healed");
                let own: BTreeSet<WriteId> = own
                    .siblings
                    .iter()
                    .map(|sibling| sibling.write_id)
                    .collect();
                assert_eq!(own, ids, "seed {seed}: {key} at {node} after read repair");
            }
            shown.insert(key, ids);
        }
        let history = history.lock().expect("not poisoned");
        check(seed, &history, &shown);
        let acked = history
            .values()
            .filter(|written| written.fate == Fate::Acked)
            .count();
        (history.len(), acked)
    })
}

fn check(
    seed: u64,
    history: &BTreeMap<WriteId, Written>,
    shown: &BTreeMap<String, BTreeSet<WriteId>>,
) {
    for (key, ids) in shown {
        for id in ids {
            let written = history
                .get(id)
                .unwrap_or_else(|| panic!("seed {seed}: {key} shows an invented {id:?}"));
            assert_eq!(&written.key, key, "seed {seed}: {id:?} is of another key");
            assert_ne!(
                written.fate,
                Fate::NotApplied,
                "seed {seed}: {key} shows {id:?}, which was not applied"
            );
        }
    }
    for (id, written) in history {
        let there = |id: &WriteId| shown[&written.key].contains(id);
        // Writes that had read this one, directly or through another.
        let readers = |id: &WriteId| -> Vec<WriteId> {
            history
                .iter()
                .filter(|(_, other)| other.read.contains(id))
                .map(|(id, _)| *id)
                .collect()
        };
        if written.fate == Fate::Acked {
            let mut frontier = vec![*id];
            let mut seen = BTreeSet::new();
            let mut survives = false;
            while let Some(next) = frontier.pop() {
                survives |= there(&next);
                frontier.extend(
                    readers(&next)
                        .into_iter()
                        .filter(|reader| seen.insert(*reader)),
                );
            }
            assert!(
                survives,
                "seed {seed}: acked {id:?} of {} is lost",
                written.key
            );
        }
        let superseded = readers(id)
            .iter()
            .any(|reader| history[reader].fate == Fate::Acked);
        assert!(
            !(superseded && there(id)),
            "seed {seed}: superseded {id:?} of {} came back",
            written.key
        );
    }
}

#[test]
fn no_acked_write_is_lost_and_none_comes_back_through_crashes_and_partitions() {
    let (mut made, mut acked) = (0, 0);
    for seed in 0..24 {
        let (writes, done) = run(seed);
        made += writes;
        acked += done;
    }
    println!("{made} writes, {acked} acked");
    assert!(acked > 2_000, "only {acked} of {made} writes were acked");
}
