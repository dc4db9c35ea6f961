//! Where the last writer wins, of each key one write shows, and that is no older than promised: at the end it is none older
//! than any that was acknowledged; in a read, none older than what the rules of [`fresh`](super::fresh) owe it.
//!
//! Which of two writes is the later one, the nodes' clocks say. A write that was sent more than once may have been made more
//! than once, and counts as made when it was made first; clients are not told when that was. So nothing is owed for it, it
//! stands for whatever is no later than its latest copy, and what that copy may have replaced need not show any more: another
//! write may, which is later than its first copy only.

use std::collections::BTreeMap;
use std::time::Duration;

use kv_types::{Hlc, Quorum, WriteId};

use super::Violation;
use super::ancestry::{answers, holders, is_strict};
use super::fresh::stays_shown;
use crate::history::{Fate, History, KeyNumber, Read, Seen, Write};

/// What was older than promised.
#[must_use]
pub fn check(history: &History, quorum: Quorum) -> Vec<Violation> {
    let unseen = Unseen::of(history);
    let repeated = Repeated::of(history);
    let debts = Debts::of(history, quorum);
    let judge = |read: &Read| {
        if read.seen.len() > 1 {
            let what = format!("a read of key {} shows {:?}", read.key, read.seen);
            return Some(Violation::new("not-one", what));
        }
        let owed = debts.of_read(read, quorum);
        let (rule, _, minted, id) = owed.into_iter().find(|(_, _, minted, id)| {
            let may_be_gone =
                read.seen.is_empty() && unseen.may_stand_for(read.key, *minted, read.ended);
            !(stands_for(&read.seen, *minted, *id)
                || may_be_gone
                || repeated.may_have_replaced(history, *id, read.ended))
        })?;
        let what = format!(
            "a read of key {} at {:?} shows {:?}, and not {id:?}, made at {minted:?}, or anything later",
            read.key, read.begun, read.seen
        );
        Some(Violation::new(rule, what))
    };
    let mut found: Vec<Violation> = history.reads.iter().filter_map(judge).collect();
    found.extend(lost(history, &unseen, &repeated));
    found
}

/// What was acknowledged and is later than what is left at the end.
fn lost(history: &History, unseen: &Unseen, repeated: &Repeated) -> Vec<Violation> {
    let mut latest: BTreeMap<KeyNumber, (Hlc, WriteId)> = BTreeMap::new();
    for (id, write) in &history.writes {
        if let Some(minted) = minted_once(write).filter(|_| write.lasts_from().is_some()) {
            let of_key = latest.entry(write.key).or_insert((minted, *id));
            *of_key = (minted, *id).max(*of_key);
        }
    }
    let is_left = |seen: &[Seen], key, minted, id| {
        stands_for(seen, minted, id)
            || (seen.is_empty() && unseen.may_stand_for(key, minted, Duration::MAX))
            || repeated.may_have_replaced(history, id, Duration::MAX)
    };
    let held = history.held.iter();
    let lost = held.filter_map(|held| {
        let (minted, id) = latest.get(&held.key)?;
        (!is_left(&held.seen, held.key, *minted, *id)).then(|| {
            let what = format!(
                "{} holds {:?} of key {}, and not {id:?}, acknowledged and made at {minted:?}, or anything later",
                held.node, held.seen, held.key
            );
            Violation::new("lost", what)
        })
    });
    lost.collect()
}

/// Whether what shows is no older than a write of this moment.
fn stands_for(seen: &[Seen], minted: Hlc, id: WriteId) -> bool {
    seen.iter()
        .any(|seen| seen.minted >= minted || seen.id == id)
}

/// When a write was made, if it was made only once.
fn minted_once(write: &Write) -> Option<Hlc> {
    write.minted.filter(|_| write.attempts == 1)
}

/// When writes of each key began that were sent more than once.
struct Repeated(BTreeMap<KeyNumber, Vec<Duration>>);

impl Repeated {
    fn of(history: &History) -> Self {
        let mut of_key: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for write in history.writes.values() {
            if write.attempts > 1 && write.fate != Fate::NotApplied {
                of_key.entry(write.key).or_default().push(write.begun);
            }
        }
        Self(of_key)
    }

