//! Snapshots, ordered iteration both ways, and paged scans on jobs.

use super::inner::Inner;
use super::read::check_open;
use super::view::View;
use crate::env::JobClass;
use crate::error::Error;
use crate::key::{KeyVersion, Seq};
use crate::merge::{Direction, LiveCursor, LiveEntry};
use crate::table::Fetch;
use bytes::Bytes;
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, OnceLock};

/// A fixed view of the store's contents at one moment.
///
/// It keeps old versions from being dropped, so do not hold it for ever. Thread-safe.
pub struct Snapshot {
    inner: Arc<Inner>,
    seq: Seq,
    pinned: Arc<OnceLock<Arc<View>>>,
}

impl Snapshot {
    pub(super) fn take(inner: &Arc<Inner>) -> Self {
        let mut state = inner.state();
        // Read under the lock, so that a compaction that begins later knows of it.
        let seq = inner.visible();
        let held = state.snapshots.entry(seq).or_default();
        // What is pinned here may lack what was filtered since, and newer readers see less.
        if held.pinned.get().is_some() {
            held.pinned = Arc::default();
        }
        held.count += 1;
        let pinned = Arc::clone(&held.pinned);
        drop(state);
        Self {
            inner: Arc::clone(inner),
            seq,
            pinned,
        }
    }

    /// The newest write that it shows.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Reads a key as of this snapshot. Blocks if the disk must be read.
    ///
    /// # Errors
    /// The file system failed, or the bytes read are damaged.
    pub fn get(&self, key: &[u8]) -> Result<Option<super::Found>, Error> {
        check_open(&self.inner)?;
        match self.view().get(key, self.at(), Fetch::Blocking)? {
            super::view::Answer::Value(found) => Ok(found),
            super::view::Answer::NeedsIo => unreachable!("a blocking lookup reads what it needs"),
        }
    }

    /// Iterates over the keys of a range in order, from either end. Blocks where the disk must be read.
    pub fn iter<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        let own = |bound: Bound<&K>| bound.map(|key| Bytes::copy_from_slice(key.as_ref()));
        self.range(own(range.start_bound()), own(range.end_bound()))
    }

    fn range(&self, start: Bound<Bytes>, end: Bound<Bytes>) -> Iter {
        Iter {
            inner: Arc::clone(&self.inner),
            view: self.view(),
            at: self.at(),
            start,
            end,
            front: None,
            back: None,
            done: false,
        }
    }

    /// The present view, unless a compaction filter changed what this snapshot shows.
    fn view(&self) -> Arc<View> {
        // In this order: whoever sees the view that such a compaction published, sees what it pinned before.
        let view = self.inner.view();
        self.pinned.get().cloned().unwrap_or(view)
    }

    /// A poisoned store shows durable writes only.
    fn at(&self) -> Seq {
        self.seq.min(self.inner.visible())
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        let mut unused = None;
        if let Some(held) = state.snapshots.get_mut(&self.seq) {
            held.count -= 1;
            if held.count == 0 {
                unused = state.snapshots.remove(&self.seq);
            }
        }
        // A pinned view may be large to drop.
        drop(state);
        drop(unused);
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

/// A key with its value, as met by a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The number of the write that stored it.
    pub seq: Seq,
}

impl From<LiveEntry> for Entry {
    fn from(live: LiveEntry) -> Self {
        Self {
            key: live.key,
            value: live.value,
            seq: live.seq,
        }
    }
}

/// Iterates over a range from both ends; made by [`Snapshot::iter`]. After an error it ends.
pub struct Iter {
    inner: Arc<Inner>,
    view: Arc<View>,
    at: Seq,
    /// What is left lies between these bounds; each entry returned moves one of them.
    start: Bound<Bytes>,
    end: Bound<Bytes>,
    front: Option<LiveCursor>,
    back: Option<LiveCursor>,
    done: bool,
}

