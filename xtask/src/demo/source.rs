//! The records of the demo: a package index, which nobody made for the test.

use crate::arguments::DemoArguments;
use crate::failure::Failure;
use crate::terminal::{self, grouped};
use anyhow::{Context, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of deb822 stanzas, and how many are in it as counted here, not by the program under test.
#[derive(Debug)]
pub(super) struct Source {
    /// The file.
    pub(super) path: PathBuf,
    /// Number of stanzas.
    pub(super) records: u64,
    /// Size of the file.
    pub(super) bytes: u64,
    /// Where the stanzas come from, in words.
    pub(super) origin: String,
}

impl Source {
    /// Collects the stanzas and writes those that are used into a file in `folder`.
    ///
    /// # Errors
    /// When there are none; the message says how to get them.
    pub(super) fn prepare(asked: &DemoArguments, folder: &Path) -> Result<Self> {
        let (text, origin) = match &asked.file {
            Some(file) => (read(file)?, file.display().to_string()),
            None => (package_index()?, "apt-cache dumpavail".to_owned()),
        };
        let (records, end) = first_stanzas(&text, asked.records.unwrap_or(u64::MAX));
        if records == 0 {
            return Err(no_records(asked.file.as_deref()));
        }
        let path = folder.join("records.deb822");
        fs::write(&path, &text[..end])
            .with_context(|| format!("cannot write {}", path.display()))?;
        terminal::status(
            "Collected",
            &format!("{} records from {origin}", grouped(records)),
        );
        Ok(Self {
            path,
            records,
            bytes: end as u64,
            origin,
        })
    }

    /// Deletes the copy that the demo has used.
    ///
    /// # Errors
    /// When the file cannot be deleted.
    pub(super) fn discard(&self) -> Result<()> {
        fs::remove_file(&self.path)
            .with_context(|| format!("cannot delete {}", self.path.display()))
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))
}

/// The index of all packages that the operating system could install.
fn package_index() -> Result<Vec<u8>> {
    match Command::new("apt-cache").arg("dumpavail").output() {
        Ok(output) if output.status.success() => Ok(output.stdout),
        Ok(output) => Err(Failure::usage(format!(
            "apt-cache dumpavail ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Failure::usage(
            "this machine has no apt-cache, so it is not Debian or one of its kind; name a file of deb822 stanzas with --file FILE",
        )),
        Err(error) => Err(error).context("cannot run apt-cache"),
    }
}

fn no_records(file: Option<&Path>) -> anyhow::Error {
    Failure::usage(match file {
        Some(file) => format!("{} holds no deb822 stanza", file.display()),
        None => {
            "the package lists are missing; run `apt-get update` (as root) and try again".to_owned()
        }
    })
}

/// Counts stanzas up to a limit, and says where the last one ends.
///
/// A stanza is a run of lines that are not blank.
fn first_stanzas(text: &[u8], limit: u64) -> (u64, usize) {
    let mut count = 0;
    let mut is_inside = false;
    let mut offset = 0;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let is_blank = line.trim_ascii().is_empty();
        if !is_blank && !is_inside {
            if count == limit {
                return (count, offset);
            }
            count += 1;
        }
        is_inside = !is_blank;
        offset += line.len();
    }
    (count, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_are_counted_up_to_the_limit() {
        let text = b"Package: a\nSize: 1\n\nPackage: b\n\n\nPackage: c";
        let cases: [(u64, (u64, usize)); 4] = [
            (9, (3, text.len())),
            (2, (2, 33)),
            (1, (1, 20)),
            (0, (0, 0)),
        ];
        for (limit, expected) in cases {
            assert_eq!(first_stanzas(text, limit), expected, "limit {limit}");
        }
        assert_eq!(first_stanzas(b"\n\n", 9), (0, 2));
    }

    #[test]
    fn missing_lists_name_the_command_that_gets_them() {
        assert!(no_records(None).to_string().contains("apt-get update"));
        let error = no_records(Some(Path::new("empty.txt")));
        assert!(error.to_string().starts_with("empty.txt"), "{error}");
    }
}
