use std::sync::Arc;

use kv_client::cluster::{MemberState, MemberView, NodeStatus};
use kv_client::ring::topology::{ClusterMode, GenesisSpec, Member};
use kv_client::ring::{HashSecret, PartitionCount, Topology};
use kv_client::{ClusterId, Epoch, NodeId};

use super::gather::{Seen, State, combine};
use super::health::Health;
use super::render;
use crate::cli::output::Output;

fn topology(nodes: u128) -> Arc<Topology> {
    let members = (1..=nodes).map(|number| Member {
        node: NodeId(number),
        name: format!("n{number}"),
        zone: "a".to_owned(),
        weight: 1,
        address: format!("127.0.0.1:{}", 7400 + number),
        fingerprint: [number as u8; 32],
        state: kv_ring::MemberState::Active,
    });
    let spec = GenesisSpec {
        cluster_id: ClusterId(0x7c1e_9a00 << 96),
        cluster_name: "dev".to_owned(),
        secret: HashSecret([1; 16]),
        partitions: PartitionCount::MIN,
        replication_factor: 3,
        mode: ClusterMode::Ap,
        members: members.collect(),
        default_bucket: None,
        buckets: Vec::new(),
    };
    Arc::new(Topology::genesis(spec).unwrap())
}

fn status(node: u128, others: &[(u128, MemberState)]) -> NodeStatus {
    let member = |&(node, state): &(u128, MemberState)| MemberView {
        node: NodeId(node),
        state,
        since_ms: 133_000,
        heartbeat: 9812,
    };
    NodeStatus {
        node: NodeId(node),
        version: "0.1.0".to_owned(),
        epoch: Epoch(1),
        view_hash: others.iter().map(|(_, state)| *state as u64).sum(),
        uptime_ms: 11_040_000,
        members: others.iter().map(member).collect(),
        objects: 1000,
        disk_bytes: 1 << 20,
        disk_free_bytes: 1 << 30,
        gets: 600,
        puts: 400,
        errors: 1,
        get_us: (400, 2100),
        put_us: (900, 4800),
    }
}

/// A cluster of `nodes`, of which those given do not answer and are seen so by the others.
fn seen(nodes: u128, down: &[(u128, MemberState)]) -> Seen {
    let views: Vec<(u128, MemberState)> = (1..=nodes)
        .map(|node| {
            let fallen = down.iter().find(|(other, _)| *other == node);
            (node, fallen.map_or(MemberState::Up, |(_, state)| *state))
        })
        .collect();
    let replies = (1..=nodes).map(|node| match down.iter().any(|(other, _)| *other == node) {
        true => Err("no answer within 500 ms".to_owned()),
        false => Ok(status(node, &views)),
    });
    combine(&topology(nodes), replies.collect())
}

fn plain() -> Output {
    Output::of_process(false)
}

#[test]
fn a_whole_cluster_is_well() {
    let seen = seen(3, &[]);
    let health = Health::of(&seen);
    assert!(!health.is_degraded());
    assert_eq!(
        (health.can_lose_for_quorum, health.can_lose_for_data),
        (1, 1)
    );
    assert_eq!(render::verdict(&health), "OK");
    let lines = render::lines(&plain(), &seen, &health);
    assert!(lines[0].starts_with("cluster    dev 7c1e9a · kv 0.1.0 on 3/3 · topology epoch 1"));
    assert!(
        lines[0].contains("views agree 3/3 reachable"),
        "{}",
        lines[0]
    );
    assert!(
        lines[1].contains("OK") && lines[1].contains("3 of 3 replicas"),
        "{}",
        lines[1]
    );
    assert!(
        lines[4].contains("1,800 gets p50 0.4 ms p99 2.1 ms"),
        "{}",
        lines[4]
    );
    assert!(lines[4].contains("errors 0.10 %"), "{}", lines[4]);
    assert!(render::hints(&seen).is_empty());
}

#[test]
fn one_of_three_down_leaves_quorums_and_no_reserve() {
    let seen = seen(3, &[(2, MemberState::Down)]);
    let health = Health::of(&seen);
    assert!(health.is_degraded());
    assert_eq!((health.ranges_short, health.ranges_below), (256, 0));
    assert_eq!(
        (health.can_lose_for_quorum, health.can_lose_for_data),
        (0, 0)
    );
    assert_eq!(render::verdict(&health), "DEGRADED n2 down");
    let lines = render::lines(&plain(), &seen, &health);
    assert!(lines[1].contains("n2 down 2m 13s"), "{}", lines[1]);
    assert!(
        lines[1].contains("at worst 2 of 3 are live"),
        "{}",
        lines[1]
    );
    assert!(
        lines[1].contains("every range still meets R=2 W=2"),
        "{}",
        lines[1]
    );
    let table = render::nodes(&plain(), &seen);
    assert!(table.contains("DOWN 2m 13s"), "{table}");
    let hints = render::hints(&seen);
    assert!(
        hints[0].contains("n2 is down by the word of n1 n3 (last heartbeat 9,812)"),
        "{hints:?}"
    );
}

