//! The memtable: recent writes in memory, every version of every key, in order.
//!
//! Behind this interface (insert, newest version at or below a number, ordered cursor) the map may
//! be replaced by an arena with a hash index without touching its users.

use crate::batch::Operations;
use crate::key::{KeyVersion, Kind, Seq};
use bytes::Bytes;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

/// Memory that an entry takes besides its key and value, roughly: map node, reference counts, allocator.
const ENTRY_OVERHEAD: usize = 128;

/// Writes of one log segment (after recovery: of several). Shared by one writer and any number of readers.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    entries: RwLock<BTreeMap<OwnedVersion, Stored>>,
    size: AtomicUsize,
}

/// A version's content. A deleted key has an empty value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub kind: Kind,
    pub value: Bytes,
}

impl Memtable {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds the operations of a batch, numbered from `first` on. Readers must not look above the
    /// last published number, so they see all of the batch or nothing.
    pub(crate) fn insert(&self, first: Seq, operations: Operations) {
        let mut seq = first;
        let mut added = 0;
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        for operation in operations {
            added += operation.key.len() + operation.value.len() + ENTRY_OVERHEAD;
            let stored = Stored {
                kind: operation.kind,
                value: operation.value,
            };
            entries.insert(
                OwnedVersion {
                    key: operation.key,
                    seq,
                },
                stored,
            );
            seq = seq.next();
        }
        self.size.fetch_add(added, Relaxed);
    }

    /// The newest version of `key` numbered at most `at`.
    pub(crate) fn get(&self, key: &[u8], at: Seq) -> Option<(Seq, Stored)> {
        let from = KeyVersion::new(key, at);
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let (version, stored) = entries
            .range::<dyn AsVersion, _>((Bound::Included(&from as &dyn AsVersion), Bound::Unbounded))
            .next()?;
        (version.key == key).then(|| (version.seq, stored.clone()))
    }

    /// Memory in use, roughly, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        self.size.load(Relaxed)
    }

    /// Versions held, tombstones included.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len() as u64
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.size_bytes() == 0
    }

    /// Copies up to `count` entries on one side of a position, nearest first.
    fn neighbours(
        &self,
        from: Bound<KeyVersion<'_>>,
        forward: bool,
        count: usize,
        into: &mut Vec<MemEntry>,
    ) {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let bound = match &from {
            Bound::Included(version) => Bound::Included(version as &dyn AsVersion),
            Bound::Excluded(version) => Bound::Excluded(version as &dyn AsVersion),
            Bound::Unbounded => Bound::Unbounded,
        };
        let copy = |(version, stored): (&OwnedVersion, &Stored)| MemEntry {
            key: version.key.clone(),
            seq: version.seq,
            stored: stored.clone(),
        };
        if forward {
            into.extend(
                entries
                    .range::<dyn AsVersion, _>((bound, Bound::Unbounded))
                    .take(count)
                    .map(copy),
            );
        } else {
            into.extend(
                entries
                    .range::<dyn AsVersion, _>((Bound::Unbounded, bound))
                    .rev()
                    .take(count)
                    .map(copy),
            );
        }
    }
}

/// One entry met by a cursor.
#[derive(Debug, Clone)]
pub(crate) struct MemEntry {
    pub key: Bytes,
    pub seq: Seq,
    pub stored: Stored,
}

impl MemEntry {
    pub(crate) fn version(&self) -> KeyVersion<'_> {
        KeyVersion::new(&self.key, self.seq)
    }
}

/// Walks a memtable in one direction without holding its lock, by copying (references to) a few
/// entries at a time.
#[derive(Debug)]
pub(crate) struct MemCursor {
    table: Arc<Memtable>,
    forward: bool,
    /// The next entries in reverse, so that the nearest is popped first.
    ahead: Vec<MemEntry>,
    fetch: usize,
}

impl MemCursor {
    const FETCH_FIRST: usize = 8;
    const FETCH_MOST: usize = 256;

