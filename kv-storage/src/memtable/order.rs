//! The order of a memtable's entries, made when somebody asks for it.
//!
//! Two sorted runs cover what was sorted so far: a large one, and a small recent one that is merged
//! with each new tail and into the large one once it has outgrown its bound. So a scan after a few puts
//! costs about as much as those puts, and never meets more than two runs. (The idea of sorting only the
//! new suffix is that of TigerBeetle's table memory.)

use super::Memtable;
use super::entry::Entry;
use crate::coding::shared_prefix;
use crate::key::{KeyVersion, head};
use std::cmp::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// A recent run longer than this is merged into the large one.
const RECENT_MOST: usize = 1024;

/// An entry of a run: eight bytes of its key for fast comparison, and where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    prefix: u64,
    pub offset: u32,
}

/// Entries in [`KeyVersion`](crate::key::KeyVersion) order.
#[derive(Debug, Default)]
pub(super) struct SortedRun {
    /// Bytes that all keys of the run have in common; prefixes begin behind them.
    skip: usize,
    places: Vec<Place>,
}

#[derive(Debug)]
pub(super) struct Order {
    sorted: Mutex<Sorted>,
}

#[derive(Debug)]
struct Sorted {
    /// Entries below this arena offset are in one of the runs.
    until: usize,
    large: Arc<SortedRun>,
    recent: Arc<SortedRun>,
}

impl Order {
    pub(super) fn new(first: usize) -> Self {
        Self {
            sorted: Mutex::new(Sorted {
                until: first,
                large: Arc::default(),
                recent: Arc::default(),
            }),
        }
    }

    /// Everything published so far, as up to two sorted runs.
    pub(super) fn runs(&self, table: &Memtable) -> [Arc<SortedRun>; 2] {
        let mut sorted = self.sorted.lock().unwrap_or_else(PoisonError::into_inner);
        let end = table.arena.published();
        if sorted.until < end {
            let tail = SortedRun::of(table, sorted.until, end);
            sorted.recent = Arc::new(SortedRun::merge(table, &sorted.recent, &tail));
            sorted.until = end;
            if sorted.recent.places.len() > RECENT_MOST {
                let large = SortedRun::merge(table, &sorted.large, &sorted.recent);
                (sorted.large, sorted.recent) = (Arc::new(large), Arc::default());
            }
        }
        [Arc::clone(&sorted.large), Arc::clone(&sorted.recent)]
    }
}

impl SortedRun {
    /// Sorts the entries between two arena offsets.
    fn of(table: &Memtable, start: usize, end: usize) -> Self {
        let mut places = Vec::new();
        let mut skip = usize::MAX;
        let mut at = start;
        let mut first: Option<Entry<'_>> = None;
        while at < end {
            let offset = super::offset(at);
            let entry = table.entry(offset);
            at += entry.size();
            if entry.is_range {
                continue;
            }
            let first = first.get_or_insert(entry);
            skip = skip.min(shared_prefix(first.key, entry.key));
            places.push(Place { prefix: 0, offset });
        }
        let mut run = Self { skip, places };
        run.set_prefixes(table);
        run.places.sort_unstable_by(|a, b| compare(table, *a, *b));
        run
    }

    fn set_prefixes(&mut self, table: &Memtable) {
        let skip = self.skip;
        for place in &mut self.places {
            place.prefix = head_behind(table.entry(place.offset).key, skip);
        }
    }

    fn merge(table: &Memtable, a: &Self, b: &Self) -> Self {
        let (Some(a_first), Some(b_first)) = (a.places.first(), b.places.first()) else {
            let filled = if a.places.is_empty() { b } else { a };
            return Self {
                skip: filled.skip,
                places: filled.places.clone(),
            };
        };
        let between = shared_prefix(
            table.entry(a_first.offset).key,
            table.entry(b_first.offset).key,
        );
        let skip = a.skip.min(b.skip).min(between);
        let with_prefixes = |run: &Self| {
            let mut run = Self {
                skip,
                places: run.places.clone(),
            };
            run.set_prefixes(table);
            run.places
        };
        let a = if a.skip == skip {
            a.places.clone()
        } else {
            with_prefixes(a)
        };
        let b = if b.skip == skip {
            b.places.clone()
        } else {
            with_prefixes(b)
        };
        let mut places = Vec::with_capacity(a.len() + b.len());
        let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
        while let (Some(left), Some(right)) = (a.peek(), b.peek()) {
            if compare(table, *left, *right) == Ordering::Less {
                places.extend(a.next());
            } else {
                places.extend(b.next());
            }
        }
        places.extend(a.chain(b));
        Self { skip, places }
    }

    pub(super) fn get(&self, index: usize) -> Option<u32> {
        self.places.get(index).map(|place| place.offset)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Index of the first entry at or after `version`, or behind it if `after` is true.
    pub(super) fn position(&self, table: &Memtable, version: KeyVersion<'_>, after: bool) -> usize {
        let Some(first) = self.places.first() else {
            return 0;
        };
        // Keys that do not begin as all keys here do lie in front of them or behind them.
        let begin = &table.entry(first.offset).key[..self.skip];
        match version.key[..version.key.len().min(self.skip)].cmp(begin) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.places.len(),
            Ordering::Equal => {}
        }
        let target = head_behind(version.key, self.skip);
        self.places.partition_point(|place| {
            let order = place
                .prefix
                .cmp(&target)
                .then_with(|| table.entry(place.offset).version().cmp(&version));
            order == Ordering::Less || (after && order == Ordering::Equal)
        })
    }
}

/// By key, then newest first. Prefixes decide unless they are equal.
fn compare(table: &Memtable, a: Place, b: Place) -> Ordering {
    a.prefix.cmp(&b.prefix).then_with(|| {
        table
            .entry(a.offset)
            .version()
            .cmp(&table.entry(b.offset).version())
    })
}

/// The eight bytes of a key behind `skip`, as a number that sorts like them.
fn head_behind(key: &[u8], skip: usize) -> u64 {
    head(key.get(skip..).unwrap_or_default())
}
