//! What an operator does every day, with the command line.

use std::process::Output;
use std::time::{Duration, Instant};

use kv_tests::processes::ProcessCluster;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

fn text(output: &Output) -> String {
    let told = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&told).into_owned()
}

/// What a command printed that must succeed, a line each.
fn objects(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", text(output));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let object = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    lines.lines().map(object).collect()
}

#[test]
fn buckets_keys_and_reasons_are_shown_and_changed_at_the_shell() {
    let cluster = ProcessCluster::start(3);
    let kv = |args: &[&str]| cluster.kv(&[0, 1, 2], args);
    let json = |args: &[&str]| objects(&kv(args)).remove(0);

    json(&[
        "bucket", "create", "beds", "-r", "1", "-w", "3", "--ttl", "1h", "--json",
    ]);
    let refused = kv(&["bucket", "set", "beds", "-r", "2", "-w", "2"]);
    assert!(
        !refused.status.success() && text(&refused).contains("could miss what was written before"),
        "{}",
        text(&refused)
    );
    let changed = kv(&["bucket", "set", "beds", "-r", "2"]);
    assert!(changed.status.success(), "{}", text(&changed));
    let listed = objects(&kv(&["bucket", "ls", "--json"]));
    let beds = listed
        .iter()
        .find(|bucket| bucket["bucket"] == "beds")
        .expect("it is there");
    assert_eq!((&beds["r"], &beds["w"]), (&2.into(), &3.into()), "{beds}");

    let explained = kv(&["put", "--bucket", "beds", "k", "v", "--explain"]);
    assert!(
        explained.status.success() && text(&explained).contains("n2"),
        "{}",
        text(&explained)
    );
    let read = kv(&["get", "--bucket", "beds", "k"]);
    assert_eq!(text(&read).trim_end(), "v");
    let explained = objects(&kv(&[
        "get",
        "--bucket",
        "beds",
        "k",
        "--explain",
        "--json",
    ]));
    let needed = explained.iter().map(|line| &line["explain"]["needed"]);
    assert!(
        needed.into_iter().any(|needed| *needed == 2),
        "{explained:?}"
    );
    let gone = kv(&["delete", "--bucket", "beds", "k"]);
    assert!(gone.status.success(), "{}", text(&gone));
    assert_eq!(
        kv(&["get", "--bucket", "beds", "k"]).status.code(),
        Some(3),
        "absent"
    );

    let dropped = kv(&["bucket", "drop", "beds", "--yes"]);
    assert!(dropped.status.success(), "{}", text(&dropped));
    let unknown = kv(&["put", "--bucket", "beds", "k", "v"]);
    assert!(
        !unknown.status.success() && text(&unknown).contains("beds"),
        "{}",
        text(&unknown)
    );
}

#[test]
fn hints_are_shown_while_a_node_is_away_and_a_repair_says_what_it_compared() {
    let mut cluster = ProcessCluster::start(4);
    cluster.kill(3);
    let kv = |args: &[&str]| cluster.kv(&[0, 1, 2], args);
    for number in 0..20 {
        let key = format!("k{number}");
        let put = kv(&["put", &key, "v"]);
        assert!(put.status.success(), "{}", text(&put));
    }
    let hints = kv(&["hints", "--json"]);
    let told = String::from_utf8_lossy(&hints.stdout).into_owned();
    assert_eq!(told.lines().count(), 4, "one line for each node: {told}");
    assert!(
        !hints.status.success() && text(&hints).contains("n4"),
        "n4 does not answer"
    );
    cluster.start_node(3);
    let cluster = cluster;
    let kv = |args: &[&str]| cluster.kv(&[0, 1, 2], args);
    let begun = Instant::now();
    let repaired = loop {
        // As long as the others have not met it again, a repair says that it could not compare all, and fails.
        let repaired = kv(&["repair", "--json"]);
        if repaired.status.success() {
            break objects(&repaired);
        }
        assert!(begun.elapsed() < LIMIT, "{}", text(&repaired));
    };
    assert!(repaired.len() >= 4, "each node: {repaired:?}");
    let unknown = kv(&["fate", "k1", "0"]);
    assert_eq!(
        unknown.status.code(),
        Some(2),
        "no name of a write: {}",
        text(&unknown)
    );
}
