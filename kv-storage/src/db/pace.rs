//! Slows writers down before they must be stopped. Pure: time is an argument.

use std::time::Duration;

/// Write rate when compaction has just begun to fall behind, in bytes per second.
const FASTEST: u64 = 64 << 20;
/// Write rate just before writes are stopped.
const SLOWEST: u64 = 2 << 20;

/// Admits writes at a rate that falls as debt rises.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pacer {
    next: Duration,
}

impl Pacer {
    /// Admits a write of `size_bytes`, or says how long to wait. Debt is `debt` of `limit`; none
    /// means no pacing.
    pub(super) fn admit(
        &mut self,
        now: Duration,
        size_bytes: usize,
        debt: usize,
        limit: usize,
    ) -> Result<(), Duration> {
        if debt == 0 {
            return Ok(());
        }
        if now < self.next {
            return Err(self.next - now);
        }
        let span = (FASTEST - SLOWEST) * debt.min(limit) as u64 / limit.max(1) as u64;
        let rate = FASTEST - span;
        let cost = Duration::from_nanos((size_bytes as u64).saturating_mul(1_000_000_000) / rate);
        self.next = now + cost;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes admitted in one second of trying every 100 microseconds.
    fn rate(debt: usize) -> usize {
        let mut pacer = Pacer::default();
        let tries = (0..10_000).map(|step| Duration::from_micros(step * 100));
        tries
            .filter(|now| pacer.admit(*now, 16 << 10, debt, 10).is_ok())
            .count()
            * (16 << 10)
    }

    #[test]
    fn the_admitted_rate_falls_with_debt() {
        let rates: Vec<usize> = [0, 1, 5, 9, 10].into_iter().map(rate).collect();
        assert!(rates.is_sorted_by(|a, b| a > b), "{rates:?}");
        assert!(rates[4] > 1 << 20 && rates[4] < 3 << 20, "{rates:?}");
    }
}
