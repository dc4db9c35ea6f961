//! Who answers for each owner of a key: the owner, or a node that stands in for it. Pure.
//!
//! In a sloppy quorum (Dynamo 2007, section 4.6) an owner that does not answer is stood in for by the next node of the
//! preference list. A node stands in for one owner of a request only, so that answers counted by owner are answers of
//! distinct nodes.

use std::collections::BTreeMap;

use kv_types::NodeId;

/// Who answers for whom in one request.
#[derive(Debug, Clone)]
pub struct Places {
    /// By owner.
    stand_ins: BTreeMap<NodeId, NodeId>,
    spare: Spare,
}

/// Nodes that may stand in yet.
#[derive(Debug, Clone)]
enum Spare {
    /// None ever: the quorum is strict.
    Never,
    /// Nobody was needed so far; to list them takes time.
    Unlisted,
    /// These, best first.
    Listed(Vec<NodeId>),
}

impl Places {
    /// Every owner answers for itself.
    #[must_use]
    pub fn strict() -> Self {
        Self {
            stand_ins: BTreeMap::new(),
            spare: Spare::Never,
        }
    }

    /// Every owner answers for itself, until it is replaced.
    #[must_use]
    pub fn sloppy() -> Self {
        Self {
            stand_ins: BTreeMap::new(),
            spare: Spare::Unlisted,
        }
    }

    /// Whether other nodes may answer for owners.
    #[must_use]
    pub fn are_sloppy(&self) -> bool {
        !matches!(self.spare, Spare::Never)
    }

    /// Who is asked for an owner's answer.
    #[must_use]
    pub fn node_for(&self, owner: NodeId) -> NodeId {
        self.stand_ins.get(&owner).copied().unwrap_or(owner)
    }

    /// The owner for which a node stands in.
    #[must_use]
    pub fn owner_behind(&self, node: NodeId) -> Option<NodeId> {
        let mut stand_ins = self.stand_ins.iter();
        stand_ins
            .find(|(_, stand_in)| **stand_in == node)
            .map(|(owner, _)| *owner)
    }

    /// Has the next spare node stand in for an owner that did not answer, or whose stand-in did not. `fallbacks` lists
    /// the nodes that may, best first.
    pub fn replace(
        &mut self,
        owner: NodeId,
        fallbacks: impl FnOnce() -> Vec<NodeId>,
    ) -> Option<NodeId> {
        if let Spare::Unlisted = self.spare {
            self.spare = Spare::Listed(fallbacks());
        }
        let Spare::Listed(spare) = &mut self.spare else {
            return None;
        };
        let stand_ins = &self.stand_ins;
        let stands_in = |node: &NodeId| stand_ins.values().any(|other| other == node);
        let place = spare.iter().position(|node| !stands_in(node))?;
        let next = spare.remove(place);
        self.stand_ins.insert(owner, next);
        Some(next)
    }

    /// Has a node stand in for an owner, whoever did so before.
    pub fn put_in(&mut self, node: NodeId, owner: NodeId) {
        if let Spare::Listed(spare) = &mut self.spare {
            spare.retain(|other| *other != node);
        }
        self.stand_ins.insert(owner, node);
    }

    /// Has spare nodes stand in for those of `owners` that are away.
    pub fn replace_all(
        &mut self,
        owners: impl IntoIterator<Item = NodeId>,
        is_away: impl Fn(NodeId) -> bool,
        fallbacks: impl Fn() -> Vec<NodeId>,
    ) {
        for owner in owners.into_iter().filter(|owner| is_away(*owner)) {
            self.replace(owner, &fallbacks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNERS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    fn fallbacks() -> Vec<NodeId> {
        vec![NodeId(4), NodeId(5), NodeId(6)]
    }

    fn places(away: &[u128]) -> Places {
        let mut places = Places::sloppy();
        places.replace_all(OWNERS, |node| away.contains(&node.0), fallbacks);
        places
    }

    fn asked(places: &Places) -> [u128; 3] {
        OWNERS.map(|owner| places.node_for(owner).0)
    }

    #[test]
    fn owners_that_are_away_are_stood_in_for_in_order() {
        for (away, expected) in [
            (&[][..], [1, 2, 3]),
            (&[2], [1, 4, 3]),
            (&[1, 3], [4, 2, 5]),
            (&[1, 2, 3], [4, 5, 6]),
        ] {
            assert_eq!(asked(&places(away)), expected, "away: {away:?}");
        }
    }

    #[test]
    fn nobody_stands_in_twice() {
        let mut places = places(&[1]);
        assert_eq!(places.replace(NodeId(2), fallbacks), Some(NodeId(5)));
        assert_eq!(places.replace(NodeId(1), fallbacks), Some(NodeId(6)));
        assert_eq!(places.replace(NodeId(3), fallbacks), None);
        assert_eq!(asked(&places), [6, 5, 3]);
        assert_eq!(places.owner_behind(NodeId(5)), Some(NodeId(2)));
        assert_eq!(places.owner_behind(NodeId(4)), None);
    }

    #[test]
    fn who_is_put_in_does_not_stand_in_once_more() {
        let mut places = places(&[2]);
        places.put_in(NodeId(5), NodeId(1));
        assert_eq!(asked(&places), [5, 4, 3]);
        assert_eq!(places.replace(NodeId(3), fallbacks), Some(NodeId(6)));
        // Not even when somebody else takes its place.
        assert_eq!(places.replace(NodeId(1), fallbacks), None);
        let mut places = self::places(&[2]);
        places.put_in(NodeId(5), NodeId(1));
        assert_eq!(places.replace(NodeId(1), fallbacks), Some(NodeId(6)));
        assert_eq!(places.replace(NodeId(3), fallbacks), None);
    }

    #[test]
    fn in_a_strict_quorum_nobody_stands_in() {
        let mut places = Places::strict();
        places.replace_all(OWNERS, |_| true, fallbacks);
        assert_eq!(asked(&places), [1, 2, 3]);
        assert!(!places.are_sloppy());
    }
}
