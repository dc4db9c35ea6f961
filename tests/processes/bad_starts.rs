//! Nodes that must not start: each says what is wrong and what to do, and harms nothing.

use std::fs;

use kv_tests::processes::{ProcessCluster, run};

/// Runs `kv-node serve` on a data directory; it must end by itself.
fn refusal(args: &[&str]) -> String {
    let output = run(&[
        &["serve", "--gossip", "local", "--log-filter", "error"],
        args,
    ]
    .concat());
    assert!(!output.status.success(), "{args:?} started");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("error: "), "{text}");
    text
}

#[test]
fn nodes_that_must_not_start_say_why() {
    let cluster = ProcessCluster::set_up(3);
    let (first, second) = (cluster.data(0), cluster.data(1));
    let data = first.to_str().expect("text");

    let missing = refusal(&["--data", cluster.path("nowhere").to_str().expect("text")]);
    assert!(missing.contains("kv-node init"), "{missing}");

    let misspelt = cluster.path("misspelt.toml");
    fs::write(
        &misspelt,
        format!("data = \"{data}\"\nlissten = \"127.0.0.1:1\"\n"),
    )
    .expect("a file");
    let text = refusal(&["--config", misspelt.to_str().expect("text")]);
    assert!(
        text.contains("`lissten`") && text.contains("`listen`"),
        "{text}"
    );

    // The certificate of another node of the same cluster.
    let keep = cluster.path("keep");
    fs::create_dir(&keep).expect("a directory");
    for file in ["cert.pem", "key.pem"] {
        fs::copy(first.join("tls").join(file), keep.join(file)).expect("a copy");
        fs::copy(second.join("tls").join(file), first.join("tls").join(file)).expect("a copy");
    }
    let text = refusal(&["--data", data]);
    assert!(
        text.contains("is for node") && text.contains("kv-node cert node"),
        "{text}"
    );

    // The certificate of a client.
    for file in ["cert.pem", "key.pem"] {
        fs::copy(
            cluster.path("client").join(file),
            first.join("tls").join(file),
        )
        .expect("a copy");
    }
    let text = refusal(&["--data", data]);
    assert!(text.contains("not for a node"), "{text}");
    for file in ["cert.pem", "key.pem"] {
        fs::copy(keep.join(file), first.join("tls").join(file)).expect("a copy");
    }

    // A topology of another cluster.
    let other = ProcessCluster::set_up(3);
    let genesis = |data: &std::path::Path| data.join("topology").join("0000000001.entry");
    fs::copy(genesis(&first), keep.join("genesis")).expect("a copy");
    fs::copy(genesis(&other.data(0)), genesis(&first)).expect("a copy");
    let text = refusal(&["--data", data]);
    assert!(text.contains("belongs to cluster"), "{text}");

    // A damaged topology.
    fs::write(genesis(&first), b"not a topology").expect("a file");
    let text = refusal(&["--data", data]);
    assert!(text.contains("0000000001.entry"), "{text}");
    fs::copy(keep.join("genesis"), genesis(&first)).expect("a copy");
}

#[test]
fn a_directory_in_use_and_a_store_of_another_node_are_refused() {
    let mut cluster = ProcessCluster::set_up(3);
    cluster.start_node(0);
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(async { drop(cluster.client(&[0]).await) });
    let data = cluster.data(0);
    let text = refusal(&[
        "--data",
        data.to_str().expect("text"),
        "--listen",
        "127.0.0.1:0",
    ]);
    assert!(text.contains("is in use by process"), "{text}");

    // The taken port is named before anything is touched.
    let second = cluster.data(1);
    let text = refusal(&[
        "--data",
        second.to_str().expect("text"),
        "--listen",
        cluster.address(0),
    ]);
    assert!(
        text.contains(cluster.address(0)) && text.contains("taken"),
        "{text}"
    );

    cluster.stop(0);
    fs::rename(data.join("store"), second.join("store")).expect("a move");
    let text = refusal(&["--data", second.to_str().expect("text")]);
    assert!(text.contains("belongs to node"), "{text}");
}
