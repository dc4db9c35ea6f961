//! Local health: a member that misses answers doubts itself before it doubts others (Lifeguard §3.1).

use core::time::Duration;

/// A saturating score; 0 is well.
#[derive(Debug, Clone)]
pub(crate) struct LocalHealth {
    score: u32,
    limit: u32,
}

impl LocalHealth {
    pub(crate) fn new(limit: u32) -> Self {
        Self { score: 0, limit }
    }

    pub(crate) fn improve(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    pub(crate) fn worsen(&mut self, by: u32) {
        self.score = self.score.saturating_add(by).min(self.limit);
    }

    /// `timing`, made longer by how unwell this member is.
    pub(crate) fn scale(&self, timing: Duration) -> Duration {
        timing * (self.score + 1)
    }

    pub(crate) fn score(&self) -> u32 {
        self.score
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_slows_probes_and_saturates() {
        let second = Duration::from_secs(1);
        let mut health = LocalHealth::new(8);
        assert_eq!(health.scale(second), second);
        health.worsen(3);
        assert_eq!(health.scale(second), 4 * second);
        health.worsen(100);
        assert_eq!(health.score(), 8);
        for _ in 0..10 {
            health.improve();
        }
        assert_eq!(health.score(), 0);
    }
}
