//! What time it is by the clocks of most nodes, as a client knows it. Pure.
//!
//! Writes are named by when they were made. A client whose clock is behind would be told that its new writes are old ones, where
//! a key is written often, and what it has replaced would be remembered for a shorter time. So it asks nodes what time it is,
//! along with their topology, and believes them where its own clock is far off.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Clocks that are no further apart than this are taken for equal: nodes' own may be as far from each other.
const EQUAL: Duration = Duration::from_millis(100);
/// What was learnt so long ago counts no more: the own clocks may have been put right slowly since.
const OLD: Duration = Duration::from_mins(10);
/// When the own wall clock was set by more than this, what was learnt of it before counts no more.
const SET: Duration = Duration::from_secs(1);

/// What was learnt of the nodes' clocks.
#[derive(Debug, Default)]
pub(crate) struct ClusterTime(Mutex<Option<Sample>>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    /// How far the nodes' time is ahead of the own wall clock.
    ahead_ms: i64,
    /// What the own wall clock showed when the one that nobody sets was at zero.
    wall_at_zero_ms: i64,
    /// How long the answer took: the ends of it bound the error.
    took: Duration,
    /// When it came.
    at: Duration,
}

impl ClusterTime {
    /// A node said what time it is, between two readings of the clock that nobody sets; `wall_ms` is the own wall clock at the
    /// second one.
    pub(crate) fn learn(&self, told_ms: u64, (sent, received): (Duration, Duration), wall_ms: u64) {
        let took = received.saturating_sub(sent);
        let there_now_ms = told_ms.saturating_add(millis(took / 2));
        let new = Sample {
            ahead_ms: there_now_ms
                .cast_signed()
                .saturating_sub(wall_ms.cast_signed()),
            wall_at_zero_ms: at_zero(received, wall_ms),
            took,
            at: received,
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_better = known.is_none_or(|old| took <= old.took || !old.holds(received, wall_ms));
        if is_better {
            *known = Some(new);
        }
    }

    /// The time, in milliseconds since the Unix epoch: the nodes', where the own wall clock is known to be off.
    pub(crate) fn at(&self, now: Duration, wall_ms: u64) -> u64 {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(sample) if sample.is_off() && sample.holds(now, wall_ms) => {
                let here_ms = sample.wall_at_zero_ms.saturating_add_unsigned(millis(now));
                here_ms
                    .saturating_add(sample.ahead_ms)
                    .max(0)
                    .cast_unsigned()
            }
            _ => wall_ms,
        }
    }

    /// What was learnt does not seem to be right: a node refused what was named by it.
    pub(crate) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Sample {
    fn is_off(&self) -> bool {
        self.ahead_ms.unsigned_abs() > millis(EQUAL + self.took / 2)
    }

    fn holds(&self, now: Duration, wall_ms: u64) -> bool {
        let moved = at_zero(now, wall_ms).abs_diff(self.wall_at_zero_ms);
        moved <= millis(SET) && now.saturating_sub(self.at) <= OLD
    }
}

fn at_zero(now: Duration, wall_ms: u64) -> i64 {
    wall_ms
        .cast_signed()
        .saturating_sub(millis(now).cast_signed())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_clock_that_is_far_off_is_put_right_until_somebody_sets_it() {
        let time = ClusterTime::default();
        assert_eq!(time.at(ms(10), 1_000_010), 1_000_010, "nothing is known");
        // Five seconds behind; the answer took 20 ms.
        time.learn(1_005_010, (ms(0), ms(20)), 1_000_020);
        assert_eq!(time.at(ms(500), 1_000_500), 1_005_500);
        // Set by less than a second, it is no worse than before.
        assert_eq!(time.at(ms(500), 1_001_400), 1_005_500);
        // An answer that took longer says less.
        time.learn(1_009_000, (ms(600), ms(2_600)), 1_002_600);
        assert_eq!(time.at(ms(3_000), 1_003_000), 1_008_000);
        // The clock was set right; or, as far as anyone knows, wrong in another way.
        assert_eq!(time.at(ms(4_000), 1_009_000), 1_009_000);
        time.learn(1_010_000, (ms(4_900), ms(5_100)), 1_010_100);
        assert_eq!(time.at(ms(6_000), 1_011_000), 1_011_000);
    }

    #[test]
    fn what_was_learnt_long_ago_or_led_to_a_refusal_counts_no_more() {
        let time = ClusterTime::default();
        time.learn(1_005_000, (ms(0), ms(0)), 1_000_000);
        assert_eq!(time.at(ms(1_000), 1_001_000), 1_006_000);
        assert_eq!(time.at(ms(700_000), 1_700_000), 1_700_000);
        time.forget();
        assert_eq!(time.at(ms(1_000), 1_001_000), 1_001_000);
        // Of an answer that took a second nobody knows when in it the clock was read.
        time.learn(1_000_900, (ms(0), ms(1_000)), 1_001_000);
        assert_eq!(time.at(ms(2_000), 1_002_000), 1_002_000);
    }

    #[test]
    fn clocks_that_are_about_equal_are_left_alone() {
        let time = ClusterTime::default();
        time.learn(1_000_090, (ms(0), ms(10)), 1_000_005);
        assert_eq!(time.at(ms(50), 1_000_045), 1_000_045);
    }
}
