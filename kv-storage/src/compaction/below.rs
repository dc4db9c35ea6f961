//! Which keys may have data older than a compaction's output.

/// Key ranges that hold older data, asked about ascending keys.
#[derive(Debug, Default)]
pub(crate) struct Below {
    /// Sorted, without overlap.
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first range that does not end before the present key.
    next: usize,
}

impl Below {
    /// Takes the ranges (first and last key) of all older tables, in any order.
    pub(crate) fn new(mut tables: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        tables.sort_unstable();
        let mut ranges: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (first, last) in tables {
            match ranges.last_mut() {
                Some(open) if first <= open.1 => open.1 = last.max(std::mem::take(&mut open.1)),
                _ => ranges.push((first, last)),
            }
        }
        Self { ranges, next: 0 }
    }

    /// True if older data may hold a key from `start` on and before `end`.
    pub(crate) fn overlaps(&self, start: &[u8], end: &[u8]) -> bool {
        let next = self.ranges.partition_point(|range| *range.1 < *start);
        self.ranges.get(next).is_some_and(|range| *range.0 < *end)
    }

    /// True if older data may hold `key`. Keys must be asked about in order.
    pub(crate) fn may_hold(&mut self, key: &[u8]) -> bool {
        while self
            .ranges
            .get(self.next)
            .is_some_and(|range| *range.1 < *key)
        {
            self.next += 1;
        }
        self.ranges
            .get(self.next)
            .is_some_and(|range| *range.0 <= *key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn below_agrees_with_a_look_at_every_range(
            tables in prop::collection::vec((0u8..60, 0u8..9), 0..12),
            mut keys in prop::collection::vec(0u8..70, 0..40),
        ) {
            keys.sort_unstable();
            let tables: Vec<_> = tables.into_iter().map(|(first, width)| (vec![first], vec![first + width])).collect();
            let mut below = Below::new(tables.clone());
            for (start, end) in [(3, 20), (7, 8), (30, 31), (50, 69)] {
                let naive = tables.iter().any(|(first, last)| first[0] < end && start <= last[0]);
                prop_assert_eq!(below.overlaps(&[start], &[end]), naive);
            }
            for key in keys {
                let naive = tables.iter().any(|(first, last)| (first..=last).contains(&&vec![key]));
                prop_assert_eq!(below.may_hold(&[key]), naive);
            }
        }
    }
}
