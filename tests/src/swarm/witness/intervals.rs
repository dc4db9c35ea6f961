//! What clocks claim: never what their actor may have forgotten.

use std::collections::{BTreeMap, BTreeSet};

use kv_ring::PartitionId;
use kv_types::{Hlc, Key, NodeId, Object};

use super::Witness;
use crate::sim::client::BUCKET;

/// When nodes have started, by their own clocks.
pub(super) type Starts = BTreeMap<NodeId, BTreeSet<Hlc>>;

impl Witness {
    /// An interval ends where its minter started anew: in between it may have minted what it lost. Only below the watermark
    /// all is known.
    pub(super) fn check_intervals(&self, key: &Key, partition: PartitionId, sent: &Object) {
        let topology = self.cluster.newest();
        let state = self.state();
        let raised = state.deletions.raised_most(BUCKET, partition);
        let mut crossed = None;
        for interval in sent.clock().intervals() {
            let Some((node, starts)) = state
                .starts
                .iter()
                .find(|(node, _)| topology.actor_of(**node) == Some(interval.actor))
            else {
                continue;
            };
            // Another disk remembers other starts.
            let is_known = self.cluster.disk_since(*node).is_none()
                && !self.damaged.contains(node)
                && !self.restored.contains(node);
            let inside = starts.range(interval.lo..interval.hi).next_back();
            if let Some(began) = inside.filter(|began| is_known && **began > raised) {
                crossed = Some((*node, *interval, *began));
            }
        }
        drop(state);
        let Some((node, interval, began)) = crossed else {
            return;
        };
        // Who has them rise does so at home first, which nobody hears.
        let images = self.cluster.nodes().filter_map(|at| self.cluster.image(at));
        let marks = images.filter_map(|image| image.watermark(BUCKET, partition).ok());
        if marks.max().is_none_or(|highest| highest < began) {
            let what =
                format!("{node} began at {began:?}, and the clock of {key} claims {interval:?}");
            self.wrong("claims-forgotten", what);
        }
    }
}
