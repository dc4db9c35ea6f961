//! The piggyback queue: at most one piece of news per member, least transmitted first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use kv_types::NodeId;

use crate::message::Rumor;

/// How many rumors that do not fit are passed over before a message counts as full: looking through
/// the whole queue for one small enough would cost more than the bytes it saves.
const MISFITS_LIMIT: usize = 4;

/// News still to be spread.
#[derive(Debug, Default)]
pub(crate) struct Rumors {
    by_node: BTreeMap<NodeId, Entry>,
    /// Least transmitted first, among equals the newest first.
    order: BTreeSet<Place>,
    added_count: u64,
}

type Place = (u32, Reverse<u64>, NodeId);

#[derive(Debug)]
struct Entry {
    rumor: Rumor,
    size_bytes: usize,
    transmitted: u32,
    number: u64,
}

impl Entry {
    fn place(&self) -> Place {
        (self.transmitted, Reverse(self.number), self.rumor.node)
    }
}

impl Rumors {
    /// Queues news about a member, in place of older news about it.
    pub(crate) fn spread(&mut self, rumor: Rumor) {
        let node = rumor.node;
        let size_bytes = rumor.size_bytes();
        let entry = Entry {
            rumor,
            size_bytes,
            transmitted: 0,
            number: self.added_count,
        };
        self.added_count += 1;
        self.order.insert(entry.place());
        if let Some(older) = self.by_node.insert(node, entry) {
            self.order.remove(&older.place());
        }
    }

    /// Drops what there is to say about a node.
    pub(crate) fn forget(&mut self, node: NodeId) {
        if let Some(entry) = self.by_node.remove(&node) {
            self.order.remove(&entry.place());
        }
    }

    /// Takes news that fit into `room_bytes`, each sent at most `limit` times in all.
    ///
    /// News about members in `skip` stay: the message already has them.
    pub(crate) fn take(&mut self, mut room_bytes: usize, limit: u32, skip: &[Rumor]) -> Vec<Rumor> {
        let mut chosen = Vec::new();
        let mut misfits_count = 0;
        let fresh = self
            .order
            .iter()
            .filter(|place| skip.iter().all(|rumor| rumor.node != place.2));
        for &place in fresh {
            let size_bytes = self.by_node[&place.2].size_bytes;
            if size_bytes <= room_bytes {
                room_bytes -= size_bytes;
                chosen.push(place);
            } else {
                misfits_count += 1;
            }
            if misfits_count == MISFITS_LIMIT {
                break;
            }
        }
        chosen
            .into_iter()
            .filter_map(|place| self.transmit(place, limit))
            .collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }

    fn transmit(&mut self, place: Place, limit: u32) -> Option<Rumor> {
        self.order.remove(&place);
        let entry = self.by_node.get_mut(&place.2)?;
        entry.transmitted += 1;
        if entry.transmitted >= limit {
            return self.by_node.remove(&place.2).map(|spent| spent.rumor);
        }
        self.order.insert(entry.place());
        Some(entry.rumor.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Claim;
    use crate::standing::Incarnation;

    fn rumor(node: u128, incarnation: u64) -> Rumor {
        let claim = Claim::Alive { cleared: 0 };
        Rumor {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
            claim,
            profile: None,
        }
    }

    fn nodes(taken: &[Rumor]) -> Vec<u128> {
        taken.iter().map(|rumor| rumor.node.0).collect()
    }

    #[test]
    fn the_least_transmitted_goes_first_and_the_newest_among_equals() {
        let mut rumors = Rumors::default();
        rumors.spread(rumor(1, 0));
        rumors.spread(rumor(2, 0));
        let one = rumor(1, 0).size_bytes();
        assert_eq!(nodes(&rumors.take(one, 9, &[])), [2]);
        assert_eq!(nodes(&rumors.take(one, 9, &[])), [1]);
        rumors.spread(rumor(3, 0));
        assert_eq!(nodes(&rumors.take(2 * one, 9, &[])), [3, 2]);
    }

    #[test]
    fn news_are_dropped_after_their_last_transmission() {
        let mut rumors = Rumors::default();
        rumors.spread(rumor(1, 0));
        for _ in 0..3 {
            assert_eq!(rumors.take(1000, 3, &[]).len(), 1);
        }
        assert!(rumors.is_empty() && rumors.order.is_empty());
    }

    #[test]
    fn newer_news_replace_older_ones_and_start_anew() {
        let mut rumors = Rumors::default();
        rumors.spread(rumor(1, 0));
        assert_eq!(rumors.take(1000, 2, &[]).len(), 1);
        rumors.spread(rumor(1, 7));
        for _ in 0..2 {
            assert_eq!(rumors.take(1000, 2, &[]), [rumor(1, 7)]);
        }
        assert!(rumors.is_empty());
    }

    #[test]
    fn what_does_not_fit_waits() {
        let mut rumors = Rumors::default();
        rumors.spread(rumor(1, 0));
        assert!(rumors.take(rumor(1, 0).size_bytes() - 1, 9, &[]).is_empty());
        assert!(!rumors.is_empty());
        assert!(
            rumors.take(1000, 9, &[rumor(1, 0)]).is_empty(),
            "already in the message"
        );
    }
}
