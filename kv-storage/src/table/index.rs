//! The index of an open table: which data block may hold a key, where the block lies, and what it
//! must sum to. Pinned in memory as arrays.
//!
//! Each block has a separator: a position at or after its last version and before the next block's
//! first. Searching begins with the eight bytes that follow what all separators share, taken as a
//! number (a *head*). A table of roots maps the upper part of a head's range to a place among the
//! heads, which is one step of interpolation prepared in advance: with evenly spread keys the rest
//! of the search compares one or two heads, with others it is a binary search.

use super::block::Malformed;
use super::format::Handle;
use crate::coding::shared_prefix;
use crate::key::{KeyVersion, Seq, head};
use std::cmp::Ordering;
use std::ops::Range;

/// All data blocks of a table, in order.
#[derive(Debug)]
pub(super) struct Index {
    /// What all separators begin with.
    prefix: Box<[u8]>,
    heads: Box<[u64]>,
    roots: Roots,
    /// The separators behind the prefix, end to end, and where each ends.
    tails: Box<[u8]>,
    tail_ends: Box<[u32]>,
    /// Sequence numbers of the separators; empty if all are 0, as they are unless a key's versions
    /// fill more than one block.
    seqs: Box<[Seq]>,
    handles: Box<[Handle]>,
}

impl Index {
    /// Makes an index of (separator, handle), in order.
    pub(super) fn new(blocks: &[(SeparatorParts, Handle)]) -> Result<Self, Malformed> {
        let separators = || blocks.iter().map(|(separator, _)| separator);
        let sorted = separators().is_sorted_by(|a, b| a.version() < b.version());
        let (Some((first, _)), Some((last, _)), true) = (blocks.first(), blocks.last(), sorted)
        else {
            return Err(Malformed);
        };
        let prefix = &first.key[..shared_prefix(&first.key, &last.key)];
        let mut tails = Vec::new();
        let mut tail_ends = Vec::with_capacity(blocks.len());
        for separator in separators() {
            tails.extend_from_slice(&separator.key[prefix.len()..]);
            tail_ends.push(u32::try_from(tails.len()).map_err(|_| Malformed)?);
        }
        let heads: Box<[u64]> = separators()
            .map(|separator| head(&separator.key[prefix.len()..]))
            .collect();
        let seqs = if separators().any(|separator| separator.seq != Seq::ZERO) {
            separators().map(|separator| separator.seq).collect()
        } else {
            Box::default()
        };
        Ok(Self {
            prefix: prefix.into(),
            roots: Roots::new(&heads),
            heads,
            tails: tails.into(),
            tail_ends: tail_ends.into(),
            seqs,
            handles: blocks.iter().map(|(_, handle)| *handle).collect(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.handles.len()
    }

    /// Memory that it takes.
    pub(super) fn size_bytes(&self) -> u64 {
        let arrays = size_of_val(&*self.heads)
            + size_of_val(&*self.roots.starts)
            + size_of_val(&*self.tails)
            + size_of_val(&*self.tail_ends)
            + size_of_val(&*self.seqs)
            + size_of_val(&*self.handles);
        (size_of::<Self>() + arrays) as u64
    }

    pub(super) fn handle(&self, block: usize) -> Option<&Handle> {
        self.handles.get(block)
    }

    pub(super) fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// The first block that may hold an entry at or after `target`; `len()` if none does.
    pub(super) fn find(&self, target: KeyVersion<'_>) -> usize {
        let Some(tail) = target.key.strip_prefix(&*self.prefix) else {
            return match target.key.cmp(&self.prefix) {
                Ordering::Less => 0,
                Ordering::Equal | Ordering::Greater => self.len(),
            };
        };
        let wanted = head(tail);
        let range = self.roots.range(wanted, self.heads.len());
        let mut at = range.start + self.heads[range].partition_point(|head| *head < wanted);
        // Heads that are equal leave it to the whole keys.
        if self.heads.get(at) == Some(&wanted) {
            let equal = self.heads[at..].partition_point(|head| *head == wanted);
            let target = KeyVersion::new(tail, target.seq);
            let (mut low, mut high) = (at, at + equal);
            while low < high {
                let middle = low.midpoint(high);
                if self.separator(middle) < target {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            at = low;
        }
        at
    }

    /// A key at or behind the last one of a block, and not behind the first one of the next.
    pub(super) fn separator_key(&self, block: usize) -> Vec<u8> {
        [&self.prefix, self.separator(block).key].concat()
    }

    /// A separator without the shared prefix.
    fn separator(&self, block: usize) -> KeyVersion<'_> {
        let start = block
            .checked_sub(1)
            .map_or(0, |before| self.tail_ends[before]);
        let tail = &self.tails[start as usize..self.tail_ends[block] as usize];
        KeyVersion::new(tail, self.seqs.get(block).copied().unwrap_or(Seq::ZERO))
    }
}

/// Where the heads of each part of the range of heads begin.
#[derive(Debug)]
struct Roots {
    first: u64,
    /// How far a head above `first` is shifted to give the number of its part.
    shift: u32,
    starts: Box<[u32]>,
}

impl Roots {
    /// About one part for each head.
    fn new(heads: &[u64]) -> Self {
        let first = heads.first().copied().unwrap_or(0);
        let span = heads.last().map_or(0, |last| last - first);
        let bits = heads.len().next_power_of_two().ilog2().clamp(1, 24);
        let shift = (u64::BITS - span.leading_zeros()).saturating_sub(bits);
        let parts = (span >> shift) as usize + 1;
        let mut starts = Vec::with_capacity(parts + 1);
        let mut at = 0;
        for part in 0..=parts as u64 {
            while heads
                .get(at)
                .is_some_and(|head| (head - first) >> shift < part)
            {
                at += 1;
            }
            starts.push(u32::try_from(at).expect("a table has fewer than 4 billion blocks"));
        }
        Self {
            first,
            shift,
            starts: starts.into(),
        }
    }

    /// The heads among which the first one not below `wanted` lies, or the end of this range.
    fn range(&self, wanted: u64, len: usize) -> Range<usize> {
        let Some(above) = wanted.checked_sub(self.first) else {
            return 0..0;
        };
        let part = usize::try_from(above >> self.shift).unwrap_or(usize::MAX);
        match (
            self.starts.get(part),
            self.starts.get(part.saturating_add(1)),
        ) {
            (Some(start), Some(end)) => *start as usize..*end as usize,
            _ => len..len,
        }
    }
}

/// The position between two blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeparatorParts {
    pub key: Vec<u8>,
    pub seq: Seq,
}

impl SeparatorParts {
    /// The shortest key that separates a block that ends with `last` from one that begins with
    /// another key, `next`.
    ///
    /// For example `apple` and `apricot` are separated by `apr`.
    pub(super) fn between(last: &[u8], next: &[u8]) -> Self {
        let shared = shared_prefix(last, next);
        // A true prefix of `next` that is longer than what they share lies between them.
        let key = if next.len() > shared + 1 && shared + 1 < last.len() {
            &next[..=shared]
        } else {
            last
        };
        Self {
            key: key.to_vec(),
            seq: Seq::ZERO,
        }
    }

    fn version(&self) -> KeyVersion<'_> {
        KeyVersion::new(&self.key, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn handle(offset: u64) -> Handle {
        Handle {
            offset,
            stored: 1,
            raw: 1,
            checksum: 0,
        }
    }

    fn any_key() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(0u8..3, 0..12),
            prop::collection::vec(any::<u8>(), 0..4),
            any::<u16>().prop_map(|number| format!("user/{number:05}").into_bytes()),
        ]
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_linear_search_finds(
            versions in prop::collection::btree_set((any_key(), prop::option::of(1u64..4)), 1..200),
            target in any_key(),
            seq in 0u64..5,
        ) {
            let mut separators: Vec<_> = versions
                .into_iter()
                .map(|(key, seq)| SeparatorParts { key, seq: Seq(seq.unwrap_or(0)) })
                .collect();
            separators.sort_by(|a, b| a.version().cmp(&b.version()));
            let blocks: Vec<_> = separators.iter().cloned().zip((0..).map(handle)).collect();
            let index = Index::new(&blocks).unwrap();
            let candidates = std::iter::once(target).chain(separators.iter().map(|s| s.key.clone()));
            for key in candidates {
                let target = KeyVersion::new(&key, Seq(seq));
                let expected = separators.iter().take_while(|s| s.version() < target).count();
                prop_assert_eq!(index.find(target), expected, "{:?}", target);
            }
        }

        #[test]
        fn a_separator_lies_at_or_after_the_last_key_and_before_the_next(a in any_key(), b in any_key()) {
            prop_assume!(a != b);
            let (last, next) = if a < b { (a, b) } else { (b, a) };
            let separator = SeparatorParts::between(&last, &next);
            prop_assert!(last <= separator.key && separator.key < next);
            prop_assert!(separator.key.len() <= last.len());
        }
    }

    #[test]
    fn unsorted_or_missing_separators_are_malformed() {
        let separator = |key: &[u8]| SeparatorParts {
            key: key.to_vec(),
            seq: Seq::ZERO,
        };
        assert!(Index::new(&[]).is_err());
        let blocks = [(separator(b"b"), handle(0)), (separator(b"a"), handle(1))];
        assert!(Index::new(&blocks).is_err());
    }
}
