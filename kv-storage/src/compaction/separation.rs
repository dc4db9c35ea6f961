//! Where a flush or compaction puts values: into the table, or into blob files.

use super::rewrite::TableSink;
use crate::blob::{BlobBuilder, BlobSummary, StoredValue, Stretch};
use crate::error::Error;
use crate::key::Kind;
use crate::options::Options;
use crate::table::Table;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Files of which a compaction keeps a stretch in memory: 32 MiB in all.
const STRETCHES_MOST: usize = 128;

/// What a merge met, on its way into a table.
#[derive(Debug)]
pub(super) enum Content<'a> {
    Delete,
    /// A value that may go anywhere.
    Put(&'a [u8]),
    /// A pointer that stays as it is.
    Pointer(&'a [u8]),
    /// A value that leaves its blob file, as it was stored there.
    Stored(&'a StoredValue),
}

/// What was read of a value that lies in a blob file.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// The value, if somebody must look at it.
    pub value: Option<Bytes>,
    /// The value as it is stored, if it leaves its blob file and goes to another.
    pub stored: Option<StoredValue>,
    /// True if it leaves its blob file.
    pub is_relocated: bool,
}

impl Fetched {
    /// Bytes that were read, about.
    pub(super) fn size_bytes(&self) -> u64 {
        let value = self.value.as_ref().map_or(0, Bytes::len);
        let stored = self.stored.as_ref().map_or(0, |value| value.stored.len());
        (value + stored) as u64
    }

    /// Where an entry goes that stays as it is; `value` is what its table has.
    pub(super) fn content<'a>(&'a self, kind: Kind, value: &'a [u8]) -> Content<'a> {
        match (kind, &self.value, &self.stored) {
            (Kind::Delete, _, _) => Content::Delete,
            (Kind::Put, _, _) => Content::Put(value),
            (Kind::Blob, _, Some(stored)) => Content::Stored(stored),
            (Kind::Blob, Some(value), None) if self.is_relocated => Content::Put(value),
            (Kind::Blob, _, None) => Content::Pointer(value),
        }
    }
}

/// The blob files of one flush or compaction.
pub(crate) struct Separation {
    /// Values of at least so many bytes leave the table; `None` if none does.
    least_bytes: Option<usize>,
    /// Size at which a blob file is ended.
    file_bytes: u64,
    /// Files whose values are written anew.
    collected: BTreeSet<u64>,
    /// What was read last of each file that values were read from.
    stretches: BTreeMap<u64, Stretch>,
    builder: Option<BlobBuilder>,
    /// Finished files of the present table.
    finished: Vec<BlobSummary>,
    /// The last pointer, encoded.
    pointer: Vec<u8>,
    /// Values that cannot be read; their pointers were left as they are.
    damage: Vec<Error>,
    relocated_bytes: u64,
}

impl Separation {
    pub(crate) fn new(options: &Options, collected: BTreeSet<u64>) -> Self {
        Self {
            least_bytes: Some(options.blob_value_bytes).filter(|bytes| *bytes > 0),
            file_bytes: options.blob_file_bytes,
            collected,
            stretches: BTreeMap::new(),
            builder: None,
            finished: Vec::new(),
            pointer: Vec::new(),
            damage: Vec::new(),
            relocated_bytes: 0,
        }
    }

    /// Reads what is needed of the value that `pointer` points to: for the filter, if `is_asked`, and if it
    /// leaves its file. Of a damaged one it reads nothing, so that the pointer stays. May block.
    ///
    /// # Errors
    /// Failures of the file system that may pass, and damage of the table.
    pub(super) fn fetch(
        &mut self,
        table: &Table,
        key: &[u8],
        pointer: &[u8],
        is_asked: bool,
    ) -> Result<Fetched, Error> {
        // Checked also if it is only copied: it will be counted among the references of another table.
        let place = table.pointer(key, pointer)?;
        let is_relocated = self.collected.contains(&place.file);
        if !is_asked && !is_relocated {
            return Ok(Fetched::default());
        }
        let goes_inline = !self.separates(place.raw as usize);
        if self.stretches.len() >= STRETCHES_MOST && !self.stretches.contains_key(&place.file) {
            self.stretches.pop_first();
        }
        let stretch = self.stretches.entry(place.file).or_default();
        let decoded = is_asked || goes_inline;
        match table.stored_value(key, pointer, stretch, decoded) {
            Ok((stored, value)) => {
                if is_relocated {
                    self.relocated_bytes += place.record_bytes();
                }
                Ok(Fetched {
                    value,
                    stored: (is_relocated && !goes_inline).then_some(stored),
                    is_relocated,
                })
            }
            Err(error) if error.is_corrupt() => {
                self.damage.push(error);
                Ok(Fetched::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a value where it belongs. Returns what its table entry holds.
    pub(super) fn place<'a>(
        &'a mut self,
        content: &Content<'a>,
        sink: &mut dyn TableSink,
    ) -> Result<(Kind, &'a [u8]), Error> {
        let pointer = match *content {
            Content::Delete => return Ok((Kind::Delete, &[])),
            Content::Pointer(pointer) => return Ok((Kind::Blob, pointer)),
            Content::Put(value) if !self.separates(value.len()) => return Ok((Kind::Put, value)),
            Content::Put(value) => self.builder(sink)?.push(value)?,
            Content::Stored(value) => self.builder(sink)?.push_stored(&value.stored, value.raw)?,
        };
        self.pointer.clear();
        pointer.encode(&mut self.pointer);
        Ok((Kind::Blob, &self.pointer))
    }

    /// Ends the blob files of the present table, and returns them: see invariant 5 of
    /// [`blob`](crate::blob).
    pub(super) fn end_table(&mut self) -> Result<Vec<BlobSummary>, Error> {
        if let Some(builder) = self.builder.take() {
            self.finished.push(builder.finish()?);
        }
        Ok(std::mem::take(&mut self.finished))
    }

    /// Takes the errors about values that could not be read.
    pub(super) fn take_damage(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.damage)
    }

    /// Bytes of values that left their blob file so far.
    pub(super) fn relocated_bytes(&self) -> u64 {
        self.relocated_bytes
    }

    fn separates(&self, value_bytes: usize) -> bool {
        self.least_bytes.is_some_and(|least| value_bytes >= least)
    }

    fn builder(&mut self, sink: &mut dyn TableSink) -> Result<&mut BlobBuilder, Error> {
        if self
            .builder
            .as_ref()
            .is_some_and(|builder| builder.size_bytes() >= self.file_bytes)
            && let Some(full) = self.builder.take()
        {
            self.finished.push(full.finish()?);
        }
        match &mut self.builder {
            Some(builder) => Ok(builder),
            empty => Ok(empty.insert(sink.create_blob()?)),
        }
    }
}
