//! Members come and go: nobody notices, and nothing is lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use kv_net::message::{
    ChangeKind, ChangeV1, MemberChangesV1, PlaceV1, ReadOptions, ReplicaReadV1, Request, Response,
    WatermarksV1, WriteFate, WriteKind,
};
use kv_net::{ErrorCode, Role};
use kv_node::changes::member_changes;
use kv_node::tombstones::DeleteOptions;
use kv_ring::{ChainEntry, PartitionId, Topology};
use kv_tests::sim::client::Refused;
use kv_tests::sim::{Handle, SimCluster};
use kv_types::{BucketName, BucketProperties, Level, NodeId, Object, Outcome};

use crate::client::{BUCKET, BUDGET, Client, key, metric, options, with, with_cluster};
use crate::damage::damage;
use crate::lost_disks::start_from;

const FIRST: NodeId = NodeId(1);
pub(crate) const JOINING: NodeId = NodeId(4);
/// All is where it belongs within this time.
const LIMIT: Duration = Duration::from_secs(300);
const KEYS: usize = 200;

fn name(number: usize) -> String {
    format!("k{number}")
}

async fn change(cluster: &SimCluster, via: NodeId, change: ChangeKind) {
    let request = Request::Change(ChangeV1 { change });
    let role = Role::Admin("operator".to_owned());
    let answer = cluster.network.call(role, via, &request, BUDGET * 5).await;
    let made = matches!(answer, Ok(Response::Change(_)));
    assert!(made, "{answer:?}");
}

pub(crate) fn topology(cluster: &SimCluster, node: NodeId) -> Arc<Topology> {
    cluster.node(node).expect("it runs").topology()
}

/// Commits what would follow from changes now.
async fn commit(cluster: &SimCluster, via: NodeId, wanted: MemberChangesV1) {
    let changes = member_changes(wanted.clone());
    let plan = topology(cluster, via).plan_members(&changes);
    let plan = plan.expect("possible").id.0;
    let kind = ChangeKind::Members {
        changes: wanted,
        plan,
        accepts_loss: false,
    };
    change(cluster, via, kind).await;
}

/// A fourth node becomes a member, and starts.
pub(crate) async fn join(cluster: &SimCluster) {
    let joins = MemberChangesV1 {
        joins: vec![cluster.newcomer(JOINING)],
        ..MemberChangesV1::default()
    };
    commit(cluster, FIRST, joins).await;
    cluster.add_machine(JOINING, FIRST);
    cluster.start(JOINING).await.expect("it is a member");
}

/// Whether a client has to learn of a newer topology, and then try again: a write under the same name.
fn is_stale((code, _): &Refused) -> bool {
    *code == ErrorCode::StaleEpoch
}

/// Writes on and on, until all partitions are where they belong as a node knows it; everything must succeed.
async fn until_settled(
    cluster: &SimCluster,
    client: &mut Client,
    handle: &Handle,
    values: &mut [String],
    is_done: impl Fn(&Topology) -> bool,
) {
    let limit = handle.now() + LIMIT;
    let mut number = 0;
    loop {
        let vias: Vec<NodeId> = cluster.nodes().collect();
        let via = vias[number % vias.len()];
        let now = topology(cluster, FIRST.max(vias[0]));
        if is_done(&now) && now.unsettled().next().is_none() {
            return;
        }
        let left: Vec<_> = now.unsettled().collect();
        assert!(handle.now() < limit, "{} partitions: {left:?}", left.len());
        client.epoch = now.epoch();
        let key = number % KEYS;
        let value = format!("value {number} of {key}");
        let mut request = client.put_request(&name(key), None, WriteKind::Put);
        let mut put = client.send_put(cluster, via, request.clone(), &value).await;
        while put.as_ref().is_err_and(is_stale) {
            client.epoch = topology(cluster, via).epoch();
            request.head.epoch = client.epoch;
            put = client.send_put(cluster, via, request.clone(), &value).await;
        }
        put.unwrap_or_else(|refused| panic!("at {:?} through {via}: {refused:?}", handle.now()));
        values[key] = value;
        let read = (number * 7) % KEYS;
        let via = vias[(number + 1) % vias.len()];
        let mut got = client.get(cluster, via, &name(read)).await;
        while got.as_ref().is_err_and(is_stale) {
            client.epoch = topology(cluster, via).epoch();
            got = client.get(cluster, via, &name(read)).await;
        }
        let (shown, _) = got.unwrap_or_else(|refused| panic!("at {:?}: {refused:?}", handle.now()));
        assert_eq!(shown, [values[read].clone()], "key {read}");
        number += 1;
        handle.sleep(Duration::from_millis(50)).await;
    }
}

