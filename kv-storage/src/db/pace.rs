//! Slows writers down before they must be stopped. Pure: time is an argument.
//!
//! The admitted rate is `average * (1 - x) / x`, where `x` grows from 0 to 1 while debt grows from 60 %
//! of its limit to the limit, and `average` is what was admitted lately. So it falls smoothly, comes to
//! rest in the middle of the span, and there equals what flushes and compactions get done, without
//! anyone having to know how much that is.

use std::time::Duration;

/// Bytes per second that are admitted at least, so that no small write waits long.
const SLOWEST: u64 = 1 << 20;
/// Time unused by late sleepers that later writes may use.
const CREDIT: Duration = Duration::from_millis(2);
/// The average before anything is known.
const FASTEST: u64 = 256 << 20;
/// The average is renewed this often ...
const WINDOW: Duration = Duration::from_millis(100);
/// ... by one in so many parts of the difference. That is slow against the time in which debt changes, or
/// the rate would swing: the loop's damping is the root of the ratio of these two times.
const PARTS: i64 = 128;

/// Admits writes at a rate that falls as debt rises. It is asked only while debt is above 60 % of its
/// limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pacer {
    /// The next write is admitted then.
    next: Duration,
    /// Bytes per second.
    average: u64,
    window_began: Duration,
    window_bytes: u64,
}

impl Default for Pacer {
    fn default() -> Self {
        Self {
            next: Duration::ZERO,
            average: FASTEST,
            window_began: Duration::ZERO,
            window_bytes: 0,
        }
    }
}

impl Pacer {
    /// Admits a write of `size_bytes`, or says how long to wait. `paid` is how far debt is from 60 % to
    /// its limit, in thousandths.
    pub(super) fn admit(
        &mut self,
        now: Duration,
        size_bytes: usize,
        paid: u64,
    ) -> Result<(), Duration> {
        self.renew_average(now);
        if now < self.next {
            return Err(self.next - now);
        }
        let share = u128::from(1000 - paid.min(1000)) * 1000 / u128::from(paid.max(1));
        let rate = u64::try_from(u128::from(self.average) * share / 1000).unwrap_or(u64::MAX);
        let cost = (size_bytes as u64).saturating_mul(1_000_000_000) / rate.max(SLOWEST);
        // A writer that slept longer than it was told may catch up.
        self.next = self.next.max(now.saturating_sub(CREDIT)) + Duration::from_nanos(cost);
        self.window_bytes += size_bytes as u64;
        Ok(())
    }

    fn renew_average(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.window_began);
        if passed < WINDOW {
            return;
        }
        // After a pause without pacing, the window says nothing.
        if passed < 2 * WINDOW {
            let rate = u128::from(self.window_bytes) * 1_000_000 / passed.as_micros().max(1);
            let rate = i64::try_from(rate).unwrap_or(i64::MAX);
            let average = i64::try_from(self.average).unwrap_or(i64::MAX);
            let renewed = average.saturating_add((rate - average) / PARTS);
            self.average = u64::try_from(renewed).unwrap_or(0).max(SLOWEST);
        }
        (self.window_began, self.window_bytes) = (now, 0);
    }
}

#[cfg(test)]
mod tests;
