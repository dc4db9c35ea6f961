//! When a read asks one replica more than it needs, because those it asked keep it waiting.
//!
//! The tail at scale (Dean and Barroso, 2013): after the time within which nearly all answers come, another is asked as
//! well, for a few of a hundred requests at most, so that a cluster that is slow as a whole is not asked for more. What is
//! asked instead of a peer that is known to be slow costs nothing: that one is asked for less.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kv_types::NodeId;

use super::Coordinator;

/// Longer than this nobody is waited for before another is asked.
const LONGEST: Duration = Duration::from_millis(30);
/// Nobody is late sooner.
const SHORTEST: Duration = Duration::from_millis(1);

/// How many more requests may be sent than are needed: one for twenty reads.
#[derive(Debug)]
pub(super) struct HedgeBudget {
    /// In twentieths of a request.
    left: Mutex<u32>,
}

impl HedgeBudget {
    const SHARE: u32 = 20;
    /// So many at once.
    const MOST: u32 = 10 * Self::SHARE;

    /// There is one read more.
    fn earn(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_add(1).min(Self::MOST);
    }

    fn spend(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rest) = left.checked_sub(Self::SHARE) else {
            return false;
        };
        *left = rest;
        true
    }
}

impl Default for HedgeBudget {
    fn default() -> Self {
        Self {
            left: Mutex::new(Self::MOST),
        }
    }
}

/// Those that a read waits for.
#[derive(Debug, Default)]
pub(super) struct Waited {
    nodes: Vec<NodeId>,
}

impl Waited {
    /// One is asked.
    pub(super) fn add(&mut self, node: NodeId) {
        self.nodes.push(node);
    }

    /// Who has not answered.
    pub(super) fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// It answered, or will not.
    pub(super) fn remove(&mut self, node: NodeId) {
        if let Some(at) = self.nodes.iter().position(|waited| *waited == node) {
            self.nodes.swap_remove(at);
        }
    }
}

impl Coordinator {
    /// How long those that were asked may take before another is asked: what the slowest of them usually takes.
    pub(super) fn patience(&self, waited: &Waited) -> Duration {
        self.hedges.earn();
        let usual = waited.nodes.iter();
        let usual = usual.map(|node| self.evidence.p95(*node).unwrap_or(LONGEST));
        usual.max().unwrap_or(LONGEST).clamp(SHORTEST, LONGEST)
    }

    /// Whether another may be asked now.
    pub(super) fn may_hedge(&self, waited: &Waited) -> bool {
        let now = self.env.now();
        let mut nodes = waited.nodes.iter();
        let may = nodes.any(|node| self.evidence.is_slow(*node, now)) || self.hedges.spend();
        if may {
            self.metrics.read_hedge();
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_a_hundred_reads_five_more_may_be_sent_after_the_first_ten() {
        let budget = HedgeBudget::default();
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
        for _ in 0..100 {
            budget.earn();
        }
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 5);
    }

    #[test]
    fn a_quiet_time_saves_up_no_more_than_ten() {
        let budget = HedgeBudget::default();
        for _ in 0..1_000 {
            budget.earn();
        }
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
    }
}
