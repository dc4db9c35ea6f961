//! Staging, plans and progress, from topologies alone.

use std::sync::Arc;

use kv_client::cluster::{MemberState as Health, MemberView, NodeStatus};
use kv_client::ring::topology::{ClusterMode, GenesisSpec};
use kv_client::ring::{
    Change, HashSecret, Member, MemberChanges, MemberState, PartitionCount, Topology,
};
use kv_client::{BucketName, BucketProperties, ClusterId, Epoch, NodeId, Quorum};

use super::args::Wish;
use super::plan::Plan;
use super::progress::Progress;
use super::{plan_json, plan_text, progress_json, progress_text, wish};
use crate::cli::output::Output;
use crate::cli::status::gather::{Seen, combine};

/// Nodes `n1` to `n4`, each in a zone of its own, with three replicas.
fn topology() -> Topology {
    with_buckets(Vec::new())
}

fn with_buckets(buckets: Vec<(BucketName, BucketProperties)>) -> Topology {
    let members = (1..=4).map(|number: u128| Member {
        node: NodeId(number << 96),
        name: format!("n{number}"),
        zone: format!("z{number}"),
        weight: 1,
        address: format!("127.0.0.1:{}", 7400 + number),
        fingerprint: [0; 32],
        state: MemberState::Active,
    });
    let spec = GenesisSpec {
        cluster_id: ClusterId(7),
        cluster_name: "dev".to_owned(),
        secret: HashSecret([1; 16]),
        partitions: PartitionCount::MIN,
        replication_factor: 3,
        mode: ClusterMode::Ap,
        members: members.collect(),
        default_bucket: None,
        buckets,
    };
    Topology::genesis(spec).unwrap()
}

/// All members as they answer; those given are down, and the others say so.
fn seen(topology: &Topology, down: &[&str]) -> Seen {
    let is_down = |member: &Member| down.contains(&member.name.as_str());
    let views: Vec<MemberView> = topology
        .members()
        .iter()
        .map(|member| MemberView {
            node: member.node,
            state: if is_down(member) {
                Health::Down
            } else {
                Health::Up
            },
            since_ms: 0,
            heartbeat: 1,
        })
        .collect();
    let reply = |member: &Member| {
        if is_down(member) {
            return Err("no answer within 500 ms".to_owned());
        }
        Ok(NodeStatus {
            node: member.node,
            version: "0.1.0".to_owned(),
            epoch: topology.epoch(),
            view_hash: 0,
            uptime_ms: 1,
            members: views.clone(),
            objects: 0,
            disk_bytes: 192 << 20,
            disk_free_bytes: 0,
            gets: 0,
            puts: 0,
            errors: 0,
            get_us: (0, 0),
            put_us: (0, 0),
        })
    };
    let replies = topology.members().iter().map(reply).collect();
    combine(&Arc::new(topology.clone()), replies)
}

fn node(number: u128) -> NodeId {
    NodeId(number << 96)
}

fn n5(rest: &str) -> super::new_member::NewMember {
    let (node, print) = (node(5), "0a".repeat(32));
    let text = format!("node={node},name=n5,address=127.0.0.1:7405,fingerprint={print}{rest}");
    text.parse().unwrap()
}

fn staged(topology: &Topology, wishes: &[Wish]) -> MemberChanges {
    let nothing = MemberChanges::default();
    wishes.iter().fold(nothing, |staged, wish| {
        wish::add(topology, &staged, wish).unwrap()
    })
}

fn refused(topology: &Topology, wishes: &[Wish]) -> String {
    let (last, before) = wishes.split_last().unwrap();
    let failure = wish::add(topology, &staged(topology, before), last).unwrap_err();
    failure.message().to_owned()
}

fn leave(name: &str) -> Wish {
    Wish::Leave {
        node: name.to_owned(),
    }
}

fn remove(name: &str) -> Wish {
    Wish::Remove {
        node: name.to_owned(),
    }
}

fn weight(name: &str, weight: u32) -> Wish {
    Wish::Weight {
        node: name.to_owned(),
        weight,
    }
}

fn committed(topology: &Topology, wishes: &[Wish]) -> Topology {
    let plan = topology.plan_members(&staged(topology, wishes)).unwrap();
    plan.committed
}

fn plain() -> Output {
    Output::of_process(false)
}

