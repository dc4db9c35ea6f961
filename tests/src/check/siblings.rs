//! Siblings are truly concurrent: none of them was made by someone who had been shown another.

use super::Violation;
use super::ancestry::Ancestry;
use crate::history::{History, Seen};

/// Which answers hold siblings that are not.
#[must_use]
pub fn check(history: &History, ancestry: &Ancestry) -> Vec<Violation> {
    let read = history.reads.iter().map(|read| (read.key, &read.seen));
    let held = history.held.iter().map(|held| (held.key, &held.seen));
    let judge = |(key, seen): (u32, &Vec<Seen>)| {
        let pairs = seen
            .iter()
            .flat_map(|one| seen.iter().map(move |other| (one.id, other.id)));
        let mut wrong = pairs.filter(|(later, earlier)| ancestry.supersedes(*later, *earlier));
        wrong.next().map(|(later, earlier)| {
            let what = format!("key {key} shows {earlier:?} beside {later:?}, which superseded it");
            Violation::new("not-concurrent", what)
        })
    };
    read.chain(held).filter_map(judge).collect()
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
    fn not_even_through_a_third() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.put(2, 20, &[1]).acked(30);
        story.put(3, 40, &[2]).acked(50);
        story.hold(1, &[1, 3]);
        assert_eq!(rules(&story), ["not-concurrent"]);
    }
}
