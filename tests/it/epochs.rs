//! Topology epochs: who must refuse, and who must catch up first.

use std::sync::Arc;
use std::time::Duration;

use kv_net::message::{
    ChangeKind, ChangeV1, DataHead, ReadOptions, ReplicaReadV1, Request, Response, WriteKind,
};
use kv_net::{ErrorCode, Role};
use kv_ring::{ChainEntry, PartitionState};
use kv_storage::Options;
use kv_tests::sim::{Executor, SimCluster};
use kv_types::{BucketName, BucketProperties, Epoch, Level, NodeId, Outcome, WriteId};

use crate::client::{BUCKET, BUDGET, Client, key, metric, options, with};

const MOVED: &str = "k";

/// The entry after genesis: the partition of [`MOVED`] goes from nodes 1, 2, 3 to 1, 2, 4.
fn second_epoch(cluster: &SimCluster) -> ChainEntry {
    second_epoch_that_moves(cluster, MOVED)
}

fn second_epoch_that_moves(cluster: &SimCluster, name: &str) -> ChainEntry {
    let genesis = cluster.genesis();
    let topology = cluster.topology();
    let (_, partition) = topology.locate(BUCKET, key(name).partition_key());
    let PartitionState::Stable(old) = topology.partition_state(partition) else {
        panic!("at genesis every partition is at rest");
    };
    let joiner = cluster
        .nodes()
        .find(|node| !old.contains(node))
        .expect("four nodes, three replicas");
    let new = old
        .iter()
        .map(|node| if *node == old[2] { joiner } else { *node })
        .collect();
    let joint = PartitionState::Joint { old, new };
    let topology = topology
        .with_partition_state(partition, &joint, Epoch(2))
        .expect("a possible change");
    ChainEntry::snapshot(Arc::new(topology), genesis.chain_hash()).expect("it encodes")
}

fn with_second_epoch_on<T: Send + 'static, F>(
    node: u128,
    scenario: impl FnOnce(SimCluster, Client) -> F + Send + 'static,
) -> T
where
    F: Future<Output = T> + Send + 'static,
{
    let mut executor = Executor::new(3);
    let handle = executor.handle();
    let inner = handle.clone();
    executor.run(async move {
        let cluster = SimCluster::new(inner.clone(), 4, 3, Options::tiny());
        let entry = second_epoch(&cluster);
        // It has lived before: a new node knows of nothing but genesis.
        cluster.start(NodeId(node)).await.expect("it starts");
        cluster.kill(NodeId(node));
        cluster.install(NodeId(node), &entry);
        // The one that knows epoch 2 starts last, so that none has heard of it yet.
        let nodes: Vec<NodeId> = cluster.nodes().collect();
        for other in nodes.into_iter().filter(|other| *other != NodeId(node)) {
            cluster.start(other).await.expect("it starts");
        }
        cluster.start(NodeId(node)).await.expect("it starts");
        scenario(cluster, Client::new(inner)).await
    })
}

fn epoch_of(cluster: &SimCluster, node: NodeId) -> Epoch {
    cluster.node(node).expect("it runs").topology().epoch()
}

#[test]
fn what_a_coordinator_wants_from_before_the_partitions_last_change_is_refused_and_does_nothing() {
    with_second_epoch_on(1, |cluster, _client| async move {
        let read = |epoch| {
            Request::ReplicaRead(ReplicaReadV1 {
                head: DataHead {
                    epoch,
                    trace: 0,
                    write_id: WriteId::new(0, [9; 10]),
                },
                bucket: BUCKET,
                key: key(MOVED),
                digest_only: false,
            })
        };
        let ask = |epoch| {
            cluster
                .network
                .call(Role::Node(NodeId(2)), NodeId(1), &read(epoch), BUDGET)
        };
        let Ok(Response::Error(refused)) = ask(Epoch(1)).await else {
            panic!("served under epoch 1");
        };
        assert_eq!(
            (refused.code, refused.outcome, refused.epoch),
            (ErrorCode::StaleEpoch, Outcome::NotApplied, Epoch(2))
        );
        let served = ask(Epoch(2)).await;
        assert!(
            matches!(served, Ok(Response::ReplicaRead(..))),
            "{served:?}"
        );
    });
}