impl Iter {
    fn step(&mut self, direction: Direction) -> Result<Option<Entry>, Error> {
        check_open(&self.inner)?;
        let cursor = match direction {
            Direction::Forward => &mut self.front,
            Direction::Backward => &mut self.back,
        };
        let cursor = match cursor {
            Some(cursor) => cursor,
            None => {
                let first = first_version(direction, &self.start, &self.end);
                let merge = self.view.merge(direction, first, Fetch::Blocking)?;
                cursor.insert(LiveCursor::new(merge, self.at))
            }
        };
        let Some(live) = cursor.next()? else {
            return Ok(None);
        };
        // Checks both ends: the start bound too, when going backward or when the two ends have met.
        if !RangeBounds::<Bytes>::contains(&(self.start.as_ref(), self.end.as_ref()), &live.key) {
            return Ok(None);
        }
        match direction {
            Direction::Forward => self.start = Bound::Excluded(live.key.clone()),
            Direction::Backward => self.end = Bound::Excluded(live.key.clone()),
        }
        Ok(Some(live.into()))
    }

    fn advance(&mut self, direction: Direction) -> Option<Result<Entry, Error>> {
        if self.done {
            return None;
        }
        let outcome = self.step(direction).transpose();
        self.done = !matches!(outcome, Some(Ok(_)));
        outcome
    }
}

/// Where a cursor over a range begins.
fn first_version<'a>(
    direction: Direction,
    start: &'a Bound<Bytes>,
    end: &'a Bound<Bytes>,
) -> Option<KeyVersion<'a>> {
    let bound = match direction {
        Direction::Forward => start,
        Direction::Backward => end,
    };
    match (bound, direction) {
        (Bound::Unbounded, _) => None,
        (Bound::Included(key), Direction::Forward)
        | (Bound::Excluded(key), Direction::Backward) => Some(KeyVersion::before_all(key)),
        (Bound::Excluded(key), Direction::Forward)
        | (Bound::Included(key), Direction::Backward) => Some(KeyVersion::after_all(key)),
    }
}

impl Iterator for Iter {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance(Direction::Forward)
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.advance(Direction::Backward)
    }
}

impl fmt::Debug for Iter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter")
            .field("start", &self.start)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// Which part of a range a page should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRequest {
    /// First key of the range, included.
    pub start: Bytes,
    /// Where the range ends.
    pub end: Bound<Bytes>,
    /// From the end of the range towards its start.
    pub reverse: bool,
    /// Most entries in the page; at least one is returned if there is one.
    pub max_items: usize,
    /// The page ends with the entry that brings keys and values to this many bytes.
    pub max_bytes: usize,
}

/// One page of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanPage {
    /// Entries in the order asked for.
    pub entries: Vec<Entry>,
    /// The request for the rest, or none if the range is exhausted.
    pub next: Option<ScanRequest>,
}

pub(super) fn scan_with(
    inner: &Arc<Inner>,
    snapshot: &Snapshot,
    request: ScanRequest,
    done: impl FnOnce(Result<ScanPage, Error>) + Send + 'static,
) {
    let iter = snapshot.range(Bound::Included(request.start.clone()), request.end.clone());
    inner
        .env
        .jobs
        .submit(JobClass::Read, Box::new(move || done(page(iter, request))));
}

fn page(mut iter: Iter, request: ScanRequest) -> Result<ScanPage, Error> {
    let direction = if request.reverse {
        Direction::Backward
    } else {
        Direction::Forward
    };
    let mut entries: Vec<Entry> = Vec::new();
    let mut bytes = 0;
    loop {
        let Some(entry) = iter.advance(direction).transpose()? else {
            return Ok(ScanPage {
                entries,
                next: None,
            });
        };
        bytes += entry.key.len() + entry.value.len();
        let last = entry.key.clone();
        entries.push(entry);
        if entries.len() >= request.max_items || bytes >= request.max_bytes {
            return Ok(ScanPage {
                entries,
                next: Some(rest(request, last)),
            });
        }
    }
}

/// The request that goes on after `last`.
fn rest(request: ScanRequest, last: Bytes) -> ScanRequest {
    if request.reverse {
        return ScanRequest {
            end: Bound::Excluded(last),
            ..request
        };
    }
    // The smallest key after `last` is `last` followed by a zero byte.
    let mut start = last.to_vec();
    start.push(0);
    ScanRequest {
        start: start.into(),
        ..request
    }
}
