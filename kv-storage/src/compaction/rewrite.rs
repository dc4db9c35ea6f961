//! Executes a merge in steps, writing the surviving versions to new tables.

use super::retain::Retention;
use crate::error::Error;
use crate::merge::Merge;
use crate::table::{TableBuilder, TableSummary};

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
    /// Key ranges of tables that hold older data than the inputs, sorted by their smallest key per run.
    below: Vec<(Vec<u8>, Vec<u8>)>,
    /// False if older data may lie where `below` does not show it.
    may_drop_tombstones: bool,
    table_bytes: u64,
    builder: Option<TableBuilder>,
    last_key: Vec<u8>,
    finished: Vec<TableSummary>,
    /// Key and value bytes of the versions read so far.
    read_bytes: u64,
}

impl Rewrite {
    /// A flush: one output table, tombstones stay.
    pub(crate) fn flush(merge: Merge, retention: Retention) -> Self {
        Self::new(merge, retention, Vec::new(), false, u64::MAX)
    }

    /// A compaction; `below` are the key ranges of all tables in deeper levels than the output.
    pub(crate) fn compaction(
        merge: Merge,
        retention: Retention,
        below: Vec<(Vec<u8>, Vec<u8>)>,
        table_bytes: u64,
    ) -> Self {
        Self::new(merge, retention, below, true, table_bytes)
    }

    fn new(
        merge: Merge,
        retention: Retention,
        below: Vec<(Vec<u8>, Vec<u8>)>,
        may_drop_tombstones: bool,
        table_bytes: u64,
    ) -> Self {
        Self {
            merge,
            retention,
            below,
            may_drop_tombstones,
            table_bytes,
            builder: None,
            last_key: Vec::new(),
            finished: Vec::new(),
            read_bytes: 0,
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
            let below = &self.below;
            let may_drop = self.may_drop_tombstones;
            let nothing_below = || {
                may_drop
                    && !below
                        .iter()
                        .any(|(first, last)| **first <= *version.key && *version.key <= **last)
            };
            if self.retention.keeps(version, kind, nothing_below) {
                let full = self
                    .builder
                    .as_ref()
                    .is_some_and(|builder| builder.size_bytes() >= self.table_bytes);
                // All versions of a key go to one table, so that the tables of a run never overlap.
                if full && self.last_key != version.key {
                    self.finished
                        .extend(self.builder.take().map(TableBuilder::finish).transpose()?);
                }
                let builder = match &mut self.builder {
                    Some(builder) => builder,
                    None => self.builder.insert(sink.create()?),
                };
                builder.push(version, kind, value)?;
                self.last_key.clear();
                self.last_key.extend_from_slice(version.key);
            }
            self.merge.advance()?;
        }
        self.finished
            .extend(self.builder.take().map(TableBuilder::finish).transpose()?);
        Ok(Step::Done)
    }

    /// The tables written so far; all of them once a step said [`Step::Done`].
    pub(crate) fn into_tables(self) -> Vec<TableSummary> {
        self.finished
    }

    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes
    }
}