    /// Whether a late copy of another write may have replaced one: it replaces what was made before its client made it.
    fn may_have_replaced(&self, history: &History, id: WriteId, at: Duration) -> bool {
        let Some(write) = history.writes.get(&id) else {
            return false;
        };
        let mut all = self.0.get(&write.key).into_iter().flatten();
        all.any(|begun| (write.begun..=at).contains(begun))
    }
}

/// Writes that may be there though they do not show, because they were forgotten or have expired: from when on, and when
/// they were made, if that is known.
struct Unseen(BTreeMap<KeyNumber, Vec<(Duration, Option<Hlc>)>>);

impl Unseen {
    fn of(history: &History) -> Self {
        let mut of_key: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for write in history.writes.values() {
            let after = history.forgets_after.filter(|_| write.is_delete);
            // Clocks that say when a value has expired may be wrong by an hour.
            let after = after.or(write.expires.then_some(Duration::ZERO));
            if let Some(after) = after.filter(|_| write.fate != Fate::NotApplied) {
                let all = of_key.entry(write.key).or_default();
                all.push((write.begun + after, minted_once(write)));
            }
        }
        Self(of_key)
    }

    fn may_stand_for(&self, key: KeyNumber, minted: Hlc, at: Duration) -> bool {
        let mut all = self.0.get(&key).into_iter().flatten();
        all.any(|(from, of)| *from <= at && of.is_none_or(|of| of >= minted))
    }
}

/// What reads owe to show: since when, when it was made, and which write it is. In the order of time, and each as late
/// as all before it.
type Owed = Vec<(Duration, Hlc, WriteId)>;

#[derive(Default)]
struct Debts {
    /// What strict reads of a key owe, as another has shown it.
    strict: BTreeMap<KeyNumber, Owed>,
    /// What reads of a client's session owe.
    sessions: BTreeMap<(u32, KeyNumber), Owed>,
    /// What reads of a key owe that as many replicas answer, as it was acknowledged.
    acked: BTreeMap<(KeyNumber, u8), Owed>,
}

impl Debts {
    fn of(history: &History, quorum: Quorum) -> Self {
        let mut this = Self::default();
        for read in &history.reads {
            for seen in &read.seen {
                let once = history.writes.get(&seen.id).map(|write| write.attempts);
                if once != Some(1) {
                    continue;
                }
                let debt = (read.ended, seen.minted, seen.id);
                if stays_shown(read) {
                    this.strict.entry(read.key).or_default().push(debt);
                }
                if read.in_session {
                    let session = this.sessions.entry((read.client, read.key));
                    session.or_default().push(debt);
                }
            }
        }
        for (id, write) in &history.writes {
            let (Some(at), Some(minted)) = (write.acked_at(), minted_once(write)) else {
                continue;
            };
            let debt = (at, minted, *id);
            if write.lasts_from().is_some() && !write.is_told_later {
                let session = this.sessions.entry((write.client, write.key));
                session.or_default().push(debt);
            }
            // So many answers meet one of those that have it.
            for answers in quorum.n() + 1 - holders(write, quorum)..=quorum.n() {
                this.acked
                    .entry((write.key, answers))
                    .or_default()
                    .push(debt);
            }
        }
        let strict = this.strict.values_mut();
        let all = strict.chain(this.sessions.values_mut());
        for owed in all.chain(this.acked.values_mut()) {
            owed.sort_unstable();
            let mut latest = (Hlc::ZERO, WriteId::from_bytes([0; 16]));
            for (_, minted, id) in owed {
                latest = latest.max((*minted, *id));
                (*minted, *id) = latest;
            }
        }
        this
    }

