//! The programs as a user meets them: help, set-up, and what they say when something is wrong.

use std::path::Path;
use std::process::{Command, Output};

fn kv_node(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kv-node"))
        .args(args)
        .env_clear()
        .output()
        .expect("kv-node runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The last words of a command that must fail.
fn refusal(args: &[&str]) -> String {
    let output = kv_node(args);
    assert!(
        !output.status.success(),
        "{args:?} succeeded: {}",
        stdout(&output)
    );
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn done(args: &[&str]) -> String {
    let output = kv_node(args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    stdout(&output)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn help_fits_on_a_screen() {
    for args in [
        &["--help"][..],
        &["serve", "--help"],
        &["cluster", "create", "--help"],
    ] {
        let help = done(args);
        assert!(
            help.lines().count() <= 70,
            "{args:?} has {} lines",
            help.lines().count()
        );
    }
    assert!(done(&["--help"]).lines().count() <= 40);
}

#[test]
fn a_cluster_is_set_up_step_by_step_and_no_step_overwrites_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ca, data) = (dir.path().join("ca"), dir.path().join("n1"));
    let (ca, data) = (text(&ca), text(&data));

    assert!(refusal(&["cert", "node", "--ca", ca, "--data", data]).contains("kv-node init"));
    done(&["ca", "create", "--name", "t", "--dir", ca]);
    assert!(refusal(&["ca", "create", "--name", "t", "--dir", ca]).contains("exists"));
    let made = done(&["init", "--data", data, "--json"]);
    let made: serde_json::Value = serde_json::from_str(&made).expect("JSON");
    assert_eq!(made["node_id"].as_str().map(str::len), Some(32));
    assert!(refusal(&["init", "--data", data]).contains("belongs to a node already"));

    let member = format!("name=n1,zone=a,address=127.0.0.1:7001,data={data}");
    let create = |replicas: &str| {
        let args = [
            "cluster",
            "create",
            "--name",
            "t",
            "--replicas",
            replicas,
            "--member",
            &member,
        ];
        kv_node(&args)
    };
    let early = create("1");
    assert!(
        String::from_utf8_lossy(&early.stderr).contains("kv-node cert"),
        "the certificate is missing"
    );
    done(&["cert", "node", "--ca", ca, "--data", data]);
    let impossible = create("3");
    assert!(
        String::from_utf8_lossy(&impossible.stderr)
            .contains("3 replicas need as many members, and there are 1")
    );
    assert!(create("1").status.success());
    let twice = create("1");
    assert!(String::from_utf8_lossy(&twice.stderr).contains("belongs to a cluster already"));
}

#[test]
fn members_are_parsed_with_care() {
    for (member, expected) in [
        ("name=n1", "lacks zone"),
        (
            "name=n1,zone=a,address=x,data=d,weight=many",
            "is not a number",
        ),
        ("nam=n1", "there is no field `nam`"),
        ("n1", "is not `field=value`"),
    ] {
        let said = refusal(&["cluster", "create", "--name", "t", "--member", member]);
        assert!(said.contains(expected), "{member}: {said}");
    }
}

#[test]
fn private_keys_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().expect("a directory");
    let (ca, data, person) = (
        dir.path().join("ca"),
        dir.path().join("n1"),
        dir.path().join("me"),
    );
    done(&["ca", "create", "--name", "t", "--dir", text(&ca)]);
    done(&["init", "--data", text(&data)]);
    done(&[
        "cert",
        "client",
        "--ca",
        text(&ca),
        "--name",
        "me",
        "--out",
        text(&person),
    ]);
    for key in [
        ca.join("ca-key.pem"),
        data.join("tls/key.pem"),
        person.join("key.pem"),
    ] {
        let mode = std::fs::metadata(&key)
            .expect("the key")
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{}", key.display());
    }
}

#[test]
fn the_template_names_every_key() {
    let template = done(&["config", "template"]);
    for key in [
        "data",
        "listen",
        "metrics_file",
        "filter",
        "format",
        "memtable_mib",
        "profile",
    ] {
        assert!(template.contains(key), "{key}");
    }
}
