//! A read looks into memory first, then asks the bloom filters, then looks into table files.

use std::collections::BTreeSet;

use kv_net::Role;
use kv_net::message::{
    ChangeKind, ChangeV1, GetV1, PutV1, ReadOptions, Request, Response, WriteKind,
};
use kv_node::replica::read_stages::ReadStages;
use kv_storage::Options;
use kv_tests::sim::{Handle, SimCluster};
use kv_types::{BucketId, BucketName, BucketProperties, Level, NodeId, RowCache};

use crate::client::{BUCKET, BUDGET, Client, key, metric, options, with};

const VIA: NodeId = NodeId(1);

fn alone(handle: Handle) -> SimCluster {
    let mut options = options();
    options.cache_bytes = Options::default().cache_bytes;
    SimCluster::new(handle, 1, 1, options)
}

async fn put(cluster: &SimCluster, client: &mut Client, bucket: BucketId, name: &str) {
    let request = PutV1 {
        bucket,
        ..client.put_request(name, None, WriteKind::Put)
    };
    let put = client.send_put(cluster, VIA, request, "v").await;
    put.expect("it runs");
}

/// Reads a key, and says at which stage that ended.
async fn stage_of_read(
    cluster: &SimCluster,
    client: &mut Client,
    bucket: BucketId,
    name: &str,
) -> &'static str {
    let count = |stage| {
        metric(
            cluster,
            VIA,
            &format!("kv_replica_reads{{stage=\"{stage}\"}} "),
        )
    };
    let before = ReadStages::NAMES.map(count);
    let request = Request::Get(GetV1 {
        head: client.head(),
        bucket,
        key: key(name),
        options: ReadOptions {
            level: Level::Weak,
            ..ReadOptions::default()
        },
        seen: None,
    });
    let read = cluster.network.call_as_client(VIA, request, BUDGET).await;
    assert!(matches!(read, Ok(Response::Get(..))), "{read:?}");
    let after = ReadStages::NAMES.map(count);
    let stages = ReadStages::NAMES.into_iter().zip(before.iter().zip(after));
    let ended: Vec<&str> = stages
        .filter(|(_, (before, after))| **before < *after)
        .map(|(stage, _)| stage)
        .collect();
    assert_eq!(ended.len(), 1, "{ended:?}");
    ended[0]
}

/// Writes so much that everything before is in tables.
async fn fill(cluster: &SimCluster, client: &mut Client, bucket: BucketId) {
    for number in 0..300 {
        put(cluster, client, bucket, &format!("other{number}")).await;
    }
}

#[test]
fn a_read_ends_at_the_nearest_stage_that_knows() {
    with(1, alone, |cluster, mut client, _| async move {
        let client = &mut client;
        put(&cluster, client, BUCKET, "k").await;
        assert_eq!(
            stage_of_read(&cluster, client, BUCKET, "k").await,
            "memtable"
        );
        fill(&cluster, client, BUCKET).await;
        let mut stages = Vec::new();
        for _ in 0..20 {
            stages.push(stage_of_read(&cluster, client, BUCKET, "k").await);
        }
        stages.dedup();
        // A write of a neighbour may have brought its block in.
        let from_table = ["disk", "block_cache"];
        assert!(from_table.contains(&stages[0]), "{stages:?}");
        assert_eq!(stages[1..], ["row_cache"]);
        let mut stages = BTreeSet::new();
        for number in 0..200 {
            let neighbour = format!("other{number}");
            stages.insert(stage_of_read(&cluster, client, BUCKET, &neighbour).await);
        }
        let expected = ["block_cache", "disk"];
        assert!(stages.is_superset(&BTreeSet::from(expected)), "{stages:?}");

        let skips = |cluster| metric(cluster, VIA, "kv_storage_filter_skips ");
        let before = skips(&cluster);
        for number in 0..20 {
            let absent = format!("absent{number}");
            let stage = stage_of_read(&cluster, client, BUCKET, &absent).await;
            assert_eq!(stage, "nowhere");
        }
        assert!(skips(&cluster) >= before + 20, "filters know of nearly all");
    });
}

#[test]
fn a_bucket_without_a_row_cache_keeps_only_blocks() {
    with(2, alone, |cluster, mut client, _| async move {
        let client = &mut client;
        let name = BucketName::new("log").expect("a good name");
        let creation = ChangeKind::CreateBucket {
            name: name.clone(),
            properties: BucketProperties {
                row_cache: RowCache::Off,
                ..BucketProperties::majority_of(1).expect("one")
            },
        };
        let request = Request::Change(ChangeV1 { change: creation });
        let role = Role::Admin("operator".to_owned());
        let changed = cluster.network.call(role, VIA, &request, BUDGET).await;
        assert!(matches!(changed, Ok(Response::Change(_))), "{changed:?}");
        let topology = cluster.node(VIA).expect("it runs").topology();
        let bucket = topology.bucket_by_name(&name).expect("created").id;
        put(&cluster, client, bucket, "k").await;
        fill(&cluster, client, bucket).await;
        let mut stages = Vec::new();
        for _ in 0..50 {
            stages.push(stage_of_read(&cluster, client, bucket, "k").await);
        }
        stages.dedup();
        assert_eq!(stages, ["disk", "block_cache"]);
    });
}
