//! Writes a table file.

use super::block_builder::BlockBuilder;
use super::block_writer::BlockWriter;
use super::filter;
use super::format::{Footer, Version};
use super::index_format::IndexBuilder;
use super::properties::{self, Properties};
use super::spec::TableSpec;
use crate::blob::{Pointer, References};
use crate::checksum::Checksum;
use crate::compress::{Compression, Trained};
use crate::error::Error;
use crate::fs::{BufferedFile, Fs};
use crate::hash::key_hash;
use crate::key::{KeyVersion, Kind, Seq};
use crate::range::KeyRange;
use crate::ranges::{Fragments, last_before};
use std::path::Path;

/// Bytes of blocks that a dictionary is trained on.
const SAMPLE_BYTES: usize = 256 << 10;
/// What a block takes in memory besides its bytes. Blocks end in front of an entry that would make them larger than
/// their size with it: an allocator would give a block that is a little larger a fifth more.
const MEMORY_HEADER_BYTES: usize = 32;

/// What is known of a finished table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TableSummary {
    pub file: u64,
    pub size_bytes: u64,
    pub entries: u64,
    pub deletes: u64,
    pub smallest: Vec<u8>,
    pub largest: Vec<u8>,
    pub newest: Seq,
    /// Fragments of deleted ranges; `smallest` and `largest` reach over them.
    pub ranges: u64,
    /// About how many bytes they hid in older tables when this one was made.
    pub covered_bytes: u64,
    /// When the first of its entries expires, by the compaction filter's own measure of time.
    pub expires: Option<u64>,
    /// The number of all entries, which are stored with number 0; 0 as long as it is open. `None` if they have their
    /// own.
    pub number: Option<Seq>,
    /// What it points to in blob files.
    pub references: References,
}

impl TableSummary {
    /// The keys that the table may hold.
    pub(crate) fn key_range(&self) -> KeyRange {
        KeyRange::between(&self.smallest, &self.largest)
    }
}

/// Takes entries in order and writes them as a table.
///
/// Dropped without [`finish`](Self::finish), it leaves an orphan that the next open removes.
pub(crate) struct TableBuilder {
    spec: TableSpec,
    store: u64,
    blocks: BlockWriter,
    block: BlockBuilder,
    /// Encoded bytes of one block, kept for its memory.
    raw: Vec<u8>,
    /// The first blocks, while it is open whether a dictionary gains.
    samples: Option<Samples>,
    dictionary: Option<Vec<u8>>,
    index: IndexBuilder,
    hashes: Vec<u64>,
    summary: TableSummary,
    last_key: Vec<u8>,
    last_seq: Seq,
    ranges: Fragments,
}

/// Blocks that wait for a dictionary, end to end.
#[derive(Default)]
struct Samples {
    raw: Vec<u8>,
    sizes: Vec<usize>,
    bounds: Vec<Bounds>,
}

/// The outermost entries of a block.
struct Bounds {
    first: Vec<u8>,
    last: Vec<u8>,
    last_seq: Seq,
}

impl TableBuilder {
    pub(crate) fn create(
        fs: &dyn Fs,
        path: &Path,
        store: u64,
        file: u64,
        spec: TableSpec,
    ) -> Result<Self, Error> {
        let append = BufferedFile::create(fs, path, spec.direct_io)?;
        let checksum = Checksum::new(store, file);
        let blocks = BlockWriter::new(append, checksum, spec.compression);
        let samples = matches!(spec.compression, Compression::ZstdDictionary(_));
        Ok(Self {
            spec,
            store,
            blocks,
            block: BlockBuilder::default(),
            raw: Vec::new(),
            samples: samples.then(Samples::default),
            dictionary: None,
            index: IndexBuilder::default(),
            hashes: Vec::new(),
            summary: TableSummary {
                file,
                ..TableSummary::default()
            },
            last_key: Vec::new(),
            last_seq: Seq::ZERO,
            ranges: Fragments::default(),
        })
    }

    /// Adds an entry, which must come after all earlier ones. The value of one of kind blob is a [`Pointer`].
    pub(crate) fn push(
        &mut self,
        version: KeyVersion<'_>,
        kind: Kind,
        value: &[u8],
    ) -> Result<(), Error> {
        let size = self.block.size_with(version, value) + MEMORY_HEADER_BYTES;
        if size > self.spec.block_bytes && !self.block.is_empty() {
            self.end_block()?;
        }
        let new_key = self.summary.entries == 0 || self.last_key != version.key;
        debug_assert!(
            self.summary.entries == 0 || KeyVersion::new(&self.last_key, self.last_seq) < version,
            "entries must come in order"
        );
        if new_key {
            self.hashes.push(key_hash(version.key));
            if self.summary.entries == 0 {
                self.summary.smallest.extend_from_slice(version.key);
            }
            self.last_key.clear();
            self.last_key.extend_from_slice(version.key);
        }
        let hash = *self.hashes.last().expect("the first key was new");
        self.block.push(version, hash, kind, value);
        self.summary.entries += 1;
        self.summary.deletes += u64::from(kind == Kind::Delete);
        if kind == Kind::Blob {
            let pointer = Pointer::decode(value).expect("pointers of other tables were checked");
            self.summary.references.note(&pointer);
        }
        self.summary.newest = self.summary.newest.max(version.seq);
        self.last_seq = version.seq;
        Ok(())
    }

