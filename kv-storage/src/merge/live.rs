//! The keys that live at a point in the store's history, in order.

use super::{Direction, Merge};
use crate::error::Error;
use crate::key::{Kind, Seq};
use crate::table::Table;
use bytes::Bytes;
use std::sync::Arc;

/// One live key with its value, lent by a cursor until its next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LiveEntry<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub seq: Seq,
}

/// Walks the live keys of a merge, until it has visited so many versions of all kinds that it pauses. Values are read
/// from blob files only when their entry is lent.
#[derive(Debug)]
pub(crate) struct LiveCursor {
    merge: Merge,
    at: Seq,
    /// How many versions it visits before it pauses; at least one.
    limit: usize,
    visited: usize,
    is_paused: bool,
    /// The key whose version was visited last.
    key: Vec<u8>,
    /// Whether `key` holds a key.
    has_key: bool,
    /// Forward: the newest visible version of `key` was met.
    is_decided: bool,
    /// Forward: the merge stands at the present entry.
    is_at_entry: bool,
    /// Backward: the present value, or the pointer to it, which the merge has passed.
    value: Vec<u8>,
    /// The present value if it was read from a blob file.
    resolved: Option<Bytes>,
    seq: Seq,
}

impl LiveCursor {
    pub(crate) fn new(merge: Merge, at: Seq, limit: usize) -> Self {
        Self {
            merge,
            at,
            limit: limit.max(1),
            visited: 0,
            is_paused: false,
            key: Vec::new(),
            has_key: false,
            is_decided: false,
            is_at_entry: false,
            value: Vec::new(),
            resolved: None,
            seq: Seq::ZERO,
        }
    }

    /// Moves to the next live key and lends it; nothing if there is none, or the cursor pauses.
    pub(crate) fn next(&mut self) -> Result<Option<LiveEntry<'_>>, Error> {
        match self.merge.direction {
            Direction::Forward => self.next_forward(),
            Direction::Backward => self.next_backward(),
        }
    }

    /// The key that was lent last, or one behind it where nothing more was lent; empty before the first.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// How many versions were visited, of live keys and of others.
    pub(crate) fn visited(&self) -> usize {
        self.visited
    }

    /// The key with which the cursor pauses: it and all before it are done. Nothing if the cursor came to the end.
    pub(crate) fn paused_at(&self) -> Option<&[u8]> {
        self.is_paused.then_some(&self.key)
    }

    /// The value of the entry that was lent last, for keeping.
    pub(crate) fn value_bytes(&self) -> Bytes {
        match (&self.resolved, self.merge.direction) {
            (Some(value), _) => value.clone(),
            (None, Direction::Forward) => self.merge.value_bytes(),
            (None, Direction::Backward) => Bytes::copy_from_slice(&self.value),
        }
    }

    /// The first visible version met of each key is its newest; the others are skipped.
    fn next_forward(&mut self) -> Result<Option<LiveEntry<'_>>, Error> {
        if self.is_at_entry {
            self.merge.advance()?;
        }
        self.is_at_entry = false;
        self.resolved = None;
        while let Some(version) = self.merge.version() {
            let is_new = !self.has_key || self.key != version.key;
            // The older versions of a decided key may stay unvisited.
            if self.visited >= self.limit && (is_new || self.is_decided) {
                self.is_paused = true;
                return Ok(None);
            }
            self.visited += 1;
            if is_new {
                self.key.clear();
                self.key.extend_from_slice(version.key);
                self.has_key = true;
                self.is_decided = false;
            }
            let mut is_hidden = false;
            if version.seq <= self.at && !self.is_decided {
                self.is_decided = true;
                self.seq = version.seq;
                is_hidden = self.merge.hides(&self.key, self.seq, self.at)?;
                if !is_hidden && self.is_live() {
                    self.is_at_entry = true;
                    return self.lend();
                }
            }
            if is_new && self.merge.is_beyond(&self.key) {
                return Ok(None);
            }
            // Where it is hidden, cursors may have moved on, that of this version among them.
            let has_moved = is_hidden && self.merge.version().is_none_or(|it| it.key != self.key);
            if !has_moved {
                self.merge.advance()?;
            }
        }
        self.merge.end().map(|()| None)
    }

    fn is_live(&self) -> bool {
        matches!(self.merge.content(), Some((Kind::Put | Kind::Blob, _)))
    }

    fn lend(&mut self) -> Result<Option<LiveEntry<'_>>, Error> {
        let Some((kind, value)) = self.merge.content() else {
            return Ok(None);
        };
        let value = match self.merge.table() {
            Some(table) if kind == Kind::Blob => {
                // Who stops before this key must not hear that its value is damaged.
                if self.merge.is_beyond(&self.key) {
                    return Ok(None);
                }
                let resolved = table.value(&self.key, value)?;
                &*self.resolved.insert(resolved)
            }
            Some(_) | None => value,
        };
        Ok(Some(LiveEntry {
            key: &self.key,
            value,
            seq: self.seq,
        }))
    }

    /// A key's versions come oldest first: the last visible one before the key changes counts. To see
    /// the change the merge must pass it, so it is copied. It pauses between keys only.
    fn next_backward(&mut self) -> Result<Option<LiveEntry<'_>>, Error> {
        self.resolved = None;
        while let Some(version) = self.merge.version() {
            if self.visited >= self.limit {
                self.is_paused = true;
                return Ok(None);
            }
            self.key.clear();
            self.key.extend_from_slice(version.key);
            let (mut is_there, mut lives) = (false, false);
            // The table whose blob file has the value.
            let mut pointing: Option<Arc<Table>> = None;
            while let Some(version) = self.merge.version()
                && version.key == self.key
            {
                self.visited += 1;
                if version.seq <= self.at {
                    self.seq = version.seq;
                    is_there = true;
                    lives = self.is_live();
                    pointing = None;
                    self.value.clear();
                    if let Some((kind, value)) = self.merge.content() {
                        self.value.extend_from_slice(value);
                        pointing = self.merge.table().filter(|_| kind == Kind::Blob).cloned();
                    }
                }
                self.merge.advance()?;
            }
            let is_hidden = is_there && self.merge.hides(&self.key, self.seq, self.at)?;
            if lives && !is_hidden {
                if let Some(table) = pointing {
                    if self.merge.is_beyond(&self.key) {
                        return Ok(None);
                    }
                    self.resolved = Some(table.value(&self.key, &self.value)?);
                }
                return Ok(Some(LiveEntry {
                    key: &self.key,
                    value: self.resolved.as_deref().unwrap_or(&self.value),
                    seq: self.seq,
                }));
            }
            if self.merge.is_beyond(&self.key) {
                return Ok(None);
            }
        }
        self.merge.end().map(|()| None)
    }
}
