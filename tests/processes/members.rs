//! Nodes that join with a ticket, leave, and are not let in again, as real processes.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use kv_tests::processes::{ProcessCluster, kv_node, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_with_a_ticket_and_another_leaves_and_ends() {
    let mut cluster = ProcessCluster::start(3);
    let client = cluster.client(&[0, 1, 2]).await;
    for number in 0..100 {
        let put = client.put(format!("k{number}"), "v").await;
        put.expect("all nodes are up");
    }
    let fourth = cluster.join("d");
    let watched = cluster.kv(&[0], &["cluster", "progress", "--watch"]);
    assert!(watched.status.success(), "{watched:?}");
    let topology = cluster.client(&[fourth]).await.topology();
    assert_eq!(topology.members().len(), 4);
    assert!(topology.table().loads(3).iter().all(|load| *load == 192));

    cluster.change(&[1], &["leave", "n1"]);
    cluster.ends(0);
    let log = cluster.log(0);
    assert!(log.contains("this node has left the cluster"), "{log}");
    let client = cluster.client(&[fourth]).await;
    for number in 0..100 {
        let read = client.get(format!("k{number}")).await;
        let read = read.expect("three nodes are up");
        let value = read.one().expect("one value");
        assert_eq!(value.as_deref(), Some(&b"v"[..]), "k{number}");
    }
    // It knows that it was removed.
    let data = cluster.data(0);
    let again = run(&["serve", "--data", data.to_str().expect("a name of ours")]);
    assert!(!again.status.success());
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(said.contains("it was removed"), "{said}");
}

#[test]
fn a_ticket_that_is_cut_short_or_a_certificate_of_others_is_refused() {
    let cluster = ProcessCluster::start(3);
    let printed = (0..20).map(|_| cluster.kv(&[0, 1, 2], &["cluster", "ticket"]));
    let printed = printed.into_iter().find(|printed| printed.status.success());
    let printed = printed.expect("a node answers in one of 20 tries");
    let ticket = String::from_utf8_lossy(&printed.stdout).trim().to_owned();
    let data = cluster.path("new");
    let other = cluster.path("other-ca");
    let [data, other] = [&data, &other].map(|path| path.to_str().expect("a name of ours"));
    let join = |ticket: &str, more: &[&str]| {
        let words = [
            "join", ticket, "--data", data, "--name", "n4", "--zone", "d",
        ];
        let words = words
            .iter()
            .chain(&["--address", "127.0.0.1:1", "--set-up-only"]);
        let words: Vec<&str> = words.chain(more).copied().collect();
        let done = run(&words);
        let said = [done.stdout, done.stderr].concat();
        (
            done.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let (is_done, said) = join(&ticket[..ticket.len() - 3], &[]);
    assert!(!is_done && said.contains("not copied whole"), "{said}");
    let (is_done, said) = join(&ticket, &[]);
    assert!(
        !is_done && said.contains("kv-node cert sign --ca CA_DIR kvrequest1-"),
        "{said}"
    );

    // What is printed can be done as it stands.
    let word = |said: &str, prefix: &str| -> String {
        let words = said.split_whitespace();
        let mut words = words.filter(|word| word.starts_with(prefix));
        words.next().expect("it is printed").to_owned()
    };
    let request = word(&said, "kvrequest1-");
    let made = run(&["ca", "create", "--name", "test", "--dir", other]);
    assert!(made.status.success());
    let sign = |ca: &str| {
        let signed = run(&["cert", "sign", "--ca", ca, "--valid", "1day", &request]);
        let certificate = String::from_utf8_lossy(&signed.stdout).trim().to_owned();
        run(&["cert", "install", "--data", data, &certificate])
    };
    assert!(sign(other).status.success());
    let (is_done, said) = join(&ticket, &[]);
    assert!(!is_done && said.contains("is of cluster"), "{said}");

    let ca = cluster.path("ca");
    assert!(sign(ca.to_str().expect("a name of ours")).status.success());
    let (is_done, said) = join(&ticket, &[]);
    assert!(is_done && said.contains("kv cluster join node="), "{said}");
}

#[test]
fn an_issuer_signs_for_one_node_with_each_ticket() {
    let cluster = ProcessCluster::start(3);
    let printed = (0..20).map(|_| cluster.kv(&[0, 1, 2], &["cluster", "ticket"]));
    let printed = printed.into_iter().find(|printed| printed.status.success());
    let printed = printed.expect("a node answers in one of 20 tries");
    let ticket = String::from_utf8_lossy(&printed.stdout).trim().to_owned();
    let ca = cluster.path("ca");
    let ca = ca.to_str().expect("a name of ours");
    let mut issuer = Command::new(kv_node())
        .args([
            "cert",
            "issuer",
            "--ca",
            ca,
            "--listen",
            "127.0.0.1:0",
            "--valid",
            "1day",
        ])
        .args(["--tickets", "2", &ticket])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let printed = BufReader::new(issuer.stdout.take().expect("piped"));
    let tickets: Vec<String> = printed
        .lines()
        .take(2)
        .map(|line| line.expect("text"))
        .collect();
    let join = |ticket: &str, data: &str| {
        let data = cluster.path(data);
        let data = data.to_str().expect("a name of ours");
        let words = [
            "join", ticket, "--data", data, "--name", "n4", "--zone", "d",
        ];
        let words = words
            .iter()
            .chain(&["--address", "127.0.0.1:1", "--set-up-only"]);
        let done = run(&words.copied().collect::<Vec<_>>());
        let said = [done.stdout, done.stderr].concat();
        (
            done.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let (is_done, said) = join(&tickets[0], "new");
    assert!(is_done && said.contains("kv cluster join node="), "{said}");
    let (is_done, said) = join(&tickets[0], "other");
    assert!(
        !is_done && said.contains("this ticket was used for node"),
        "{said}"
    );
    // What is to be done by hand then is said, too.
    assert!(
        said.contains("kv-node cert sign --ca CA_DIR kvrequest1-"),
        "{said}"
    );
    let (is_done, said) = join(&tickets[1], "other");
    assert!(is_done && said.contains("kv cluster join node="), "{said}");
    assert!(issuer.wait().expect("it ends").success());
}