    /// What a read owes by each rule.
    fn of_read(&self, read: &Read, quorum: Quorum) -> Vec<(&'static str, Duration, Hlc, WriteId)> {
        let by = |rule, owed: Option<&Owed>| {
            let owed = owed?;
            let due = owed.partition_point(|(since, ..)| *since < read.begun);
            let (since, minted, id) = *owed.get(due.checked_sub(1)?)?;
            Some((rule, since, minted, id))
        };
        let strict = self.strict.get(&read.key);
        let session = self.sessions.get(&(read.client, read.key));
        let acked = self.acked.get(&(read.key, answers(read, quorum)));
        let all = [
            by(
                "older",
                strict.filter(|_| is_strict(read.level, read.number)),
            ),
            by("session", session.filter(|_| read.in_session)),
            by("stale", acked),
        ];
        all.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::{Story, id, majorities};
    use kv_types::Level;

    fn rules(story: &Story) -> Vec<&'static str> {
        story.rules(|history| check(history, majorities()))
    }

    /// A write that was made at the moment of its number.
    fn put(story: &mut Story, number: u64, begun: u64) -> &mut Write {
        let write = story.put(number, begun, &[]);
        write.minted = Some(Hlc(number));
        write
    }

    #[test]
    fn the_latest_write_shows_whichever_was_acknowledged_last() {
        let mut story = Story::new();
        put(&mut story, 2, 0).acked(10);
        put(&mut story, 1, 20).acked(30);
        story.read(40, 50, &[2]);
        story.hold(1, &[2]);
        assert!(rules(&story).is_empty(), "its clock was behind");
        story.read(60, 70, &[1]);
        assert_eq!(rules(&story), ["older"]);
        story.history.reads.remove(0);
        assert_eq!(rules(&story), ["stale"]);
        story.history.reads.clear();
        story.hold(2, &[1]);
        assert_eq!(rules(&story), ["lost"]);
    }

    #[test]
    fn one_write_shows() {
        let mut story = Story::new();
        put(&mut story, 1, 0).acked(10);
        put(&mut story, 2, 0).acked(10);
        story.read(20, 30, &[1, 2]);
        assert_eq!(rules(&story), ["not-one"]);
    }

    #[test]
    fn weak_reads_owe_nothing_but_to_their_session() {
        let mut story = Story::new();
        put(&mut story, 1, 0).acked(10);
        put(&mut story, 2, 20).acked(30);
        story.read(40, 50, &[1]).level = Level::Weak;
        assert!(rules(&story).is_empty());
        story.last_read().in_session = true;
        assert_eq!(rules(&story), ["session"]);
    }

    #[test]
    fn nothing_is_owed_for_a_write_that_was_sent_twice() {
        let mut story = Story::new();
        put(&mut story, 1, 0).acked(10);
        put(&mut story, 2, 20).acked(30).attempts = 2;
        story.read(40, 50, &[2]);
        story.read(60, 70, &[1]);
        story.hold(1, &[1]);
        assert!(
            rules(&story).is_empty(),
            "it was made before the first one, perhaps"
        );
        put(&mut story, 3, 80).acked(90);
        story.read(100, 110, &[1]);
        assert_eq!(
            rules(&story),
            ["lost", "stale"],
            "no copy of the second came later"
        );
    }

    #[test]
    fn a_deletion_may_be_forgotten_and_a_value_expire() {
        let mut story = Story::new();
        put(&mut story, 1, 0).acked(10);
        put(&mut story, 2, 20).acked(30).is_delete = true;
        story.read(40, 50, &[]);
        story.hold(1, &[]);
        assert_eq!(rules(&story), ["lost", "stale"]);
        story.history.forgets_after = Some(Duration::from_millis(20));
        assert!(rules(&story).is_empty());
        story.read(50, 60, &[1]);
        story.hold(2, &[1]);
        assert_eq!(rules(&story), ["lost", "stale"], "what was deleted is back");
        story.history.reads.pop();
        story.history.held.pop();
        story
            .history
            .writes
            .get_mut(&id(2))
            .expect("made")
            .is_delete = false;
        assert_eq!(rules(&story), ["lost", "stale"]);
        story.history.writes.get_mut(&id(1)).expect("made").expires = true;
        assert_eq!(rules(&story), ["lost", "stale"], "the other one has not");
        story.history.writes.get_mut(&id(2)).expect("made").expires = true;
        assert!(rules(&story).is_empty());
    }
}
