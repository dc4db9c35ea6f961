//! Executes a merge in steps, writing the surviving versions to new tables.

use super::below::Below;
use super::cut::Cuts;
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
    /// `None` if older data may lie anywhere, so that every tombstone stays.
    below: Option<Below>,
    cuts: Cuts,
    builder: Option<TableBuilder>,
    last_key: Vec<u8>,
    finished: Vec<TableSummary>,
    /// Key and value bytes of the versions read so far.
    read_bytes: u64,
}

impl Rewrite {
    /// A flush: one output table, tombstones stay.
    pub(crate) fn flush(merge: Merge, retention: Retention) -> Self {
        Self::new(merge, retention, None, Cuts::never())
    }

    /// A compaction; `below` says where data older than the output may be.
    pub(crate) fn compaction(merge: Merge, retention: Retention, below: Below, cuts: Cuts) -> Self {
        Self::new(merge, retention, Some(below), cuts)
    }

    fn new(merge: Merge, retention: Retention, below: Option<Below>, cuts: Cuts) -> Self {
        Self {
            merge,
            retention,
            below,
            cuts,
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
            let below = &mut self.below;
            let nothing_below = || {
                below
                    .as_mut()
                    .is_some_and(|below| !below.may_hold(version.key))
            };
            if self.retention.keeps(version, kind, nothing_below) {
                // All versions of a key go to one table, so that the tables of a run never overlap.
                if self.last_key != version.key {
                    let size = self.builder.as_ref().map_or(0, TableBuilder::size_bytes);
                    if self.cuts.before(version.key, size) {
                        self.finished
                            .extend(self.builder.take().map(TableBuilder::finish).transpose()?);
                    }
                    self.last_key.clear();
                    self.last_key.extend_from_slice(version.key);
                }
                let builder = match &mut self.builder {
                    Some(builder) => builder,
                    None => self.builder.insert(sink.create()?),
                };
                builder.push(version, kind, value)?;
            }
            self.merge.advance()?;
        }
        self.finished
            .extend(self.builder.take().map(TableBuilder::finish).transpose()?);
        Ok(Step::Done)
    }

    /// Takes the tables finished since the last call; after [`Step::Done`] these are the last ones.
    pub(crate) fn take_finished(&mut self) -> Vec<TableSummary> {
        std::mem::take(&mut self.finished)
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

    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes
    }
}
