//! There is one history of the topology.

use std::collections::BTreeMap;

use kv_ring::ChainHash;
use kv_types::{Epoch, NodeId};

use super::Witness;

/// The hash of each epoch and who had it first, and by which one each node goes.
#[derive(Debug, Default)]
pub(super) struct Chain {
    hashes: BTreeMap<Epoch, (ChainHash, NodeId)>,
    seen: BTreeMap<NodeId, (Epoch, ChainHash)>,
}

impl Chain {
    /// Takes in by which history a node goes: nothing if that is known, else who had which one of its epoch first.
    fn note(&mut self, node: NodeId, tip: (Epoch, ChainHash)) -> Option<(ChainHash, NodeId)> {
        if self.seen.insert(node, tip) == Some(tip) {
            return None;
        }
        Some(*self.hashes.entry(tip.0).or_insert((tip.1, node)))
    }
}

impl Witness {
    /// Somebody asks: the history that it goes by is that of all others.
    pub(super) fn look_at_chain(&self, node: NodeId) {
        let Some(running) = self.cluster.node(node) else {
            return;
        };
        let tip = running.topology_tip();
        let noted = self.state().chain.note(node, tip);
        let Some((first, by)) = noted else {
            return;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_history_of_an_epoch_is_what_others_are_held_to() {
        let [one, other] = [1, 2].map(NodeId);
        let [common, fork] = [[1; 16], [2; 16]].map(ChainHash);
        let mut chain = Chain::default();
        assert_eq!(chain.note(one, (Epoch(1), common)), Some((common, one)));
        assert_eq!(chain.note(one, (Epoch(1), common)), None, "that is known");
        assert_eq!(chain.note(other, (Epoch(1), common)), Some((common, one)));
        assert_eq!(chain.note(one, (Epoch(2), common)), Some((common, one)));
        assert_eq!(chain.note(other, (Epoch(2), fork)), Some((common, one)));
    }
}
