//! Reads are as new as promised: one that overlaps with a write shows it, or something that covers it, if the write
//! was acknowledged before the read began. That holds for everyone's writes, so also for the reader's own, and for
//! what the reader was shown before once it is acknowledged.
//!
//! What a session has seen, each of its reads shows, at every level, or something that covers it.
//!
//! What one strict read showed, acknowledged or not, every later one shows, or something that covers it.

use std::collections::BTreeMap;
use std::time::Duration;

use kv_types::{Quorum, WriteId};

use super::Violation;
use super::ancestry::{Ancestry, answers, holders, is_strict};
use super::places::Places;
use crate::history::{History, KeyNumber, Read};

/// Which reads were old.
#[must_use]
pub fn check(history: &History, ancestry: &Ancestry, quorum: Quorum) -> Vec<Violation> {
    let mut debts = Debts::of(history, ancestry, quorum);
    let mut in_order: Vec<&Read> = history.reads.iter().collect();
    in_order.sort_by_key(|read| read.begun);
    let judge = |read| debts.judge(read, history, ancestry, quorum);
    in_order.into_iter().filter_map(judge).collect()
}

/// What reads owe to show, as time passes.
struct Debts {
    shown: BTreeMap<WriteId, Duration>,
    in_sessions: BTreeMap<(u32, WriteId), Duration>,
    /// What strict reads of a key owe, as another has shown it.
    strict: BTreeMap<KeyNumber, Owed>,
    /// What reads of a client's session owe.
    sessions: BTreeMap<(u32, KeyNumber), Owed>,
    /// What reads of a key owe that as many replicas answer, as it was acknowledged.
    acked: BTreeMap<(KeyNumber, u8), Owed>,
}

/// Writes of one key, with the times since when reads owe them.
#[derive(Default)]
struct Owed {
    /// Latest first.
    to_come: Vec<(Duration, usize)>,
    places: Places,
}

impl Owed {
    /// What is owed by a read that began at a time; times only grow.
    fn by(&mut self, begun: Duration) -> &Places {
        while let Some((_, place)) = self.to_come.pop_if(|(since, _)| *since < begun) {
            self.places.insert(place);
        }
        &self.places
    }
}

impl Debts {
    fn of(history: &History, ancestry: &Ancestry, quorum: Quorum) -> Self {
        let mut this = Self {
            shown: shown_since(history),
            in_sessions: seen_in_sessions(history),
            strict: BTreeMap::new(),
            sessions: BTreeMap::new(),
            acked: BTreeMap::new(),
        };
        for (id, since) in &this.shown {
            if let Some((key, place)) = ancestry.place(*id) {
                let owed = this.strict.entry(key).or_default();
                owed.to_come.push((*since, place));
            }
        }
        for ((client, id), since) in &this.in_sessions {
            if let Some((key, place)) = ancestry.place(*id) {
                let owed = this.sessions.entry((*client, key)).or_default();
                owed.to_come.push((*since, place));
            }
        }
        for (id, write) in &history.writes {
            let (Some(at), Some((key, place))) = (write.acked_at(), ancestry.place(*id)) else {
                continue;
            };
            // So many answers meet one of those that have it.
            let enough = quorum.n() + 1 - holders(write, quorum);
            for answers in enough..=quorum.n() {
                let owed = this.acked.entry((key, answers)).or_default();
                owed.to_come.push((at, place));
            }
        }
        let strict = this.strict.values_mut();
        let all = strict
            .chain(this.sessions.values_mut())
            .chain(this.acked.values_mut());
        for owed in all {
            owed.to_come.sort_unstable_by(|one, other| other.cmp(one));
        }
        this
    }

    fn judge(
        &mut self,
        read: &Read,
        history: &History,
        ancestry: &Ancestry,
        quorum: Quorum,
    ) -> Option<Violation> {
        let covered = ancestry.covered(read.key, &read.ids(), read.ended);
        let missing = |owed: Option<&mut Owed>| {
            owed.and_then(|owed| covered.first_missing(owed.by(read.begun)))
        };
        let strict = self.strict.get_mut(&read.key);
        if let Some(id) = missing(strict.filter(|_| is_strict(read.level, read.number))) {
            let what = format!(
                "a read of key {} at {:?} misses {id:?}, which another had shown at {:?}",
                read.key, read.begun, self.shown[&id]
            );
            return Some(Violation::new("older", what));
        }
        let session = self.sessions.get_mut(&(read.client, read.key));
        if let Some(id) = missing(session.filter(|_| read.in_session)) {
            let what = format!(
                "a read of key {} at {:?} misses {id:?}, which its session had seen at {:?}",
                read.key,
                read.begun,
                self.in_sessions[&(read.client, id)]
            );
            return Some(Violation::new("session", what));
        }
        let answers = answers(read, quorum);
        let acked = self.acked.get_mut(&(read.key, answers));
        missing(acked).map(|id| {
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
    }
}

/// Whether later reads at such levels show what it has shown: a listing repairs nothing.
pub(super) fn stays_shown(read: &Read) -> bool {
    is_strict(read.level, read.number) && !read.is_listed
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
    use crate::check::testing::{Story, majorities};
    use kv_types::Level;

    fn rules(story: &Story) -> Vec<&'static str> {
        story.rules(|history| check(history, &Ancestry::of(history), majorities()))
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
    fn other_numbers_overlap_otherwise() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10);
        story.read(20, 30, &[]).client = 5;
        let rules = |r, w| {
            let quorum = Quorum::new(3, r, w).expect("possible");
            story.rules(|history| check(history, &Ancestry::of(history), quorum))
        };
        assert_eq!(rules(3, 1), ["stale"]);
        assert_eq!(rules(1, 3), ["stale"]);
        assert!(rules(2, 1).is_empty());
    }

    #[test]
    fn numbers_of_replicas_promise_what_they_meet_and_nothing_lasts() {
        let mut story = Story::new();
        story.put(1, 0, &[]).acked(10).number = Some(1);
        story.put(2, 20, &[1]).unknown();
        story.read(30, 35, &[2]).number = Some(3);
        story.read(40, 50, &[1]);
        assert!(rules(&story).is_empty(), "what was shown need not last");
        story.read(60, 70, &[]).number = Some(2);
        assert!(rules(&story).is_empty(), "w = 1, r = 2 of 3");
        story.read(60, 70, &[]).number = Some(3);
        assert_eq!(rules(&story), ["own-write-missed"], "w = 1, r = 3");
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
