//! Snapshots, ordered iteration both ways, and paged scans on jobs.

use super::inner::Inner;
use super::read::check_open;
use super::view::View;
use crate::env::JobClass;
use crate::error::Error;
use crate::hash::key_hash;
use crate::key::{KeyVersion, Seq};
use crate::merge::{Direction, LiveCursor};
use crate::table::Fetch;
use bytes::Bytes;
use std::fmt;
use std::ops::{Bound, ControlFlow, RangeBounds};
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
        // Not by the row cache: what a filter changed since then stays as it was in this snapshot.
        let hash = key_hash(key);
        let answer = self
            .view()
            .get(key, hash, self.at(), Fetch::Blocking)
            .inspect_err(|error| self.inner.report_damage(error))?;
        Ok(answer.complete())
    }

    /// Iterates over the keys of a range in order, from either end. Blocks where the disk must be read.
    ///
    /// Each entry is copied; [`for_each`](Self::for_each) lends them instead.
    pub fn iter<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        let own = |bound: Bound<&K>| bound.map(|key| Bytes::copy_from_slice(key.as_ref()));
        self.range(own(range.start_bound()), own(range.end_bound()))
    }

    /// Calls `visit` with the keys and values of a range in ascending order until it breaks. They are lent,
    /// not copied: the fastest way to read many. Blocks where the disk must be read.
    ///
    /// # Errors
    /// The file system failed, or the bytes read are damaged. What was visited before is right.
    pub fn for_each<K: AsRef<[u8]>>(
        &self,
        range: impl RangeBounds<K>,
        visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.visit(Direction::Forward, &range, visit)
            .inspect_err(|error| self.inner.report_damage(error))
    }

    /// Like [`for_each`](Self::for_each), in descending order.
    ///
    /// # Errors
    /// The file system failed, or the bytes read are damaged. What was visited before is right.
    pub fn for_each_back<K: AsRef<[u8]>>(
        &self,
        range: impl RangeBounds<K>,
        visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.visit(Direction::Backward, &range, visit)
            .inspect_err(|error| self.inner.report_damage(error))
    }

    fn visit<K: AsRef<[u8]>>(
        &self,
        direction: Direction,
        range: &impl RangeBounds<K>,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        check_open(&self.inner)?;
        let start = range.start_bound().map(AsRef::as_ref);
        let end = range.end_bound().map(AsRef::as_ref);
        let view = self.view();
        let mut cursor = cursor(&view, direction, self.at(), (start, end), usize::MAX)?;
        while let Some(entry) = cursor.next()? {
            if !is_before_end(direction, start, end, entry.key)
                || visit(entry.key, entry.value).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn range(&self, start: Bound<Bytes>, end: Bound<Bytes>) -> Iter {
        Iter {
            inner: Arc::clone(&self.inner),
            view: self.view(),
            at: self.at(),
            start,
            end,
            limit: usize::MAX,
            front: None,
            back: None,
            done: false,
        }
    }

    /// The present view, unless a compaction filter changed what this snapshot shows.
    fn view(&self) -> Arc<View> {
        // In this order: whoever sees the view that such a compaction published, sees what it pinned before.
        let view = self.inner.view.load_full();
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

/// Iterates over a range from both ends; made by [`Snapshot::iter`]. After an error it ends.
pub struct Iter {
    inner: Arc<Inner>,
    view: Arc<View>,
    at: Seq,
    start: Bound<Bytes>,
    end: Bound<Bytes>,
    /// How many versions are visited from either end before it ends early.
    limit: usize,
    /// Where the iteration stands, from the start and from the end, once there was a step.
    front: Option<LiveCursor>,
    back: Option<LiveCursor>,
    done: bool,
}

impl Iter {
    fn step(&mut self, direction: Direction) -> Result<Option<Entry>, Error> {
        check_open(&self.inner)?;
        let (start, end) = (slice(&self.start), slice(&self.end));
        let (moving, other) = match direction {
            Direction::Forward => (&mut self.front, &self.back),
            Direction::Backward => (&mut self.back, &self.front),
        };
        let moving = match moving {
            Some(cursor) => cursor,
            None => {
                let cursor = cursor(&self.view, direction, self.at, (start, end), self.limit);
                moving.insert(cursor?)
            }
        };
        let Some(live) = moving.next()? else {
            return Ok(None);
        };
        let have_met = other.as_ref().is_some_and(|other| match direction {
            Direction::Forward => other.key() <= live.key,
            Direction::Backward => other.key() >= live.key,
        });
        if have_met || !is_before_end(direction, start, end, live.key) {
            return Ok(None);
        }
        let (key, seq) = (Bytes::copy_from_slice(live.key), live.seq);
        let value = moving.value_bytes();
        Ok(Some(Entry { key, value, seq }))
    }

    /// The key with which it ended early from one end, if it did.
    fn paused_at(&self, direction: Direction) -> Option<Bytes> {
        let key = self.cursor(direction)?.paused_at()?;
        Some(Bytes::copy_from_slice(key))
    }

    /// How many versions were visited from one end.
    fn visited(&self, direction: Direction) -> usize {
        self.cursor(direction).map_or(0, LiveCursor::visited)
    }

    fn cursor(&self, direction: Direction) -> Option<&LiveCursor> {
        match direction {
            Direction::Forward => self.front.as_ref(),
            Direction::Backward => self.back.as_ref(),
        }
    }

    fn advance(&mut self, direction: Direction) -> Option<Result<Entry, Error>> {
        if self.done {
            return None;
        }
        let outcome = self.step(direction).transpose();
        self.done = !matches!(outcome, Some(Ok(_)));
        if let Some(Err(error)) = &outcome {
            self.inner.report_damage(error);
        }
        outcome
    }
}

fn slice(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| &key[..])
}

/// A cursor over the keys that live at a number, from the first one of a range on. It may lend one behind the
/// range's far end. It pauses when it has visited as many versions as the limit says.
fn cursor(
    view: &View,
    direction: Direction,
    at: Seq,
    (start, end): (Bound<&[u8]>, Bound<&[u8]>),
    limit: usize,
) -> Result<LiveCursor, Error> {
    let (first, far) = match direction {
        Direction::Forward => (start, end),
        Direction::Backward => (end, start),
    };
    let first = first_version(direction, first);
    let merge = view.merge(direction, first, far, Fetch::Blocking)?;
    Ok(LiveCursor::new(merge, at, limit))
}

/// Where a cursor begins that comes to `bound` first.
fn first_version(direction: Direction, bound: Bound<&[u8]>) -> Option<KeyVersion<'_>> {
    match (bound, direction) {
        (Bound::Unbounded, _) => None,
        (Bound::Included(key), Direction::Forward)
        | (Bound::Excluded(key), Direction::Backward) => Some(KeyVersion::before_all(key)),
        (Bound::Excluded(key), Direction::Forward)
        | (Bound::Included(key), Direction::Backward) => Some(KeyVersion::after_all(key)),
    }
}

/// True if a cursor that came to `key` has not left the range at its far end.
fn is_before_end(direction: Direction, start: Bound<&[u8]>, end: Bound<&[u8]>, key: &[u8]) -> bool {
    match direction {
        Direction::Forward => match end {
            Bound::Unbounded => true,
            Bound::Included(end) => key <= end,
            Bound::Excluded(end) => key < end,
        },
        Direction::Backward => match start {
            Bound::Unbounded => true,
            Bound::Included(start) => key >= start,
            Bound::Excluded(start) => key > start,
        },
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
    /// Most versions that are visited for the page, of live keys, of deleted ones and of those that are newer than the
    /// snapshot. The page ends with the key that reaches it, even without an entry. It is exceeded by one key that has
    /// more versions: a page gets at least one key further. A deleted range is stepped over at once in what is older
    /// than the memtable or table that holds it. Raising it makes fewer and longer pages where much was deleted.
    pub max_visited: usize,
}

impl ScanRequest {
    /// A good `max_visited`: some milliseconds' work, if the disk need not be read.
    pub const DEFAULT_MAX_VISITED: usize = 16_384;
}

/// One page of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanPage {
    /// Entries in the order asked for. There may be none although there are some further on: only without `next` is the
    /// range exhausted.
    pub entries: Vec<Entry>,
    /// Up to which key, itself included, these are all; that one may be deleted. `None` if the range is exhausted.
    pub through: Option<Bytes>,
    /// The request for the rest, or none if the range is exhausted.
    pub next: Option<ScanRequest>,
    /// How many versions were visited, of live keys and of others.
    pub visited: usize,
}

pub(super) fn scan_with(
    inner: &Arc<Inner>,
    snapshot: &Snapshot,
    request: ScanRequest,
    done: impl FnOnce(Result<ScanPage, Error>) + Send + 'static,
) {
    let mut iter = snapshot.range(Bound::Included(request.start.clone()), request.end.clone());
    iter.limit = request.max_visited;
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
    let through = loop {
        let Some(entry) = iter.advance(direction).transpose()? else {
            break iter.paused_at(direction);
        };
        bytes += entry.key.len() + entry.value.len();
        if entries.len() + 1 >= request.max_items || bytes >= request.max_bytes {
            let last = entry.key.clone();
            entries.push(entry);
            break Some(last);
        }
        entries.push(entry);
    };
    Ok(ScanPage {
        entries,
        next: through.clone().map(|last| rest(request, last)),
        through,
        visited: iter.visited(direction),
    })
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
