//! A filter for random histories: values that expire or are rewritten.

use super::Map;
use kv_storage::{CompactionFilter, Seq, Verdict};
use std::sync::atomic::{AtomicU64, Ordering};

/// Drops values when their time has come, and rewrites some, once. Time moves with the operations.
///
/// A value says in its first eight bytes when it expires, and in the ninth what becomes of it.
#[derive(Debug, Default)]
pub(super) struct Aging(AtomicU64);

const TO_REWRITE: u8 = 1;
const REWRITTEN: u8 = 2;
const NEVER: u64 = u64::MAX;

impl Aging {
    fn time(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn expiry(value: &[u8]) -> u64 {
        value
            .first_chunk()
            .map_or(NEVER, |bytes| u64::from_be_bytes(*bytes))
    }

    pub(super) fn pass(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// A value with these bytes behind what the filter looks at.
    pub(super) fn value(&self, fill: u8, length: u16) -> Vec<u8> {
        let mut value = vec![fill; usize::from(length)];
        let expiry = if length.is_multiple_of(3) {
            self.time() + u64::from(length % 50)
        } else {
            NEVER
        };
        if let Some((head, rest)) = value.split_first_chunk_mut() {
            *head = expiry.to_be_bytes();
            if let Some(mark) = rest.first_mut() {
                *mark = if length.is_multiple_of(5) {
                    TO_REWRITE
                } else {
                    0
                };
            }
        } else {
            value.fill(0);
        }
        value
    }

    /// What may be said of contents whatever the filter met: without what has expired, and as if all were rewritten.
    pub(super) fn settled(&self, contents: &Map) -> Map {
        let alive = contents
            .iter()
            .filter(|(_, value)| Self::expiry(value) > self.time());
        alive
            .map(|(key, value)| {
                let mut value = value.clone();
                if let Some(mark) = value.get_mut(8).filter(|mark| **mark == TO_REWRITE) {
                    *mark = REWRITTEN;
                }
                (key.clone(), value)
            })
            .collect()
    }
}

impl CompactionFilter for Aging {
    fn decide(&self, _key: &[u8], _seq: Seq, value: &[u8]) -> Verdict {
        if Self::expiry(value) <= self.time() {
            return Verdict::Drop(1);
        }
        if value.get(8) != Some(&TO_REWRITE) {
            return Verdict::Keep;
        }
        let mut value = value.to_vec();
        value[8] = REWRITTEN;
        Verdict::Rewrite(value)
    }

    fn expires(&self, _key: &[u8], value: &[u8]) -> Option<u64> {
        Some(Self::expiry(value)).filter(|expiry| *expiry != NEVER)
    }

    fn now(&self) -> Option<u64> {
        Some(self.time())
    }
}