#[test]
fn a_clients_request_of_an_older_epoch_is_served_by_the_newer_one_which_the_reply_tells_of() {
    with_second_epoch_on(1, |cluster, mut client| async move {
        assert_eq!(client.epoch, Epoch(1));
        let topology = cluster.node(NodeId(1)).expect("it runs").topology();
        let (_, moved) = topology.locate(BUCKET, key(MOVED).partition_key());
        let owners = topology.replicas(moved, 3);
        // An owner of before and after, and one that only passes on.
        for via in cluster.nodes() {
            let value = format!("through {via}");
            let request = client.put_request(MOVED, None, WriteKind::Put);
            let written = client.send_put(&cluster, via, request, &value).await;
            let written = written.unwrap_or_else(|refused| panic!("{via}: {refused:?}"));
            assert_eq!(written.epoch, Epoch(2), "{via}");
            assert!(
                owners.is_met(|node| written.acked.contains(&node), 2),
                "{via}: {written:?}"
            );
            let (shown, read) = client
                .get(&cluster, via, MOVED)
                .await
                .expect("it is served");
            assert_eq!((shown, read.epoch), (vec![value], Epoch(2)), "{via}");
        }
        // Also of a partition that has not changed.
        let mut others = topology.partition_count().iter();
        let other = others.find(|other| *other != moved).expect("many");
        let (place, usual) = ((other.0, None, None), ReadOptions::default());
        let listed = client.list(&cluster, NodeId(1), place, 10, usual).await;
        assert_eq!(listed.expect("it is served").0.epoch, Epoch(2));
    });
}

/// A bucket of its own is asked for.
async fn create_bucket(cluster: &SimCluster, via: NodeId, name: String) -> Response {
    let creation = ChangeKind::CreateBucket {
        name: BucketName::new(name).expect("a good name"),
        properties: BucketProperties::majority_of(3).expect("three"),
    };
    let request = Request::Change(ChangeV1 { change: creation });
    let role = Role::Admin("operator".to_owned());
    let made = cluster.network.call(role, via, &request, BUDGET * 5);
    made.await.expect("it answers")
}

#[test]
fn while_a_peer_with_another_history_is_heard_nothing_is_changed() {
    let four = |handle| SimCluster::new(handle, 4, 3, options());
    with(6, four, |cluster, _client, handle| async move {
        let [first, forked, others @ ..] = [1, 2, 3, 4].map(NodeId);
        for node in [first, forked].into_iter().chain(others) {
            cluster.kill(node);
        }
        let mut names = (0..).map(|number| format!("other{number}"));
        let place = |name: &str| {
            cluster
                .topology()
                .locate(BUCKET, key(name).partition_key())
                .1
        };
        let other = names
            .find(|name| place(name) != place(MOVED))
            .expect("many");
        cluster.install(first, &second_epoch(&cluster));
        cluster.install(forked, &second_epoch_that_moves(&cluster, &other));
        for node in [first, forked] {
            cluster.start(node).await.expect("it starts");
        }
        handle.sleep(Duration::from_secs(5)).await;
        for node in [first, forked] {
            assert_eq!(metric(&cluster, node, "kv_topology_fork "), 1);
            let Response::Error(refused) = create_bucket(&cluster, node, "b".to_owned()).await
            else {
                panic!("{node} changes the topology");
            };
            assert_eq!(refused.outcome, Outcome::NotApplied);
            assert!(refused.message.contains("another history"), "{refused:?}");
        }
        cluster.kill(forked);
        for node in others {
            cluster.start(node).await.expect("it starts");
        }
        handle.sleep(Duration::from_secs(70)).await;
        assert_eq!(metric(&cluster, first, "kv_topology_fork "), 0);
        let made = create_bucket(&cluster, first, "b".to_owned()).await;
        assert!(matches!(made, Response::Change(_)), "{made:?}");
    });
}

