//! Executes a merge in steps, writing the surviving versions to new tables.

use super::below::Below;
use super::cut::Cuts;
use super::filtering::Filtering;
use super::retain::{Need, Retention};
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
    cuts: Cuts,
    filtering: Option<Filtering>,
    builder: Option<TableBuilder>,
    last_key: Vec<u8>,
    /// Deleted ranges that are needed further, and how far they were written to tables.
    ranges: Fragments,
    ranges_from: Option<Vec<u8>>,
    finished: Vec<TableSummary>,
    /// Key and value bytes of the versions read so far.
    read_bytes: u64,
    read_entries: u64,
}

impl Rewrite {
    /// A flush: one output table, tombstones stay.
    pub(crate) fn flush(
        merge: Merge,
        retention: Retention,
        filter: Option<&Arc<dyn CompactionFilter>>,
    ) -> Self {
        Self {
            filtering: filter.map(Filtering::of_flush),
            ranges: retention.ranges_needed(None),
            ..Self::new(merge, retention, Cuts::never())
        }
    }

    /// A compaction; `below` says where data older than the output may be.
    pub(crate) fn compaction(
        merge: Merge,
        retention: Retention,
        below: Below,
        cuts: Cuts,
        filter: Option<&Arc<dyn CompactionFilter>>,
    ) -> Self {
        Self {
            ranges: retention.ranges_needed(Some(&below)),
            below: Some(below),
            filtering: filter.map(Filtering::of_compaction),
            ..Self::new(merge, retention, cuts)
        }
    }

    fn new(merge: Merge, retention: Retention, cuts: Cuts) -> Self {
        Self {
            merge,
            retention,
            below: None,
            cuts,
            filtering: None,
            builder: None,
            last_key: Vec::new(),
            ranges: Fragments::default(),
            ranges_from: None,
            finished: Vec::new(),
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
                let verdict = match &mut self.filtering {
                    Some(filtering) if kind == Kind::Put && !snapshots_see_it => {
                        filtering.decide(version, value)
                    }
                    _ => Verdict::Keep,
                };
                let (kind, value) = match &verdict {
                    Verdict::Keep => (kind, value),
                    Verdict::Drop(_) => (Kind::Delete, &[][..]),
                    Verdict::Rewrite(bytes) => (kind, &bytes[..]),
                };
                let holds_older = |below: &mut Below| below.may_hold(version.key);
                let is_needed =
                    kind != Kind::Delete || !is_last || self.below.as_mut().is_none_or(holds_older);
                if is_needed {
                    let mut output = Output {
                        cuts: &mut self.cuts,
                        filtering: &mut self.filtering,
                        builder: &mut self.builder,
                        last_key: &mut self.last_key,
                        ranges: &self.ranges,
                        ranges_from: &mut self.ranges_from,
                        finished: &mut self.finished,
                    };
                    output.push(version, kind, value, sink)?;
                }
            }
            self.merge.advance()?;
        }
        let rest = self.ranges.between(self.ranges_from.as_deref(), None);
        if self.builder.is_none() && !rest.is_empty() {
            self.builder = Some(sink.create()?);
        }
        finish_table(
            &mut self.builder,
            rest,
            &mut self.filtering,
            &mut self.finished,
        )?;
        Ok(Step::Done)
    }

    /// Takes the filter's verdicts on keys up to `last` that changed an entry.
    pub(crate) fn take_filtered(&mut self, last: &[u8]) -> Vec<Filtered> {
        let filtering = self.filtering.as_mut();
        filtering.map_or_else(Vec::new, |filtering| filtering.take_up_to(last))
    }

    /// The lowest number of an entry that the filter changed so far.
    pub(crate) fn oldest_changed(&self) -> Option<Seq> {
        self.filtering.as_ref().and_then(Filtering::oldest_changed)
    }

    /// Takes the first `count` finished tables that were not taken; after [`Step::Done`] no more will come.
    pub(crate) fn take_finished(&mut self, count: usize) -> Vec<TableSummary> {
        self.finished.drain(..count).collect()
    }

    /// Tables that are finished and not taken.
    pub(crate) fn finished(&self) -> &[TableSummary] {
        &self.finished
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

/// Where surviving versions go: the parts of a rewrite besides the merge they are borrowed from.
struct Output<'a> {
    cuts: &'a mut Cuts,
    filtering: &'a mut Option<Filtering>,
    builder: &'a mut Option<TableBuilder>,
    last_key: &'a mut Vec<u8>,
    ranges: &'a Fragments,
    ranges_from: &'a mut Option<Vec<u8>>,
    finished: &'a mut Vec<TableSummary>,
}

impl Output<'_> {
    fn push(
        &mut self,
        version: KeyVersion<'_>,
        kind: Kind,
        value: &[u8],
        sink: &mut dyn TableSink,
    ) -> Result<(), Error> {
        // All versions of a key go to one table, so that the tables of a run never overlap.
        if *self.last_key != version.key {
            let size = self.builder.as_ref().map_or(0, TableBuilder::size_bytes);
            if self.cuts.before(version.key, size) {
                self.end_table()?;
            }
            self.last_key.clear();
            self.last_key.extend_from_slice(version.key);
        }
        let builder = match self.builder {
            Some(builder) => builder,
            None => self.builder.insert(sink.create()?),
        };
        builder.push(version, kind, value)?;
        if let (Some(filtering), Kind::Put) = (self.filtering.as_mut(), kind) {
            filtering.note_kept(version.key, value);
        }
        Ok(())
    }

    /// Ends a table that others follow. Deleted ranges are cut behind its last key, so that the next table, which
    /// takes the rest of them, begins behind it.
    fn end_table(&mut self) -> Result<(), Error> {
        if self.builder.is_none() {
            return Ok(());
        }
        let until = successor(self.last_key);
        let from = self.ranges_from.replace(until.clone());
        let ranges = self.ranges.between(from.as_deref(), Some(&until));
        finish_table(self.builder, ranges, self.filtering, self.finished)
    }
}

fn finish_table(
    builder: &mut Option<TableBuilder>,
    ranges: Fragments,
    filtering: &mut Option<Filtering>,
    finished: &mut Vec<TableSummary>,
) -> Result<(), Error> {
    if let Some(mut builder) = builder.take() {
        builder.set_ranges(ranges);
        let mut table = builder.finish()?;
        table.expires = filtering.as_mut().and_then(Filtering::end_table);
        finished.push(table);
    }
    Ok(())
}
