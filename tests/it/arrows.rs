//! The dependency arrows between our crates are those of the architecture, and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// What each crate may depend on. A new arrow needs an ADR.
const ARROWS: &[(&str, &[&str])] = &[
    ("kv-types", &[]),
    ("kv-storage", &[]),
    ("kv-ring", &["kv-types"]),
    ("kv-gossip", &["kv-types"]),
    ("kv-net", &["kv-types"]),
    ("kv-client", &["kv-types", "kv-ring", "kv-net"]),
    // kv-client only for the command line, see `only_the_command_line_uses_the_client`.
    (
        "kv-node",
        &[
            "kv-types",
            "kv-ring",
            "kv-gossip",
            "kv-net",
            "kv-storage",
            "kv-client",
        ],
    ),
    ("xtask", &[]),
];

fn metadata() -> serde_json::Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

/// Package → (dependency, kind, optional).
fn dependencies() -> BTreeMap<String, Vec<(String, String, bool)>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().expect("a name").to_owned();
            let listed = package["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter();
            let ours = listed.filter(|d| d["path"].is_string()).map(|d| {
                let kind = d["kind"].as_str().unwrap_or("normal").to_owned();
                (
                    d["name"].as_str().expect("a name").to_owned(),
                    kind,
                    d["optional"] == true,
                )
            });
            (name, ours.collect())
        })
        .collect()
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let dependencies = dependencies();
    for (name, allowed) in ARROWS {
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        for (dependency, kind, _) in &dependencies[*name] {
            assert!(
                allowed.contains(dependency.as_str()),
                "{name} → {dependency} ({kind}) is not an arrow"
            );
        }
    }
    let known: BTreeSet<&str> = ARROWS
        .iter()
        .map(|(name, _)| *name)
        .chain(["kv-tests"])
        .collect();
    for name in dependencies.keys() {
        assert!(
            known.contains(name.as_str()),
            "{name} is not in the table of arrows"
        );
    }
}

#[test]
fn only_the_command_line_uses_the_client() {
    let edge = dependencies()["kv-node"]
        .iter()
        .find(|(name, ..)| name == "kv-client")
        .cloned();
    assert_eq!(
        edge,
        Some(("kv-client".to_owned(), "normal".to_owned(), true)),
        "optional, by the feature `cli`"
    );
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../kv-node/src");
    for path in rust_files(sources.as_ref()) {
        let text = std::fs::read_to_string(&path).expect("a source file");
        let shown = path
            .strip_prefix(sources)
            .expect("inside")
            .display()
            .to_string();
        let command_line = shown.starts_with("cli") || shown == "bin/kv.rs";
        assert!(
            command_line || !text.contains("kv_client"),
            "{shown} uses the client"
        );
    }
}

/// Node code takes time, tasks and files from its environment.
#[test]
fn node_code_does_not_reach_for_the_real_world() {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../kv-node/src");
    let real = [
        "adapters",
        "cli",
        "command",
        "bin",
        "setup",
        "config.rs",
        "main.rs",
    ];
    for path in rust_files(sources.as_ref()) {
        let shown = path
            .strip_prefix(sources)
            .expect("inside")
            .display()
            .to_string();
        if real.iter().any(|part| shown.starts_with(part)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source file");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for forbidden in [
            "tokio::time",
            "tokio::spawn",
            "tokio::net",
            "std::fs",
            "std::net",
            "std::thread",
            "Instant::now",
        ] {
            assert!(!code.contains(forbidden), "{shown} uses {forbidden}");
        }
    }
}

fn rust_files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
