//! Whether this node's clock goes with those of the others: one that does not mints no dots.
//!
//! A node whose clock is ahead would win every write in buckets of mode `lww` for as long as it is ahead, and its values
//! would expire early. So each node compares its clock with those of the others every few seconds, and while it is further
//! than [`HybridClock::MAX_SKEW`] from their median, others coordinate writes in its place.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use kv_net::ErrorCode;
use kv_types::HybridClock;

use crate::refusal::Refusal;

/// An answer that took longer says too little about when it was given.
const LONGEST_WAY: Duration = Duration::from_millis(250);

/// How far this node's clock is from the median of all.
#[derive(Debug, Default)]
pub struct ClockWatch {
    /// In milliseconds; positive if it is behind.
    behind_ms: AtomicI64,
}

impl ClockWatch {
    /// Takes in by how much each other member's clock was ahead of this node's, in milliseconds, or behind. Who did not
    /// answer is left out.
    pub fn note(&self, offsets_ms: Vec<i64>) {
        let now = median(offsets_ms);
        let before = self.behind_ms.swap(now, Ordering::Relaxed);
        match (is_wrong(before), is_wrong(now)) {
            (false, true) => tracing::error!(
                behind_ms = now,
                "this node's clock differs from those of the others by too much, so others coordinate writes in its place; set it"
            ),
            (true, false) => {
                tracing::info!("this node's clock goes with those of the others again");
            }
            _ => {}
        }
    }

    /// By how many milliseconds this node's clock is behind the median; negative if it is ahead.
    #[must_use]
    pub fn behind_ms(&self) -> i64 {
        self.behind_ms.load(Ordering::Relaxed)
    }

    /// The time, in milliseconds since the Unix epoch: by this node's own clock, or by the median of all if its own is wrong. For
    /// what readers see, such as values that expire.
    #[must_use]
    pub fn right_ms(&self, own_ms: u64) -> u64 {
        match self.behind_ms() {
            behind_ms if is_wrong(behind_ms) => own_ms.saturating_add_signed(behind_ms),
            _ => own_ms,
        }
    }

    /// Refuses to mint by a clock that is wrong.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub fn check(&self) -> Result<(), Refusal> {
        let behind_ms = self.behind_ms();
        if !is_wrong(behind_ms) {
            return Ok(());
        }
        let message = format!(
            "this node's clock is {} ms {} those of the others, so it coordinates no writes; nothing was changed; set its clock, or try another node",
            behind_ms.unsigned_abs(),
            if behind_ms > 0 { "behind" } else { "ahead of" }
        );
        Err(Refusal::new(ErrorCode::ClockSkew, message))
    }
}

/// By how many milliseconds a peer's clock is ahead, if its answer, which was `way` under way in all, says so closely enough.
#[must_use]
pub fn offset_ms(theirs_ms: u64, mine_ms: u64, way: Duration) -> Option<i64> {
    let half = i64::try_from(way.as_millis() / 2).ok()?;
    let apart = i64::try_from(i128::from(theirs_ms) - i128::from(mine_ms)).ok()?;
    (way <= LONGEST_WAY).then(|| apart.saturating_add(half))
}

fn is_wrong(behind_ms: i64) -> bool {
    u128::from(behind_ms.unsigned_abs()) > HybridClock::MAX_SKEW.as_millis()
}

/// The median of all clocks, this node's own among them. Of the two in the middle the one that is nearer to its own: where
/// only two clocks can be compared, nobody knows which is wrong.
fn median(mut offsets_ms: Vec<i64>) -> i64 {
    offsets_ms.push(0);
    offsets_ms.sort_unstable();
    let (low, high) = ((offsets_ms.len() - 1) / 2, offsets_ms.len() / 2);
    let middle = [offsets_ms[low], offsets_ms[high]];
    middle
        .into_iter()
        .min_by_key(|ms| ms.unsigned_abs())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_that_differs_from_most_is_the_one_that_is_wrong() {
        let hour = 3_600_000;
        assert_eq!(median(vec![]), 0);
        assert_eq!(median(vec![hour]), 0, "of two clocks nobody knows");
        assert_eq!(median(vec![0, hour]), 0);
        assert_eq!(median(vec![-hour, -hour]), -hour);
        assert_eq!(median(vec![3, -hour, 2, hour]), 2);
        assert_eq!(median(vec![hour, hour, 0]), 0, "two against two");
    }

    #[test]
    fn a_clock_is_wrong_beyond_the_tolerated_skew() {
        let most = i64::try_from(HybridClock::MAX_SKEW.as_millis()).expect("half a second");
        let watch = ClockWatch::default();
        for (behind, is_wrong) in [
            (most, false),
            (most + 1, true),
            (-most, false),
            (-most - 1, true),
        ] {
            watch.note(vec![behind, behind]);
            assert_eq!(watch.check().is_err(), is_wrong, "{behind} ms");
        }
        watch.note(vec![most + 1, 0]);
        assert_eq!(watch.check(), Ok(()));
    }

    #[test]
    fn half_of_the_way_counts_and_a_long_way_says_nothing() {
        let ms = Duration::from_millis;
        assert_eq!(offset_ms(1_000, 1_050, ms(100)), Some(0));
        assert_eq!(offset_ms(1_000, 900, ms(0)), Some(100));
        assert_eq!(offset_ms(1_000, 900, LONGEST_WAY), Some(225));
        assert_eq!(offset_ms(1_000, 900, LONGEST_WAY + ms(1)), None);
    }
}
