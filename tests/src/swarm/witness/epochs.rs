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
            let mut state = self.state();
            let acked = state.epochs.0.entry(partition).or_default();
            if what == Served::Write {
                acked.entry(changed).or_insert(now);
            }
            if !meets_writers {
                return;
            }
            let mut later = acked.range((Bound::Excluded(changed), Bound::Unbounded));
            later
                .find(|(_, heard)| **heard < begun)
                .map(|(newer, heard)| (*newer, *heard))
        };
        if let Some((newer, heard)) = newer {
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
