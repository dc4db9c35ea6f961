//! Coordinators say why they answer as they do.

use std::time::Duration;

use kv_net::message::{
    ExplainedGetV1, ExplainedPutV1, GetV1, NotShown, PutV1, ReadOptions, ReadSource, Request,
    Response, StepKind, WriteKind,
};
use kv_tests::sim::{Handle, SimCluster};
use kv_types::{BucketId, BucketMode, Level, NodeId, Outcome};

use crate::buckets::{self, create};
use crate::client::{BUCKET, BUDGET, Client, key, options, with};

const KEY: &str = "k";

async fn get(
    cluster: &SimCluster,
    client: &mut Client,
    via: NodeId,
    name: &str,
    level: Level,
) -> ExplainedGetV1 {
    get_in(cluster, client, via, BUCKET, name, level).await
}

async fn get_in(
    cluster: &SimCluster,
    client: &mut Client,
    via: NodeId,
    bucket: BucketId,
    name: &str,
    level: Level,
) -> ExplainedGetV1 {
    let request = Request::ExplainGet(GetV1 {
        head: client.head(),
        bucket,
        key: key(name),
        options: ReadOptions {
            level,
            ..ReadOptions::default()
        },
        seen: None,
    });
    match cluster.network.call_as_client(via, request, BUDGET).await {
        Ok(Response::ExplainGet(told, _)) => told,
        other => panic!("{other:?}"),
    }
}

async fn put(
    cluster: &SimCluster,
    client: &mut Client,
    via: NodeId,
    level: Level,
) -> ExplainedPutV1 {
    let mut put = client.put_request(KEY, None, WriteKind::Put);
    put.options.level = level;
    explained(cluster, via, put).await
}

async fn explained(cluster: &SimCluster, via: NodeId, put: PutV1) -> ExplainedPutV1 {
    let request = Request::ExplainPut(put, "v".into());
    match cluster.network.call_as_client(via, request, BUDGET).await {
        Ok(Response::ExplainPut(told)) => told,
        other => panic!("{other:?}"),
    }
}

/// At which nodes something of a kind happened.
fn at(steps: &[kv_net::message::StepV1], is_meant: impl Fn(&StepKind) -> bool) -> Vec<NodeId> {
    let steps = steps.iter().filter(|step| is_meant(&step.what));
    let mut nodes: Vec<NodeId> = steps.map(|step| step.node).collect();
    nodes.sort_unstable();
    nodes
}

fn three(handle: Handle) -> SimCluster {
    SimCluster::new(handle, 3, 3, options())
}

fn five(handle: Handle) -> SimCluster {
    SimCluster::new(handle, 5, 3, options())
}

/// The owners of the key, best first, and a node that is none.
fn owners_and_another(cluster: &SimCluster) -> (Vec<NodeId>, NodeId) {
    let topology = cluster.topology();
    let (_, partition) = topology.locate(BUCKET, KEY.as_bytes());
    let owners: Vec<NodeId> = topology.replicas(partition, 3).nodes().collect();
    let other = cluster.nodes().find(|node| !owners.contains(node));
    (owners, other.expect("of five"))
}