#[test]
fn wishes_add_up_and_a_later_weight_takes_the_place_of_an_earlier_one() {
    let topology = topology();
    let staged = staged(
        &topology,
        &[
            weight("n1", 2),
            leave("n2"),
            Wish::Replace {
                old: "n3".to_owned(),
                member: n5(""),
            },
            weight("n1", 3),
            weight("n5", 4),
            Wish::Zone {
                node: "n4".to_owned(),
                zone: "z1".to_owned(),
            },
        ],
    );
    assert_eq!(
        wish::lines(&topology, &staged),
        [
            "join n5 (127.0.0.1:7405, zone z3, weight 4)",
            "leave n2",
            "remove n3 (it will never be back)",
            "weight of n1: 1 → 3",
            "zone of n4: z4 → z1",
        ]
    );
}

#[test]
fn what_is_not_possible_is_refused_at_once() {
    let topology = topology();
    let join = |rest: &str| Wish::Join { member: n5(rest) };
    for (wishes, expected) in [
        (
            vec![leave("n9")],
            "there is no node `n9`; the nodes are n1, n2, n3, n4",
        ),
        (
            vec![leave("n1"), remove("n1")],
            "n1 is staged to leave already; nothing was staged",
        ),
        (
            vec![remove("n1"), leave("n1")],
            "n1 is staged to be removed already",
        ),
        (vec![join("")], "`zone=` is missing; nothing was staged"),
        (
            vec![join(",zone=z5"), join(",zone=z5")],
            "is given twice; nothing was staged",
        ),
    ] {
        let message = refused(&topology, &wishes);
        assert!(message.contains(expected), "{message}");
    }
    let after = committed(&topology, &[remove("n1")]);
    assert!(refused(&after, &[leave("n1")]).contains("is lost, and cannot leave"));
}

#[test]
fn what_lacks_only_members_may_be_staged_and_has_no_plan_yet() {
    let topology = topology();
    let staged = staged(&topology, &[leave("n1"), leave("n2")]);
    let failure = Plan::of(&seen(&topology, &[]), &staged, 32).unwrap_err();
    assert_eq!(failure.exit(), 2);
    assert!(
        failure
            .message()
            .contains("3 replicas need as many members, and there are 2"),
        "{}",
        failure.message()
    );
}

#[test]
fn a_plan_is_shown_with_its_shares_bytes_and_tolerance() {
    let topology = topology();
    let wishes = [
        leave("n4"),
        Wish::Join {
            member: n5(",zone=z5"),
        },
    ];
    let plan = Plan::of(&seen(&topology, &[]), &staged(&topology, &wishes), 32).unwrap();
    let id = plan.commit_id();
    let text = plan_text::plan(&plain(), &plan);
    let expected = format!(
        "\
staged     join n5 (127.0.0.1:7405, zone z5, weight 1)
           leave n4
epoch      1 → 2
moves      192 of 768 replicas of partitions (25.0 %) · about 192.0 MiB · at least 12 s at 32.0 MiB/s into each node · reads and writes go on

  NODE  NOW     AFTER   IN   BYTES IN         OUT  BYTES OUT
  n1    25.0 %  25.0 %    –                –    –                –
  n2    25.0 %  25.0 %    –                –    –                –
  n3    25.0 %  25.0 %    –                –    –                –
  n4    25.0 %       –    –                –  192  about 192.0 MiB
  n5         –  25.0 %  192  about 192.0 MiB    –                –

balance    max/mean 1.00 now, 1.00 after (load for its weight)
tolerance  may lose now 1 node, 1 zone · on the way 1 node, 1 zone · after 1 node, 1 zone, and meet the quorums of all buckets
run        kv cluster commit {id}    (or kv cluster clear)"
    );
    assert_eq!(text, expected);
    let json = serde_json::to_value(plan_json::plan(&plan)).unwrap();
    assert_eq!((&json["schema"], &json["plan"]), (&1.into(), &id.into()));
    assert_eq!(json["nodes"][4]["bytes_in"]["bytes"], 192 << 20);
    assert_eq!(json["tolerance"]["after"]["zones"], 1);
}

#[test]
fn a_plan_for_a_node_that_is_down_says_what_it_costs_and_what_it_waits_for() {
    let topology = topology();
    let seen = seen(&topology, &["n4"]);
    let plan = Plan::of(&seen, &staged(&topology, &[remove("n4")]), 32).unwrap();
    assert_eq!(plan.may_lose, 0);
    // Two of three owners are left of most partitions, and both are needed.
    assert_eq!(plan.tolerance.on_the_way.map(|t| t.nodes), Some(0));
    assert_eq!(plan.tolerance.after.map(|t| t.nodes), Some(1));
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    assert!(plan.warnings[0].starts_with("n4 is given up: what only it has is lost"));
    let plan = Plan::of(&seen, &staged(&topology, &[leave("n4")]), 32).unwrap();
    assert_eq!(
        plan.warnings,
        ["n4 is down, and leaves only when it has given everything away: start it"]
    );
}

