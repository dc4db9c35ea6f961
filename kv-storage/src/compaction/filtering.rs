//! Asks the caller's filter during a compaction, and remembers what it said.

use crate::hooks::{CompactionFilter, Filtered, Verdict};
use crate::key::{KeyVersion, Seq};
use std::sync::Arc;

/// The longest value that a filter may make; no batch can hold a longer one either.
const LONGEST_REWRITTEN: usize = 512 << 20;

/// The filter at work in one compaction or flush.
pub(crate) struct Filtering {
    filter: Arc<dyn CompactionFilter>,
    /// A flush only looks at when entries expire.
    decides: bool,
    /// The filter's time when the work began.
    began: Option<u64>,
    /// Verdicts other than `Keep` that were not taken yet, in the order of their keys.
    filtered: Vec<Filtered>,
    /// The lowest number of an entry that was changed.
    oldest_changed: Option<Seq>,
    /// When the first entry of the present table expires.
    expires: Option<u64>,
}

impl Filtering {
    pub(crate) fn of_flush(filter: &Arc<dyn CompactionFilter>) -> Self {
        Self {
            filter: Arc::clone(filter),
            decides: false,
            began: filter.now(),
            filtered: Vec::new(),
            oldest_changed: None,
            expires: None,
        }
    }

    pub(crate) fn of_compaction(filter: &Arc<dyn CompactionFilter>) -> Self {
        Self {
            decides: true,
            ..Self::of_flush(filter)
        }
    }

    /// The verdict on a put that no snapshot sees.
    pub(super) fn decide(&mut self, version: KeyVersion<'_>, value: &[u8]) -> Verdict {
        if !self.decides {
            return Verdict::Keep;
        }
        let verdict = self.filter.decide(version.key, version.seq, value);
        let dropped = match &verdict {
            Verdict::Keep => return Verdict::Keep,
            Verdict::Rewrite(bytes) if bytes.len() > LONGEST_REWRITTEN => return Verdict::Keep,
            Verdict::Drop(reason) => Some(*reason),
            Verdict::Rewrite(_) => None,
        };
        self.filtered.push(Filtered {
            key: version.key.to_vec(),
            seq: version.seq,
            dropped,
        });
        let oldest = self.oldest_changed.unwrap_or(version.seq);
        self.oldest_changed = Some(oldest.min(version.seq));
        verdict
    }

    /// Notes that a put goes to the present table. One that the filter kept although its time had come does not
    /// count: compacting its table again would change nothing.
    pub(super) fn note_kept(&mut self, key: &[u8], value: &[u8], was_asked: bool) {
        let expires = self.filter.expires(key, value);
        let is_due =
            |at: &u64| was_asked && self.decides && self.began.is_some_and(|began| *at <= began);
        if let Some(at) = expires.filter(|at| !is_due(at)) {
            self.expires = Some(self.expires.map_or(at, |earliest| earliest.min(at)));
        }
    }

    /// When the first entry of the table that ends here expires.
    pub(super) fn end_table(&mut self) -> Option<u64> {
        self.expires.take()
    }

    /// Takes the verdicts on keys that are `done`, which the first ones are.
    pub(super) fn take(&mut self, done: impl Fn(&[u8]) -> bool) -> Vec<Filtered> {
        let count = self.filtered.partition_point(|entry| done(&entry.key));
        self.filtered.drain(..count).collect()
    }

    pub(super) fn oldest_changed(&self) -> Option<Seq> {
        self.oldest_changed
    }
}
