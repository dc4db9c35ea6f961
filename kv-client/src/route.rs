//! Which node a request goes to next.

use std::time::Duration;

use kv_types::NodeId;

use crate::health::{Health, Standing};

/// How the replicas of a key are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ranking {
    /// Slot order: the first live slot coordinates writes.
    Slots,
    /// Two at random, and the one with less under way: Mitzenmacher, "The Power of Two Choices in
    /// Randomized Load Balancing" (2001).
    Balanced,
}

/// The nodes that one request may go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidates {
    /// Replicas of the key, in slot order.
    pub(crate) replicas: Vec<NodeId>,
    /// Other members, which pass the request on once.
    pub(crate) others: Vec<NodeId>,
}

/// What became of the attempts so far.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    /// Nodes whose reply is awaited.
    pub(crate) open: Vec<NodeId>,
    /// Nodes whose attempt failed.
    pub(crate) failed: Vec<NodeId>,
}

impl Tried {
    fn is_fresh(&self, node: NodeId) -> bool {
        !self.open.contains(&node) && !self.failed.contains(&node)
    }
}

/// The next node, or `None` when a reply of every one is awaited.
///
/// In this order: fresh replicas that are not resting, fresh replicas, fresh other members, then
/// whoever failed before. A node that is awaited is never asked twice.
pub(crate) fn choose(
    candidates: &Candidates,
    ranking: Ranking,
    tried: &Tried,
    health: &Health,
    now: Duration,
    random: u64,
) -> Option<NodeId> {
    let fresh = |nodes: &[NodeId]| fresh(nodes, tried);
    let pick = |nodes: &[NodeId], ranking| rank(nodes, ranking, health, random);

    choose_ready(candidates, ranking, tried, health, now, random)
        .or_else(|| pick(&fresh(&candidates.replicas), ranking))
        .or_else(|| {
            let (ready, resting) = by_rest(fresh(&candidates.others), health, now);
            pick(&ready, Ranking::Balanced).or_else(|| pick(&resting, Ranking::Balanced))
        })
        .or_else(|| {
            let again = candidates.replicas.iter().copied();
            let again: Vec<_> = again.filter(|node| !tried.open.contains(node)).collect();
            pick(&again, Ranking::Balanced)
        })
}

/// The next fresh replica that is not resting, if there is one.
pub(crate) fn choose_ready(
    candidates: &Candidates,
    ranking: Ranking,
    tried: &Tried,
    health: &Health,
    now: Duration,
    random: u64,
) -> Option<NodeId> {
    let (ready, _) = by_rest(fresh(&candidates.replicas, tried), health, now);
    rank(&ready, ranking, health, random)
}

fn fresh(nodes: &[NodeId], tried: &Tried) -> Vec<NodeId> {
    let nodes = nodes.iter().copied();
    nodes.filter(|&node| tried.is_fresh(node)).collect()
}

/// Those that may be asked, and those that rest.
fn by_rest(nodes: Vec<NodeId>, health: &Health, now: Duration) -> (Vec<NodeId>, Vec<NodeId>) {
    let is_ready = |node: &NodeId| health.standing(*node, now) != Standing::Resting;
    nodes.into_iter().partition(is_ready)
}

fn rank(nodes: &[NodeId], ranking: Ranking, health: &Health, random: u64) -> Option<NodeId> {
    let first = *nodes.first()?;
    if ranking == Ranking::Slots || nodes.len() == 1 {
        return Some(first);
    }
    let count = nodes.len() as u64;
    let one = random % count;
    // Another one: a step of 1 to count - 1 around the circle.
    let two = (one + 1 + (random >> 32) % (count - 1)) % count;
    let (one, two) = (nodes[one as usize], nodes[two as usize]);
    Some(if health.in_flight(two) < health.in_flight(one) {
        two
    } else {
        one
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);
    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);
    const D: NodeId = NodeId(4);

    fn candidates() -> Candidates {
        Candidates {
            replicas: vec![A, B, C],
            others: vec![D],
        }
    }

    fn slots(tried: &Tried, health: &Health) -> Option<NodeId> {
        choose(&candidates(), Ranking::Slots, tried, health, NOW, 7)
    }

    #[test]
    fn puts_go_to_the_first_live_slot() {
        let mut health = Health::default();
        assert_eq!(slots(&Tried::default(), &health), Some(A));
        health.failed(A, NOW);
        assert_eq!(slots(&Tried::default(), &health), Some(B));
        health.failed(B, NOW);
        health.failed(C, NOW);
        assert_eq!(
            slots(&Tried::default(), &health),
            Some(A),
            "all rest: slot order again"
        );
    }

    #[test]
    fn attempts_go_round_the_replicas_then_to_other_members_then_again() {
        let health = Health::default();
        let mut tried = Tried::default();
        for expected in [A, B, C, D] {
            assert_eq!(slots(&tried, &health), Some(expected));
            tried.failed.push(expected);
        }
        assert!(
            candidates()
                .replicas
                .contains(&slots(&tried, &health).expect("one again"))
        );
    }

    #[test]
    fn nodes_at_rest_are_not_ready() {
        let mut health = Health::default();
        health.failed(A, NOW);
        let mut tried = Tried::default();
        let ready =
            |tried: &Tried| choose_ready(&candidates(), Ranking::Slots, tried, &health, NOW, 7);
        assert_eq!(ready(&tried), Some(B));
        tried.failed.push(B);
        tried.open.push(C);
        assert_eq!(ready(&tried), None);
    }

    #[test]
    fn a_node_that_is_awaited_is_not_asked_again() {
        let health = Health::default();
        let tried = Tried {
            open: vec![A, B, C, D],
            failed: vec![],
        };
        assert_eq!(slots(&tried, &health), None);
        let tried = Tried {
            open: vec![A, C, D],
            failed: vec![B],
        };
        assert_eq!(slots(&tried, &health), Some(B));
    }

    #[test]
    fn gets_prefer_the_less_busy_of_two() {
        let mut health = Health::default();
        for _ in 0..5 {
            health.begin(A, NOW);
        }
        let mut counts = [0; 4];
        for random in 0..3000_u64 {
            let random = random.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let tried = Tried::default();
            let node = choose(
                &candidates(),
                Ranking::Balanced,
                &tried,
                &health,
                NOW,
                random,
            );
            counts[node.expect("three are free").0 as usize - 1] += 1;
        }
        assert_eq!(counts[0], 0, "always one of the other two is in the pair");
        assert!(counts[1] > 1000 && counts[2] > 1000, "{counts:?}");
        assert_eq!(counts[3], 0, "not a replica");
    }
}
