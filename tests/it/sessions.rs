//! Within a session no read shows anything older than the session has seen.

use std::time::Duration;

use kv_net::ErrorCode;
use kv_net::message::{ReadOptions, WriteKind};
use kv_node::tombstones::DeleteOptions;
use kv_tests::sim::SimCluster;
use kv_types::{Context, Level, NodeId, Outcome};

use crate::client::{Client, options, with, with_cluster};

const KEY: &str = "k";

async fn weak_read(
    cluster: &SimCluster,
    client: &mut Client,
    via: NodeId,
    seen: Option<Context>,
) -> Result<Vec<String>, (ErrorCode, Outcome)> {
    let weak = ReadOptions {
        level: Level::Weak,
        ..ReadOptions::default()
    };
    let read = client.get_in_session(cluster, via, KEY, weak, seen).await;
    read.map(|(values, _)| values)
}

async fn weak_write(
    cluster: &SimCluster,
    client: &mut Client,
    via: NodeId,
    kind: WriteKind,
    value: &str,
) -> Context {
    let mut request = client.put_request(KEY, None, kind);
    request.options.level = Level::Weak;
    let written = client.send_put(cluster, via, request, value).await;
    written.expect("one is enough").context
}

#[test]
fn a_replica_that_is_behind_asks_others_and_refuses_if_it_cannot() {
    with_cluster(1, |cluster, mut client, handle| async move {
        let [writer, second, third] = [1, 2, 3].map(NodeId);
        handle.sleep(Duration::from_secs(3)).await;
        let links = [
            (writer, second),
            (second, writer),
            (writer, third),
            (third, writer),
        ];
        cluster.network.block(&links);
        let seen = weak_write(&cluster, &mut client, writer, WriteKind::Put, "new").await;
        let others = weak_read(&cluster, &mut client, second, None).await;
        assert_eq!(others, Ok(vec![]), "without a session it may be old");
        let refused = weak_read(&cluster, &mut client, second, Some(seen.clone())).await;
        let (code, _) = refused.expect_err("it would be old");
        assert!(matches!(
            code,
            ErrorCode::NotEnoughReplicas | ErrorCode::Timeout
        ));
        cluster.network.unblock(&links);
        handle.sleep(Duration::from_millis(200)).await;
        let shown = weak_read(&cluster, &mut client, second, Some(seen)).await;
        assert_eq!(shown, Ok(vec!["new".to_owned()]));
    });
}

#[test]
fn what_was_deleted_and_is_forgotten_counts_as_shown() {
    let keep = Duration::from_secs(4);
    let make =
        move |handle| SimCluster::new(handle, 3, 3, options()).with_deletes(DeleteOptions { keep });
    with(2, make, move |cluster, mut client, handle| async move {
        let via = NodeId(2);
        weak_write(&cluster, &mut client, via, WriteKind::Put, "v").await;
        let seen = weak_write(&cluster, &mut client, via, WriteKind::Delete, "").await;
        handle.sleep(keep * 5).await;
        let metrics = cluster.node(via).expect("it runs").metrics();
        assert!(metrics.contains("kv_deletions_forgotten 1\n"), "{metrics}");
        for node in cluster.nodes() {
            let shown = weak_read(&cluster, &mut client, node, Some(seen.clone())).await;
            assert_eq!(shown, Ok(vec![]), "{node}");
        }
    });
}