#[test]
fn of_a_member_that_is_given_up_it_is_not_said_that_it_should_be_started() {
    let mut seen = seen(3, &[(2, MemberState::Down)]);
    seen.nodes[1].member.state = kv_ring::MemberState::Lost;
    let hints = render::hints(&seen);
    assert!(
        hints[0].starts_with("n2 is given up for good; kv cluster progress"),
        "{hints:?}"
    );
    let table = render::nodes(&plain(), &seen);
    assert!(table.contains("DOWN 2m 13s, given up"), "{table}");
}

#[test]
fn what_may_be_lost_is_warned_of() {
    let whole = seen(3, &[]);
    assert!(render::hints(&whole).is_empty());
    let lost: Vec<NodeId> = whole.nodes[1..]
        .iter()
        .map(|node| node.member.node)
        .collect();
    let recovered = whole
        .topology
        .recovered(whole.nodes[0].member.node, &lost, &[])
        .expect("one of three is left");
    let marked = Seen {
        topology: Arc::new(recovered),
        ..whole
    };
    let hints = render::hints(&marked);
    assert!(
        hints[0].starts_with("acknowledged writes of 256 partitions may be lost"),
        "{hints:?}"
    );
}

#[test]
fn two_of_three_down_break_every_range() {
    let seen = seen(3, &[(1, MemberState::Down), (2, MemberState::Suspect)]);
    let health = Health::of(&seen);
    assert_eq!((health.ranges_below, health.can_lose_for_quorum), (256, 0));
    let lines = render::lines(&plain(), &seen, &health);
    assert!(
        lines[1].contains("100.0 % of key ranges cannot meet R=2 W=2"),
        "{}",
        lines[1]
    );
}

#[test]
fn in_a_larger_cluster_only_the_ranges_of_the_missing_are_short() {
    let health = Health::of(&seen(9, &[(4, MemberState::Down)]));
    assert!(
        health.ranges_short > 0 && health.ranges_short < 256 / 2,
        "{health:?}"
    );
    assert_eq!(health.ranges_below, 0);
    assert_eq!(
        health.can_lose_for_quorum, 0,
        "some range already misses one of three"
    );
}

#[test]
fn a_node_that_only_we_cannot_reach_is_silent_and_not_counted_on() {
    let seen = seen(3, &[(3, MemberState::Up)]);
    assert_eq!(seen.nodes[2].state, State::Silent);
    let health = Health::of(&seen);
    assert_eq!(render::verdict(&health), "DEGRADED n3 silent");
    assert!(render::hints(&seen)[0].contains("n3 did not answer from here"));
}

#[test]
fn nodes_that_see_another_cluster_are_counted() {
    let views = [
        (1, MemberState::Up),
        (2, MemberState::Up),
        (3, MemberState::Up),
    ];
    let other = [
        (1, MemberState::Up),
        (2, MemberState::Up),
        (3, MemberState::Suspect),
    ];
    let replies = vec![
        Ok(status(1, &views)),
        Ok(status(2, &other)),
        Ok(status(3, &views)),
    ];
    let seen = combine(&topology(3), replies);
    let health = Health::of(&seen);
    assert_eq!((seen.agreeing(), health.disagreeing), (2, 1));
    assert_eq!(render::verdict(&health), "DEGRADED views differ");
    let hints = render::hints(&seen);
    assert!(
        hints[0].contains("n1 n3 by epoch 1, n3 up | n2 by epoch 1, n3 suspect;"),
        "{hints:?}"
    );
    let json = serde_json::to_value(super::json::status(&seen, &health)).unwrap();
    assert_eq!(json["views"][1]["nodes"], serde_json::json!(["n2"]));
    assert_eq!(json["views"][1]["disputed"]["n3"], "suspect");
}

#[test]
fn json_has_a_schema_and_every_node() {
    let seen = seen(3, &[(2, MemberState::Down)]);
    let health = Health::of(&seen);
    let json = serde_json::to_value(super::json::status(&seen, &health)).unwrap();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["healthy"], false);
    assert_eq!(json["nodes"][1]["state"], "down");
    assert_eq!(json["nodes"][1]["error"], "no answer within 500 ms");
    assert_eq!(json["nodes"][0]["get_p99_us"], 2100);
}
