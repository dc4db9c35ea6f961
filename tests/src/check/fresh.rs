//! Reads are as new as promised: one that overlaps with a write shows it, or something that covers it, if the write
//! was acknowledged before the read began. That holds for everyone's writes, so also for the reader's own, and for
//! what the reader was shown before once it is acknowledged.

use super::Violation;
use super::ancestry::{Ancestry, overlap};
use crate::history::{History, Read};

/// Which reads were old.
#[must_use]
pub fn check(history: &History, ancestry: &Ancestry, replicas: u8) -> Vec<Violation> {
    let judge = |read: &Read| {
        let covered = ancestry.covered(read.key, &read.ids());
        let missed = covered.first_missing(|id| {
            let write = &history.writes[&id];
            write.acked_at().is_some_and(|at| at < read.begun)
                && overlap(read.level, write.level, replicas)
        });
        missed.map(|id| {
            let write = &history.writes[&id];
            let rule = if write.client == read.client {
                "own-write-missed"
            } else {
                "stale"
            };
            let what = format!(
                "a read of key {} at {:?} misses {id:?}, acknowledged at {:?}",
                read.key,
                read.begun,
                write.acked_at().unwrap_or_default()
            );
            Violation::new(rule, what)
        })
    };
    history.reads.iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::Story;
    use kv_types::Level;

    fn rules(story: &Story) -> Vec<&'static str> {
        story.rules(|history| check(history, &Ancestry::of(history), 3))
    }

    #[test]
    fn a_read_shows_what_was_acked_before_it_or_something_newer() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.read(20, 30, &[1]);
        story.put(2, 40, &[1]).acked(50);
        story.put(3, 60, &[2]).unknown();
        story.read(70, 80, &[3]);
        story.read(45, 80, &[1]);
        assert!(rules(&story).is_empty());
        story.read(70, 80, &[1]).client = 5;
        assert_eq!(rules(&story), ["stale"]);
    }

    #[test]
    fn one_of_two_concurrent_writes_does_not_stand_for_both() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.put(2, 0, &[]).acked(10);
        story.read(20, 30, &[1]).client = 5;
        assert_eq!(rules(&story), ["stale"]);
    }

    #[test]
    fn a_client_sees_its_own_writes() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.read(20, 30, &[]);
        assert_eq!(rules(&story), ["own-write-missed"]);
    }

    #[test]
    fn only_levels_that_overlap_promise_it() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10).level = Level::Weak;
        story.read(20, 30, &[]);
        assert!(rules(&story).is_empty(), "w = 1, r = 2 of 3");
        story.read(20, 30, &[]).level = Level::All;
        assert_eq!(rules(&story), ["own-write-missed"], "w = 1, r = 3");
    }
}