/// What a node holds of a key, if it is its owner.
async fn held(
    cluster: &SimCluster,
    client: &mut Client,
    node: NodeId,
    key: &str,
) -> Option<Object> {
    let request = Request::ReplicaRead(ReplicaReadV1 {
        head: client.head(),
        bucket: BUCKET,
        key: crate::client::key(key),
        digest_only: false,
    });
    let from = cluster
        .nodes()
        .find(|other| *other != node)
        .expect("several");
    let answer = cluster
        .network
        .call(Role::Node(from), node, &request, BUDGET)
        .await;
    match answer {
        Ok(Response::ReplicaRead(_, bytes)) if !bytes.is_empty() => {
            Some(Object::decode(&bytes).expect("an object"))
        }
        _ => None,
    }
}

#[test]
fn a_node_joins_and_another_leaves_under_load() {
    with_cluster(1, |cluster, mut client, handle| async move {
        let mut values = Vec::new();
        for number in 0..KEYS {
            values.push(format!("value of {number}"));
            let put = client
                .put(&cluster, FIRST, &name(number), &values[number])
                .await;
            put.expect("all are up");
        }
        join(&cluster).await;
        until_settled(&cluster, &mut client, &handle, &mut values, |_| true).await;

        let now = topology(&cluster, FIRST);
        client.epoch = now.epoch();
        assert_eq!(
            now.actors().len(),
            4,
            "nobody takes it for one that has lost its disk"
        );
        handle.sleep(Duration::from_secs(5)).await;
        let mut of_joining = 0;
        for (number, value) in values.iter().enumerate() {
            let (_, partition) = now.locate(BUCKET, key(&name(number)).partition_key());
            let owners: BTreeSet<NodeId> = now.replicas(partition, 3).nodes().collect();
            of_joining += usize::from(owners.contains(&JOINING));
            for node in cluster.nodes() {
                let object = held(&cluster, &mut client, node, &name(number)).await;
                assert_eq!(
                    object.is_some(),
                    owners.contains(&node),
                    "{node} and key {number}"
                );
            }
            let (shown, _) = client
                .get(&cluster, JOINING, &name(number))
                .await
                .expect("all are up");
            assert_eq!(shown, std::slice::from_ref(value));
        }
        assert!(
            (100..200).contains(&of_joining),
            "of {KEYS} keys {of_joining}"
        );

        let leaves = MemberChangesV1 {
            leaves: vec![FIRST],
            ..MemberChangesV1::default()
        };
        commit(&cluster, FIRST, leaves).await;
        let is_gone = |topology: &Topology| topology.member(FIRST).is_none();
        until_settled(&cluster, &mut client, &handle, &mut values, is_gone).await;
        cluster.kill(FIRST);
        let now = topology(&cluster, JOINING);
        client.epoch = now.epoch();
        assert!(now.removed().contains_key(&FIRST));
        for (number, value) in values.iter().enumerate() {
            let (shown, _) = client
                .get(&cluster, JOINING, &name(number))
                .await
                .expect("three are up");
            assert_eq!(shown, std::slice::from_ref(value));
        }
    });
}

/// What the others had forgotten it would take in again, not knowing.
#[test]
fn a_new_member_serves_once_another_one_has_told_it_what_is_forgotten() {
    with_cluster(61, |cluster, _, handle| async move {
        let joins = MemberChangesV1 {
            joins: vec![cluster.newcomer(JOINING)],
            ..MemberChangesV1::default()
        };
        commit(&cluster, FIRST, joins).await;
        cluster.add_machine(JOINING, FIRST);
        cluster.network.cut_off(JOINING, true);
        let mut started = cluster.launch(JOINING);
        handle.sleep(Duration::from_secs(60)).await;
        assert!(started.try_recv().is_err(), "nobody has told it");
        assert!(cluster.has_process(JOINING), "it waits");
        cluster.network.cut_off(JOINING, false);
        let started = started.await.expect("nobody kills it");
        started.expect("its disk is new");
    });
}

/// Five nodes with three replicas of each key.
fn five(handle: Handle) -> SimCluster {
    SimCluster::new(handle, 5, 3, options())
}

/// A key of which a node is an owner, and its other owners.
fn key_of(topology: &Topology, node: NodeId) -> (String, Vec<NodeId>) {
    let owners = |name: &String| {
        let (_, partition) = topology.locate(BUCKET, key(name).partition_key());
        let owners: Vec<NodeId> = topology.replicas(partition, 3).nodes().collect();
        let others = owners
            .iter()
            .copied()
            .filter(|owner| *owner != node)
            .collect();
        owners.contains(&node).then_some((name.clone(), others))
    };
    (0..)
        .map(name)
        .find_map(|name| owners(&name))
        .expect("it owns some")
}

