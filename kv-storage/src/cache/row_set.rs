//! A set of the row cache: a few rows behind one lock, which with their tags fills one cache line.
//!
//! The tags can be read without the lock. Most reads that find no row then take no lock, and go on to the
//! tables while the set is still on its way from memory.

use super::budget::allocated_bytes;
use super::row::ReadMark;
use crate::key::Seq;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, TryLockError};

/// Rows in a set at most.
pub(super) const WAYS: usize = 16;
/// Memory that a row takes in its set, roughly.
const ROW_PLACE: usize = 20;
/// Number of the read, number of the write, epoch (u64 each), length of the key (u16).
const HEADER_BYTES: usize = 26;

/// A set that threads share. Nobody waits for it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct SharedSet {
    tags: Tags,
    /// Tags that were offered once, the newest in the lowest byte.
    remembered: AtomicU64,
    rows: Mutex<RowSet>,
}

const _: () = assert!(size_of::<SharedSet>() == 64);

impl SharedSet {
    /// False if the set held no row of this tag at a moment during the call.
    #[inline]
    pub(super) fn may_hold(&self, tag: u8) -> bool {
        self.tags.contain(tag)
    }

    /// True if this tag was offered lately; remembers it otherwise.
    #[inline]
    pub(super) fn was_touched(&self, tag: u8) -> bool {
        let remembered = self.remembered.load(Relaxed);
        let is_there = contains(remembered, tag);
        if !is_there {
            // If two threads meet, one of the tags is forgotten, which does no harm.
            self.remembered
                .store(remembered << 8 | u64::from(tag), Relaxed);
        }
        is_there
    }

    /// The set, unless it is empty or somebody else has it at this moment.
    pub(super) fn try_lock_filled(&self) -> Option<LockedSet<'_>> {
        if self.tags.are_empty() {
            return None;
        }
        self.try_lock()
    }

    /// The set, unless somebody else has it at this moment.
    #[inline]
    pub(super) fn try_lock(&self) -> Option<LockedSet<'_>> {
        let rows = match self.rows.try_lock() {
            Ok(rows) => rows,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(LockedSet {
            tags: &self.tags,
            rows,
        })
    }
}

/// A tag for each row, 0 where there is none. Changed with the set locked.
#[derive(Debug, Default)]
struct Tags([AtomicU64; WAYS / 8]);

impl Tags {
    #[inline]
    fn contain(&self, tag: u8) -> bool {
        self.0.iter().any(|word| contains(word.load(Relaxed), tag))
    }

    fn are_empty(&self) -> bool {
        self.0.iter().all(|word| word.load(Relaxed) == 0)
    }

    fn bytes(&self) -> [u8; WAYS] {
        let mut bytes = [0; WAYS];
        for (into, word) in bytes.chunks_exact_mut(8).zip(&self.0) {
            into.copy_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        bytes
    }

    fn set(&self, way: usize, tag: u8) {
        let (word, shift) = (&self.0[way / 8], way % 8 * 8);
        let others = word.load(Relaxed) & !(0xff << shift);
        word.store(others | u64::from(tag) << shift, Relaxed);
    }
}

/// True if one of the bytes of a word is this one.
#[inline]
fn contains(word: u64, byte: u8) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The difference is 0 in that byte, and only from a byte of 0 can subtracting 1 borrow first.
    let differences = word ^ (ONES * u64::from(byte));
    differences.wrapping_sub(ONES) & !differences & (ONES << 7) != 0
}

/// A set that no other thread has.
pub(super) struct LockedSet<'a> {
    tags: &'a Tags,
    rows: MutexGuard<'a, RowSet>,
}

/// Rows whose hashes lead to the same place.
#[derive(Debug, Default)]
struct RowSet {
    /// Bit by bit, whether a row was read since the hand came by.
    touched: u16,
    rows: Vec<Row>,
}

