//! Nothing comes back: what an acknowledged write had superseded does not show, neither at the end nor in a later read
//! that overlaps with it.

use std::collections::BTreeMap;

use kv_types::{Quorum, WriteId};

use super::Violation;
use super::ancestry::{Ancestry, overlap};
use crate::history::{History, Write};

/// What came back.
#[must_use]
pub fn check(history: &History, ancestry: &Ancestry, quorum: Quorum) -> Vec<Violation> {
    let readers = history.readers();
    let superseders = |id: WriteId| -> Vec<(WriteId, &Write)> {
        let readers = readers.get(&id).into_iter().flatten();
        let acked = readers.filter_map(|reader| history.writes.get_key_value(reader));
        acked
            .filter(|(_, write)| write.acked_at().is_some())
            .map(|(id, write)| (*id, write))
            .collect()
    };
    let mut memory: BTreeMap<WriteId, Vec<(WriteId, &Write)>> = BTreeMap::new();
    let mut found = Vec::new();
    for held in &history.held {
        for seen in &held.seen {
            let by = memory
                .entry(seen.id)
                .or_insert_with(|| superseders(seen.id));
            let lasting = by.iter().find(|(_, write)| write.lasts_from().is_some());
            if let Some((by, _)) = lasting
                && !ancestry.is_forgotten(history, seen.id)
            {
                let what = format!(
                    "{:?} of key {} is held by {} at the end, though {by:?} superseded it",
                    seen.id, held.key, held.node
                );
                found.push(Violation::new("returned", what));
            }
        }
    }
    for read in &history.reads {
        for seen in &read.seen {
            let by = memory
                .entry(seen.id)
                .or_insert_with(|| superseders(seen.id));
            // Of a write that was sent twice its superseder knew one dot, perhaps; replicas that hold the other one learn
            // it when they meet those that hold both.
            let is_excused = history
                .writes
                .get(&seen.id)
                .is_some_and(|write| write.attempts > 1);
            let earlier = by.iter().find(|(_, write)| {
                write.acked_at().is_some_and(|at| at < read.begun)
                    && overlap(read, write, quorum)
                    && !is_excused
            });
            if let Some((by, _)) = earlier {
                let what = format!(
                    "{:?} of key {} was read at {:?}, though {by:?} had superseded it",
                    seen.id, read.key, read.begun
                );
                found.push(Violation::new("returned", what));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::check::testing::{Story, id, majorities};
    use kv_types::Level;

    fn rules(story: &Story) -> Vec<&'static str> {
        story.rules(|history| check(history, &Ancestry::of(history), majorities()))
    }

    #[test]
    fn a_superseded_write_does_not_come_back_at_the_end() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.delete(2, 20, &[1]).acked(30);
        story.hold(1, &[2]);
        assert!(rules(&story).is_empty());
        story.hold(2, &[1]);
        assert_eq!(rules(&story), ["returned"]);
    }

    #[test]
    fn one_that_was_sent_twice_may_show_until_the_end_and_then_only_if_it_is_forgotten() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10).attempts = 2;
        story.put(2, 20, &[1]).acked(30);
        story.read(40, 50, &[1]);
        assert!(rules(&story).is_empty());
        story.hold(1, &[1]);
        assert_eq!(rules(&story), ["returned"]);
        for number in 3..64 {
            story.put(number, 50, &[]).acked(60);
        }
        assert!(rules(&story).is_empty(), "after 64 copies of writes");
        let write = story.history.writes.get_mut(&id(1));
        write.expect("it was made").attempts = 1;
        assert_eq!(rules(&story), ["returned"], "sent once");
    }

    #[test]
    fn one_that_was_sent_twice_may_stay_where_a_disk_was_lost_after_it_began() {
        let mut story = Story::new();
        story.put(1, 5, &[]).acked(10).attempts = 2;
        story.put(2, 20, &[1]).acked(30);
        story.hold(1, &[1, 2]);
        story.history.loses_until = Some(Duration::from_millis(5));
        assert_eq!(rules(&story), ["returned"], "it was lost before");
        story.history.loses_until = Some(Duration::from_millis(15));
        assert!(rules(&story).is_empty());
        let write = story.history.writes.get_mut(&id(1));
        write.expect("it was made").attempts = 1;
        assert_eq!(rules(&story), ["returned"], "sent once");
    }

    #[test]
    fn one_of_unknown_fate_supersedes_nothing_for_certain() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.put(2, 20, &[1]).unknown();
        story.hold(1, &[1]);
        assert!(rules(&story).is_empty());
    }

    #[test]
    fn a_later_quorum_read_does_not_show_it_and_one_that_overlaps_in_time_may() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.put(2, 20, &[1]).acked(30);
        story.read(25, 40, &[1]);
        assert!(rules(&story).is_empty(), "it began before");
        story.read(35, 40, &[1]).level = Level::Weak;
        assert!(rules(&story).is_empty(), "a weak read may be old");
        story.read(35, 40, &[1]);
        assert_eq!(rules(&story), ["returned"]);
    }
}
