//! Siblings are truly concurrent: none of them was made by someone who had been shown another.

use kv_types::{Durability, WriteId};

use super::Violation;
use super::ancestry::{Ancestry, is_strict};
use crate::history::{History, Seen};

/// Which answers hold siblings that are not.
#[must_use]
pub fn check(history: &History, ancestry: &Ancestry) -> Vec<Violation> {
    let reads = history.reads.iter();
    let read = reads.map(|read| (read.key, &read.seen, false));
    let held = history.held.iter();
    let held = held.map(|held| (held.key, &held.seen, true));
    let judge = |(key, seen, is_end): (u32, &Vec<Seen>, bool)| {
        let pairs = seen
            .iter()
            .flat_map(|one| seen.iter().map(move |other| (one.id, other.id)));
        let mut wrong = pairs.filter(|(later, earlier)| {
            // Who superseded a write that was sent twice knew one of its dots, perhaps; replicas that hold the
            // other one learn it when they meet those that hold both.
            let is_excused = if is_end {
                ancestry.is_forgotten(history, *earlier)
            } else {
                let write = history.writes.get(earlier);
                write.is_some_and(|write| write.attempts > 1)
            };
            ancestry.supersedes(*later, *earlier) && !is_excused
        });
        if let Some((later, earlier)) = wrong.next() {
            let what = format!("key {key} shows {earlier:?} beside {later:?}, which superseded it");
            return Some(Violation::new("not-concurrent", what));
        }
        let pairs = seen
            .iter()
            .flat_map(|one| seen.iter().map(move |other| (one.id, other.id)));
        let mut left = pairs.filter(|(blind, earlier)| must_replace(history, *blind, *earlier));
        left.next().map(|(blind, earlier)| {
            let what = format!("key {key} shows {earlier:?}, acknowledged before {blind:?} began");
            Violation::new("not-replaced", what)
        })
    };
    read.chain(held).filter_map(judge).collect()
}

/// Whether a write without a context owes it to its level to have replaced another one: it began after that one had
/// been acknowledged by replicas of which it asked one, and was made later by the clocks of their clients, too. One that is
/// repeated leaves alone what may have been made since it was first sent.
fn must_replace(history: &History, blind: WriteId, earlier: WriteId) -> bool {
    let is_later = blind.created_ms() >= earlier.created_ms();
    let (Some(blind), Some(earlier)) = (history.writes.get(&blind), history.writes.get(&earlier))
    else {
        return false;
    };
    blind.is_blind
        && is_later
        && blind.attempts == 1
        && is_strict(blind.level, blind.number)
        && is_strict(earlier.level, earlier.number)
        && earlier.durability == Durability::Quorum
        && earlier.attempts == 1
        && earlier.acked_at().is_some_and(|at| at < blind.begun)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::Story;

    fn rules(story: &Story) -> Vec<&'static str> {
        story.rules(|history| check(history, &Ancestry::of(history)))
    }

    #[test]
    fn only_concurrent_writes_stand_side_by_side() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.put(2, 20, &[1]).unknown();
        story.put(3, 20, &[1]).acked(30);
        story.read(40, 50, &[2, 3]);
        assert!(rules(&story).is_empty());
        story.read(40, 50, &[1, 2]);
        assert_eq!(rules(&story), ["not-concurrent"]);
    }

    #[test]
    fn one_that_was_sent_twice_may_stand_beside_its_successor_until_the_end() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10).attempts = 2;
        story.put(2, 20, &[1]).acked(30);
        story.read(40, 50, &[1, 2]);
        assert!(rules(&story).is_empty());
        story.hold(1, &[1, 2]);
        assert_eq!(rules(&story), ["not-concurrent"]);
    }

    #[test]
    fn a_blind_write_replaces_what_was_acknowledged_before_it_began() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.put(2, 5, &[]).blind().acked(30);
        story.read(40, 50, &[1, 2]);
        assert!(rules(&story).is_empty(), "it began before");
        story.put(3, 40, &[]).blind().unknown();
        story.read(60, 70, &[2, 3]);
        assert_eq!(rules(&story), ["not-replaced"]);
    }

    #[test]
    fn not_even_through_a_third() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.put(2, 20, &[1]).acked(30);
        story.put(3, 40, &[2]).acked(50);
        story.hold(1, &[1, 3]);
        assert_eq!(rules(&story), ["not-concurrent"]);
    }
}