#[test]
fn partitions_that_did_not_change_serve_requests_of_the_older_epoch() {
    with_second_epoch_on(1, |cluster, mut client| async move {
        let topology = cluster.topology();
        let place = |name: &str| topology.locate(BUCKET, key(name).partition_key()).1;
        let other = (0..)
            .map(|n| format!("other{n}"))
            .find(|name| place(name) != place(MOVED))
            .expect("many partitions");
        client
            .put(&cluster, NodeId(1), &other, "v")
            .await
            .expect("its partition is at rest");
    });
}

#[test]
fn who_is_behind_serves_at_once_what_has_not_changed_since() {
    with_second_epoch_on(1, |cluster, mut client| async move {
        let (ahead, topology) = (NodeId(1), cluster.topology());
        let others = cluster.nodes().filter(|node| *node != ahead);
        let others: Vec<NodeId> = others.collect();
        for behind in &others {
            // So that it can adopt nothing.
            let conditions = cluster.conditions(*behind);
            conditions.hang_until(client.now() + Duration::from_secs(60));
        }
        let place = |name: &str| topology.locate(BUCKET, key(name).partition_key()).1;
        let mut names = (0..).map(|n| format!("other{n}"));
        let other = names.find(|name| place(name) != place(MOVED));
        let all = ReadOptions {
            level: Level::All,
            ..ReadOptions::default()
        };
        let mut read = async |name: &str| client.get_with(&cluster, ahead, name, all).await;
        let shown = read(&other.expect("many partitions")).await;
        shown.expect("its owners are the same in both epochs");
        let refused = read(MOVED).await;
        refused.expect_err("its owners do not know the change");
        for behind in others {
            assert_eq!(epoch_of(&cluster, behind), Epoch(1));
        }
    });
}

/// Who takes over the partition has asked by then what is here.
#[test]
fn a_repeated_write_counts_here_only_while_the_owners_are_those_of_its_plan() {
    with_second_epoch_on(1, |cluster, mut client| async move {
        let knows = NodeId(1);
        cluster.network.cut_off(knows, true);
        let (_, partition) = cluster.topology().locate(BUCKET, MOVED.as_bytes());
        let owners = cluster.topology().replicas(partition, 3);
        let mut owners = owners.nodes().filter(|node| *node != knows);
        let via = owners.next().expect("two of three at least");
        let request = client.put_request(MOVED, None, WriteKind::Put);
        let first = client.send_put(&cluster, via, request.clone(), "v").await;
        assert_eq!(first.expect("two are enough").epoch, Epoch(1));

        // The reading before the repeated write takes so long that this node learns of the change meanwhile, and no other does.
        let others = cluster.nodes().filter(|node| ![via, knows].contains(node));
        for other in others {
            cluster.network.block(&[(knows, other), (other, knows)]);
            for link in [(via, other), (other, via)] {
                let by = Duration::from_millis(150);
                cluster.network.slow_down(link, by);
            }
        }
        let mut head = client.head();
        let again = client.send_put(&cluster, via, request, "v");
        let learns = async {
            cluster.network.pause(Duration::from_millis(50)).await;
            cluster.network.cut_off(knows, false);
            head.epoch = Epoch(2);
            let read = Request::ReplicaRead(ReplicaReadV1 {
                head,
                bucket: BUCKET,
                key: key(MOVED),
                digest_only: false,
            });
            let asked = cluster
                .network
                .call(Role::Node(knows), via, &read, BUDGET)
                .await;
            assert!(matches!(asked, Ok(Response::ReplicaRead(..))), "{asked:?}");
            assert_eq!(epoch_of(&cluster, via), Epoch(2));
        };
        let (again, ()) = futures::join!(again, learns);
        let (code, outcome) = again.expect_err("its own copy would be one of two");
        assert_eq!(
            (code, outcome),
            (ErrorCode::StaleEpoch, Outcome::NotApplied)
        );
    });
}

