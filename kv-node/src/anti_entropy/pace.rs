//! How fast a node fetches what it lacks: what users wait for needs the disk and the network, too.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// So far ahead of its pace it may be: one large answer is no reason to wait.
const AHEAD: Duration = Duration::from_millis(100);

/// A pace that all comparisons of a node keep together.
#[derive(Debug)]
pub struct Pace {
    /// 0 is no limit.
    bytes_per_s: u64,
    /// When all that was taken so far is paid for.
    paid_at: Mutex<Duration>,
}

impl Pace {
    /// At most so many bytes a second, by and large; 0 is no limit.
    #[must_use]
    pub fn new(bytes_per_s: u64) -> Self {
        Self {
            bytes_per_s,
            paid_at: Mutex::default(),
        }
    }

    /// Takes bytes that have come, and says how long to rest before more are asked for.
    #[must_use]
    pub fn rest_after(&self, bytes: usize, now: Duration) -> Duration {
        if self.bytes_per_s == 0 {
            return Duration::ZERO;
        }
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        *paid_at = (*paid_at).max(now) + takes;
        paid_at.saturating_sub(now + AHEAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_answers_together_are_not_faster_than_the_pace() {
        let pace = Pace::new(1_000_000);
        let mut now = Duration::from_secs(7);
        for _ in 0..100 {
            // Two of them at once.
            let rests = [(); 2].map(|()| pace.rest_after(50_000, now));
            now += rests[1];
        }
        let took = now - Duration::from_secs(7);
        let exact = Duration::from_secs(10) - AHEAD;
        assert!(took >= exact && took < exact + AHEAD, "{took:?}");
    }

    #[test]
    fn a_quiet_time_saves_up_nothing_and_no_limit_is_none() {
        let pace = Pace::new(1_000_000);
        let rest = pace.rest_after(2_000_000, Duration::from_secs(3_600));
        assert_eq!(rest, Duration::from_millis(1_900));
        assert_eq!(
            Pace::new(0).rest_after(usize::MAX, Duration::ZERO),
            Duration::ZERO
        );
    }
}
