//! The deleted ranges of a memtable.
//!
//! They are kept in parts whose sizes at least halve from one to the next. A new range is a part of its own,
//! and is merged with the ones before it while it is not much smaller (the logarithmic method of Bentley and
//! Saxe, 1980). So each range is merged a few times in all, and readers ask a few parts.

use crate::key::Seq;
use crate::ranges::Fragments;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A memtable with so many takes no more: nested ranges make fragments with as many numbers as there are ranges.
pub(crate) const RANGES_MOST: u32 = 2048;

#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// Those that were given room.
    reserved: AtomicU32,
    /// Those that readers can see.
    published: AtomicU32,
    parts: ArcSwap<Vec<Arc<Fragments>>>,
}

impl Ranges {
    /// True if `more` ranges find room. An empty memtable has room for any batch.
    pub(super) fn have_room(&self, more: u32) -> bool {
        let reserved = self.reserved.load(Ordering::Relaxed);
        more == 0 || reserved == 0 || reserved.saturating_add(more) <= RANGES_MOST
    }

    pub(super) fn reserve(&self, more: u32) {
        if more > 0 {
            self.reserved.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Adds a range. Only the publisher of the moment may call it.
    pub(super) fn add(&self, start: &[u8], end: &[u8], seq: Seq) {
        let mut parts = Vec::clone(&self.parts.load());
        let mut last = Fragments::one(start, end, seq);
        while let Some(before) = parts.pop_if(|before| before.len() < 2 * last.len()) {
            last = Fragments::merge([&*before, &last]);
        }
        parts.push(Arc::new(last));
        self.parts.store(Arc::new(parts));
        // Release: whoever sees the count sees the range.
        self.published.fetch_add(1, Ordering::Release);
    }

    /// The newest delete of `key` numbered at most `at`.
    #[inline]
    pub(super) fn covering(&self, key: &[u8], at: Seq) -> Option<Seq> {
        if self.published.load(Ordering::Acquire) == 0 {
            return None;
        }
        let parts = self.parts.load();
        parts.iter().filter_map(|it| it.covering(key, at)).max()
    }

    pub(super) fn parts(&self) -> Vec<Arc<Fragments>> {
        if self.published.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        Vec::clone(&self.parts.load())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_ranges_is_in_few_parts() {
        let ranges = Ranges::default();
        assert!(ranges.have_room(5000));
        let mut random = fastrand::Rng::with_seed(9);
        let mut all = Vec::new();
        for seq in 1..=1000 {
            let (a, b) = (random.u16(..), random.u16(..));
            let (start, end) = (a.min(b), a.max(b) + 1);
            ranges.reserve(1);
            ranges.add(&start.to_be_bytes(), &end.to_be_bytes(), Seq(seq));
            all.push((start, end, Seq(seq)));
            if seq % 100 == 0 {
                for _ in 0..200 {
                    let (key, at) = (random.u16(..), Seq(random.u64(..1010)));
                    let covers = |it: &&(u16, u16, Seq)| it.0 <= key && key < it.1 && it.2 <= at;
                    let expected = all.iter().filter(covers).map(|it| it.2).max();
                    assert_eq!(ranges.covering(&key.to_be_bytes(), at), expected);
                }
            }
        }
        assert!(ranges.parts().len() <= 11, "{}", ranges.parts().len());
        assert!(ranges.have_room(1048) && !ranges.have_room(1049));
        assert!(ranges.have_room(0));
    }
}
