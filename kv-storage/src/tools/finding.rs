//! One thing that is wrong with a store, told to a tired operator.

use crate::error::Error;
use crate::files::Numbered;
use crate::range::KeyRange;
use std::fmt;
use std::path::{Path, PathBuf};

/// Damage, where it is, which keys it touches, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The file, or the store's directory if no single file is to blame.
    pub file: PathBuf,
    /// Where in the file the damaged structure begins, in bytes.
    pub offset: u64,
    /// The keys that are touched.
    pub range: KeyRange,
    /// What is wrong.
    pub what: String,
    /// What to do next.
    pub advice: &'static str,
}

/// Damage without which the store opens.
const TABLE: &str = "the store opens and answers all other keys; fetch these keys again from a replica or a \
                     backup, or save the rest with `kv-storage repair`";
const FILTER: &str =
    "reads of these keys are slower, nothing is lost; compaction will replace the file";
const UNUSED: &str = "no value is touched that a table still needs; nothing is lost, and the file is replaced when \
                      its values are";
const WHOLE: &str = "the store does not open; restore this file from a backup, or save what is left with \
                     `kv-storage repair`";
const UNREADABLE: &str = "the disk refused to read; check the disk and its cables, then try again";

impl Finding {
    pub(super) fn new(file: &Path, range: KeyRange, what: String) -> Self {
        Self {
            file: file.to_path_buf(),
            offset: 0,
            range,
            what,
            advice: WHOLE,
        }
    }

    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::Corrupt {
                file,
                offset,
                range,
                what,
            } => Self {
                file: file.clone(),
                offset: *offset,
                range: range.clone(),
                what: (*what).to_owned(),
                advice: if holds_keys(file) { TABLE } else { WHOLE },
            },
            Error::Io { path, .. } => Self {
                file: path.clone(),
                offset: 0,
                range: KeyRange::All,
                what: error.to_string(),
                advice: UNREADABLE,
            },
            other => Self::new(Path::new(""), KeyRange::All, other.to_string()),
        }
    }

    /// Damage in a part of a blob file that no pointer leads to.
    pub(super) fn of_unused(error: &Error) -> Self {
        Self {
            advice: UNUSED,
            ..Self::of(error)
        }
    }

    pub(super) fn of_filter(error: &Error) -> Self {
        Self {
            advice: FILTER,
            ..Self::of(error)
        }
    }
}

/// True if the damage of a file touches its own keys only.
fn holds_keys(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    let file = name.and_then(Numbered::parse);
    matches!(file, Some(Numbered::Table(_) | Numbered::Blob(_)))
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            offset,
            range,
            what,
            advice,
        } = self;
        let file = file.display();
        write!(
            f,
            "{file} at byte {offset}: {what}; touches {range}; {advice}"
        )
    }
}
