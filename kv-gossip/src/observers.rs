//! Who observes whom: a few fixed observers for each member, on which all members agree.
//!
//! Every living member stands in [`COUNT`] rings, each in another pseudo-random order of the ids, and
//! is observed by the next member in each of them (Rapid, Suresh and others 2018, §4.1). Superposed
//! random rings are an expander with high probability: no group of members has only itself as
//! observers, unless it is nearly all there are. A member that comes or goes changes two neighbours a
//! ring, and nothing is told to anybody: whoever has the same view reckons the same observers.
//!
//! # Why observers
//!
//! * *Regular probes.* A random round gives each member one probe a period on average, but now and
//!   then none for several. Observers come round in a fixed time, so the tail is cut off, at the
//!   price of no message: these probes take the place of every other one of the round.
//! * *Confirmations.* Only observers of a suspect shorten its suspicion. Were it any member, then
//!   the few that are themselves cut off or broken, and so accuse everyone, would confirm each other
//!   about everyone. With observers they agree about those members only of which they are two of
//!   four, and with a tenth of all members broken that is one member in twenty.
//! * *Relays.* Whoever gets no ack asks the target's observers first: these have probed it of late,
//!   and their answers are what will count.

use std::collections::BTreeSet;

use kv_types::NodeId;

use crate::fnv::Fnv;

/// How many rings there are, and so how many observers a member has at most.
pub(crate) const COUNT: u8 = 4;

/// The members that are alive, in the order of each ring.
#[derive(Debug, Default)]
pub(crate) struct Observers {
    rings: [BTreeSet<(u64, NodeId)>; COUNT as usize],
}

impl Observers {
    pub(crate) fn insert(&mut self, node: NodeId) {
        for (number, ring) in (0..COUNT).zip(&mut self.rings) {
            ring.insert((place(number, node), node));
        }
    }

    pub(crate) fn remove(&mut self, node: NodeId) {
        for (number, ring) in (0..COUNT).zip(&mut self.rings) {
            ring.remove(&(place(number, node), node));
        }
    }

    /// The observers of a member, which need not be alive itself: in each ring the next one that
    /// another ring has not given already. All others where there are no more than [`COUNT`].
    pub(crate) fn of(&self, subject: NodeId) -> Vec<NodeId> {
        let mut observers = Vec::with_capacity(COUNT.into());
        for (number, ring) in (0..COUNT).zip(&self.rings) {
            let here = (place(number, subject), subject);
            let mut behind = ring.range(here..).chain(ring.range(..here));
            let next = behind.find(|(_, node)| *node != subject && !observers.contains(node));
            observers.extend(next.map(|(_, node)| *node));
        }
        observers
    }

    /// Whom a living member observes: in each ring the one before it, each once.
    ///
    /// Where two rings give a member the same next one, it has a further observer by [`Self::of`],
    /// for which it is not among these: rare in large clusters, and small ones do not need it.
    pub(crate) fn subjects_of(&self, observer: NodeId) -> Vec<NodeId> {
        let mut subjects = Vec::with_capacity(COUNT.into());
        for (number, ring) in (0..COUNT).zip(&self.rings) {
            let here = (place(number, observer), observer);
            let mut before = ring.range(..here).rev().chain(ring.range(here..).rev());
            let previous = before
                .find(|(_, node)| *node != observer)
                .map(|(_, node)| *node);
            subjects.extend(previous.filter(|node| !subjects.contains(node)));
        }
        subjects
    }
}

/// Where a node stands in a ring.
fn place(ring: u8, node: NodeId) -> u64 {
    let mut hash = Fnv::new();
    hash.write(&[ring]);
    hash.write(&node.0.to_be_bytes());
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observers(count: u128) -> Observers {
        let mut observers = Observers::default();
        (1..=count).for_each(|node| observers.insert(NodeId(node)));
        observers
    }

    fn edges(observers: &Observers, count: u128) -> BTreeSet<(NodeId, NodeId)> {
        (1..=count)
            .map(NodeId)
            .flat_map(|subject| {
                observers
                    .of(subject)
                    .into_iter()
                    .map(move |by| (by, subject))
            })
            .collect()
    }

    #[test]
    fn each_member_has_four_different_observers_or_all_others() {
        for count in [1, 2, 3, 4, 5, 6, 50] {
            let ours = observers(count);
            let wanted = usize::try_from(count - 1).unwrap().min(4);
            for subject in (1..=count).map(NodeId) {
                let of: BTreeSet<_> = ours.of(subject).into_iter().collect();
                assert_eq!(of.len(), wanted, "{subject} of {count}: {of:?}");
                assert!(!of.contains(&subject));
            }
        }
    }

    #[test]
    fn whom_one_observes_is_the_reverse_of_who_is_observed() {
        let ours = observers(500);
        for observer in (1..=500).map(NodeId) {
            let subjects = ours.subjects_of(observer);
            assert!((3..=4).contains(&subjects.len()), "{subjects:?}");
            assert!(
                subjects
                    .iter()
                    .all(|&subject| ours.of(subject).contains(&observer))
            );
        }
    }

    #[test]
    fn a_member_that_comes_or_goes_moves_a_few_observers() {
        let mut ours = observers(500);
        let before = edges(&ours, 500);
        for node in [1, 250, 500] {
            let node = NodeId(node);
            ours.remove(node);
            let without = edges(&ours, 500);
            // Its own observers do not change; each of the four it observed gets another one.
            let moved = before.difference(&without).count();
            assert!(moved <= 8, "{moved} of {} moved", before.len());
            assert_eq!(
                ours.of(node).len(),
                4,
                "one that is not alive has observers too"
            );
            ours.insert(node);
            assert_eq!(
                edges(&ours, 500),
                before,
                "the order of coming leaves no trace"
            );
        }
    }

    #[test]
    fn no_group_observes_mostly_itself() {
        let ours = observers(1000);
        let edges = edges(&ours, 1000);
        let mut rng = fastrand::Rng::with_seed(1);
        for size in [10, 100, 300, 500] {
            // Groups that are as close as can be: each grows along the edges.
            for _ in 0..20 {
                let mut group = BTreeSet::from([NodeId(rng.u128(1..=1000))]);
                while group.len() < size {
                    let next = edges
                        .iter()
                        .find(|(by, of)| group.contains(of) && !group.contains(by));
                    group.extend(next.map(|(by, _)| *by));
                }
                let within =
                    |of: &NodeId| ours.of(*of).iter().filter(|by| group.contains(by)).count();
                let inside: usize = group.iter().map(within).sum();
                assert!(
                    inside * 10 <= size * 4 * 8,
                    "{inside} of {} observers of a group of {size} are in it",
                    4 * size
                );
            }
        }
    }

    #[test]
    fn places_are_those_of_the_specification() {
        let node = NodeId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        let places = [0, 1, 2, 3].map(|ring| place(ring, node));
        assert_eq!(
            places,
            [
                0x50d2_ee80_17b7_2e9a,
                0x76cf_8645_f4dd_fc38,
                0xdae4_fd3f_16ca_73b1,
                0xab1a_0f0e_a552_98c0
            ]
        );
    }
}
