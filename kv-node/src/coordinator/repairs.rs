//! Repairs behind reads: so many at once and no more, and of each key one at a time for a node.
//!
//! A replica that comes back is behind with everything, and every read of it finds that. What is left out here is found by
//! the next read, or by the comparisons that never end.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kv_types::NodeId;

/// The most that are under way at once.
const AT_ONCE: usize = 64;

/// What is being repaired: where, and under which key it is stored.
#[derive(Debug, Default)]
pub(super) struct Repairs(Mutex<BTreeSet<(NodeId, Bytes)>>);

/// One repair that is under way, for as long as this lives.
#[derive(Debug)]
pub(super) struct Repair {
    of: Arc<Repairs>,
    what: (NodeId, Bytes),
}

impl Repairs {
    /// Begins one, if it is its turn.
    pub(super) fn begin(self: &Arc<Self>, node: NodeId, stored: Bytes) -> Option<Repair> {
        let what = (node, stored);
        let mut under_way = self.under_way();
        let is_its_turn = under_way.len() < AT_ONCE && under_way.insert(what.clone());
        is_its_turn.then(|| Repair {
            of: Arc::clone(self),
            what,
        })
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeSet<(NodeId, Bytes)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Repair {
    fn drop(&mut self) {
        self.of.under_way().remove(&self.what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_repaired_once_at_a_time_and_not_too_many_are() {
        let repairs = Arc::new(Repairs::default());
        let begin = |node, key: String| repairs.begin(NodeId(node), key.into());
        let first = begin(1, "k".to_owned()).expect("nothing is under way");
        assert!(begin(1, "k".to_owned()).is_none());
        let other = begin(2, "k".to_owned()).expect("another node");
        drop((first, other));
        let many: Vec<_> = (0..AT_ONCE)
            .map(|n| begin(1, format!("k{n}")).expect("there is room"))
            .collect();
        assert!(begin(3, "k".to_owned()).is_none(), "too many");
        drop(many);
        assert!(begin(3, "k".to_owned()).is_some());
    }
}
