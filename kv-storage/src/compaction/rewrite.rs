//! Executes a merge in steps, writing the surviving versions to new tables.

use super::below::Below;
use super::cut::Cuts;
use super::filtering::Filtering;
use super::retain::{Need, Retention};
use super::separation::{Content, Fetched, Separation};
use crate::blob::{BlobBuilder, BlobSummary};
use crate::error::Error;
use crate::hooks::{CompactionFilter, Filtered, Verdict};
use crate::key::{KeyVersion, Kind, Seq};
use crate::merge::Merge;
use crate::ranges::{Fragments, successor};
use crate::table::{TableBuilder, TableSummary};
use std::sync::Arc;

/// Makes the files for new tables.
pub(crate) trait TableSink {
    /// Starts a new table.
    fn create(&mut self) -> Result<TableBuilder, Error>;

    /// Starts a new blob file.
    fn create_blob(&mut self) -> Result<BlobBuilder, Error>;
}

/// A table that is written and synced.
#[derive(Debug)]
pub(crate) struct Finished {
    pub table: TableSummary,
    /// Blob files that it is the first to point into.
    pub blobs: Vec<BlobSummary>,
}

/// Whether a rewrite has more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    More,
    Done,
}

/// A rewrite between two steps.
pub(crate) struct Rewrite {
    merge: Merge,
    retention: Retention,
    /// `None` if older data may lie anywhere, so that every tombstone stays.
    below: Option<Below>,
    output: Output,
    /// Key and value bytes of the versions read so far.
    read_bytes: u64,
    read_entries: u64,
}

impl Rewrite {
    /// A flush: one output table, tombstones stay.
    pub(crate) fn flush(
        merge: Merge,
        retention: Retention,
        separation: Separation,
        filter: Option<&Arc<dyn CompactionFilter>>,
    ) -> Self {
        let output = Output {
            filtering: filter.map(Filtering::of_flush),
            ranges: retention.ranges_needed(None),
            ..Output::new(Cuts::never(), separation)
        };
        Self::new(merge, retention, None, output)
    }

    /// A compaction; `below` says where data older than the output may be.
    pub(crate) fn compaction(
        merge: Merge,
        retention: Retention,
        below: Below,
        cuts: Cuts,
        separation: Separation,
        filter: Option<&Arc<dyn CompactionFilter>>,
    ) -> Self {
        let output = Output {
            filtering: filter.map(Filtering::of_compaction),
            ranges: retention.ranges_needed(Some(&below)),
            ..Output::new(cuts, separation)
        };
        Self::new(merge, retention, Some(below), output)
    }

    fn new(merge: Merge, retention: Retention, below: Option<Below>, output: Output) -> Self {
        Self {
            merge,
            retention,
            below,
            output,
            read_bytes: 0,
            read_entries: 0,
        }
    }

    /// Works through about `budget_bytes` of input. May block.
    pub(crate) fn step(
        &mut self,
        budget_bytes: u64,
        sink: &mut dyn TableSink,
    ) -> Result<Step, Error> {
        let stop_at = self.read_bytes.saturating_add(budget_bytes);
        while let (Some(version), Some((kind, value))) =
            (self.merge.version(), self.merge.content())
        {
            if self.read_bytes >= stop_at {
                return Ok(Step::More);
            }
            self.read_bytes += (version.key.len() + value.len()) as u64;
            self.read_entries += 1;
            if let Need::Somebody {
                snapshots_see_it,
                is_last,
            } = self.retention.need(version)
            {
                let fetched = match self.merge.table() {
                    Some(table) if kind == Kind::Blob => {
                        let is_asked = self.output.filtering.is_some();
                        self.output
                            .separation
                            .fetch(table, version.key, value, is_asked)?
                    }
                    Some(_) | None => Fetched::default(),
                };
                self.read_bytes += fetched.size_bytes();
                // The real value; nothing of one that lies elsewhere and nobody wants to see.
                let present = match kind {
                    Kind::Put => Some(value),
                    Kind::Blob => fetched.value.as_deref(),
                    Kind::Delete => None,
                };
                let verdict = match (&mut self.output.filtering, present) {
                    (Some(filtering), Some(value)) if !snapshots_see_it => {
                        filtering.decide(version, value)
                    }
                    _ => Verdict::Keep,
                };
                let (content, kept) = match &verdict {
                    Verdict::Keep => (fetched.content(kind, value), present),
                    Verdict::Drop(_) => (Content::Delete, None),
                    Verdict::Rewrite(bytes) => (Content::Put(bytes), Some(&bytes[..])),
                };
                let holds_older = |below: &mut Below| below.may_hold(version.key);
                let is_needed = !matches!(content, Content::Delete)
                    || !is_last
                    || self.below.as_mut().is_none_or(holds_older);
                if is_needed {
                    self.output
                        .push(version, &content, kept, !snapshots_see_it, sink)?;
                }
            }
            self.merge.advance()?;
        }
        self.output.finish(sink)?;
        Ok(Step::Done)
    }

