//! Members of a running cluster are changed by an operator, with the command line.

use std::process::Output;

use kv_tests::processes::ProcessCluster;
use serde_json::Value;

/// The objects that a command printed, a line each.
fn objects(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let object = |line| serde_json::from_str(line).expect("an object a line");
    text.lines().map(object).collect()
}

fn object(output: &Output) -> Value {
    let mut objects = objects(output);
    assert_eq!(objects.len(), 1, "{output:?}");
    objects.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_weight_is_staged_planned_committed_and_watched_to_its_end() {
    let cluster = ProcessCluster::start(4);
    let client = cluster.client(&[0, 1, 2, 3]).await;
    for number in 0..100 {
        let put = client.put(format!("k{number}"), "v").await;
        put.expect("all nodes are up");
    }
    let kv = |args: &[&str]| cluster.kv(&[1], args);

    let nothing = kv(&["cluster", "plan"]);
    assert_eq!(
        nothing.status.code(),
        Some(2),
        "nothing is staged: {nothing:?}"
    );
    let staged = object(&kv(&["cluster", "weight", "n1", "3", "--json"]));
    assert_eq!(staged["staged"][0], "weight of n1: 1 → 3");
    let plan = object(&kv(&["cluster", "plan", "--json"]));
    // A node has at most one of three replicas of each of 256 partitions, and one of four has three quarters of that.
    assert_eq!(
        (plan["replicas_moved"].as_u64(), plan["epoch"].as_u64()),
        (Some(64), Some(1))
    );
    let stale = kv(&["cluster", "commit", "2-0000000000000000"]);
    assert_eq!(stale.status.code(), Some(5), "{stale:?}");
    let id = plan["plan"].as_str().expect("an id");
    let committed = object(&kv(&["cluster", "commit", id, "--json"]));
    assert_eq!(committed["epoch"], 2);

    let watched = objects(&kv(&["cluster", "progress", "--watch", "--json"]));
    let (first, last) = (&watched[0], watched.last().expect("at least one"));
    assert_eq!(
        (&first["settled"], &last["settled"]),
        (&false.into(), &true.into())
    );
    assert_eq!(last["left"]["bytes"], 0);
    let nothing = kv(&["cluster", "plan"]);
    assert_eq!(
        nothing.status.code(),
        Some(2),
        "it is not staged any more: {nothing:?}"
    );
    let loads = cluster.client(&[2]).await.topology().table().loads(3);
    assert_eq!(loads.iter().max(), Some(&256));
    for number in 0..100 {
        let read = client
            .get(format!("k{number}"))
            .await
            .expect("all nodes are up");
        let value = read.one().expect("one value");
        assert_eq!(value.as_deref(), Some(&b"v"[..]), "k{number}");
    }
}

#[test]
fn what_is_staged_can_be_cleared_and_a_zone_is_changed_like_a_weight() {
    let cluster = ProcessCluster::start(4);
    let kv = |args: &[&str]| cluster.kv(&[1], args);
    let staged = object(&kv(&["cluster", "zone", "n1", "south", "--json"]));
    assert!(
        staged["staged"][0]
            .as_str()
            .is_some_and(|wish| wish.contains("south")),
        "{staged}"
    );
    assert!(kv(&["cluster", "clear"]).status.success());
    assert_eq!(
        kv(&["cluster", "plan"]).status.code(),
        Some(2),
        "nothing is staged"
    );

    cluster.change(&[1], &["zone", "n1", "south"]);
    let watched = objects(&kv(&["cluster", "progress", "--watch", "--json"]));
    assert_eq!(watched.last().expect("at least one")["settled"], true);
    let status = object(&kv(&["status", "--json"]));
    let nodes = status["nodes"].as_array().expect("a list");
    let first = nodes
        .iter()
        .find(|node| node["name"] == "n1")
        .expect("a member");
    assert_eq!(first["zone"], "south");
    let nothing = kv(&["cluster", "abort"]);
    assert!(
        nothing.status.code().is_some_and(|code| code < 6),
        "{nothing:?}"
    );
}

#[test]
fn a_dead_node_is_replaced_and_forgotten() {
    let mut cluster = ProcessCluster::start(3);
    cluster.kill(1);
    cluster.replace(&[0, 2], "n2", "b");
    let kv = |args: &[&str]| cluster.kv(&[0, 2], args);
    let watched = objects(&kv(&["cluster", "progress", "--watch", "--json"]));
    assert_eq!(watched.last().expect("at least one")["settled"], true);
    let forgotten = kv(&["cluster", "forget", "n2"]);
    assert!(forgotten.status.success(), "{forgotten:?}");
    let status = object(&kv(&["status", "--json"]));
    let nodes = status["nodes"].as_array().expect("a list");
    let names: Vec<_> = nodes.iter().map(|node| node["name"].as_str()).collect();
    assert!(
        names.len() == 3 && !names.contains(&Some("n2")),
        "{names:?}"
    );
}
