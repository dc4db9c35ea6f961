//! Slows writers down before they must be stopped. Pure: time is an argument.
//!
//! The admitted rate is `average * (1 - x) / x`, where `x` grows from 0 to 1 while debt grows from 60 %
//! of its limit to the limit, and `average` is what was admitted lately. So it falls smoothly, comes to
//! rest in the middle of the span, and there equals what flushes and compactions get done, without
//! anyone having to know how much that is.

use crate::compaction::Debt;
use std::time::Duration;

/// Bytes per second that are admitted at least, so that no small write waits long.
const SLOWEST: u64 = 1 << 20;
/// Time unused by late sleepers that later writes may use.
const CREDIT: Duration = Duration::from_millis(2);
/// The average is renewed this often ...
const WINDOW: Duration = Duration::from_millis(100);
/// ... by one in so many parts of the difference while nobody pays, to know what writers want ...
const FAST: i64 = 4;
/// ... and by one in so many while they pay. That is slow against the time in which debt changes, or the
/// rate would swing: the loop's damping is the root of the ratio of these two times.
const SLOW: i64 = 128;

/// Admits writes at a rate that falls as debt rises.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pacer {
    /// The next write is admitted then.
    next: Duration,
    /// Bytes per second.
    average: u64,
    window_began: Duration,
    window_bytes: u64,
}

impl Pacer {
    /// Admits a write of `size_bytes`, or says how long to wait.
    pub(super) fn admit(
        &mut self,
        now: Duration,
        size_bytes: usize,
        debt: Debt,
    ) -> Result<(), Duration> {
        let paid = debt.paid().filter(|paid| *paid > 0);
        self.renew_average(now, if paid.is_some() { SLOW } else { FAST });
        if let Some(paid) = paid {
            if now < self.next {
                return Err(self.next - now);
            }
            let rate = u128::from(self.average) * u128::from(1000 - paid) / u128::from(paid);
            let rate = u64::try_from(rate).unwrap_or(u64::MAX).max(SLOWEST);
            let cost =
                Duration::from_nanos((size_bytes as u64).saturating_mul(1_000_000_000) / rate);
            // A writer that slept longer than it was told may catch up.
            self.next = self.next.max(now.saturating_sub(CREDIT)) + cost;
        }
        self.window_bytes += size_bytes as u64;
        Ok(())
    }

    fn renew_average(&mut self, now: Duration, parts: i64) {
        let passed = now.saturating_sub(self.window_began);
        if passed < WINDOW {
            return;
        }
        let rate = u128::from(self.window_bytes) * 1_000_000 / passed.as_micros().max(1);
        let rate = i64::try_from(rate).unwrap_or(i64::MAX);
        // After a pause, several windows count at once.
        let windows = i64::try_from(passed.as_millis() / WINDOW.as_millis()).unwrap_or(parts);
        let average = i64::try_from(self.average).unwrap_or(i64::MAX);
        let renewed = average + (rate - average) / parts * windows.min(parts);
        self.average = u64::try_from(renewed).unwrap_or(0).max(SLOWEST);
        (self.window_began, self.window_bytes) = (now, 0);
    }
}

#[cfg(test)]
mod tests;
