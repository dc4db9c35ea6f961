//! Text that users write: configurations.

use std::io::Write;

use clap::Parser;
use kv_node::config::{Config, Flags};
use tempfile::NamedTempFile;

#[derive(Debug, Parser)]
struct NoFlags {
    #[command(flatten)]
    flags: Flags,
}

/// A configuration with every key.
#[must_use]
pub fn config() -> String {
    let template = Config::template();
    let without_marks = template
        .lines()
        .map(|line| line.strip_prefix('#').unwrap_or(line));
    let settings = without_marks.filter(|line| line.contains(" = ") || line.starts_with('['));
    let text: Vec<&str> = settings.collect();
    format!("data = \"/var/lib/kv\"\n{}\n", text.join("\n"))
}

/// Whether a file with these bytes is read as a configuration; else what is said of it.
///
/// # Errors
/// What the operator is told.
///
/// # Panics
/// When there is no room for a temporary file.
pub fn read_config(bytes: &[u8]) -> Result<Config, String> {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room");
    let flags = NoFlags::parse_from(["test"]).flags;
    Config::load(Some(file.path()), flags).map_err(|error| format!("{error:#}"))
}