impl LockedSet<'_> {
    /// The row of a key; marks it as touched.
    #[inline]
    pub(super) fn find(&mut self, key: &[u8], tag: u8) -> Option<&Row> {
        let way = self.position(key, tag)?;
        self.rows.touched |= 1 << way;
        self.rows.rows.get(way)
    }

    fn position(&self, key: &[u8], tag: u8) -> Option<usize> {
        let tags = self.tags.bytes();
        let rows = &self.rows.rows;
        memchr::memchr_iter(tag, &tags).find(|way| rows[*way].key() == key)
    }

    /// Puts a row in the place of an older one of its key, or in a free place, or in that of one that
    /// was not touched lately.
    pub(super) fn insert(&mut self, tag: u8, key: &[u8], value: &[u8], seq: Seq, mark: ReadMark) {
        let row = Row::new(key, value, seq, mark);
        if let Some(way) = self.position(key, tag) {
            // The result of a read that took long must not replace that of a later one.
            let old = &mut self.rows.rows[way];
            if old.read_at() <= mark.at {
                *old = row;
            }
            return;
        }
        if self.rows.rows.len() == WAYS {
            let way = self.rows.touched.trailing_ones() as usize;
            if way < WAYS {
                self.remove(way);
            } else {
                self.rows.touched = 0;
                self.remove(usize::from(tag) % WAYS);
            }
        }
        self.tags.set(self.rows.rows.len(), tag);
        self.rows.rows.push(row);
    }

    /// Removes the rows that were not touched since the last call, and shows each of them.
    pub(super) fn take_untouched(&mut self, mut see: impl FnMut(&Row)) {
        let mut way = 0;
        while way < self.rows.rows.len() {
            if self.rows.touched & (1 << way) != 0 {
                way += 1;
            } else {
                see(&self.rows.rows[way]);
                self.remove(way);
            }
        }
        self.rows.touched = 0;
    }

    /// The last row takes the place of the removed one.
    fn remove(&mut self, way: usize) {
        let set = &mut *self.rows;
        let last = set.rows.len() - 1;
        set.rows.swap_remove(way);
        self.tags.set(way, self.tags.bytes()[last]);
        self.tags.set(last, 0);
        let last_touched = set.touched >> last & 1;
        set.touched &= !(1 << way | 1 << last);
        if way != last {
            set.touched |= last_touched << way;
        }
    }

    /// Memory of the rows.
    pub(super) fn bytes(&self) -> usize {
        self.rows.rows.iter().map(Row::memory_bytes).sum()
    }
}

/// A row with what is needed to judge it, in one piece of memory.
#[derive(Debug)]
pub(super) struct Row(Box<[u8]>);

impl Row {
    fn new(key: &[u8], value: &[u8], seq: Seq, mark: ReadMark) -> Self {
        let key_len = u16::try_from(key.len()).expect("a key is shorter than 64 KiB");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + key.len() + value.len());
        for field in [mark.at.0, seq.0, mark.epoch] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&key_len.to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        Self(bytes.into())
    }

    fn field(&self, number: usize) -> u64 {
        let bytes = self.0[number * 8..].first_chunk();
        u64::from_le_bytes(*bytes.expect("each row has a header"))
    }

    /// As of which number the row is the newest.
    pub(super) fn read_at(&self) -> Seq {
        Seq(self.field(0))
    }

    pub(super) fn seq(&self) -> Seq {
        Seq(self.field(1))
    }

    pub(super) fn epoch(&self) -> u64 {
        self.field(2)
    }

    fn key_end(&self) -> usize {
        HEADER_BYTES + usize::from(u16::from_le_bytes([self.0[24], self.0[25]]))
    }

    /// Memory that it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        allocated_bytes(self.0.len()) + ROW_PLACE
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.0[HEADER_BYTES..self.key_end()]
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.0[self.key_end()..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_found_in_a_word_only_where_it_is() {
        for byte in 1..=u8::MAX {
            for other in 0..=u8::MAX {
                for at in 0..8 {
                    let mut bytes = [other; 8];
                    bytes[at] = byte;
                    assert!(contains(u64::from_le_bytes(bytes), byte));
                }
                let word = u64::from_le_bytes([other; 8]);
                assert_eq!(contains(word, byte), other == byte, "{byte} in {other}");
            }
        }
    }

    #[test]
    fn tags_are_seen_without_the_lock_while_their_rows_are_there() {
        let set = SharedSet::default();
        let mark = ReadMark {
            at: Seq(1),
            epoch: 0,
        };
        for tag in 1..=WAYS as u8 {
            let mut locked = set.try_lock().unwrap();
            locked.insert(tag, &[tag], b"v", Seq(1), mark);
        }
        assert!((1..=WAYS as u8).all(|tag| set.may_hold(tag)));
        assert!(!set.may_hold(WAYS as u8 + 1) && !set.may_hold(99));
        set.try_lock().unwrap().find(&[5], 5).unwrap();
        let mut gone = 0;
        set.try_lock().unwrap().take_untouched(|_| gone += 1);
        assert_eq!(gone, WAYS - 1);
        assert!((1..=WAYS as u8).all(|tag| set.may_hold(tag) == (tag == 5)));
        assert!(set.try_lock().unwrap().find(&[5], 5).is_some());
    }
}