#[test]
fn what_only_a_leaving_owner_has_is_brought_to_the_others() {
    with(2, five, |cluster, mut client, handle| async move {
        let leaving = NodeId(2);
        let (only, others) = key_of(cluster.topology(), leaving);
        // The others hear of it neither now nor later by themselves: comparisons leave alone what is young.
        let links = others
            .iter()
            .flat_map(|other| [(leaving, *other), (*other, leaving)]);
        cluster.network.block(&links.collect::<Vec<_>>());
        let mut weak = client.put_request(&only, None, WriteKind::Put);
        weak.options.level = Level::Weak;
        let put = client
            .send_put(&cluster, leaving, weak, "on one disk")
            .await;
        put.expect("one is enough");
        handle.sleep(Duration::from_secs(2)).await;
        for other in &others {
            assert!(held(&cluster, &mut client, *other, &only).await.is_none());
        }
        let leaves = MemberChangesV1 {
            leaves: vec![leaving],
            ..MemberChangesV1::default()
        };
        let via = cluster
            .nodes()
            .find(|node| *node != leaving)
            .expect("others");
        commit(&cluster, via, leaves).await;
        // So that the new owner has to do with the other two.
        handle.sleep(Duration::from_secs(20)).await;
        cluster.network.calm();
        let limit = handle.now() + LIMIT;
        while topology(&cluster, via).member(leaving).is_some() {
            assert!(
                handle.now() < limit,
                "{:?}",
                topology(&cluster, via).unsettled().count()
            );
            handle.sleep(Duration::from_secs(1)).await;
        }
        cluster.kill(leaving);
        client.epoch = topology(&cluster, via).epoch();
        let (shown, _) = client.get(&cluster, via, &only).await.expect("four are up");
        assert_eq!(shown, ["on one disk"]);
    });
}

#[test]
fn a_joining_node_that_is_killed_again_and_again_gains_its_share() {
    with_cluster(3, |cluster, mut client, handle| async move {
        for number in 0..KEYS {
            let put = client.put(&cluster, FIRST, &name(number), "v").await;
            put.expect("all are up");
        }
        let joins = MemberChangesV1 {
            joins: vec![cluster.newcomer(JOINING)],
            ..MemberChangesV1::default()
        };
        commit(&cluster, FIRST, joins).await;
        cluster.add_machine(JOINING, FIRST);
        let mut kills = 0;
        let limit = handle.now() + LIMIT;
        while topology(&cluster, FIRST).unsettled().next().is_some() {
            assert!(handle.now() < limit, "after {kills} kills");
            cluster.start(JOINING).await.expect("it is a member");
            handle
                .sleep(Duration::from_millis(2_500 + 100 * kills))
                .await;
            cluster.kill(JOINING);
            kills += 1;
        }
        assert!(kills > 2, "{kills}");
        cluster.start(JOINING).await.expect("it is a member");
        handle.sleep(Duration::from_secs(5)).await;
        // It counts: one of the others may be away.
        cluster.kill(NodeId(3));
        handle.sleep(Duration::from_secs(5)).await;
        client.epoch = topology(&cluster, FIRST).epoch();
        for number in 0..KEYS {
            let (shown, _) = client
                .get(&cluster, FIRST, &name(number))
                .await
                .expect("three are up");
            assert_eq!(shown, ["v"], "key {number}");
        }
    });
}

#[test]
fn what_a_node_gives_that_is_down_waits_and_nothing_else_does() {
    const DOWN: NodeId = NodeId(3);
    with_cluster(3, |cluster, _client, handle| async move {
        cluster.kill(DOWN);
        handle.sleep(Duration::from_secs(10)).await;
        join(&cluster).await;
        let limit = handle.now() + LIMIT;
        let waiting = || {
            let now = topology(&cluster, FIRST);
            let moves = now.unsettled().filter_map(|partition| {
                let next = now.next_move(partition);
                now.moving(partition).or(next)
            });
            moves.map(|slot| slot.from).collect::<Vec<_>>()
        };
        while waiting().iter().any(|from| *from != Some(DOWN)) {
            assert!(handle.now() < limit, "{:?}", waiting());
            handle.sleep(Duration::from_secs(1)).await;
        }
        assert!(!waiting().is_empty(), "it gives nothing");
        cluster.start(DOWN).await.expect("its disk is whole");
        while topology(&cluster, FIRST).unsettled().next().is_some() {
            assert!(handle.now() < limit, "{:?}", waiting());
            handle.sleep(Duration::from_secs(1)).await;
        }
    });
}

