//! A cluster that has lost a majority of its voters for good goes on with the rest.

use kv_client::Level;
use kv_tests::processes::{ProcessCluster, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_goes_on_alone_and_is_joined_by_two_new_ones() {
    let mut cluster = ProcessCluster::start(3);
    let client = cluster.client(&[0, 1, 2]).await;
    for number in 0..50 {
        let put = client.put(format!("k{number}"), "v").level(Level::All);
        put.await.expect("all are up");
    }
    cluster.kill(1);
    cluster.kill(2);
    let create = ["bucket", "create", "beds", "-n", "1", "-r", "1", "-w", "1"];
    let created = cluster.kv(&[0], &create);
    assert!(
        !created.status.success(),
        "there is no majority: {created:?}"
    );

    let data = cluster.data(0);
    let data = data.to_str().expect("a name of ours");
    let recover = |more: &[&str]| {
        let words = [
            "cluster", "recover", "--json", "--data", data, "--lost", "n2",
        ];
        run(&[&words[..], more].concat())
    };
    let one = recover(&[]);
    let told = String::from_utf8_lossy(&one.stderr).into_owned();
    assert!(
        !one.status.success() && told.contains("which is a majority"),
        "{told}"
    );
    let running = recover(&["--lost", "n3", "--accept-loss"]);
    let told = String::from_utf8_lossy(&running.stderr).into_owned();
    assert!(
        !running.status.success() && told.contains("stop it first"),
        "{told}"
    );
    cluster.stop(0);
    let shown = recover(&["--lost", "n3"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("an object");
    assert_eq!(
        (&shown["done"], &shown["voters"][0]),
        (&false.into(), &"n1".into())
    );
    let done = recover(&["--lost", "n3", "--accept-loss"]);
    assert!(done.status.success(), "{done:?}");
    cluster.start_node(0);

    let created = cluster.kv(&[0], &create);
    assert!(created.status.success(), "{created:?}");
    cluster.join_with_loss(&[0], &["b", "c"]);
    let watched = cluster.kv(&[0], &["cluster", "progress", "--watch", "--json"]);
    assert!(watched.status.success(), "{watched:?}");
    let warns = || {
        let status = cluster.kv(&[0], &["status"]);
        let told = [status.stdout, status.stderr].concat();
        String::from_utf8_lossy(&told).contains("may be lost with nodes that were given up")
    };
    assert!(warns(), "two of three had acknowledged all");
    let later = u64::MAX.to_string();
    let early = cluster.kv(&[0], &["cluster", "clear-loss", "1"]);
    assert!(
        !early.status.success() && warns(),
        "nothing is marked: {early:?}"
    );
    cluster.change_at_once(&[0], &["clear-loss", &later]);
    assert!(!warns());
    let again = cluster.kv(&[0], &["cluster", "clear-loss", &later]);
    assert!(!again.status.success(), "nothing is marked: {again:?}");
    let client = cluster.client(&[0, 3, 4]).await;
    for number in 0..50 {
        let read = client.get(format!("k{number}")).level(Level::All);
        let read = read.await.expect("all are up").one().expect("one value");
        assert_eq!(read.as_deref(), Some(&b"v"[..]), "k{number}");
    }
}
