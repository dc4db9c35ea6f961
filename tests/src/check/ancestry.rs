//! Which writes a write may have superseded, directly or through others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kv_types::{Durability, Level, Quorum, WriteId};

use super::places::Places;
use crate::history::{Fate, History, KeyNumber, Read, Write};

/// How long the id of a superseded write is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How many copies of them are remembered for each key.
const REMEMBERED_COPIES: usize = 64;

/// The ancestors of every write.
#[derive(Debug, Default)]
pub struct Ancestry {
    keys: BTreeMap<KeyNumber, Family>,
    places: BTreeMap<WriteId, (KeyNumber, usize)>,
}

/// The writes of one key, in the order in which they began.
#[derive(Debug, Default)]
struct Family {
    ids: Vec<WriteId>,
    /// For each write, those that its client had been shown, directly or through others.
    known: Vec<Places>,
    /// For each write, itself, those, and whatever a write without a context among them may have met.
    covered: Vec<Places>,
    /// Those that may be there though they do not show, because they were forgotten or have expired, each with the time
    /// from which on.
    unseen: Vec<(Duration, WriteId)>,
}

/// What some shown writes stand for.
#[derive(Debug)]
pub struct Covered<'a> {
    family: Option<&'a Family>,
    places: Places,
}

impl Covered<'_> {
    /// The first of these writes of the key that nothing shown stands for.
    #[must_use]
    pub fn first_missing(&self, owed: &Places) -> Option<WriteId> {
        let place = owed.first_outside(&self.places)?;
        self.family.map(|family| family.ids[place])
    }
}

impl Ancestry {
    /// Those of a history.
    #[must_use]
    pub fn of(history: &History) -> Self {
        let mut this = Self::default();
        let mut in_order: Vec<(&WriteId, &Write)> = history.writes.iter().collect();
        // What was read had begun before.
        in_order.sort_by_key(|(id, write)| (write.begun, **id));
        for (id, write) in in_order {
            let family = this.keys.entry(write.key).or_default();
            this.places.insert(*id, (write.key, family.ids.len()));
            family.ids.push(*id);
            let after = history.forgets_after.filter(|_| write.is_delete);
            // Clocks that say when a value has expired may be wrong by an hour.
            let after = after.or(write.expires.then_some(Duration::ZERO));
            if let Some(after) = after.filter(|_| write.fate != Fate::NotApplied) {
                family.unseen.push((write.begun + after, *id));
            }
        }
        for family in this.keys.values_mut() {
            family.fill(history, &this.places);
        }
        this
    }

    /// Of which key a write is, and its place among that key's writes in the order in which they began.
    #[must_use]
    pub fn place(&self, id: WriteId) -> Option<(KeyNumber, usize)> {
        self.places.get(&id).copied()
    }

    /// Whether `later` was made by someone who had been shown `earlier`, or something that superseded it. What has
    /// this answer must not stand beside `later`.
    #[must_use]
    pub fn supersedes(&self, later: WriteId, earlier: WriteId) -> bool {
        let (Some((key, later)), Some((other, earlier))) =
            (self.places.get(&later), self.places.get(&earlier))
        else {
            return false;
        };
        key == other && self.keys[key].known[*later].contains(*earlier)
    }

    /// Whether replicas may have forgotten at the end that a write was superseded under all its dots: the promise of
    /// docs/CONSISTENCY.md ends after a minute, after 64 copies of writes of the key, and with a disk that alone knew the copy
    /// which the superseding writer had read.
    #[must_use]
    pub fn is_forgotten(&self, history: &History, id: WriteId) -> bool {
        let (Some(write), Some((key, place))) = (history.writes.get(&id), self.places.get(&id))
        else {
            return false;
        };
        let begun = history.writes.values().map(|write| write.begun).max();
        let age = begun.unwrap_or_default().saturating_sub(write.begun);
        // Each copy of a write that was sent more than once is remembered.
        let since = &self.keys[key].ids[*place..];
        let copies = since.iter().map(|id| history.writes[id].attempts as usize);
        let later = copies.sum::<usize>();
        let may_be_lost = history.loses_until.is_some_and(|until| write.begun < until);
        write.attempts > 1 && (age >= REMEMBERED || later >= REMEMBERED_COPIES || may_be_lost)
    }

