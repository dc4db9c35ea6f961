//! Names of the files in a store's directory.

use std::path::{Path, PathBuf};

/// Names the manifest in use.
pub(crate) const CURRENT: &str = "CURRENT";
/// The store's format and identity.
pub(crate) const FORMAT: &str = "FORMAT";
/// Only takes up space, until the disk is full.
pub(crate) const BALLAST: &str = "BALLAST";
/// Held by the process that has the store open.
pub(crate) const LOCK: &str = "LOCK";

/// A file that carries a number. All kinds share one counter, so a number is used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Numbered {
    /// A log segment.
    Log(u64),
    /// A sorted table.
    Table(u64),
    /// A blob file: large values.
    Blob(u64),
    /// A manifest.
    Manifest(u64),
}

impl Numbered {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Log(number) => format!("{number:010}.log"),
            Self::Table(number) => format!("{number:010}.sst"),
            Self::Blob(number) => format!("{number:010}.blob"),
            Self::Manifest(number) => format!("MANIFEST-{number:010}"),
        }
    }

    pub(crate) fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.name())
    }

    /// Reads a name back; `None` if it is not exactly one that [`name`](Self::name) gives.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let parsed = if let Some(number) = name.strip_suffix(".log") {
            Self::Log(number.parse().ok()?)
        } else if let Some(number) = name.strip_suffix(".sst") {
            Self::Table(number.parse().ok()?)
        } else if let Some(number) = name.strip_suffix(".blob") {
            Self::Blob(number.parse().ok()?)
        } else {
            Self::Manifest(name.strip_prefix("MANIFEST-")?.parse().ok()?)
        };
        (parsed.name() == name).then_some(parsed)
    }

    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Log(number)
            | Self::Table(number)
            | Self::Blob(number)
            | Self::Manifest(number) => number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_not_ours() {
        for file in [
            Numbered::Log(0),
            Numbered::Table(12),
            Numbered::Blob(3),
            Numbered::Manifest(99_999_999_999),
        ] {
            assert_eq!(Numbered::parse(&file.name()), Some(file));
        }
        for name in [
            "7.log",
            "+000000007.log",
            "0000000007.log.tmp",
            "CURRENT",
            "MANIFEST-",
            "0000000001.sst~",
        ] {
            assert_eq!(Numbered::parse(name), None, "{name}");
        }
    }
}
