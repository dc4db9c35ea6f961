//! Causality: dots name writes, clocks are sets of dots.
//!
//! This is the version vector of the field, refined twice. Dots (Preguiça and others, "Dotted
//! Version Vectors", 2010) name single writes, so that concurrent writes through one replica do not
//! multiply siblings. Entries are *intervals* `(actor, lo, hi)` instead of maxima, because a dot's
//! number is drawn from the node's clock, not from a counter of the key: an interval claims only
//! what its actor minted for this key between two dots, and a replica that lost its memory opens a
//! new interval instead of claiming what it forgot.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::hlc::Hlc;
use crate::id::ActorId;
use crate::wire::{DecodeError, Reader, put_point, put_varint};

/// The name of one write: who minted it, and when.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who minted it.
    pub actor: ActorId,
    /// When, by the actor's strictly increasing clock.
    pub hlc: Hlc,
}

impl Dot {
    /// The dot minted by `actor` at `hlc`.
    #[must_use]
    pub fn new(actor: ActorId, hlc: Hlc) -> Self {
        Self { actor, hlc }
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}", self.actor, self.hlc)
    }
}

/// All dots of one actor from `lo` to `hi`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    /// Whose dots.
    pub actor: ActorId,
    /// The first.
    pub lo: Hlc,
    /// The last.
    pub hi: Hlc,
}

/// A set of dots of one key: what is in the past of an object.
///
/// Kept as sorted intervals that neither touch nor overlap, so that equal sets are equal values and
/// equal bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Clock {
    intervals: Vec<Interval>,
}

