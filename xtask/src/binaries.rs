//! The two programs a cluster consists of: the daemon `kv-node` and the command line `kv`.

use crate::arguments::ProgramArguments;
use crate::command;
use crate::failure::Failure;
use crate::workspace::cargo;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Absolute paths of the programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Binaries {
    /// The daemon.
    pub(crate) node: PathBuf,
    /// The command line.
    pub(crate) cli: PathBuf,
}

impl Binaries {
    /// Builds them, or takes those that the user names.
    ///
    /// # Errors
    /// When the build fails or a program is missing.
    pub(crate) fn get(asked: &ProgramArguments) -> Result<Self> {
        match &asked.binaries {
            Some(folder) => Self::in_folder(folder),
            None => Self::build(asked.release),
        }
    }

    /// Builds both with cargo, whose messages go to the terminal, and asks it where they are.
    ///
    /// # Errors
    /// When the build fails; cargo has said why.
    fn build(release: bool) -> Result<Self> {
        let mut build = cargo();
        build.args(["build", "--package", "kv-node", "--bins"]);
        build.arg("--message-format=json-render-diagnostics");
        if release {
            build.arg("--release");
        }
        let executables = executables(&mut build)?;
        let find = |name: &str| {
            executables
                .iter()
                .find(|executable| executable.target == name)
                .map(|executable| executable.path.clone())
                .with_context(|| format!("cargo built no program {name}"))
        };
        Ok(Self {
            node: find("kv-node")?,
            cli: find("kv")?,
        })
    }

    /// Takes programs that are already there.
    ///
    /// # Errors
    /// When one of them is missing.
    fn in_folder(folder: &Path) -> Result<Self> {
        let find = |name: &str| {
            let path = folder.join(name);
            path.canonicalize()
                .map_err(|error| Failure::usage(format!("no program {}: {error}", path.display())))
        };
        Ok(Self {
            node: find("kv-node")?,
            cli: find("kv")?,
        })
    }
}

/// A program that cargo has built.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Executable {
    /// The package it belongs to.
    pub(crate) package: String,
    /// The name of the target: of a program, a test or a library.
    pub(crate) target: String,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// Runs a cargo command with JSON messages and collects the programs it reports.
///
/// # Errors
/// When cargo fails; it has said why on the terminal.
pub(crate) fn executables(build: &mut Command) -> Result<Vec<Executable>> {
    let mut child = build
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command::line(build)))?;
    let messages = child.stdout.take().context("cargo has no output")?;
    let mut executables = Vec::new();
    for line in BufReader::new(messages).lines() {
        executables.extend(parse_message(&line?));
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{} ended with {status}", command::line(build));
    }
    Ok(executables)
}

fn parse_message(line: &str) -> Option<Executable> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    Some(Executable {
        package: package_name(message["package_id"].as_str()?),
        target: message["target"]["name"].as_str()?.to_owned(),
        path: PathBuf::from(message["executable"].as_str()?),
    })
}

/// The name in a package id: `path+file:///home/me/kv/kv-ring#0.1.0` or `..#name@0.1.0`.
fn package_name(id: &str) -> String {
    let (source, fragment) = id.rsplit_once('#').unwrap_or((id, ""));
    match fragment.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => source.rsplit('/').next().unwrap_or(source).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_from_cargo_messages() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///home/me/kv/kv-node#0.1.0",
            "target":{"kind":["bin"],"name":"kv"},"executable":"/home/me/kv/target/debug/kv"}"#;
        let expected = Executable {
            package: "kv-node".into(),
            target: "kv".into(),
            path: "/home/me/kv/target/debug/kv".into(),
        };
        assert_eq!(parse_message(line), Some(expected));
        let library = line.replace("\"/home/me/kv/target/debug/kv\"", "null");
        assert_eq!(parse_message(&library), None, "a library is no program");
        assert_eq!(parse_message("warning: not json"), None);
    }

    #[test]
    fn package_ids_of_both_forms_hold_the_name() {
        assert_eq!(package_name("path+file:///a/kv-ring#0.1.0"), "kv-ring");
        assert_eq!(
            package_name("path+file:///a/tests#kv-tests@0.1.0"),
            "kv-tests"
        );
    }
}
