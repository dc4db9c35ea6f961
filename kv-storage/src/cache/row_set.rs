//! A set of the row cache: a few rows behind one lock, which with its tags fills one cache line.

use super::budget::allocated_bytes;
use super::row::ReadMark;
use crate::key::Seq;
use std::sync::{Mutex, MutexGuard, TryLockError};

/// Rows in a set at most.
pub(super) const WAYS: usize = 16;
/// Tags remembered of rows that were touched once.
const REMEMBERED: usize = 8;
/// Memory that a row takes in its set, roughly.
const ROW_PLACE: usize = 20;
/// Number of the read, number of the write, epoch (u64 each), length of the key (u16).
const HEADER_BYTES: usize = 26;

/// A set that threads share. Nobody waits for it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct SharedSet(Mutex<RowSet>);

impl SharedSet {
    /// The set, unless somebody else has it at this moment.
    #[inline]
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, RowSet>> {
        match self.0.try_lock() {
            Ok(set) => Some(set),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// Rows whose hashes lead to the same place.
#[derive(Debug, Default)]
pub(super) struct RowSet {
    /// One for each row.
    tags: [u8; WAYS],
    /// Tags that were offered once, the oldest to be replaced next.
    remembered: [u8; REMEMBERED],
    oldest: u8,
    /// Bit by bit, whether a row was read since the hand came by.
    touched: u16,
    rows: Vec<Row>,
}

impl RowSet {
    /// The row of a key; marks it as touched.
    #[inline]
    pub(super) fn find(&mut self, key: &[u8], tag: u8) -> Option<&Row> {
        let way = self.position(key, tag)?;
        self.touched |= 1 << way;
        self.rows.get(way)
    }

    fn position(&self, key: &[u8], tag: u8) -> Option<usize> {
        let tags = &self.tags[..self.rows.len()];
        memchr::memchr_iter(tag, tags).find(|way| self.rows[*way].key() == key)
    }

    /// True if this tag was offered lately; remembers it otherwise.
    pub(super) fn was_touched(&mut self, tag: u8) -> bool {
        // 0 is what the memory is filled with at first.
        let tag = tag.max(1);
        if self.remembered.contains(&tag) {
            return true;
        }
        self.remembered[usize::from(self.oldest)] = tag;
        self.oldest = (self.oldest + 1) % REMEMBERED as u8;
        false
    }

    /// Puts a row in the place of an older one of its key, or in a free place, or in that of one that
    /// was not touched lately.
    pub(super) fn insert(&mut self, tag: u8, key: &[u8], value: &[u8], seq: Seq, mark: ReadMark) {
        let row = Row::new(key, value, seq, mark);
        if let Some(way) = self.position(key, tag) {
            // The result of a read that took long must not replace that of a later one.
            if self.rows[way].read_at() <= mark.at {
                self.rows[way] = row;
            }
            return;
        }
        if self.rows.len() == WAYS {
            let way = self.touched.trailing_ones() as usize;
            if way < WAYS {
                self.remove(way);
            } else {
                self.touched = 0;
                self.remove(usize::from(tag) % WAYS);
            }
        }
        self.tags[self.rows.len()] = tag;
        self.rows.push(row);
    }

    /// Removes the rows that were not touched since the last call, and shows each of them.
    pub(super) fn take_untouched(&mut self, mut see: impl FnMut(&Row)) {
        let mut way = 0;
        while way < self.rows.len() {
            if self.touched & (1 << way) != 0 {
                way += 1;
            } else {
                see(&self.rows[way]);
                self.remove(way);
            }
        }
        self.touched = 0;
    }

    /// The last row takes the place of the removed one.
    fn remove(&mut self, way: usize) {
        let last = self.rows.len() - 1;
        self.rows.swap_remove(way);
        self.tags[way] = self.tags[last];
        let last_touched = self.touched >> last & 1;
        self.touched &= !(1 << way | 1 << last);
        if way != last {
            self.touched |= last_touched << way;
        }
    }

    /// Memory of the rows.
    pub(super) fn bytes(&self) -> usize {
        self.rows.iter().map(Row::memory_bytes).sum()
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