    /// A cursor at the first entry on the given side of `from`.
    pub(crate) fn new(table: Arc<Memtable>, from: Bound<KeyVersion<'_>>, forward: bool) -> Self {
        let mut cursor = Self {
            table,
            forward,
            ahead: Vec::new(),
            fetch: Self::FETCH_FIRST,
        };
        cursor.fill(from);
        cursor
    }

    pub(crate) fn entry(&self) -> Option<&MemEntry> {
        self.ahead.last()
    }

    pub(crate) fn advance(&mut self) {
        if let Some(passed) = self.ahead.pop()
            && self.ahead.is_empty()
        {
            self.fill(Bound::Excluded(passed.version()));
        }
    }

    fn fill(&mut self, from: Bound<KeyVersion<'_>>) {
        self.table
            .neighbours(from, self.forward, self.fetch, &mut self.ahead);
        self.ahead.reverse();
        self.fetch = (self.fetch * 2).min(Self::FETCH_MOST);
    }
}

#[derive(Debug)]
struct OwnedVersion {
    key: Bytes,
    seq: Seq,
}

/// Lets the map be searched with a borrowed key.
trait AsVersion {
    fn version(&self) -> KeyVersion<'_>;
}

impl AsVersion for OwnedVersion {
    fn version(&self) -> KeyVersion<'_> {
        KeyVersion::new(&self.key, self.seq)
    }
}

impl AsVersion for KeyVersion<'_> {
    fn version(&self) -> KeyVersion<'_> {
        *self
    }
}

impl<'a> Borrow<dyn AsVersion + 'a> for OwnedVersion {
    fn borrow(&self) -> &(dyn AsVersion + 'a) {
        self
    }
}

impl Ord for dyn AsVersion + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.version().cmp(&other.version())
    }
}

impl PartialOrd for dyn AsVersion + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn AsVersion + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.version() == other.version()
    }
}

impl Eq for dyn AsVersion + '_ {}

impl Ord for OwnedVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        self.version().cmp(&other.version())
    }
}

impl PartialOrd for OwnedVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OwnedVersion {
    fn eq(&self, other: &Self) -> bool {
        self.version() == other.version()
    }
}

impl Eq for OwnedVersion {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::WriteBatch;

    fn table() -> Arc<Memtable> {
        let table = Memtable::new();
        let mut batch = WriteBatch::new();
        batch.put(b"b", b"1");
        batch.put(b"a", b"2");
        batch.delete(b"b");
        batch.put(b"ba", b"4");
        table.insert(Seq(1), batch.into_operations());
        Arc::new(table)
    }

    #[test]
    fn the_newest_version_at_or_below_a_number_is_found() {
        let table = table();
        let get = |key: &[u8], at| {
            table
                .get(key, Seq(at))
                .map(|(seq, stored)| (seq.0, stored.kind, stored.value))
        };
        assert_eq!(get(b"b", 9), Some((3, Kind::Delete, Bytes::new())));
        assert_eq!(get(b"b", 2), Some((1, Kind::Put, Bytes::from_static(b"1"))));
        assert_eq!(get(b"b", 0), None);
        assert_eq!(get(b"bb", 9), None);
        assert_eq!(get(b"ba", 3), None);
    }

    #[test]
    fn cursors_walk_both_ways_and_across_refills() {
        let table = Arc::new(Memtable::new());
        for number in 0..1000u64 {
            let mut batch = WriteBatch::new();
            batch.put(&(number % 500).to_be_bytes(), b"");
            table.insert(Seq(number + 1), batch.into_operations());
        }
        let walk = |forward| {
            let mut cursor = MemCursor::new(Arc::clone(&table), Bound::Unbounded, forward);
            let mut seen = Vec::new();
            while let Some(entry) = cursor.entry() {
                seen.push((entry.key.clone(), entry.seq));
                cursor.advance();
            }
            seen
        };
        let forward = walk(true);
        assert_eq!(forward.len(), 1000);
        assert!(
            forward.is_sorted_by(|a, b| KeyVersion::new(&a.0, a.1) < KeyVersion::new(&b.0, b.1))
        );
        let mut backward = walk(false);
        backward.reverse();
        assert_eq!(forward, backward);
    }
}
