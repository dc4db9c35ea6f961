//! Hybrid logical time: wall-clock milliseconds with a counter, strictly increasing at one actor.
//!
//! After Kulkarni and others, "Logical Physical Clocks" (2014). The same eight bytes order the dots
//! of one actor, give last-writer-wins its order, and place every write on the time line that
//! watermarks are drawn on.

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

const COUNTER_BITS: u32 = 16;

/// A point of hybrid logical time: 48 bits of milliseconds since the Unix epoch, 16 of counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Hlc(pub u64);

impl Hlc {
    /// Before every other point.
    pub const ZERO: Self = Self(0);

    /// The first point of a millisecond. Milliseconds above 2^48 − 1 (the year 10889) saturate.
    #[must_use]
    pub fn from_millis(millis: u64) -> Self {
        Self(millis.min((1 << 48) - 1) << COUNTER_BITS)
    }

    /// The point with this counter within a millisecond since the Unix epoch; later milliseconds than have room become the last one.
    #[must_use]
    pub fn new(millis: u64, counter: u16) -> Self {
        Self(Self::from_millis(millis).0 | u64::from(counter))
    }

    /// How many points of its millisecond come before this one.
    #[must_use]
    pub fn counter(self) -> u16 {
        let [low, high, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// The millisecond this point lies in, since the Unix epoch.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// The next point.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// This point moved later by `by`, with whole milliseconds.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX >> COUNTER_BITS);
        Self::from_millis(self.millis().saturating_add(millis))
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}",
            self.millis(),
            self.0 & ((1 << COUNTER_BITS) - 1)
        )
    }
}

/// The hybrid clock of one actor: what it minted last, and how it moves on.
///
/// Wall-clock time is an argument. The clock never goes back, whatever the wall clock does; across a
/// restart its owner starts it at a high-water mark that was made durable before it was reached.
#[derive(Debug, Clone)]
pub struct HybridClock {
    last: Hlc,
}

impl HybridClock {
    /// How far a point seen from elsewhere may move this clock ahead of the wall clock.
    pub const MAX_SKEW: Duration = Duration::from_millis(500);

    /// A clock that will only give points above `floor`.
    #[must_use]
    pub fn starting_above(floor: Hlc) -> Self {
        Self { last: floor }
    }

    /// The next point: later than every point given before, and not before the wall clock.
    pub fn tick(&mut self, wall: Hlc) -> Hlc {
        self.last = self.last.next().max(wall);
        self.last
    }

    /// What is given next is later than a point that this clock has shown before, perhaps before a restart.
    pub fn rise_to(&mut self, shown: Hlc) {
        self.last = self.last.max(shown);
    }

    /// Learns of a point minted elsewhere, so that what is minted here next comes after it.
    ///
    /// A point further than [`Self::MAX_SKEW`] ahead of the wall clock moves the clock only that
    /// far: one node with a wrong clock does not drag the others along.
    pub fn observe(&mut self, seen: Hlc, wall: Hlc) {
        self.last = self.last.max(seen.min(wall.plus(Self::MAX_SKEW)));
    }

    /// The last point given or learnt of.
    #[must_use]
    pub fn last(&self) -> Hlc {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_increase_while_the_wall_clock_stands_or_jumps_back() {
        let mut clock = HybridClock::starting_above(Hlc::from_millis(100));
        let mut last = clock.last();
        for wall in [200, 200, 200, 50, 0, 199, 201] {
            let now = clock.tick(Hlc::from_millis(wall));
            assert!(now > last);
            last = now;
        }
        assert_eq!(last, Hlc::from_millis(201));
    }

    #[test]
    fn a_point_from_the_far_future_moves_the_clock_by_half_a_second_at_most() {
        let mut clock = HybridClock::starting_above(Hlc::ZERO);
        let wall = Hlc::from_millis(10_000);
        clock.observe(Hlc::from_millis(3_600_000), wall);
        assert_eq!(clock.last(), Hlc::from_millis(10_500));
    }

    #[test]
    fn a_point_slightly_ahead_is_overtaken() {
        let mut clock = HybridClock::starting_above(Hlc::ZERO);
        let wall = Hlc::from_millis(10_000);
        let seen = Hlc::from_millis(10_200);
        clock.observe(seen, wall);
        assert!(clock.tick(wall) > seen);
    }
}