    /// Takes the filter's verdicts that changed an entry, on keys that are `done`, which the first ones are.
    pub(crate) fn take_filtered(&mut self, done: impl Fn(&[u8]) -> bool) -> Vec<Filtered> {
        let filtering = self.output.filtering.as_mut();
        filtering.map_or_else(Vec::new, |filtering| filtering.take(done))
    }

    /// The lowest number of an entry that the filter changed so far.
    pub(crate) fn oldest_changed(&self) -> Option<Seq> {
        self.output
            .filtering
            .as_ref()
            .and_then(Filtering::oldest_changed)
    }

    /// Takes the first `count` finished tables that were not taken; after [`Step::Done`] no more will come.
    pub(crate) fn take_finished(&mut self, count: usize) -> Vec<Finished> {
        self.output.finished.drain(..count).collect()
    }

    /// Tables that are finished and not taken.
    pub(crate) fn finished(&self) -> &[Finished] {
        &self.output.finished
    }

    /// Takes the errors about values in blob files that could not be read; their pointers were left as they are.
    pub(crate) fn take_damage(&mut self) -> Vec<Error> {
        self.output.separation.take_damage()
    }

    /// Bytes of values that left a blob file that is garbage for a large part.
    pub(crate) fn relocated_bytes(&self) -> u64 {
        self.output.separation.relocated_bytes()
    }

    /// Where the merge stands.
    pub(crate) fn merge(&self) -> &Merge {
        &self.merge
    }

    /// Goes on with another merge, which stands at the same version.
    pub(crate) fn continue_with(&mut self, merge: Merge) {
        debug_assert_eq!(self.merge.version(), merge.version());
        self.merge = merge;
    }

    pub(crate) fn read_entries(&self) -> u64 {
        self.read_entries
    }

    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes
    }
}

/// Where surviving versions go: all of a rewrite but what it reads.
struct Output {
    cuts: Cuts,
    filtering: Option<Filtering>,
    separation: Separation,
    builder: Option<TableBuilder>,
    last_key: Vec<u8>,
    /// Deleted ranges that are needed further, and how far they were written to tables.
    ranges: Fragments,
    ranges_from: Option<Vec<u8>>,
    finished: Vec<Finished>,
}

impl Output {
    fn new(cuts: Cuts, separation: Separation) -> Self {
        Self {
            cuts,
            filtering: None,
            separation,
            builder: None,
            last_key: Vec::new(),
            ranges: Fragments::default(),
            ranges_from: None,
            finished: Vec::new(),
        }
    }

    /// Adds a version; `kept` is its value if that is at hand.
    fn push(
        &mut self,
        version: KeyVersion<'_>,
        content: &Content<'_>,
        kept: Option<&[u8]>,
        was_asked: bool,
        sink: &mut dyn TableSink,
    ) -> Result<(), Error> {
        // All versions of a key go to one table, so that the tables of a run never overlap.
        if self.last_key != version.key {
            let size = self.builder.as_ref().map_or(0, TableBuilder::size_bytes);
            if self.cuts.before(version.key, size) {
                self.end_table()?;
            }
            self.last_key.clear();
            self.last_key.extend_from_slice(version.key);
        }
        let builder = match &mut self.builder {
            Some(builder) => builder,
            None => self.builder.insert(sink.create()?),
        };
        let (kind, stored) = self.separation.place(content, sink)?;
        builder.push(version, kind, stored)?;
        if let (Some(filtering), Some(value)) = (self.filtering.as_mut(), kept) {
            filtering.note_kept(version.key, value, was_asked);
        }
        Ok(())
    }

    /// Ends a table that others follow. Deleted ranges are cut behind its last key, so that the next table, which
    /// takes the rest of them, begins behind it.
    fn end_table(&mut self) -> Result<(), Error> {
        if self.builder.is_none() {
            return Ok(());
        }
        let until = successor(&self.last_key);
        let from = self.ranges_from.replace(until.clone());
        let ranges = self.ranges.between(from.as_deref(), Some(&until));
        self.finish_table(ranges)
    }

    /// Ends the last table, which takes all deleted ranges that are left.
    fn finish(&mut self, sink: &mut dyn TableSink) -> Result<(), Error> {
        let rest = self.ranges.between(self.ranges_from.as_deref(), None);
        if self.builder.is_none() && !rest.is_empty() {
            self.builder = Some(sink.create()?);
        }
        self.finish_table(rest)
    }

    fn finish_table(&mut self, ranges: Fragments) -> Result<(), Error> {
        if let Some(mut builder) = self.builder.take() {
            builder.set_ranges(ranges);
            // Its blob files first: the table means nothing without them.
            let blobs = self.separation.end_table()?;
            let mut table = builder.finish()?;
            table.expires = self.filtering.as_mut().and_then(Filtering::end_table);
            self.finished.push(Finished { table, blobs });
        }
        Ok(())
    }
}