#[test]
fn a_node_gains_its_share_of_a_hundred_buckets() {
    with_cluster(4, |cluster, mut client, handle| async move {
        for number in 0..100 {
            let creation = ChangeKind::CreateBucket {
                name: BucketName::new(format!("b{number}")).expect("a good name"),
                properties: BucketProperties::majority_of(3).expect("three"),
            };
            change(&cluster, FIRST, creation).await;
        }
        client.epoch = topology(&cluster, FIRST).epoch();
        let put = client.put(&cluster, FIRST, &name(0), "v").await;
        put.expect("all are up");
        join(&cluster).await;
        let limit = handle.now() + LIMIT;
        while topology(&cluster, JOINING).unsettled().next().is_some() {
            assert!(handle.now() < limit, "it does not end");
            handle.sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn what_was_deleted_while_a_join_was_called_off_stays_deleted_when_it_is_tried_again() {
    let make = |handle| {
        let keep = Duration::from_secs(4);
        SimCluster::new(handle, 3, 3, options()).with_deletes(DeleteOptions { keep })
    };
    with(4, make, |cluster, mut client, handle| async move {
        for number in 0..KEYS {
            let put = client.put(&cluster, FIRST, &name(number), "v").await;
            put.expect("all are up");
        }
        join(&cluster).await;
        // Some partitions are joint, and it has pulled some of what is in them.
        while !topology(&cluster, FIRST)
            .unsettled()
            .any(|partition| topology(&cluster, FIRST).moving(partition).is_some())
        {
            handle.sleep(Duration::from_millis(100)).await;
        }
        handle.sleep(Duration::from_millis(700)).await;
        cluster.kill(JOINING);
        change(&cluster, FIRST, ChangeKind::AbortMoves).await;
        client.epoch = topology(&cluster, FIRST).epoch();
        for number in 0..KEYS {
            let delete = client.put_request(&name(number), None, WriteKind::Delete);
            let deleted = client.send_put(&cluster, FIRST, delete, "").await;
            deleted.expect("the others are up");
        }
        cluster.start(JOINING).await.expect("it is a member");
        let limit = handle.now() + LIMIT;
        let forgotten = |node| metric(&cluster, node, "kv_deletions_forgotten ");
        while forgotten(FIRST) < 100 {
            assert!(handle.now() < limit, "nothing is forgotten");
            handle.sleep(Duration::from_secs(1)).await;
        }
        let again = MemberChangesV1 {
            weights: vec![(JOINING, 2)],
            ..MemberChangesV1::default()
        };
        commit(&cluster, FIRST, again).await;
        while topology(&cluster, FIRST).unsettled().next().is_some() {
            assert!(handle.now() < limit, "it does not end");
            handle.sleep(Duration::from_secs(1)).await;
        }
        handle.sleep(Duration::from_secs(30)).await;
        client.epoch = topology(&cluster, FIRST).epoch();
        for number in 0..KEYS {
            for via in cluster.nodes() {
                let (shown, _) = client
                    .get(&cluster, via, &name(number))
                    .await
                    .expect("all are up");
                assert!(shown.is_empty(), "key {number} through {via}");
            }
        }
    });
}

const KEEP: Duration = Duration::from_secs(4);

/// Until what was created now can be settled.
const SETTLED: Duration = Duration::from_secs(60 + 2 * KEEP.as_secs() + 5);

fn five_that_forget(handle: Handle) -> SimCluster {
    five(handle).with_deletes(DeleteOptions { keep: KEEP })
}

#[test]
fn of_what_only_a_member_had_that_was_given_up_it_is_not_said_that_it_never_was() {
    with(
        12,
        five_that_forget,
        |cluster, mut client, handle| async move {
            handle.sleep(Duration::from_secs(1)).await;
            let lost = NodeId(2);
            let give_up = MemberChangesV1 {
                lost: vec![lost],
                ..MemberChangesV1::default()
            };
            let (key, _) = key_of(cluster.topology(), lost);
            let others = cluster.nodes().filter(|node| *node != lost);
            let links = others.flat_map(|other| [(lost, other), (other, lost)]);
            cluster.network.block(&links.collect::<Vec<_>>());
            let mut request = client.put_request(&key, None, WriteKind::Put);
            request.options.level = Level::Weak;
            let id = request.head.write_id;
            let put = client.send_put(&cluster, lost, request, "v").await;
            put.expect("one is enough");
            cluster.kill(lost);
            handle.sleep(Duration::from_secs(5)).await;
            commit(&cluster, FIRST, give_up).await;
            let limit = handle.now() + LIMIT;
            while topology(&cluster, FIRST).unsettled().next().is_some() {
                assert!(handle.now() < limit, "it does not end");
                handle.sleep(Duration::from_secs(1)).await;
            }
            change(&cluster, FIRST, ChangeKind::RemoveMember { node: lost }).await;
            handle.sleep(SETTLED).await;
            client.epoch = topology(&cluster, FIRST).epoch();
            let told = client.fate(&cluster, FIRST, &key, id).await;
            assert_eq!(told, Ok(WriteFate::Gone));
        },
    );
}

#[test]
fn where_a_new_generation_begins_it_is_not_said_of_what_the_lost_had_that_it_never_was() {
    let three = |handle| SimCluster::new(handle, 3, 3, options());
    let three_that_forget = move |handle| three(handle).with_deletes(DeleteOptions { keep: KEEP });
    with(
        13,
        three_that_forget,
        |cluster, mut client, handle| async move {
            handle.sleep(Duration::from_secs(1)).await;
            let lost = [NodeId(2), NodeId(3)];
            let links = lost.map(|node| [(node, FIRST), (FIRST, node)]).concat();
            cluster.network.block(&links);
            let mut request = client.put_request("k", None, WriteKind::Put);
            request.options.level = Level::Weak;
            let id = request.head.write_id;
            let put = client.send_put(&cluster, lost[0], request, "v").await;
            put.expect("one is enough");
            for node in lost {
                cluster.kill(node);
                cluster.retire(node);
            }
            cluster.kill(FIRST);
            let recovered = cluster
                .topology()
                .recovered(FIRST, &lost, &[])
                .expect("a majority is lost");
            let entry = ChainEntry::snapshot(Arc::new(recovered), cluster.genesis().chain_hash());
            cluster.install(FIRST, &entry.expect("it encodes"));
            cluster.start(FIRST).await.expect("it starts");
            let wanted = MemberChangesV1 {
                joins: [4, 5].map(|node| cluster.newcomer(NodeId(node))).to_vec(),
                ..MemberChangesV1::default()
            };
            commit(&cluster, FIRST, wanted).await;
            for node in [4, 5].map(NodeId) {
                cluster.add_machine(node, FIRST);
                cluster.start(node).await.expect("it starts");
            }
            let limit = handle.now() + LIMIT;
            while topology(&cluster, FIRST).unsettled().next().is_some() {
                assert!(handle.now() < limit, "it does not end");
                handle.sleep(Duration::from_secs(1)).await;
            }
            for node in lost {
                change(&cluster, FIRST, ChangeKind::RemoveMember { node }).await;
            }
            handle.sleep(SETTLED).await;
            client.epoch = topology(&cluster, FIRST).epoch();
            let told = client.fate(&cluster, FIRST, "k", id).await;
            assert_eq!(told, Ok(WriteFate::Gone));
        },
    );
}

#[test]
fn members_with_which_writes_may_be_lost_are_given_up_only_where_that_is_accepted() {
    with(14, five, |cluster, _, handle| async move {
        handle.sleep(Duration::from_secs(1)).await;
        let lost = [NodeId(2), NodeId(3)];
        for node in lost {
            cluster.kill(node);
        }
        handle.sleep(Duration::from_secs(5)).await;
        let before = topology(&cluster, FIRST);
        let wanted = MemberChangesV1 {
            lost: lost.to_vec(),
            ..MemberChangesV1::default()
        };
        let plan = before.plan_members(&member_changes(wanted.clone()));
        let plan = plan.expect("possible").id.0;
        let asked = |accepts_loss| ChangeKind::Members {
            changes: wanted.clone(),
            plan,
            accepts_loss,
        };
        let request = Request::Change(ChangeV1 {
            change: asked(false),
        });
        let role = Role::Admin("operator".to_owned());
        let network = &cluster.network;
        let refused = network.call(role, FIRST, &request, BUDGET * 5).await;
        let Ok(Response::Error(refused)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(refused.code, ErrorCode::BadRequest);
        assert_eq!(refused.outcome, Outcome::NotApplied);
        assert!(refused.message.contains("may be lost"), "{refused:?}");
        assert_eq!(topology(&cluster, FIRST).epoch(), before.epoch());
        change(&cluster, FIRST, asked(true)).await;
        let now = topology(&cluster, FIRST);
        let owned_by_both = |partition: &PartitionId| {
            let owners = before.replicas(*partition, 3);
            owners.nodes().filter(|owner| lost.contains(owner)).count() == 2
        };
        let marked = before.partition_count().iter().filter(owned_by_both);
        assert!(now.marked().keys().copied().eq(marked));
        let through = before.epoch().next();
        assert!(now.marked().values().all(|since| *since == through));
        change(&cluster, FIRST, ChangeKind::ClearLoss { through }).await;
        assert_eq!(topology(&cluster, FIRST).marked().len(), 0);
    });
}

/// Answers that may be under way when a node loses power: partitions that are compared at once, each with an object or two.
const UNDER_WAY: u64 = 4;

#[test]
fn a_node_that_loses_power_again_and_again_while_it_gains_fetches_nothing_twice_but_what_was_under_way()
 {
    let slow = |handle| SimCluster::new(handle, 3, 3, options()).with_fetch_bytes_per_s(64 << 10);
    with(15, slow, |cluster, mut client, handle| async move {
        let names: Vec<String> = (0..2 * KEYS).map(name).collect();
        let value = "v".repeat(4 << 10);
        for name in &names {
            let put = client.put(&cluster, FIRST, name, &value).await;
            put.expect("all are up");
        }
        join(&cluster).await;
        let (mut fetched, mut losses) = (0, 0);
        let limit = handle.now() + LIMIT;
        loop {
            handle.sleep(Duration::from_secs(3)).await;
            fetched += metric(&cluster, JOINING, "kv_anti_entropy_fetched ");
            if topology(&cluster, FIRST).unsettled().next().is_none() {
                break;
            }
            assert!(handle.now() < limit, "it does not end");
            cluster.cut_power(JOINING);
            cluster.start(JOINING).await.expect("it starts again");
            losses += 1;
        }
        let now = topology(&cluster, FIRST);
        let is_gained = |name: &&String| {
            let (_, partition) = now.locate(BUCKET, key(name).partition_key());
            now.replicas(partition, 3).contains(JOINING)
        };
        let gained = names.iter().filter(is_gained).count() as u64;
        assert!(losses >= 5, "it has time for {losses} losses only");
        assert!(
            (gained / 2..=gained + losses * UNDER_WAY).contains(&fetched),
            "{fetched} were fetched for {gained}, over {losses} losses of power"
        );
    });
}

/// Where a fourth node is to gain a key that it has not pulled yet, and the key.
async fn while_it_gains(
    cluster: &SimCluster,
    client: &mut Client,
    handle: &Handle,
) -> (PartitionId, String) {
    let names: Vec<String> = (0..2 * KEYS).map(name).collect();
    for name in &names {
        let put = client.put(cluster, FIRST, name, &"v".repeat(1 << 10)).await;
        put.expect("all are up");
    }
    join(cluster).await;
    let limit = handle.now() + LIMIT;
    loop {
        handle.sleep(Duration::from_millis(100)).await;
        assert!(handle.now() < limit, "it gains nothing");
        let now = topology(cluster, JOINING);
        let gained = now.gained_by(JOINING);
        let image = cluster.image(JOINING).expect("a disk");
        let incomplete = image.incomplete().expect("its records are whole");
        let place = |name: &String| now.locate(BUCKET, key(name).partition_key()).1;
        let is_open =
            |place: PartitionId| gained.contains_key(&place) && incomplete.contains(&place.0);
        if let Some(open) = names.iter().find(|name| is_open(place(name))) {
            client.epoch = now.epoch();
            return (place(open), open.clone());
        }
    }
}

fn slow(handle: Handle) -> SimCluster {
    SimCluster::new(handle, 3, 3, options()).with_fetch_bytes_per_s(16)
}

#[test]
fn keys_are_listed_while_an_owner_is_to_gain_them() {
    with(64, slow, |cluster, mut client, handle| async move {
        let (partition, open) = while_it_gains(&cluster, &mut client, &handle).await;
        let all = ReadOptions {
            level: Level::All,
            ..ReadOptions::default()
        };
        let place = (partition.0, None, None);
        let listed = client.list(&cluster, FIRST, place, 100, all).await;
        let (page, _) = listed.expect("all are up");
        let now = topology(&cluster, FIRST);
        assert!(now.gained_by(JOINING).contains_key(&partition));
        assert!(page.entries.iter().any(|entry| entry.key == key(&open)));
    });
}

/// Between the two, the topology by which it is a new owner is in force still.
#[test]
fn what_is_called_off_is_not_whole_before_that_is_in_force() {
    with(65, slow, |cluster, mut client, handle| async move {
        let (partition, _) = while_it_gains(&cluster, &mut client, &handle).await;
        let joint = topology(&cluster, JOINING).epoch();
        let places = vec![PlaceV1 {
            bucket: BUCKET,
            partition: partition.0,
        }];
        let marks = async |epoch| {
            let places = places.clone();
            let asked = Request::Watermarks(WatermarksV1 { epoch, places });
            let from = Role::Node(FIRST);
            match cluster.network.call(from, JOINING, &asked, BUDGET).await {
                Ok(Response::Watermarks(reply)) => reply.marks,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(marks(joint).await, [None]);
        // So that what it notes has room, and the topology has not.
        let disk = cluster.fs(JOINING);
        disk.set_capacity(0);
        change(&cluster, FIRST, ChangeKind::AbortMoves).await;
        let limit = handle.now() + LIMIT;
        let is_noted = || {
            let image = cluster.image(JOINING).expect("a disk");
            let incomplete = image.incomplete().expect("its records are whole");
            !incomplete.contains(&partition.0)
        };
        while !is_noted() {
            assert!(handle.now() < limit, "it does not hear of it");
            handle.sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(topology(&cluster, JOINING).epoch(), joint);
        assert_eq!(marks(joint).await, [None], "it never was");
    });
}

#[test]
fn a_source_that_loses_something_while_it_is_compared_was_not_whole() {
    with(16, slow, |cluster, mut client, handle| async move {
        let (behind, away) = (NodeId(2), NodeId(3));
        let links: Vec<_> = [FIRST, away]
            .iter()
            .flat_map(|other| [(behind, *other), (*other, behind)])
            .collect();
        cluster.network.block(&links);
        handle.sleep(Duration::from_secs(5)).await;
        let names: Vec<String> = (0..2 * KEYS).map(name).collect();
        for name in &names {
            let value = "v".repeat(1 << 10);
            let put = client.put(&cluster, FIRST, name, &value).await;
            put.expect("two of three are there");
        }
        join(&cluster).await;
        let limit = handle.now() + LIMIT;
        while metric(&cluster, JOINING, "kv_anti_entropy_fetched ") == 0 {
            assert!(handle.now() < limit, "it fetches nothing");
            handle.sleep(Duration::from_millis(100)).await;
        }
        cluster.kill(away);
        assert!(
            damage(&cluster, FIRST) > 3,
            "values lie in files of their own"
        );
        // By then all is cut out of it that is bad, and all that is left was compared.
        handle.sleep(LIMIT * 2).await;
        assert!(metric(&cluster, FIRST, "kv_damage_cut_out ") > 3);
        let now = topology(&cluster, JOINING);
        client.epoch = now.epoch();
        let image = cluster.image(JOINING).expect("a disk");
        let incomplete = image.incomplete().expect("its own records are whole");
        let gains = now.gained_by(JOINING);
        let is_here = |name: &&String| {
            let (_, partition) = now.locate(BUCKET, key(name).partition_key());
            gains.contains_key(&partition) && !incomplete.contains(&partition.0)
        };
        for name in names.iter().filter(is_here) {
            let held = held(&cluster, &mut client, JOINING, name).await;
            assert!(held.is_some(), "{name}");
        }
    });
}

#[test]
fn who_was_to_gain_something_with_a_disk_that_is_lost_may_have_gained_it() {
    let slow = |handle| SimCluster::new(handle, 3, 3, options()).with_fetch_bytes_per_s(1 << 10);
    with(17, slow, |cluster, mut client, handle| async move {
        let names: Vec<String> = (0..2 * KEYS).map(name).collect();
        for name in &names {
            let put = client
                .put(&cluster, FIRST, name, &"v".repeat(1 << 10))
                .await;
            put.expect("all are up");
        }
        join(&cluster).await;
        let limit = handle.now() + LIMIT;
        let joining = || topology(&cluster, JOINING).gained_by(JOINING);
        while joining().is_empty() {
            assert!(handle.now() < limit, "it is to gain nothing");
            handle.sleep(Duration::from_millis(100)).await;
        }
        client.epoch = topology(&cluster, JOINING).epoch();
        let gained = |name: &&String| {
            let now = topology(&cluster, JOINING);
            let (_, partition) = now.locate(BUCKET, key(name).partition_key());
            now.gained_by(JOINING).contains_key(&partition)
        };
        let one = names.iter().find(gained).expect("some key of a partition");
        let read = ReplicaReadV1 {
            head: client.head(),
            bucket: BUCKET,
            key: key(one),
            digest_only: true,
        };
        let read = Request::ReplicaRead(read);
        let ask = async || {
            let asked = cluster
                .network
                .call(Role::Node(FIRST), JOINING, &read, BUDGET);
            match asked.await.expect("it runs") {
                Response::Error(error) => Err(error.code),
                _ => Ok(()),
            }
        };
        assert_eq!(ask().await, Ok(()), "it counts beside the old owners");
        let copy = cluster.fs(JOINING).fork();
        // The others are told of a later start.
        handle.sleep(Duration::from_secs(11)).await;
        cluster.kill(NodeId(2));
        cluster.kill(NodeId(3));
        start_from(&cluster, JOINING, copy).await;
        handle.sleep(Duration::from_secs(11)).await;
        assert!(!joining().is_empty(), "the voters can decide nothing");
        assert_eq!(ask().await, Err(ErrorCode::Incomplete));
    });
}

#[test]
fn the_only_one_that_is_left_takes_over_what_the_other_one_had() {
    let two = |handle| SimCluster::new(handle, 2, 1, options());
    with(63, two, |cluster, mut client, handle| async move {
        let lost = NodeId(2);
        cluster.kill(lost);
        handle.sleep(Duration::from_secs(5)).await;
        let wanted = MemberChangesV1 {
            lost: vec![lost],
            ..MemberChangesV1::default()
        };
        let plan = topology(&cluster, FIRST).plan_members(&member_changes(wanted.clone()));
        let kind = ChangeKind::Members {
            changes: wanted,
            plan: plan.expect("possible").id.0,
            accepts_loss: true,
        };
        change(&cluster, FIRST, kind).await;
        let limit = handle.now() + LIMIT;
        while topology(&cluster, FIRST).unsettled().next().is_some() {
            assert!(handle.now() < limit, "it does not end");
            handle.sleep(Duration::from_secs(1)).await;
        }
        change(&cluster, FIRST, ChangeKind::RemoveMember { node: lost }).await;
        client.epoch = topology(&cluster, FIRST).epoch();
        for number in 0..KEYS {
            let put = client.put(&cluster, FIRST, &name(number), "v").await;
            put.expect("it owns everything");
        }
    });
}

#[test]
fn the_only_voter_that_leaves_stays_until_another_member_knows_that() {
    let one = |handle: Handle| SimCluster::new(handle, 1, 1, options());
    with(5, one, |cluster, _client, handle| async move {
        let limit = handle.now() + LIMIT;
        let settled = || topology(&cluster, FIRST).unsettled().next().is_none();
        join(&cluster).await;
        while !settled() {
            assert!(handle.now() < limit, "it gains its share");
            handle.sleep(Duration::from_secs(1)).await;
        }
        let leaves = MemberChangesV1 {
            leaves: vec![FIRST],
            ..MemberChangesV1::default()
        };
        commit(&cluster, FIRST, leaves).await;
        while !settled() {
            assert!(handle.now() < limit, "it gives all away");
            handle.sleep(Duration::from_millis(10)).await;
        }
        cluster.kill(JOINING);
        let leaver = cluster.node(FIRST).expect("it runs");
        while topology(&cluster, FIRST).member(FIRST).is_some() {
            assert!(handle.now() < limit, "it decides alone that it goes");
            handle.sleep(Duration::from_millis(10)).await;
        }
        let ends_soon = || async {
            let ends = std::pin::pin!(leaver.removal());
            let late = handle.sleep(Duration::from_secs(20));
            matches!(select(ends, late).await, Either::Left(_))
        };
        assert!(!ends_soon().await, "nobody else can tell");
        cluster.start(JOINING).await.expect("its disk is whole");
        assert!(ends_soon().await, "it is told");
        let known = topology(&cluster, JOINING);
        assert!(known.member(FIRST).is_none(), "{}", known.epoch());
    });
}

#[test]
fn a_lost_member_is_replaced_and_nobody_waits_for_it() {
    with_cluster(5, |cluster, mut client, handle| async move {
        let mut values = Vec::new();
        for number in 0..KEYS {
            values.push(format!("value of {number}"));
            let put = client
                .put(&cluster, FIRST, &name(number), &values[number])
                .await;
            put.expect("all are up");
        }
        let lost = NodeId(3);
        cluster.kill(lost);
        handle.sleep(Duration::from_secs(5)).await;
        let replace = MemberChangesV1 {
            joins: vec![cluster.newcomer(JOINING)],
            lost: vec![lost],
            ..MemberChangesV1::default()
        };
        commit(&cluster, FIRST, replace).await;
        cluster.add_machine(JOINING, FIRST);
        cluster.start(JOINING).await.expect("it is a member");
        let limit = handle.now() + LIMIT;
        while topology(&cluster, FIRST).unsettled().next().is_some() {
            assert!(handle.now() < limit, "it does not end");
            handle.sleep(Duration::from_secs(1)).await;
        }
        change(&cluster, FIRST, ChangeKind::RemoveMember { node: lost }).await;
        let now = topology(&cluster, FIRST);
        assert!(now.removed()[&lost].may_lose);
        client.epoch = now.epoch();
        cluster.kill(NodeId(2));
        handle.sleep(Duration::from_secs(5)).await;
        for (number, value) in values.iter().enumerate() {
            let (shown, _) = client
                .get(&cluster, FIRST, &name(number))
                .await
                .expect("two of three");
            assert_eq!(shown, std::slice::from_ref(value));
        }
    });
}
