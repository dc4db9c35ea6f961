//! How many retries a client may send, as a share of its requests.
//!
//! When a whole cluster is slow, every retry makes it slower. So requests earn retries: ten requests
//! pay for one. A trickle over time lets a client with few requests retry always.

use std::time::Duration;

/// In thousandths of a retry.
const COST: u64 = 1000;
const EARNED_PER_REQUEST: u64 = COST / 10;
const EARNED_PER_MS: u64 = COST / 100;
/// A hundred retries: as many requests may hang at once when a node dies.
const MOST: u64 = 100 * COST;

/// A bucket of retry tokens: 0.1 per request, 10 per second, at most 100.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    balance: u64,
    counted_to: Duration,
}

impl RetryBudget {
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            balance: MOST,
            counted_to: now,
        }
    }

    /// Counts a request.
    pub(crate) fn earn(&mut self) {
        self.balance = (self.balance + EARNED_PER_REQUEST).min(MOST);
    }

    /// Takes one retry; `false` when there is none.
    pub(crate) fn spend(&mut self, now: Duration) -> bool {
        let elapsed = now.saturating_sub(self.counted_to).as_millis();
        let elapsed_ms = u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.balance = self
            .balance
            .saturating_add(elapsed_ms.saturating_mul(EARNED_PER_MS))
            .min(MOST);
        // Whole milliseconds only: the rest of one is counted with the next.
        self.counted_to += Duration::from_millis(elapsed_ms);
        let Some(rest) = self.balance.checked_sub(COST) else {
            return false;
        };
        self.balance = rest;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(5);

    fn drained() -> RetryBudget {
        let mut budget = RetryBudget::new(START);
        while budget.spend(START) {}
        budget
    }

    #[test]
    fn under_load_one_request_in_ten_is_a_retry() {
        let mut budget = drained();
        let mut retries = 0;
        for _ in 0..10_000 {
            budget.earn();
            retries += u32::from(budget.spend(START));
        }
        assert_eq!(retries, 1000);
    }

    #[test]
    fn an_occasional_retry_always_works() {
        let mut budget = drained();
        assert!(!budget.spend(START + Duration::from_millis(99)));
        assert!(budget.spend(START + Duration::from_millis(100)));
        assert!(!budget.spend(START + Duration::from_millis(100)));
    }

    #[test]
    fn a_long_rest_saves_no_more_than_a_hundred() {
        let mut budget = drained();
        let later = START + Duration::from_secs(3600);
        let saved = core::iter::repeat_with(|| budget.spend(later)).take_while(|&spent| spent);
        assert_eq!(saved.count(), 100);
    }
}
