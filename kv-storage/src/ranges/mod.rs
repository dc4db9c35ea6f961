//! Deleted ranges of keys.
//!
//! A deleted range hides every version of its keys that is numbered below it. Ranges are kept as
//! *fragments*: cut wherever one of them begins or ends, each with the numbers of all deletes that cover it.
//! (After the fragmented range tombstones of RocksDB and Pebble.)
//!
//! Invariants of [`Fragments`]:
//! 1. Fragments are not empty, sorted, and do not overlap.
//! 2. Each has at least one number; its numbers fall.
//! 3. Two that touch have different numbers, or they would be one.

mod format;

pub(crate) use format::{decode, encode};

use crate::key::Seq;
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

/// Deleted ranges, cut so that they do not overlap. Immutable once it is shared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fragments {
    spans: Vec<Span>,
    /// The numbers of all spans, end to end.
    seqs: Vec<Seq>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    start: Bytes,
    /// The first key behind it.
    end: Bytes,
    /// Where its numbers are.
    seqs: Range<usize>,
}

/// One fragment: the keys from `start` on and before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment<'a> {
    pub start: &'a [u8],
    pub end: &'a [u8],
    /// Newest first.
    pub seqs: &'a [Seq],
}

/// Keys around one that was asked for, of which the same is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch<'a> {
    /// The newest delete that covers them.
    pub seq: Option<Seq>,
    /// Their first key; `None` if there is none before them.
    pub from: Option<&'a [u8]>,
    /// The first key behind them; `None` if there is none.
    pub until: Option<&'a [u8]>,
}

impl Fragments {
    /// One range, deleted by the write `seq`.
    pub(crate) fn one(start: &[u8], end: &[u8], seq: Seq) -> Self {
        let mut fragments = Self::default();
        let (start, end) = (Bytes::copy_from_slice(start), Bytes::copy_from_slice(end));
        fragments.push(start, end, &[seq]);
        fragments
    }

