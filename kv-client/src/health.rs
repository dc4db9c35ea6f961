//! What the client itself has seen of each node: who failed lately, and who is busy.
//!
//! A node that failed is ranked last for half a second, doubling to five with every further failure.
//! After that one request at a time is sent to it as a probe, until one is answered.

use std::collections::BTreeMap;
use std::time::Duration;

use kv_types::NodeId;

const FIRST_REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(5);

/// How much a node is worth trying now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It answered last time, or was never tried.
    Good,
    /// It failed and has rested; this request may be its probe.
    Probe,
    /// It failed lately, or is being probed.
    Resting,
}

#[derive(Debug, Default)]
struct Record {
    in_flight: u32,
    failures: u32,
    rests_until: Duration,
    probing: bool,
}

/// The client's own evidence about the nodes it used.
#[derive(Debug, Default)]
pub(crate) struct Health {
    nodes: BTreeMap<NodeId, Record>,
}

impl Health {
    /// Counts a request as under way; `true` when it is a probe.
    pub(crate) fn begin(&mut self, node: NodeId, now: Duration) -> bool {
        let probe = self.standing(node, now) == Standing::Probe;
        let record = self.nodes.entry(node).or_default();
        record.in_flight += 1;
        record.probing |= probe;
        probe
    }

    /// Counts a request as over, answered or given up.
    pub(crate) fn end(&mut self, node: NodeId, was_probe: bool) {
        if let Some(record) = self.nodes.get_mut(&node) {
            record.in_flight = record.in_flight.saturating_sub(1);
            record.probing &= !was_probe;
        }
    }

    /// The node answered.
    pub(crate) fn answered(&mut self, node: NodeId) {
        if let Some(record) = self.nodes.get_mut(&node) {
            record.failures = 0;
        }
    }

    /// The node could not be reached, broke off, or stayed silent.
    ///
    /// Failures of requests that were under way together count as one: they have one cause.
    pub(crate) fn failed(&mut self, node: NodeId, now: Duration) {
        let record = self.nodes.entry(node).or_default();
        if record.failures > 0 && now < record.rests_until {
            return;
        }
        let rest = FIRST_REST
            .saturating_mul(1 << record.failures.min(8))
            .min(LONGEST_REST);
        record.failures = record.failures.saturating_add(1);
        record.rests_until = now + rest;
    }

    /// Forgets the nodes that are no longer members and have nothing under way.
    pub(crate) fn retain(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.nodes
            .retain(|&node, record| record.in_flight > 0 || is_member(node));
    }

    pub(crate) fn standing(&self, node: NodeId, now: Duration) -> Standing {
        match self.nodes.get(&node) {
            None => Standing::Good,
            Some(record) if record.failures == 0 => Standing::Good,
            Some(record) if now < record.rests_until || record.probing => Standing::Resting,
            Some(_) => Standing::Probe,
        }
    }

    pub(crate) fn in_flight(&self, node: NodeId) -> u32 {
        self.nodes.get(&node).map_or(0, |record| record.in_flight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_failed_node_rests_then_takes_one_probe_at_a_time() {
        let mut health = Health::default();
        assert_eq!(health.standing(NODE, at(0)), Standing::Good);
        health.failed(NODE, at(0));
        assert_eq!(health.standing(NODE, at(499)), Standing::Resting);
        assert_eq!(health.standing(NODE, at(500)), Standing::Probe);
        assert!(health.begin(NODE, at(500)));
        assert_eq!(health.standing(NODE, at(501)), Standing::Resting);
        assert!(!health.begin(NODE, at(501)));
        health.end(NODE, true);
        assert_eq!(health.standing(NODE, at(502)), Standing::Probe);
    }

    #[test]
    fn an_answer_makes_a_node_good_again() {
        let mut health = Health::default();
        health.failed(NODE, at(0));
        health.answered(NODE);
        assert_eq!(health.standing(NODE, at(1)), Standing::Good);
    }

    #[test]
    fn rests_double_up_to_five_seconds() {
        let mut health = Health::default();
        let mut now = at(0);
        for rest in [500, 1000, 2000, 4000, 5000, 5000] {
            health.failed(NODE, now);
            assert_eq!(health.standing(NODE, now + at(rest - 1)), Standing::Resting);
            now += at(rest);
            assert_eq!(
                health.standing(NODE, now),
                Standing::Probe,
                "after {rest} ms"
            );
        }
    }

    #[test]
    fn many_requests_that_fail_together_count_once() {
        let mut health = Health::default();
        for ms in 0..100 {
            health.failed(NODE, at(ms));
        }
        assert_eq!(health.standing(NODE, at(500)), Standing::Probe);
    }

    #[test]
    fn former_members_are_forgotten_once_idle() {
        let mut health = Health::default();
        health.begin(NODE, at(0));
        health.failed(NODE, at(0));
        health.retain(|_| false);
        assert_eq!(health.standing(NODE, at(1)), Standing::Resting);
        health.end(NODE, false);
        health.retain(|_| false);
        assert_eq!(health.standing(NODE, at(1)), Standing::Good);
    }
}
