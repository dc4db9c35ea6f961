//! No acknowledged write is lost: at the end it is there, or something is there whose writer had been shown it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Violation;
use super::ancestry::Ancestry;
use super::places::Places;
use crate::history::{History, KeyNumber};

/// What was lost.
#[must_use]
pub fn check(history: &History, ancestry: &Ancestry) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut lasting: BTreeMap<KeyNumber, Places> = BTreeMap::new();
    for (id, write) in &history.writes {
        let place = ancestry.place(*id);
        if let Some((key, place)) = place.filter(|_| write.lasts_from().is_some()) {
            lasting.entry(key).or_default().insert(place);
        }
    }
    for (key, shown) in history.shown() {
        let covered = ancestry.covered(key, &shown, Duration::MAX);
        let lasting = lasting.get(&key);
        let lost = lasting.and_then(|lasting| covered.first_missing(lasting));
        if let Some(id) = lost {
            let at = history.writes[&id].acked_at().unwrap_or_default();
            let what = format!("{id:?} of key {key}, acknowledged at {at:?}, is gone");
            found.push(Violation::new("lost", what));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use kv_types::Durability;

    use super::*;
    use crate::check::testing::Story;

    fn rules(story: &Story) -> Vec<&'static str> {
        story.rules(|history| check(history, &Ancestry::of(history)))
    }

    #[test]
    fn an_acked_write_that_is_there_or_covered_is_not_lost() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.put(2, 20, &[1]).unknown();
        story.delete(3, 30, &[2]).acked(40);
        story.hold(1, &[3]);
        assert!(rules(&story).is_empty(), "through one of unknown fate");
        story.put(4, 50, &[]).acked(60);
        assert_eq!(rules(&story), ["lost"]);
    }

    #[test]
    fn what_was_acknowledged_in_memory_may_go_and_what_is_synced_once_may_not() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10).durability = Durability::Memory;
        story.hold(1, &[]);
        assert!(rules(&story).is_empty());
        story.put(2, 20, &[]).acked(30).durability = Durability::One;
        assert_eq!(rules(&story), ["lost"]);
    }

    #[test]
    fn concurrent_writes_do_not_cover_each_other() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.put(2, 20, &[1]).acked(30);
        story.put(3, 20, &[1]).acked(30);
        story.hold(1, &[2]);
        assert_eq!(rules(&story), ["lost"]);
        story.hold(2, &[3]);
        assert!(rules(&story).is_empty(), "on another replica");
    }

    #[test]
    fn a_deletion_may_be_forgotten_where_that_is_done_and_what_it_did_not_delete_may_not() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.delete(2, 20, &[1]).acked(30);
        story.hold(1, &[]);
        assert_eq!(rules(&story), ["lost"]);
        story.history.forgets_after = Some(Duration::from_millis(5));
        assert!(rules(&story).is_empty());
        story.put(3, 20, &[1]).acked(30);
        assert_eq!(rules(&story), ["lost"]);
    }

    #[test]
    fn what_nobody_acknowledged_may_go() {
        let mut story = Story::new();
        story.put(1, 0, &[]).unknown();
        story.put(2, 0, &[]).not_applied();
        story.hold(1, &[]);
        assert!(rules(&story).is_empty());
    }

    #[test]
    fn a_blind_write_may_cover_what_began_before_its_end_only() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.put(2, 20, &[]).blind().acked(30);
        story.hold(1, &[2]);
        assert!(rules(&story).is_empty());
        story.put(3, 40, &[]).acked(50);
        assert_eq!(rules(&story), ["lost"]);
    }
}
