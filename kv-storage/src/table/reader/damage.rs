//! Damaged tables: what is broken answers with an error that names its keys, all else goes on.
//!
//! Invariants:
//! 1. Every error of a table about damage names the keys that it touches, and no others than those of the
//!    table.
//! 2. A table whose outline (footer, properties, dictionary, index) is damaged is open nevertheless: it
//!    consists of one block for all its keys that can never be read.
//! 3. A filter that is damaged is as good as none: every key may be there.

use super::super::filter::Filter;
use super::super::format::Handle;
use super::super::index::{Index, SeparatorParts};
use super::super::{TableFiles, TableSummary};
use super::{Outline, Source, Table, Version};
use crate::checksum::Checksum;
use crate::error::{Error, twice};
use crate::fs::ReadFile;
use crate::key::Seq;
use crate::range::KeyRange;
use crate::ranges::Fragments;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The damage that was met when a table was opened.
#[derive(Debug, Default)]
pub(crate) enum Damaged {
    #[default]
    Nothing,
    /// Only the filter: lookups read more than they need.
    Filter(Error),
    /// The outline: nothing can be read.
    Outline(Error),
}

impl Damaged {
    pub(crate) fn error(&self) -> Option<&Error> {
        match self {
            Self::Nothing => None,
            Self::Filter(error) | Self::Outline(error) => Some(error),
        }
    }
}

impl Table {
    /// Opens a table even if it is damaged or missing. May block.
    ///
    /// # Errors
    /// Only what may pass: the file system failed otherwise than by not having the file.
    pub(crate) fn open_damaged(
        files: &Arc<TableFiles>,
        path: &Path,
        summary: &TableSummary,
    ) -> Result<Self, Error> {
        let range = summary.key_range();
        let read = || {
            let outline = Outline::read(files, path, summary.file)?;
            outline.check_number(summary).map(|()| outline)
        };
        match twice(read) {
            Ok(outline) => {
                let (filter, damaged) = match twice(|| outline.filter()) {
                    Ok(filter) => (filter, Damaged::Nothing),
                    Err(error) if error.is_corrupt() => {
                        (Filter::all(), Damaged::Filter(error.touching(&range)))
                    }
                    Err(error) => return Err(error),
                };
                Self::new(files, summary, outline, filter, damaged)
            }
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let error = Error::corrupt(path, 0, "a table file is missing");
                Self::unreadable(files, path, summary, error.touching(&range))
            }
            Err(error) if error.is_corrupt() => {
                Self::unreadable(files, path, summary, error.touching(&range))
            }
            Err(error) => Err(error),
        }
    }

    fn unreadable(
        files: &Arc<TableFiles>,
        path: &Path,
        summary: &TableSummary,
        error: Error,
    ) -> Result<Self, Error> {
        let separator = SeparatorParts {
            key: summary.largest.clone(),
            seq: Seq::ZERO,
        };
        let nowhere = Handle {
            offset: 0,
            stored: 0,
            raw: 0,
            checksum: 0,
        };
        let index = Index::new(&[(separator, nowhere)]).expect("one separator is in order");
        let source = Source {
            path: path.to_path_buf(),
            file: Arc::new(NoFile),
            checksum: Checksum::new(files.store, summary.file),
            version: Version::V2,
            dictionary: None,
        };
        let outline = Outline {
            source,
            index,
            filter: nowhere,
            ranges: Fragments::default(),
            is_numbered: false,
            properties: Vec::new(),
        };
        Self::new(
            files,
            summary,
            outline,
            Filter::all(),
            Damaged::Outline(error),
        )
    }

    /// What was damaged when the table was opened.
    pub(crate) fn damaged(&self) -> &Damaged {
        &self.damaged
    }

    /// Names the keys of a data block in an error about it.
    pub(super) fn touching(&self, number: usize, error: Error) -> Error {
        let (smallest, largest) = &*self.bounds;
        let first = match number.checked_sub(1) {
            // All versions of a key may fill more than one block.
            Some(before) => self.index.separator_key(before),
            None => smallest.clone(),
        };
        let last = if number + 1 < self.index.len() {
            self.index.separator_key(number)
        } else {
            largest.clone()
        };
        error.touching(&KeyRange::between(&first, &last))
    }
}

/// The file of a table that is never read.
#[derive(Debug)]
struct NoFile;

impl ReadFile for NoFile {
    fn len(&self) -> u64 {
        0
    }

    fn read_at(&self, _offset: u64, _into: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}