impl Clock {
    /// Encoded size of the smallest interval: actor, `hi`, and by how much `lo` comes before it.
    const MIN_INTERVAL_BYTES: usize = 10;

    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether no dot is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// The intervals, sorted by actor, then by time.
    #[must_use]
    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    /// Whether `dot` is in the set.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        // The first interval that does not end before the dot is the only one that can hold it.
        let index = self
            .intervals
            .partition_point(|i| (i.actor, i.hi) < (dot.actor, dot.hlc));
        self.intervals
            .get(index)
            .is_some_and(|i| i.actor == dot.actor && i.lo <= dot.hlc)
    }

    /// Whether every dot of `other` is in the set.
    #[must_use]
    pub fn covers_all(&self, other: &Self) -> bool {
        let mut intervals = other.intervals.iter();
        intervals.all(|theirs| self.covers_interval(*theirs))
    }

    fn covers_interval(&self, theirs: Interval) -> bool {
        let index = self
            .intervals
            .partition_point(|i| (i.actor, i.hi) < (theirs.actor, theirs.hi));
        self.intervals
            .get(index)
            .is_some_and(|i| i.actor == theirs.actor && i.lo <= theirs.lo)
    }

    /// Whether every dot of `other` above a point is in the set.
    #[must_use]
    pub fn covers_all_above(&self, other: &Self, point: Hlc) -> bool {
        let above = other.intervals.iter().filter(|theirs| theirs.hi > point);
        let mut above = above.map(|theirs| Interval {
            lo: theirs.lo.max(Hlc(point.0.saturating_add(1))),
            ..*theirs
        });
        above.all(|theirs| self.covers_interval(theirs))
    }

    /// The latest point in the set, over all actors.
    #[must_use]
    pub fn latest(&self) -> Hlc {
        self.intervals
            .iter()
            .map(|i| i.hi)
            .max()
            .unwrap_or_default()
    }

    /// The dot at which the set ends: of the latest ones, that of the first actor.
    #[must_use]
    pub fn latest_dot(&self) -> Option<Dot> {
        let latest = self.latest();
        let ends = self.intervals.iter().find(|i| i.hi == latest);
        ends.map(|i| Dot::new(i.actor, i.hi))
    }

    /// The last interval of one actor.
    #[must_use]
    pub fn last_of(&self, actor: ActorId) -> Option<Interval> {
        self.intervals
            .iter()
            .rev()
            .find(|i| i.actor == actor)
            .copied()
    }

    /// Adds one dot.
    pub fn insert(&mut self, dot: Dot) {
        self.insert_interval(Interval {
            actor: dot.actor,
            lo: dot.hlc,
            hi: dot.hlc,
        });
    }

    /// Adds all dots of `other`.
    pub fn merge(&mut self, other: &Self) {
        for interval in &other.intervals {
            self.insert_interval(*interval);
        }
    }

    /// Adds a dot that this actor has just minted for this key, by the interval rule.
    ///
    /// The actor's last interval is extended up to the dot only if it ends at or after `held_since`:
    /// then the actor has held the key without a gap, and minted nothing between the interval's end
    /// and the dot. Otherwise something minted may have been forgotten, and the dot stands alone:
    /// an interval over a forgotten dot would claim that it was superseded, and so lose it.
    pub fn mint(&mut self, dot: Dot, held_since: Hlc) {
        let lo = match self.last_of(dot.actor) {
            Some(own) if own.hi >= held_since => own.hi,
            _ => dot.hlc,
        };
        self.insert_interval(Interval {
            actor: dot.actor,
            lo,
            hi: dot.hlc,
        });
    }

    /// How many gaps there are between intervals of one actor.
    #[must_use]
    pub fn gaps(&self) -> usize {
        let pairs = self.intervals.windows(2);
        pairs.filter(|pair| pair[0].actor == pair[1].actor).count()
    }

    /// Closes the gaps that end at or below a point: for those who know that no dot in them will ever turn up.
    ///
    /// Without that, a clock gets one more interval with every start of each of its writers.
    pub fn close_gaps(&mut self, through: Hlc) {
        self.intervals.dedup_by(|later, earlier| {
            let is_closed = earlier.actor == later.actor && later.lo <= through.next();
            if is_closed {
                earlier.hi = later.hi;
            }
            is_closed
        });
    }

    fn insert_interval(&mut self, mut added: Interval) {
        // Intervals that overlap the added one, or end or begin right beside it, melt into it.
        let start = self
            .intervals
            .partition_point(|i| (i.actor, i.hi.0.saturating_add(1)) < (added.actor, added.lo.0));
        let touching = self.intervals[start..]
            .iter()
            .take_while(|i| i.actor == added.actor && i.lo.0 <= added.hi.0.saturating_add(1))
            .count();
        let end = start + touching;
        for old in &self.intervals[start..end] {
            added.lo = added.lo.min(old.lo);
            added.hi = added.hi.max(old.hi);
        }
        self.intervals.splice(start..end, [added]);
    }

    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        put_varint(out, self.intervals.len() as u64);
        for interval in &self.intervals {
            put_varint(out, u64::from(interval.actor.0));
            put_point(out, interval.hi);
            put_varint(out, interval.hi.millis() - interval.lo.millis());
            put_varint(out, u64::from(interval.lo.counter()));
        }
    }

    pub(crate) fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = reader.count(Self::MIN_INTERVAL_BYTES)?;
        let mut intervals: Vec<Interval> = Vec::with_capacity(count);
        for _ in 0..count {
            let at = reader.at();
            let invalid = DecodeError::Invalid {
                what: "clock interval",
                at,
            };
            let actor = ActorId(u32::try_from(reader.varint()?).map_err(|_| invalid)?);
            let hi = reader.point()?;
            let before = hi.millis().checked_sub(reader.varint()?);
            let lo = Hlc::new(before.ok_or(invalid)?, reader.counter()?);
            if lo > hi {
                return Err(invalid);
            }
            if let Some(last) = intervals.last() {
                let apart = last.actor < actor
                    || (last.actor == actor
                        && last.hi.0.checked_add(1).is_some_and(|next| next < lo.0));
                if !apart {
                    return Err(invalid);
                }
            }
            intervals.push(Interval { actor, lo, hi });
        }
        Ok(Self { intervals })
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for i in &self.intervals {
            list.entry(&format_args!("{}:{:?}..={:?}", i.actor, i.lo, i.hi));
        }
        list.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn dot(actor: u32, at: u64) -> Dot {
        Dot::new(ActorId(actor), Hlc(at))
    }

    fn clock(intervals: &[(u32, u64, u64)]) -> Clock {
        let mut clock = Clock::new();
        for &(actor, lo, hi) in intervals {
            clock.insert_interval(Interval {
                actor: ActorId(actor),
                lo: Hlc(lo),
                hi: Hlc(hi),
            });
        }
        clock
    }

    /// Small numbers, so that intervals meet often.
    fn any_intervals() -> impl Strategy<Value = Vec<(u32, u64, u64)>> {
        let interval = (0_u32..3, 0_u64..40, 0_u64..6).prop_map(|(a, lo, span)| (a, lo, lo + span));
        proptest::collection::vec(interval, 0..12)
    }

    fn dots(intervals: &[(u32, u64, u64)]) -> BTreeSet<Dot> {
        intervals
            .iter()
            .flat_map(|&(a, lo, hi)| (lo..=hi).map(move |t| dot(a, t)))
            .collect()
    }

    proptest! {
        #[test]
        fn a_clock_is_a_set_of_dots(a in any_intervals(), b in any_intervals()) {
            let (set_a, set_b) = (dots(&a), dots(&b));
            let (clock_a, clock_b) = (clock(&a), clock(&b));
            for actor in 0..3 {
                for at in 0..50 {
                    prop_assert_eq!(clock_a.covers(dot(actor, at)), set_a.contains(&dot(actor, at)));
                }
            }
            prop_assert_eq!(clock_a.covers_all(&clock_b), set_b.is_subset(&set_a));
            prop_assert_eq!(clock_a == clock_b, set_a == set_b);
            let mut merged = clock_a.clone();
            merged.merge(&clock_b);
            let union: Vec<_> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(merged, clock(&union));
        }

        #[test]
        fn closing_gaps_adds_dots_up_to_the_point_only_and_leaves_no_gap_there(
            intervals in any_intervals(), through in 0_u64..50,
        ) {
            let open = clock(&intervals);
            let mut closed = open.clone();
            closed.close_gaps(Hlc(through));
            prop_assert!(closed.covers_all(&open));
            prop_assert!(open.covers_all_above(&closed, Hlc(through)));
            for pair in closed.intervals().windows(2) {
                let is_gap = pair[0].actor == pair[1].actor;
                prop_assert!(!is_gap || pair[1].lo.0 > through + 1);
            }
            prop_assert_eq!(clock(&closed.intervals().iter().map(|i| (i.actor.0, i.lo.0, i.hi.0)).collect::<Vec<_>>()), closed);
        }

        #[test]
        fn a_clock_survives_its_bytes(
            close in any_intervals(),
            wide in proptest::collection::vec((0_u32..3, any::<u64>(), any::<u64>(), 0_u32..64), 0..4),
        ) {
            let wide = wide.iter().map(|&(actor, lo, span, shift)| (actor, lo, lo.saturating_add(span >> shift)));
            let clock = clock(&wide.chain(close.iter().copied()).collect::<Vec<_>>());
            let mut bytes = Vec::new();
            clock.encode_into(&mut bytes);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(Clock::decode_from(&mut reader), Ok(clock));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_decode_to_a_clock_with_the_same_bytes_or_to_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            let mut reader = Reader::new(&bytes);
            if let Ok(clock) = Clock::decode_from(&mut reader) {
                let mut again = Vec::new();
                clock.encode_into(&mut again);
                prop_assert_eq!(&bytes[..reader.at()], &again[..]);
            }
        }
    }

    #[test]
    fn a_mint_extends_the_interval_that_was_held_without_a_gap() {
        let mut held = clock(&[(1, 10, 20)]);
        held.mint(dot(1, 30), Hlc(15));
        assert_eq!(held, clock(&[(1, 10, 30)]));
    }

    #[test]
    fn a_mint_after_lost_memory_stands_alone() {
        let mut restored = clock(&[(1, 10, 20)]);
        restored.mint(dot(1, 30), Hlc(25));
        assert_eq!(restored, clock(&[(1, 10, 20), (1, 30, 30)]));
        assert!(
            !restored.covers(dot(1, 22)),
            "what was forgotten is not claimed"
        );
    }

    #[test]
    fn what_lies_above_a_point_is_covered_or_not() {
        let (held, seen) = (clock(&[(1, 15, 20)]), clock(&[(1, 10, 20), (2, 5, 5)]));
        assert!(!held.covers_all_above(&seen, Hlc(13)));
        assert!(held.covers_all_above(&seen, Hlc(14)));
        assert!(!held.covers_all_above(&seen, Hlc(4)), "of another actor");
        assert!(Clock::new().covers_all_above(&seen, Hlc(20)));
        assert!(!Clock::new().covers_all_above(&seen, Hlc(19)));
        assert!(!held.covers_all_above(&clock(&[(1, 15, 21)]), Hlc(0)));
    }

    #[test]
    fn the_largest_point_has_no_neighbour_above() {
        let mut clock = Clock::new();
        clock.insert(dot(1, u64::MAX));
        clock.insert(dot(1, u64::MAX));
        assert_eq!(clock.intervals().len(), 1);
    }
}