#[test]
fn a_weight_above_all_that_a_node_can_own_is_warned_of() {
    let topology = topology();
    let warnings = |weight| {
        let wish = Wish::Weight {
            node: "n4".to_owned(),
            weight,
        };
        let plan = Plan::of(&seen(&topology, &[]), &staged(&topology, &[wish]), 32);
        plan.unwrap().warnings
    };
    for weight in [2, 4_000_000_000] {
        let told = warnings(weight);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("n4 is to own a replica of every partition"));
    }
    // A quarter more than the others is less than it can own.
    let all = ["n1", "n2", "n3", "n4"].into_iter().zip([4, 4, 4, 5]);
    let wishes: Vec<Wish> = all
        .map(|(node, weight)| Wish::Weight {
            node: node.to_owned(),
            weight,
        })
        .collect();
    let plan = Plan::of(&seen(&topology, &[]), &staged(&topology, &wishes), 32).unwrap();
    assert_eq!(plan.warnings, [""; 0]);
}

#[test]
fn who_gives_up_as_many_owners_as_acknowledge_a_write_is_asked_to_accept_a_loss() {
    let fragile = BucketProperties {
        quorum: Quorum::new(3, 3, 1).unwrap(),
        ..BucketProperties::majority_of(3).unwrap()
    };
    let buckets = vec![(BucketName::new("fragile").unwrap(), fragile)];
    let topology = with_buckets(buckets);
    let plan = |wishes: &[Wish]| {
        Plan::of(&seen(&topology, &["n4"]), &staged(&topology, wishes), 32).unwrap()
    };
    assert_eq!(plan(&[leave("n4")]).may_lose, 0);
    let lossy = plan(&[remove("n4")]);
    assert_eq!(lossy.may_lose, 192, "all that it owns");
    let text = plan_text::plan(&plain(), &lossy);
    assert!(
        text.contains("the commit needs --accept-data-loss"),
        "{text}"
    );
    assert!(
        text.contains(&format!("commit {}    (", lossy.commit_id())),
        "{text}"
    );
    // r = 3 is met nowhere where n4 is an owner; the default bucket has its majority.
    assert_eq!(lossy.tolerance.now, None);
    assert_eq!(lossy.default_tolerance.now.map(|t| t.nodes), Some(0));
    assert!(
        text.contains("may lose now none, some partitions miss it"),
        "{text}"
    );
}

#[test]
fn sizes_are_unknown_where_no_owner_answers() {
    let topology = topology();
    let seen = seen(&topology, &["n1", "n2", "n3", "n4"]);
    let wishes = [weight("n1", 2)];
    let plan = Plan::of(&seen, &staged(&topology, &wishes), 32).unwrap();
    let text = plan_text::plan(&plain(), &plan);
    assert!(
        text.contains("· unknown · no estimate of the time ·"),
        "{text}"
    );
    assert!(
        text.contains("only 0 of 3 voters are up: nothing can be decided"),
        "{text}"
    );
}

#[test]
fn a_commit_names_the_plan_that_was_seen() {
    let topology = topology();
    let seen = seen(&topology, &[]);
    let plan = Plan::of(&seen, &staged(&topology, &[leave("n4")]), 32).unwrap();
    plan.is_meant(&plan.commit_id()).unwrap();
    let other = Plan::of(&seen, &staged(&topology, &[leave("n3")]), 32).unwrap();
    for (id, exit, expected) in [
        (
            "13",
            2,
            "`13` is no id of a plan; nothing was done".to_owned(),
        ),
        ("2-+123456789abcde", 2, "is no id of a plan".to_owned()),
        (
            "9-0123456789abcdef",
            5,
            "it would have made epoch 9, and the cluster is at epoch 1; nothing was done"
                .to_owned(),
        ),
        (
            &other.commit_id(),
            5,
            format!(
                "plan {} is out of date: something else is staged by now",
                other.commit_id()
            ),
        ),
    ] {
        let failure = plan.is_meant(id).unwrap_err();
        assert_eq!(failure.exit(), exit, "{id}");
        assert!(
            failure.message().contains(&expected),
            "{}",
            failure.message()
        );
    }
}

#[test]
fn progress_says_when_nothing_moves() {
    let progress = Progress::of(&seen(&topology(), &[]));
    assert!(progress.is_settled() && !progress.can_abort());
    let text = progress_text::progress(&plain(), &progress);
    assert_eq!(text, "epoch      1\nmoves      nothing moves");
}

