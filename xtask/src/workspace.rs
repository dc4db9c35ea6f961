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
    let metadata =
        command::json(cargo().args(["metadata", "--no-deps", "--format-version=1", "--offline"]))?;
    let directory = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(directory))
}
