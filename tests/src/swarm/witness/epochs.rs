//! No two topologies have one partition served side by side.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use kv_ring::{PartitionId, Topology};
use kv_types::{Epoch, Key};

use super::Witness;
use crate::sim::client::BUCKET;

/// Under which epochs of a partition's last change its writes were acknowledged, and when a client first heard of one.
#[derive(Debug, Default)]
pub(super) struct Epochs(BTreeMap<PartitionId, BTreeMap<Epoch, Duration>>);

/// What a strict quorum has done for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// It has shown a key.
    Read,
    /// It has taken a write.
    Write,
}

impl Epochs {
    /// A client hears of a write under a change of a partition.
    fn wrote(&mut self, partition: PartitionId, changed: Epoch, now: Duration) {
        let acked = self.0.entry(partition).or_default();
        acked.entry(changed).or_insert(now);
    }

    /// A later change under which a write was acknowledged, if somebody had heard of that before this was asked.
    fn heard_before(
        &self,
        partition: PartitionId,
        changed: Epoch,
        begun: Duration,
    ) -> Option<(Epoch, Duration)> {
        let acked = self.0.get(&partition)?;
        let mut later = acked.range((Bound::Excluded(changed), Bound::Unbounded));
        let newer = later.find(|(_, heard)| **heard < begun);
        newer.map(|(newer, heard)| (*newer, *heard))
    }
}

impl Witness {
    /// A client hears that a quorum of the key's own replicas has served a request that it sent at `begun`, under the
    /// topology of an epoch: whoever of them had acknowledged a write under a later change of the partition would have refused.
    pub fn served(&self, what: Served, key: &Key, begun: Duration, epoch: Epoch) {
        let (quorum, now) = (self.quorum, self.handle.now());
        let asked = match what {
            Served::Read => quorum.r(),
            Served::Write => quorum.w(),
        };
        let meets_writers = asked + quorum.w() > quorum.n();
        let Some(topology) = self.topology_of(epoch) else {
            return;
        };
        let (_, partition) = topology.locate(BUCKET, key.partition_key());
        let changed = topology.changed_at(partition);
        self.count("look at an epoch");
        let newer = {
            let epochs = &mut self.state().epochs;
            if what == Served::Write {
                epochs.wrote(partition, changed, now);
            }
            epochs.heard_before(partition, changed, begun)
        };
        if let Some((newer, heard)) = newer.filter(|_| meets_writers) {
            let what = format!(
                "a {what:?} of {key}, sent at {begun:?}, was served under epoch {changed} of {partition}, of which a write was acknowledged under epoch {newer} at {heard:?}"
            );
            self.wrong("two-epochs", what);
        }
    }

    /// The topology of an epoch, if a node that runs has it.
    fn topology_of(&self, epoch: Epoch) -> Option<std::sync::Arc<Topology>> {
        let nodes = self.cluster.nodes();
        let mut topologies = nodes.filter_map(|node| Some(self.cluster.node(node)?.topology()));
        topologies.find(|topology| topology.epoch() == epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_served_under_an_older_change_than_a_write_before_it_is_told_of() {
        let (here, there) = (PartitionId(1), PartitionId(2));
        let at = Duration::from_secs;
        let mut epochs = Epochs::default();
        epochs.wrote(here, Epoch(1), at(10));
        assert_eq!(epochs.heard_before(here, Epoch(1), at(20)), None);
        epochs.wrote(here, Epoch(2), at(30));
        epochs.wrote(here, Epoch(2), at(40));
        assert_eq!(
            epochs.heard_before(here, Epoch(1), at(25)),
            None,
            "the two overlap"
        );
        assert_eq!(
            epochs.heard_before(here, Epoch(1), at(31)),
            Some((Epoch(2), at(30)))
        );
        assert_eq!(epochs.heard_before(here, Epoch(2), at(50)), None);
        assert_eq!(epochs.heard_before(there, Epoch(1), at(50)), None);
    }
}