    /// All deletes of all parts.
    pub(crate) fn merge<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut edges: Vec<(&Bytes, bool, &[Seq])> = Vec::new();
        for part in parts {
            for span in &part.spans {
                let seqs = &part.seqs[span.seqs.clone()];
                edges.push((&span.start, true, seqs));
                edges.push((&span.end, false, seqs));
            }
        }
        edges.sort_unstable_by_key(|(key, ..)| *key);
        let mut merged = Self::default();
        // How many spans that are open here have a number. After a compaction gave up some of its inputs, the
        // same delete may be met twice.
        let mut open: BTreeMap<Reverse<Seq>, usize> = BTreeMap::new();
        let mut begun = Bytes::new();
        let mut seqs = Vec::new();
        for edge in edges.chunk_by(|a, b| a.0 == b.0) {
            let key = edge[0].0;
            seqs.clear();
            seqs.extend(open.keys().map(|seq| seq.0));
            merged.push(begun, key.clone(), &seqs);
            for (_, begins, seqs) in edge {
                for seq in *seqs {
                    let count = open.entry(Reverse(*seq)).or_default();
                    if *begins {
                        *count += 1;
                    } else {
                        // An end may come before the start that lies at the same key.
                        *count = count.wrapping_sub(1);
                    }
                }
            }
            open.retain(|_, count| *count != 0);
            begun = key.clone();
        }
        debug_assert!(open.is_empty());
        merged
    }

    /// Appends a span behind all others. One without keys or numbers is left out.
    fn push(&mut self, start: Bytes, end: Bytes, seqs: &[Seq]) {
        if start >= end || seqs.is_empty() {
            return;
        }
        debug_assert!(seqs.is_sorted_by(|a, b| a > b));
        if let Some(last) = self.spans.last_mut() {
            debug_assert!(last.end <= start);
            if last.end == start && self.seqs[last.seqs.clone()] == *seqs {
                last.end = end;
                return;
            }
        }
        let from = self.seqs.len();
        self.seqs.extend_from_slice(seqs);
        self.spans.push(Span {
            start,
            end,
            seqs: from..self.seqs.len(),
        });
    }

    /// The same ranges with the numbers that `choose` keeps of each fragment.
    pub(crate) fn choose(&self, mut choose: impl FnMut(Fragment<'_>) -> Vec<Seq>) -> Self {
        let mut chosen = Self::default();
        for (span, fragment) in self.spans.iter().zip(self.iter()) {
            chosen.push(span.start.clone(), span.end.clone(), &choose(fragment));
        }
        chosen
    }

    /// What lies from `from` on and before `until`; `None` stands for the outermost key.
    pub(crate) fn between(&self, from: Option<&[u8]>, until: Option<&[u8]>) -> Self {
        let mut inside = Self::default();
        let first = from.map_or(0, |from| self.spans.partition_point(|it| *it.end <= *from));
        for span in &self.spans[first..] {
            if until.is_some_and(|until| *span.start >= *until) {
                break;
            }
            let start = match from {
                Some(from) if *span.start < *from => Bytes::copy_from_slice(from),
                _ => span.start.clone(),
            };
            let end = match until {
                Some(until) if *until < *span.end => Bytes::copy_from_slice(until),
                _ => span.end.clone(),
            };
            inside.push(start, end, &self.seqs[span.seqs.clone()]);
        }
        inside
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// In order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = Fragment<'_>> {
        self.spans.iter().map(|span| self.fragment(span))
    }

    pub(crate) fn get(&self, index: usize) -> Option<Fragment<'_>> {
        self.spans.get(index).map(|span| self.fragment(span))
    }

    fn fragment<'a>(&'a self, span: &'a Span) -> Fragment<'a> {
        Fragment {
            start: &span.start,
            end: &span.end,
            seqs: &self.seqs[span.seqs.clone()],
        }
    }

    /// The newest delete of `key` numbered at most `at`.
    #[inline]
    pub(crate) fn covering(&self, key: &[u8], at: Seq) -> Option<Seq> {
        if self.spans.is_empty() {
            return None;
        }
        self.stretch(key, at).seq
    }

    /// True if fragments cover all keys from `first` to `last`, both included, each with numbers that are `good`.
    pub(crate) fn cover_all(
        &self,
        first: &[u8],
        last: &[u8],
        good: impl Fn(&[Seq]) -> bool,
    ) -> bool {
        let at = self.spans.partition_point(|span| *span.end <= *first);
        let mut from = first;
        for span in &self.spans[at..] {
            let fragment = self.fragment(span);
            if *from < *fragment.start || !good(fragment.seqs) {
                return false;
            }
            if *last < *fragment.end {
                return true;
            }
            from = fragment.end;
        }
        false
    }

    /// What is true of `key` and the keys around it, at the number `at`.
    pub(crate) fn stretch(&self, key: &[u8], at: Seq) -> Stretch<'_> {
        let next = self.spans.partition_point(|span| *span.end <= *key);
        match self.get(next) {
            Some(fragment) if *fragment.start <= *key => Stretch {
                seq: fragment.at(at),
                from: Some(fragment.start),
                until: Some(fragment.end),
            },
            after => Stretch {
                seq: None,
                from: next.checked_sub(1).map(|before| &*self.spans[before].end),
                until: after.map(|fragment| fragment.start),
            },
        }
    }
}

impl Fragment<'_> {
    /// The newest delete numbered at most `at`.
    fn at(&self, at: Seq) -> Option<Seq> {
        let newer = self.seqs.partition_point(|seq| *seq > at);
        self.seqs.get(newer).copied()
    }
}

/// The key right behind `key` in the order of keys.
pub(crate) fn successor(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// A key that no key before `end` exceeds: the key right in front of it, or if there is no such key, `end`.
pub(crate) fn last_before(end: &[u8]) -> &[u8] {
    end.strip_suffix(&[0]).unwrap_or(end)
}

/// The first key that does not begin with `prefix` and sorts behind those that do; `None` if there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end)
}

#[cfg(test)]
mod tests;
