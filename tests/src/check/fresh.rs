//! Reads are as new as promised: one that overlaps with a write shows it, or something that covers it, if the write
//! was acknowledged before the read began. That holds for everyone's writes, so also for the reader's own, and for
//! what the reader was shown before once it is acknowledged.
//!
//! What a session has seen, each of its reads shows, at every level, or something that covers it.
//!
//! What one strict read showed, acknowledged or not, every later one shows, or something that covers it.

use std::collections::BTreeMap;
use std::time::Duration;

use kv_types::WriteId;

use super::Violation;
use super::ancestry::{Ancestry, is_strict, overlap};
use crate::history::{History, Read};

/// Which reads were old.
#[must_use]
pub fn check(history: &History, ancestry: &Ancestry, replicas: u8) -> Vec<Violation> {
    let shown = shown_since(history);
    let in_sessions = seen_in_sessions(history);
    let judge = |read: &Read| {
        let covered = ancestry.covered(read.key, &read.ids(), read.ended);
        let older = covered.first_missing(|id| {
            is_strict(read.level) && shown.get(&id).is_some_and(|since| *since < read.begun)
        });
        if let Some(id) = older {
            let what = format!(
                "a read of key {} at {:?} misses {id:?}, which another had shown at {:?}",
                read.key, read.begun, shown[&id]
            );
            return Some(Violation::new("older", what));
        }
        let forgot = covered.first_missing(|id| {
            let since = in_sessions.get(&(read.client, id));
            read.in_session && since.is_some_and(|since| *since < read.begun)
        });
        if let Some(id) = forgot {
            let what = format!(
                "a read of key {} at {:?} misses {id:?}, which its session had seen at {:?}",
                read.key,
                read.begun,
                in_sessions[&(read.client, id)]
            );
            return Some(Violation::new("session", what));
        }
        let missed = covered.first_missing(|id| {
            let write = &history.writes[&id];
            write.acked_at().is_some_and(|at| at < read.begun)
                && overlap(read.level, write, replicas)
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

/// Whether later reads at such levels show what it has shown: a listing repairs nothing.
fn stays_shown(read: &Read) -> bool {
    is_strict(read.level) && !read.is_listed
}

/// When each write was first shown by a strict read.
fn shown_since(history: &History) -> BTreeMap<WriteId, Duration> {
    let mut since = BTreeMap::new();
    for read in history.reads.iter().filter(|read| stays_shown(read)) {
        for id in read.ids() {
            let first = since.entry(id).or_insert(read.ended);
            *first = read.ended.min(*first);
        }
    }
    since
}

/// When a client's session first had seen a write: it was shown it, or its own write was acknowledged.
fn seen_in_sessions(history: &History) -> BTreeMap<(u32, WriteId), Duration> {
    let mut since: BTreeMap<(u32, WriteId), Duration> = BTreeMap::new();
    let mut saw = |client, id, at| {
        let first = since.entry((client, id)).or_insert(at);
        *first = at.min(*first);
    };
    for read in history.reads.iter().filter(|read| read.in_session) {
        for id in read.ids() {
            saw(read.client, id, read.ended);
        }
    }
    for (id, write) in &history.writes {
        if let Some(at) = write.lasts_from().filter(|_| !write.is_told_later) {
            saw(write.client, *id, at);
        }
    }
    since
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
    fn no_strict_read_is_older_than_an_earlier_one() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.put(2, 20, &[1]).unknown();
        story.read(30, 40, &[2]);
        story.read(35, 50, &[1]);
        assert!(rules(&story).is_empty(), "it began before the other's end");
        story.read(60, 70, &[1]).level = Level::Eventual;
        assert!(rules(&story).is_empty(), "others may answer");
        story.read(60, 70, &[1]);
        assert_eq!(rules(&story), ["older"]);
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
    fn a_session_never_sees_anything_older_at_any_level() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10).level = Level::Weak;
        story.put(2, 20, &[1]).unknown();
        let weak = |story: &mut Story, begun, seen: &[u64], in_session| {
            let read = story.read(begun, begun + 5, seen);
            read.level = Level::Weak;
            read.in_session = in_session;
        };
        weak(&mut story, 30, &[], false);
        assert!(rules(&story).is_empty(), "without a session");
        weak(&mut story, 40, &[2], true);
        weak(&mut story, 44, &[1], true);
        assert!(rules(&story).is_empty(), "it began before the other's end");
        weak(&mut story, 50, &[1], true);
        assert_eq!(rules(&story), ["session"], "what it was shown");
        story.history.reads.truncate(1);
        weak(&mut story, 50, &[], true);
        assert_eq!(rules(&story), ["session"], "what it wrote");
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
    fn a_deletion_may_be_forgotten_but_not_before_its_time() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.delete(2, 20, &[1]).acked(30);
        story.history.forgets_after = Some(Duration::from_millis(100));
        story.read(130, 140, &[]);
        assert!(rules(&story).is_empty());
        story.read(105, 119, &[]).client = 5;
        assert_eq!(rules(&story), ["stale"]);
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
