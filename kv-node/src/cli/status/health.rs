//! Is the cluster well, and what can it still lose: computed from topology and states alone.

use kv_client::ring::{PartitionId, Topology};
use kv_client::{NodeId, Quorum};

use super::gather::Seen;

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Health {
    /// Members that requests from here cannot count on: name and state.
    pub(super) missing: Vec<(String, &'static str)>,
    /// Answering nodes that see another cluster than the rest.
    pub(super) disagreeing: usize,
    /// The bucket whose ranges are judged: the one with the least to lose.
    pub(super) quorum: Quorum,
    /// Key ranges.
    pub(super) ranges: u32,
    /// Ranges of which not every replica is live.
    pub(super) ranges_short: u32,
    /// The fewest live replicas of any range.
    pub(super) fewest_live: u8,
    /// Ranges without enough live replicas for reads and writes.
    pub(super) ranges_below: u32,
    /// Nodes, any nodes, that may yet stop before a range loses its quorum.
    pub(super) can_lose_for_quorum: u8,
    /// Disks, any disks, that may yet be lost before an acknowledged write can be; members that are
    /// missing count as lost.
    pub(super) can_lose_for_data: u8,
}

impl Health {
    pub(super) fn of(seen: &Seen) -> Self {
        let is_live = |node: NodeId| {
            seen.nodes
                .iter()
                .any(|other| other.member.node == node && other.is_live())
        };
        let missing = seen.nodes.iter().filter(|node| !node.is_live());
        let missing: Vec<_> = missing
            .map(|node| (node.member.name.clone(), node.state.name()))
            .collect();
        let lost = u8::try_from(missing.len()).unwrap_or(u8::MAX);
        let quorums = seen
            .topology
            .buckets()
            .iter()
            .map(|bucket| bucket.properties.quorum);
        let judged = quorums
            .clone()
            .map(|quorum| Ranges::count(&seen.topology, quorum, is_live));
        let worst = judged.min_by_key(|ranges| ranges.margin());
        let worst = worst.unwrap_or_else(Ranges::none);
        let least_w = quorums.map(Quorum::w).min().unwrap_or(1);
        Self {
            missing,
            disagreeing: seen.answers().count() - seen.agreeing(),
            quorum: worst.quorum,
            ranges: worst.total,
            ranges_short: worst.short,
            fewest_live: worst.fewest_live,
            ranges_below: worst.below,
            can_lose_for_quorum: worst.margin().max(0).unsigned_abs(),
            can_lose_for_data: least_w.saturating_sub(1).saturating_sub(lost),
        }
    }

    pub(super) fn is_degraded(&self) -> bool {
        !self.missing.is_empty() || self.disagreeing > 0 || self.ranges_short > 0
    }
}

/// The ranges of one bucket.
struct Ranges {
    quorum: Quorum,
    total: u32,
    short: u32,
    below: u32,
    fewest_live: u8,
}

impl Ranges {
    fn none() -> Self {
        let quorum = Quorum::new(1, 1, 1).expect("one of one is possible");
        Self {
            quorum,
            total: 0,
            short: 0,
            below: 0,
            fewest_live: 1,
        }
    }

    fn count(topology: &Topology, quorum: Quorum, is_live: impl Fn(NodeId) -> bool) -> Self {
        let mut ranges = Self {
            quorum,
            fewest_live: quorum.n(),
            ..Self::none()
        };
        ranges.total = topology.partition_count().get();
        for partition in topology.partition_count().iter() {
            let live = live_replicas(topology, partition, quorum.n(), &is_live);
            ranges.short += u32::from(live < quorum.n());
            ranges.below += u32::from(live < needed(quorum));
            ranges.fewest_live = ranges.fewest_live.min(live);
        }
        ranges
    }

    /// Live replicas of the worst range beyond those that it needs.
    fn margin(&self) -> i8 {
        // Both are 16 at most.
        self.fewest_live as i8 - needed(self.quorum) as i8
    }
}

fn live_replicas(
    topology: &Topology,
    partition: PartitionId,
    n: u8,
    is_live: impl Fn(NodeId) -> bool,
) -> u8 {
    topology.replicas(partition, n).count(is_live)
}

/// Live replicas that both a read and a write need.
fn needed(quorum: Quorum) -> u8 {
    quorum.r().max(quorum.w())
}
