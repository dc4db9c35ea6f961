//! What a node has lost is complete only after it has compared with enough others.

use std::collections::{BTreeMap, BTreeSet};

use kv_ring::PartitionId;
use kv_types::{Epoch, Key, NodeId};

use super::Witness;
use crate::sim::client::BUCKET;

/// Nodes that lacked something at their last start.
pub(super) type Recoveries = BTreeMap<NodeId, Recovery>;

/// What one of them has done about it.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// The partitions that were incomplete, and have not been seen to answer since.
    incomplete: BTreeSet<u16>,
    /// With whom it has compared.
    heard: BTreeSet<NodeId>,
}

impl Witness {
    /// A node has started.
    pub(super) fn note_incomplete(&self, node: NodeId) {
        let image = self.cluster.image(node);
        // Of a damaged disk, more goes while the node runs.
        let image = image.filter(|_| !self.damaged.contains(&node));
        let incomplete = image.and_then(|image| image.incomplete().ok());
        let recovery = Recovery {
            incomplete: incomplete.unwrap_or_default(),
            heard: BTreeSet::new(),
        };
        self.state().recoveries.insert(node, recovery);
    }

    /// A node has been told the roots of a peer's trees.
    pub(super) fn note_heard(&self, node: NodeId, peer: NodeId) {
        if let Some(recovery) = self.state().recoveries.get_mut(&node) {
            recovery.heard.insert(peer);
        }
    }

    /// A node answers by its copy of a key, so it takes that for complete.
    pub(super) fn check_complete(&self, node: NodeId, key: &Key) {
        let topology = self.cluster.newest();
        let (_, PartitionId(partition)) = topology.locate(BUCKET, key.partition_key());
        let heard = {
            let mut state = self.state();
            let recovery = state.recoveries.get_mut(&node);
            match recovery.filter(|recovery| recovery.incomplete.contains(&partition)) {
                None => return,
                Some(recovery) => {
                    recovery.incomplete.remove(&partition);
                    recovery.heard.clone()
                }
            }
        };
        if topology.changed_at(PartitionId(partition)) > Epoch::GENESIS {
            // Who is to gain it answers before it has it, and its owners then are others than now.
            return;
        }
        self.count("look at a recovery");
        let owners = topology.replicas(PartitionId(partition), self.quorum.n());
        let others: BTreeSet<NodeId> = owners.nodes().filter(|owner| *owner != node).collect();
        let (n, r, w) = (self.quorum.n(), self.quorum.r(), self.quorum.w());
        let enough = usize::from((n + 1 - w).max(r).max(n + 1 - r)).min(others.len());
        let heard = others.intersection(&heard).count();
        if heard < enough {
            let what = format!(
                "{node} answers by its copy of {key}, which it lacked at its start, after comparing with {heard} of {enough} others"
            );
            self.wrong("complete-too-early", what);
        }
    }
}