#[test]
fn a_read_says_who_held_what_and_who_was_given_what_was_newer() {
    with(1, three, |cluster, mut client, handle| async move {
        let [first, second, away] = [1, 2, 3].map(NodeId);
        handle.sleep(Duration::from_secs(3)).await;
        let links = [(first, away), (away, first), (second, away), (away, second)];
        put(&cluster, &mut client, first, Level::All).await;
        cluster.network.block(&links);
        let written = put(&cluster, &mut client, first, Level::Quorum).await;
        let told = &written.explanation;
        assert_eq!(
            (told.coordinator, told.forwarded_by, told.needed),
            (first, None, 2)
        );
        let coordinated = at(&told.steps, |what| {
            matches!(what, StepKind::Coordinated { .. })
        });
        assert_eq!(coordinated, [first]);
        assert_eq!(
            at(&told.steps, |what| *what == StepKind::Acknowledged),
            [first, second]
        );
        cluster.network.unblock(&links);
        handle.sleep(Duration::from_millis(500)).await;

        let read = get(&cluster, &mut client, first, KEY, Level::All).await;
        assert_eq!(
            read.answer.as_ref().expect("three are up").siblings.len(),
            1
        );
        let told = &read.explanation;
        let owners: Vec<NodeId> = told.preference.iter().map(|one| one.node).collect();
        assert_eq!(owners.len(), 3);
        assert!(told.preference.iter().all(|one| one.is_owner));
        let held = at(&told.steps, |what| {
            matches!(what, StepKind::Object { .. } | StepKind::Digest { .. })
        });
        assert!(
            [first, second, away].iter().all(|node| held.contains(node)),
            "{told:?}"
        );
        let superseded = at(&told.steps, |what| {
            matches!(what, StepKind::Superseded { .. })
        });
        assert_eq!(superseded, [away]);
        let times: Vec<u64> = told.steps.iter().map(|step| step.at_us).collect();
        assert!(times.is_sorted() && times.last() > Some(&0));
    });
}

#[test]
fn what_a_write_replaces_and_what_is_there_and_not_shown_is_said() {
    with(5, three, |cluster, mut client, handle| async move {
        let [first, second, third] = [1, 2, 3].map(NodeId);
        let not_shown = |told: &ExplainedGetV1| {
            let steps = told.explanation.steps.iter();
            let hidden = steps.filter_map(|step| match &step.what {
                StepKind::NotShown { dots, why } => Some((dots.len(), *why)),
                _ => None,
            });
            hidden.collect::<Vec<_>>()
        };
        // The last of two writes that knew nothing of each other.
        let bucket = create(&cluster, "last", BucketMode::Lww).await;
        client.epoch = cluster.newest().epoch();
        let apart = [(first, second), (second, first)];
        let apart = [apart, [(first, third), (third, first)]].concat();
        cluster.network.block(&apart);
        for via in [second, first] {
            let put = buckets::put(&cluster, &mut client, via, bucket, KEY, 1, "v").await;
            put.expect("one is enough");
            handle.sleep(Duration::from_millis(20)).await;
        }
        cluster.network.unblock(&apart);
        handle.sleep(Duration::from_secs(1)).await;
        let read = get_in(&cluster, &mut client, first, bucket, KEY, Level::All).await;
        assert_eq!(not_shown(&read), [(1, NotShown::EarlierWrite)]);

        // One that has expired.
        let mut put = client.put_request(KEY, None, WriteKind::Put);
        put.options.ttl_ms = Some(1_000);
        let written = explained(&cluster, first, put).await;
        let replaced = |told: &ExplainedPutV1| {
            let steps = told.explanation.steps.iter();
            let replaced = steps.filter_map(|step| match &step.what {
                StepKind::Replaced { dots } => Some(dots.len()),
                _ => None,
            });
            replaced.collect::<Vec<_>>()
        };
        assert_eq!(replaced(&written), [0; 0]);
        handle.sleep(Duration::from_secs(2)).await;
        let read = get(&cluster, &mut client, second, KEY, Level::Quorum).await;
        assert!(
            read.answer
                .as_ref()
                .expect("all are up")
                .siblings
                .is_empty()
        );
        assert_eq!(not_shown(&read), [(1, NotShown::Expired)]);
        let context = read.answer.expect("all are up").context;
        let put = client.put_request(KEY, Some(context), WriteKind::Put);
        let written = explained(&cluster, first, put).await;
        assert_eq!(replaced(&written), [1]);
    });
}

