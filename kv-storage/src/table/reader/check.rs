//! Reads tables for tools and scrubs: from the disk, past every cache, checking all that can be checked.

use super::super::block_cursor::BlockCursor;
use super::super::format::{self, FOOTER_BYTES};
use super::super::properties::{self, Properties};
use super::super::{TableFiles, TableSummary};
use super::{Malformed, Outline, Table};
use crate::error::Error;
use crate::fs::Fs;
use crate::hash::key_hash;
use crate::key::{KeyVersion, Kind, Seq};
use bytes::Bytes;
use std::path::Path;

/// A version of a key as a file holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredVersion {
    pub key: Vec<u8>,
    pub seq: Seq,
    pub kind: Kind,
    pub value: Bytes,
}

impl StoredVersion {
    pub(crate) fn version(&self) -> KeyVersion<'_> {
        KeyVersion::new(&self.key, self.seq)
    }
}

impl Table {
    /// Reads the value of a version from its blob file, if it lies in one. May block.
    ///
    /// # Errors
    /// As for [`value`](Self::value); the version is as it was then.
    pub(crate) fn resolve(&self, version: &mut StoredVersion) -> Result<(), Error> {
        if version.kind == Kind::Blob {
            version.value = self.value(&version.key, &version.value)?;
            version.kind = Kind::Put;
        }
        Ok(())
    }

    /// Number of data blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.index.len()
    }

    /// Bytes of a data block on disk.
    pub(crate) fn block_bytes(&self, number: usize) -> u64 {
        let handle = self.index.handle(number);
        handle.map_or(0, |handle| u64::from(handle.stored))
    }

    /// Reads everything that is not a data block from the disk again, and checks it. May block.
    ///
    /// # Errors
    /// Any damage, and failures of the file system.
    pub(crate) fn check_outline(&self, id: u64) -> Result<(), Error> {
        let check = || Outline::read(&self.files, &self.source.path, id)?.filter();
        let (smallest, largest) = &*self.bounds;
        let range = crate::range::KeyRange::between(smallest, largest);
        check().map(drop).map_err(|error| error.touching(&range))
    }

    /// Reads a data block from the disk. Its checksum is right, its entries are in order and in their range,
    /// and the filter knows them. May block.
    ///
    /// # Errors
    /// Any damage, with the keys that it touches, and failures of the file system.
    pub(crate) fn read_block(&self, number: usize) -> Result<Vec<StoredVersion>, Error> {
        let malformed = |Malformed| self.malformed(number);
        let wrong = |what| {
            let offset = self.index.handle(number).map_or(0, |handle| handle.offset);
            let error = Error::corrupt(&self.source.path, offset, what);
            self.touching(number, error)
        };
        let mut cursor = BlockCursor::new(self.load(number)?, Vec::new());
        cursor.seek_first().map_err(malformed)?;
        let mut versions: Vec<StoredVersion> = Vec::new();
        while cursor.is_valid() {
            let version = cursor.version();
            if versions
                .last()
                .is_some_and(|last| last.version() >= version)
            {
                return Err(wrong("entries of a block are out of order"));
            }
            // Whoever looks the version up must come to this block.
            if self.index.find(version) != number {
                return Err(wrong("an entry lies in another block than the index says"));
            }
            if *version.key < *self.bounds.0 || *version.key > *self.bounds.1 {
                return Err(wrong("a key lies outside of the table's range"));
            }
            if !self.filter.may_contain(key_hash(version.key)) {
                return Err(wrong("the filter does not know a key"));
            }
            versions.push(StoredVersion {
                key: version.key.to_vec(),
                seq: version.seq,
                kind: cursor.kind(),
                value: cursor.value_bytes(),
            });
            cursor.next().map_err(malformed)?;
        }
        Ok(versions)
    }
}

/// Stands for the number of an ingest that was lost with the manifest: its rows count as the oldest.
pub(crate) const LOST_NUMBER: Seq = Seq(1);

/// What a table file says of itself, for stores whose manifest is lost. It is read from the properties, and
/// from the footer; nothing if they are damaged.
pub(crate) fn summary_of(
    files: &TableFiles,
    path: &Path,
    file: u64,
) -> Result<TableSummary, Error> {
    let outline = Outline::read(files, path, file)?;
    let malformed = || {
        Error::corrupt(
            path,
            0,
            "the properties do not say which keys the table has",
        )
    };
    let (smallest, largest) = properties::bounds(&outline.properties).ok_or_else(malformed)?;
    let known = Properties::decode(&outline.properties).map_err(|_| malformed())?;
    Ok(TableSummary {
        file,
        size_bytes: outline.source.file.len(),
        smallest,
        largest,
        ranges: outline.ranges.len() as u64,
        number: outline.is_numbered.then_some(LOST_NUMBER),
        references: known.references,
        ..TableSummary::default()
    })
}

/// The store that a table file belongs to, by its footer.
pub(crate) fn store_of(fs: &dyn Fs, path: &Path) -> Option<u64> {
    let file = fs.open_table(path).ok()?;
    let mut footer = [0; FOOTER_BYTES];
    file.read_at(file.len().checked_sub(FOOTER_BYTES as u64)?, &mut footer)
        .ok()?;
    format::store_of(&footer)
}