#[test]
fn progress_counts_what_waits_is_pulled_and_drains() {
    let planned = committed(
        &topology(),
        &[
            leave("n4"),
            Wish::Join {
                member: n5(",zone=z5"),
            },
        ],
    );
    let waiting: Vec<_> = planned.unsettled().collect();
    let partitions = waiting[..12].to_vec();
    let begun = planned
        .changed_by(Change::BeginMoves { partitions })
        .unwrap();
    let since = begun.epoch();
    let partitions = waiting[..4]
        .iter()
        .map(|partition| (*partition, since))
        .collect();
    let by = node(5);
    let under_way = begun
        .changed_by(Change::FinishMoves { by, partitions })
        .unwrap();
    assert_eq!(under_way.epoch(), Epoch(4));
    let progress = Progress::of(&seen(&under_way, &["n5"]));
    assert!(!progress.is_settled() && progress.can_abort());
    let text = progress_text::progress(&plain(), &progress);
    assert_eq!(
        text,
        "\
epoch      4
moves      180 replicas wait to begin · 8 are pulled · 4 drain · about 188.0 MiB left

  NODE  STATE  MEMBER  OWNS  TO GAIN  TO GIVE  DRAINS  PULLS IN PLACE OF
  n4    up     leaves   188        –      180       4  –
  n5    DOWN   stays      4      180        –       –  n4 8

waits for   n5 is down and gains 188 replicas: start it, or call all moves off with `kv cluster abort`
waits for   n5 is down, and others have 4 partitions to drain to it: start it; if it will never be back, `kv cluster remove n5`"
    );
    let json = serde_json::to_value(progress_json::progress(&progress)).unwrap();
    assert_eq!(
        (&json["schema"], &json["settled"]),
        (&1.into(), &false.into())
    );
    assert_eq!(json["nodes"][1]["pulls_in_place_of"]["n4"], 8);
    assert_eq!(json["left"]["bytes"], 188 << 20);
}

#[test]
fn progress_names_sources_and_drains_that_are_away() {
    let planned = committed(
        &topology(),
        &[
            leave("n4"),
            Wish::Join {
                member: n5(",zone=z5"),
            },
        ],
    );
    let partitions: Vec<_> = planned.unsettled().collect();
    let begun = planned
        .changed_by(Change::BeginMoves {
            partitions: partitions.clone(),
        })
        .unwrap();
    let waits = Progress::of(&seen(&begun, &["n4"])).waits_for;
    assert!(waits[0].starts_with("n4 is down and gives 192 replicas: start it, or"));
    let waits = Progress::of(&seen(&begun, &["n1", "n2"])).waits_for;
    assert!(
        waits[0].ends_with(
            "cannot be pulled from enough owners while these are away: n1, n2; start them"
        ),
        "{waits:?}"
    );
    let since = begun.epoch();
    let partitions = partitions
        .into_iter()
        .map(|partition| (partition, since))
        .collect();
    let by = node(5);
    let ended = begun
        .changed_by(Change::FinishMoves { by, partitions })
        .unwrap();
    let progress = Progress::of(&seen(&ended, &["n4"]));
    assert_eq!(
        progress.waits_for,
        [
            "n4 is down and drains 192 partitions: start it; if it will never be back, `kv cluster remove n4`"
        ]
    );
}

#[test]
fn a_lost_node_that_owns_nothing_is_to_be_forgotten() {
    let planned = committed(&topology(), &[remove("n4")]);
    let partitions: Vec<_> = planned.unsettled().collect();
    let mut next = planned
        .changed_by(Change::BeginMoves {
            partitions: partitions.clone(),
        })
        .unwrap();
    let since = next.epoch();
    assert!(Progress::of(&seen(&next, &["n4"])).to_forget.is_empty());
    for by in [1, 2, 3].map(node) {
        let its = |partition: &_| next.moving(*partition).is_some_and(|slot| slot.to == by);
        let its = partitions.iter().copied().filter(its);
        let partitions = its.map(|partition| (partition, since)).collect();
        next = next
            .changed_by(Change::FinishMoves { by, partitions })
            .unwrap();
    }
    let progress = Progress::of(&seen(&next, &["n4"]));
    assert!(progress.is_settled());
    let text = progress_text::progress(&plain(), &progress);
    assert!(text.contains("moves      nothing moves"), "{text}");
    assert!(text.contains("run        kv cluster forget n4"), "{text}");
    let forgotten = next
        .changed_by(Change::RemoveMember { node: node(4) })
        .unwrap();
    assert!(Progress::of(&seen(&forgotten, &[])).nodes.is_empty());
}