#[test]
fn a_write_that_is_passed_on_says_by_whom_and_one_that_others_stand_in_for_says_so() {
    with(2, five, |cluster, mut client, handle| async move {
        handle.sleep(Duration::from_secs(8)).await;
        let (owners, other) = owners_and_another(&cluster);
        let written = put(&cluster, &mut client, other, Level::Quorum).await;
        assert_eq!(written.explanation.forwarded_by, Some(other));
        assert_eq!(written.explanation.coordinator, owners[0]);

        cluster.kill(owners[2]);
        handle.sleep(Duration::from_secs(8)).await;
        let written = put(&cluster, &mut client, owners[0], Level::Eventual).await;
        let stood_in = written.explanation.steps.iter();
        let stood_in: Vec<_> = stood_in.filter_map(|step| step.stands_in_for).collect();
        assert!(stood_in.contains(&owners[2]), "{stood_in:?}");
    });
}

#[test]
fn what_fails_says_who_was_asked_and_who_did_not_answer() {
    with(4, five, |cluster, mut client, handle| async move {
        handle.sleep(Duration::from_secs(8)).await;
        let (owners, other) = owners_and_another(&cluster);
        let first = put(&cluster, &mut client, owners[0], Level::All).await;
        let context = first.answer.expect("all are up").context;
        // Two owners fall silent, and nobody knows that yet.
        let silent = &owners[1..];
        cluster.network.block(&[
            (owners[0], silent[0]),
            (silent[0], owners[0]),
            (owners[0], silent[1]),
            (silent[1], owners[0]),
        ]);
        for via in [owners[0], other] {
            let request = client.put_request(KEY, Some(context.clone()), WriteKind::Put);
            let written = explained(&cluster, via, request).await;
            let error = written.answer.expect_err("one of three has it");
            assert_eq!((error.got, error.needed), (1, 2), "{error:?}");
            assert_eq!(error.outcome, Outcome::Unknown);
            let told = &written.explanation;
            assert_eq!(told.coordinator, owners[0]);
            assert_eq!(told.forwarded_by, Some(via).filter(|via| *via == other));
            let acked = at(&told.steps, |what| *what == StepKind::Acknowledged);
            assert_eq!(acked, [owners[0]]);
            let missed = at(&told.steps, |what| {
                matches!(what, StepKind::Silent | StepKind::Failed { .. })
            });
            assert!(silent.iter().all(|node| missed.contains(node)), "{told:?}");

            let read = get(&cluster, &mut client, owners[0], KEY, Level::Quorum).await;
            let error = read.answer.expect_err("one of three answers");
            assert_eq!((error.got, error.needed), (1, 2), "{error:?}");
            let steps = &read.explanation.steps;
            let held = at(steps, |what| matches!(what, StepKind::Object { .. }));
            assert_eq!(held, [owners[0]]);
        }
    });
}

#[test]
fn reads_go_from_the_row_cache_to_the_memtable_to_cached_blocks_to_the_disk() {
    let alone = |handle| {
        let mut options = options();
        options.cache_bytes = 1 << 20;
        SimCluster::new(handle, 1, 1, options)
    };
    with(3, alone, |cluster, mut client, _| async move {
        let via = NodeId(1);
        let name = |n: u32| format!("k{n}");
        for n in 0..2_000 {
            let put = client.put(&cluster, via, &name(n), "v").await;
            put.expect("it is up");
        }
        let mut seen = Vec::new();
        // Of many keys, some lie beside others that were read before.
        for n in [1_999, 0, 0, 0].into_iter().chain(1..400) {
            let read = get(&cluster, &mut client, via, &name(n), Level::Weak).await;
            let steps = &read.explanation.steps;
            seen.extend(steps.iter().filter_map(|step| match step.what {
                StepKind::Object { source, .. } => source,
                _ => None,
            }));
        }
        assert_eq!(seen[0], ReadSource::Memtable, "written last");
        for source in [
            ReadSource::RowCache,
            ReadSource::BlockCache,
            ReadSource::Disk,
        ] {
            assert!(seen.contains(&source), "{source:?}");
        }
        // A key that nobody wrote is found nowhere.
        let read = get(&cluster, &mut client, via, "absent", Level::Weak).await;
        assert_eq!(
            at(&read.explanation.steps, |what| *what == StepKind::Nothing),
            [via]
        );
    });
}