#[test]
fn a_node_that_is_behind_adopts_the_newer_epoch_durably_before_it_serves() {
    with_second_epoch_on(1, |cluster, mut client| async move {
        client.epoch = Epoch(2);
        let behind = NodeId(2);
        assert_eq!(epoch_of(&cluster, behind), Epoch(1));
        client
            .put(&cluster, behind, MOVED, "v")
            .await
            .expect("it catches up first");
        assert_eq!(epoch_of(&cluster, behind), Epoch(2));
        cluster.cut_power(behind);
        cluster.start(behind).await.expect("it starts again");
        assert_eq!(
            epoch_of(&cluster, behind),
            Epoch(2),
            "what was adopted survives power loss"
        );
    });
}

#[test]
fn gossip_spreads_a_newer_epoch_to_every_node() {
    with_second_epoch_on(4, |cluster, _| async move {
        for _ in 0..100 {
            if cluster
                .nodes()
                .all(|node| epoch_of(&cluster, node) == Epoch(2))
            {
                return;
            }
            cluster.network.pause(Duration::from_millis(100)).await;
        }
        panic!("some node never heard of epoch 2");
    });
}

#[test]
fn in_transition_a_write_needs_its_quorum_among_old_and_new_owners() {
    with_second_epoch_on(1, |cluster, mut client| async move {
        client.epoch = Epoch(2);
        // Everyone has heard of it before two of them die.
        cluster.network.pause(Duration::from_secs(5)).await;
        let topology = second_epoch(&cluster).topology().clone();
        let (_, partition) = topology.locate(BUCKET, key(MOVED).partition_key());
        let PartitionState::Joint { old, new } = topology.partition_state(partition) else {
            panic!("in transition")
        };
        // One owner of both sides and the leaver are two of the old owners, but one of the new.
        let common: Vec<NodeId> = old
            .iter()
            .filter(|node| new.contains(node))
            .copied()
            .collect();
        let joiner = new
            .iter()
            .find(|node| !old.contains(node))
            .copied()
            .expect("one joins");
        cluster.kill(common[1]);
        cluster.kill(joiner);
        cluster.network.pause(Duration::from_secs(8)).await;
        let request = client.put_request(MOVED, None, WriteKind::Put);
        let refused = client
            .send_put(&cluster, common[0], request, "v")
            .await
            .expect_err("one of the new owners");
        assert_eq!(refused, (ErrorCode::NotEnoughReplicas, Outcome::NotApplied));
        cluster.start(joiner).await.expect("it starts again");
        cluster.network.pause(Duration::from_secs(8)).await;
        // It may have all that it is to have by now, and the move be over.
        client.epoch = epoch_of(&cluster, common[0]);
        client
            .put(&cluster, common[0], MOVED, "v")
            .await
            .expect("two of each side");
    });
}

#[test]
fn a_node_that_was_away_for_more_epochs_than_are_kept_takes_the_newest() {
    let kept = |handle| SimCluster::new(handle, 3, 3, options()).with_history(3);
    with(5, kept, |cluster, mut client, handle| async move {
        let away = NodeId(3);
        cluster.kill(away);
        for number in 0..10 {
            let made = create_bucket(&cluster, NodeId(1), format!("b{number}")).await;
            assert!(matches!(made, Response::Change(_)), "{made:?}");
        }
        let newest = epoch_of(&cluster, NodeId(1));
        assert_eq!(newest, Epoch(11));
        for starts in 0..2 {
            cluster.start(away).await.expect("it starts");
            handle.sleep(Duration::from_secs(3)).await;
            assert_eq!(epoch_of(&cluster, away), newest);
            let entries = cluster.node(away).expect("it runs").topology_entries();
            assert_eq!(
                entries.len(),
                1,
                "at start {starts}: what is before is left out"
            );
            cluster.cut_power(away);
        }
        let entries = cluster.node(NodeId(1)).expect("it runs").topology_entries();
        let epochs: Vec<Epoch> = entries.iter().map(|(epoch, _)| *epoch).collect();
        assert_eq!(epochs, [Epoch(9), Epoch(10), Epoch(11)]);
        client.epoch = newest;
        client
            .put(&cluster, NodeId(1), "k", "v")
            .await
            .expect("two of three are enough");
    });
}