    /// Sets the deleted ranges. The table then reaches from the first key of any of them or of its entries to the
    /// last one; where no last key of a range can be named, to the first key behind it.
    pub(crate) fn set_ranges(&mut self, ranges: Fragments) {
        self.ranges = ranges;
    }

    /// Leaves it open which number the entries get; they are pushed with number 0.
    pub(crate) fn leave_number_open(&mut self) {
        self.summary.number = Some(Seq::ZERO);
    }

    /// Bytes of finished blocks.
    pub(crate) fn size_bytes(&self) -> u64 {
        let samples = self.samples.as_ref().map_or(0, |samples| samples.raw.len());
        self.blocks.size_bytes() + samples as u64
    }

    /// Writes what is left of the data, then filter, index, properties and footer, and syncs the file. Its
    /// directory entry is not synced yet.
    pub(crate) fn finish(mut self) -> Result<TableSummary, Error> {
        let ranges = std::mem::take(&mut self.ranges);
        if self.summary.entries == 0 {
            self.push_first_of(&ranges)?;
        }
        self.end_block()?;
        self.end_sampling()?;
        self.summarize(&ranges);
        let mut properties = Properties {
            is_numbered: self.summary.number.is_some(),
            references: self.summary.references.clone(),
            ..Properties::default()
        };
        if let Some(bytes) = &self.dictionary {
            properties.dictionary = Some(self.blocks.append_plain(bytes)?);
        }
        if !ranges.is_empty() {
            let block = crate::ranges::encode(&ranges);
            properties.ranges = Some(self.blocks.append_meta(&block)?);
        }
        let filter = filter::encode(&self.hashes, self.spec.filter_bits_per_key);
        let filter = self.blocks.append_plain(&filter)?;
        let index = self
            .blocks
            .append_meta(&std::mem::take(&mut self.index).finish())?;
        let properties = properties::encode(&self.summary, &properties);
        let properties = self.blocks.append_meta(&properties)?;
        let footer = Footer {
            version: Version::V2,
            filter,
            index,
            properties,
            file: self.summary.file,
            store: self.store,
        };
        self.summary.size_bytes = self.blocks.finish(&footer.encode())?;
        Ok(self.summary)
    }

    /// A table has at least one entry. The first key of a deleted range is deleted, so one may say so.
    fn push_first_of(&mut self, ranges: &Fragments) -> Result<(), Error> {
        let first = ranges.get(0).expect("a table has entries or ranges");
        let version = KeyVersion::new(first.start, first.seqs[0]);
        self.push(version, Kind::Delete, &[])
    }

    /// Takes the deleted ranges, and the last key, into the summary.
    fn summarize(&mut self, ranges: &Fragments) {
        let summary = &mut self.summary;
        summary.ranges = ranges.len() as u64;
        summary.largest.clone_from(&self.last_key);
        if let (Some(first), Some(last)) = (ranges.iter().next(), ranges.iter().next_back()) {
            if *first.start < *summary.smallest {
                summary.smallest = first.start.to_vec();
            }
            let last = last_before(last.end);
            if *last > *summary.largest {
                summary.largest = last.to_vec();
            }
        }
        let newest = ranges.iter().map(|fragment| fragment.seqs[0]).max();
        summary.newest = summary.newest.max(newest.unwrap_or_default());
    }

    fn end_block(&mut self) -> Result<(), Error> {
        if self.block.is_empty() {
            return Ok(());
        }
        let bounds = Bounds {
            first: self.block.first_key().to_vec(),
            last: self.last_key.clone(),
            last_seq: self.last_seq,
        };
        let Some(samples) = &mut self.samples else {
            self.raw.clear();
            self.block.finish(&mut self.raw);
            return append_data(&mut self.blocks, &mut self.index, &self.raw, &bounds);
        };
        let start = samples.raw.len();
        self.block.finish(&mut samples.raw);
        samples.sizes.push(samples.raw.len() - start);
        samples.bounds.push(bounds);
        if samples.raw.len() >= SAMPLE_BYTES {
            self.end_sampling()
        } else {
            Ok(())
        }
    }

    /// Decides on a dictionary and writes the blocks that waited for it.
    fn end_sampling(&mut self) -> Result<(), Error> {
        let Some(samples) = self.samples.take() else {
            return Ok(());
        };
        if let Compression::ZstdDictionary(level) = self.spec.compression
            && let Some(trained) = Trained::train(&samples.raw, &samples.sizes, level)
        {
            self.dictionary = Some(trained.bytes.clone());
            self.blocks.set_dictionary(trained);
        }
        let mut raw = &samples.raw[..];
        for (size, bounds) in samples.sizes.iter().zip(&samples.bounds) {
            let (block, rest) = raw.split_at(*size);
            append_data(&mut self.blocks, &mut self.index, block, bounds)?;
            raw = rest;
        }
        Ok(())
    }
}

fn append_data(
    blocks: &mut BlockWriter,
    index: &mut IndexBuilder,
    raw: &[u8],
    bounds: &Bounds,
) -> Result<(), Error> {
    index.next_key(&bounds.first);
    let handle = blocks.append_data(raw)?;
    index.push(KeyVersion::new(&bounds.last, bounds.last_seq), handle);
    Ok(())
}