    /// What those `shown` of a key may stand for: themselves, what their writers had been shown, and what a write
    /// without a context among all those may have met. A deletion that may have been forgotten `at` that time, or a value that
    /// may have expired, stands for the same, although it does not show.
    #[must_use]
    pub fn covered(&self, key: KeyNumber, shown: &BTreeSet<WriteId>, at: Duration) -> Covered<'_> {
        let family = self.keys.get(&key);
        let mut covered = Places::default();
        if let Some(family) = family {
            let unseen = family.unseen.iter().filter(|(from, _)| *from <= at);
            let places = shown.iter().chain(unseen.map(|(_, id)| id));
            let places = places.filter_map(|id| self.places.get(id));
            for (_, place) in places.filter(|(of, _)| *of == key) {
                covered.add(&family.covered[*place]);
            }
        }
        Covered {
            family,
            places: covered,
        }
    }
}

impl Family {
    fn fill(&mut self, history: &History, places: &BTreeMap<WriteId, (KeyNumber, usize)>) {
        let writes: Vec<&Write> = self.ids.iter().map(|id| &history.writes[id]).collect();
        let begun: Vec<Duration> = writes.iter().map(|write| write.begun).collect();
        for (place, write) in writes.iter().enumerate() {
            let mut known = Places::default();
            let mut covered = Places::default();
            covered.insert(place);
            let read = write.read.iter().filter_map(|id| places.get(id));
            for (_, earlier) in read.filter(|(key, earlier)| *key == write.key && *earlier < place)
            {
                known.insert(*earlier);
                known.add(&self.known[*earlier]);
                covered.add(&self.covered[*earlier]);
            }
            if write.is_blind {
                for met in 0..reach(&writes, &begun, write) {
                    covered.insert(met);
                }
            }
            self.known.push(known);
            self.covered.push(covered);
        }
    }
}

/// How many of a key's writes one without a context may have met: those that began before its end, and what those
/// without a context among them may have met in turn.
fn reach(writes: &[&Write], begun: &[Duration], write: &Write) -> usize {
    let until = |write: &Write| {
        let end = write.acked_at().unwrap_or(Duration::MAX);
        begun.partition_point(|begun| *begun < end)
    };
    let mut reach = until(write);
    let mut looked = 0;
    while looked < reach {
        if writes[looked].is_blind && writes[looked].fate != Fate::NotApplied {
            reach = reach.max(until(writes[looked]));
        }
        looked += 1;
    }
    reach
}

/// How many of the key's replicas answer a read.
#[must_use]
pub fn answers(read: &Read, quorum: Quorum) -> u8 {
    read.number.unwrap_or_else(|| of_level(read.level, quorum))
}

fn of_level(level: Level, quorum: Quorum) -> u8 {
    match level {
        Level::Weak => 1,
        Level::Quorum => quorum.r(),
        Level::All => quorum.n(),
        // Others may have answered in the replicas' place.
        Level::Eventual | Level::Usual => 0,
    }
}

/// How many of the key's replicas acknowledge a write.
fn acknowledgements(write: &Write, quorum: Quorum) -> u8 {
    match (write.number, write.level) {
        (Some(number), _) => number,
        (None, Level::Quorum) => quorum.w(),
        (None, level) => of_level(level, quorum),
    }
}

/// Whether only the key's own replicas count, and as many as every other such request meets.
#[must_use]
pub fn is_strict(level: Level, number: Option<u8>) -> bool {
    matches!(level, Level::Quorum | Level::All) && number.is_none()
}

/// Whether a read sees a write that was acknowledged before: then as many replicas as its level says have it, and
/// no loss of power takes it from them.
#[must_use]
pub fn overlap(read: &Read, write: &Write, quorum: Quorum) -> bool {
    answers(read, quorum) + holders(write, quorum) > quorum.n()
}

/// How many of a key's replicas have a write for certain, once it is acknowledged, whatever power they lose.
#[must_use]
pub fn holders(write: &Write, quorum: Quorum) -> u8 {
    let acknowledged = acknowledgements(write, quorum);
    match write.durability {
        Durability::Memory => 0,
        // At its coordinator, which is one of them.
        Durability::One => acknowledged.min(1),
        Durability::Quorum => acknowledged,
        // Others may hold it in a replica's place.
        Durability::All if acknowledged == 0 => 0,
        Durability::All => quorum.n(),
    }
}
