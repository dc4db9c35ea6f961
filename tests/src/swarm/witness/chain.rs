//! There is one history of the topology.

use std::collections::BTreeMap;

use kv_ring::ChainHash;
use kv_types::{Epoch, NodeId};

use super::Witness;

/// The hash of each epoch, and who had which one first and last.
#[derive(Debug, Default)]
pub(super) struct Chain {
    hashes: BTreeMap<Epoch, (ChainHash, NodeId)>,
    seen: BTreeMap<NodeId, (Epoch, ChainHash)>,
}

impl Witness {
    /// Somebody asks: the history that it goes by is that of all others.
    pub(super) fn look_at_chain(&self, node: NodeId) {
        let Some(running) = self.cluster.node(node) else {
            return;
        };
        let tip = running.topology_tip();
        let (first, by) = {
            let chain = &mut self.state().chain;
            if chain.seen.insert(node, tip) == Some(tip) {
                return;
            }
            *chain.hashes.entry(tip.0).or_insert((tip.1, node))
        };
        self.count("look at a history");
        if first != tip.1 {
            let what = format!(
                "epoch {} is {first} at {by}, and {} at {node}",
                tip.0, tip.1
            );
            self.wrong("two-histories", what);
        }
    }
}
