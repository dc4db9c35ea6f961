//! A node whose clock is wrong leaves writing to the others.

use std::time::Duration;

use kv_net::ErrorCode;
use kv_net::message::WriteKind;
use kv_types::{NodeId, Outcome};

use crate::client::with_cluster;

const HOUR_MS: i64 = 3_600_000;
/// Within this a node has compared its clock with those of the others.
const COMPARED: Duration = Duration::from_secs(6);

#[test]
fn a_node_whose_clock_is_ahead_passes_writes_on_until_it_is_set() {
    with_cluster(1, |cluster, mut client, handle| async move {
        let ahead = NodeId(2);
        let knows = |node: NodeId| {
            let metrics = cluster.node(node).expect("it runs").metrics();
            let mut lines = metrics.lines();
            let behind = lines.find_map(|line| line.strip_prefix("kv_clock_behind_ms "));
            let behind: i64 = behind.expect("it is there").parse().expect("a number");
            (behind + HOUR_MS).abs() < 50
        };
        handle.sleep(COMPARED).await;
        cluster.conditions(ahead).set_skew(HOUR_MS);
        handle.sleep(COMPARED).await;
        assert!(knows(ahead), "it has compared");

        let request = client.put_request("k", None, WriteKind::Put);
        let mut forwarded = request.clone();
        forwarded.forwarded = true;
        let refused = client.send_put(&cluster, ahead, forwarded, "v").await;
        let (code, outcome) = refused.expect_err("it must not pass it on twice");
        assert_eq!((code, outcome), (ErrorCode::ClockSkew, Outcome::NotApplied));
        let put = client.send_put(&cluster, ahead, request, "v").await;
        put.expect("another owner coordinates it");

        cluster.conditions(ahead).set_skew(0);
        handle.sleep(COMPARED).await;
        let mut forwarded = client.put_request("k", None, WriteKind::Put);
        forwarded.forwarded = true;
        let put = client.send_put(&cluster, ahead, forwarded, "w").await;
        put.expect("its clock is right again");
    });
}
