//! This workspace as cargo sees it.

use crate::command;
use anyhow::{Context, Result};
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// The cargo that runs this task, or the one in the path.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

/// Where cargo puts what it builds, whatever environment or configuration says.
///
/// # Errors
/// When cargo cannot read the workspace.
pub(crate) fn target_directory() -> Result<PathBuf> {
    directory("target_directory")
}

/// The folder of the root `Cargo.toml`.
///
/// # Errors
/// When cargo cannot read the workspace.
pub(crate) fn root() -> Result<PathBuf> {
    directory("workspace_root")
}

fn directory(name: &str) -> Result<PathBuf> {
    let metadata =
        command::json(cargo().args(["metadata", "--no-deps", "--format-version=1", "--offline"]))?;
    let directory = metadata[name]
        .as_str()
        .with_context(|| format!("cargo metadata names no {name}"))?;
    Ok(PathBuf::from(directory))
}
