//! Blocks of sorted entries with shared key prefixes and restart points.

use crate::coding::{Decoder, put_varint};
use crate::key::{KeyVersion, Kind, Seq};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// Every so many entries the whole key is stored, so that a search can begin there.
const RESTART_INTERVAL: usize = 16;

/// Collects entries in order and encodes them.
#[derive(Debug, Default)]
pub(super) struct BlockBuilder {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    entries: usize,
    last_key: Vec<u8>,
}

impl BlockBuilder {
    pub(super) fn push(&mut self, version: KeyVersion<'_>, kind: Kind, value: &[u8]) {
        let shared = if self.entries.is_multiple_of(RESTART_INTERVAL) {
            self.restarts
                .push(u32::try_from(self.bytes.len()).expect("blocks are cut far below 4 GiB"));
            0
        } else {
            shared_prefix(&self.last_key, version.key)
        };
        let suffix = &version.key[shared..];
        for field in [
            shared as u64,
            suffix.len() as u64,
            value.len() as u64,
            version.seq.0,
        ] {
            put_varint(&mut self.bytes, field);
        }
        self.bytes.push(kind as u8);
        self.bytes.extend_from_slice(suffix);
        self.bytes.extend_from_slice(value);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(suffix);
        self.entries += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Bytes so far, without the restart points.
    pub(super) fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The encoded block; the builder is empty again afterwards.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        let count = u32::try_from(self.restarts.len()).expect("fewer restarts than bytes");
        self.bytes.extend_from_slice(&count.to_le_bytes());
        self.restarts.clear();
        self.entries = 0;
        self.last_key.clear();
        std::mem::take(&mut self.bytes)
    }
}

fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// A decoded block in memory.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Bytes,
    /// Where the entries end and the restart points begin.
    entries_end: usize,
    restarts: usize,
}

/// Says that a block's inner structure is broken although its checksum was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Block {
    pub(super) fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        let count_at = bytes.len().checked_sub(4).ok_or(Malformed)?;
        let restarts = Decoder::at(&bytes, count_at).u32().ok_or(Malformed)? as usize;
        let entries_end = restarts
            .checked_mul(4)
            .and_then(|size| count_at.checked_sub(size))
            .ok_or(Malformed)?;
        if restarts == 0 || entries_end == 0 {
            return Err(Malformed);
        }
        Ok(Self {
            bytes,
            entries_end,
            restarts,
        })
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn restart(&self, index: usize) -> Result<usize, Malformed> {
        let at = Decoder::at(&self.bytes, self.entries_end + 4 * index)
            .u32()
            .ok_or(Malformed)? as usize;
        if index < self.restarts && at < self.entries_end {
            Ok(at)
        } else {
            Err(Malformed)
        }
    }

    fn entry(&self, at: usize) -> Result<EntryParts<'_>, Malformed> {
        EntryParts::decode(&self.bytes[..self.entries_end], at).ok_or(Malformed)
    }
}

/// One encoded entry, taken apart.
struct EntryParts<'a> {
    shared: usize,
    suffix: &'a [u8],
    seq: Seq,
    kind: Kind,
    value: Range<usize>,
}

impl<'a> EntryParts<'a> {
    fn decode(bytes: &'a [u8], at: usize) -> Option<Self> {
        let mut decoder = Decoder::at(bytes, at);
        let shared = decoder.length()?;
        let suffix_len = decoder.length()?;
        let value_len = decoder.length()?;
        let seq = Seq(decoder.varint()?);
        let kind = Kind::from_byte(decoder.u8()?)?;
        let suffix = decoder.take(suffix_len)?;
        let start = decoder.position();
        decoder.take(value_len)?;
        Some(Self {
            shared,
            suffix,
            seq,
            kind,
            value: start..decoder.position(),
        })
    }
}

/// A position in a block: at an entry, or at none.
#[derive(Debug)]
pub(crate) struct BlockCursor {
    block: Arc<Block>,
    key: Vec<u8>,
    seq: Seq,
    kind: Kind,
    value: Range<usize>,
    /// Where the present entry begins; `None` if the cursor is at no entry.
    at: Option<usize>,
}

impl BlockCursor {
    /// A cursor at no entry.
    pub(super) fn new(block: Arc<Block>) -> Self {
        Self {
            block,
            key: Vec::new(),
            seq: Seq::ZERO,
            kind: Kind::Delete,
            value: 0..0,
            at: None,
        }
    }

    pub(super) fn version(&self) -> Option<KeyVersion<'_>> {
        self.at.map(|_| KeyVersion::new(&self.key, self.seq))
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.block.bytes[self.value.clone()]
    }

    /// The value for keeping. A small one is copied, so that it does not hold the whole block in memory.
    pub(super) fn value_bytes(&self) -> Bytes {
        if self.value.len() < self.block.bytes.len() / 4 {
            Bytes::copy_from_slice(self.value())
        } else {
            self.block.bytes.slice(self.value.clone())
        }
    }

    pub(super) fn seek_first(&mut self) -> Result<(), Malformed> {
        self.seek_restart(0)
    }

    pub(super) fn seek_last(&mut self) -> Result<(), Malformed> {
        self.seek_restart(self.block.restarts - 1)?;
        while self.value.end < self.block.entries_end {
            self.step()?;
        }
        Ok(())
    }

    /// Moves to the first entry at or after `target`, or to none.
    pub(super) fn seek(&mut self, target: KeyVersion<'_>) -> Result<(), Malformed> {
        // The last restart whose entry lies before the target; entries from there on are read in turn.
        let (mut low, mut high) = (0, self.block.restarts - 1);
        while low < high {
            let middle = (low + high).div_ceil(2);
            let entry = self.block.entry(self.block.restart(middle)?)?;
            if KeyVersion::new(entry.suffix, entry.seq) < target {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        self.seek_restart(low)?;
        while self.version().is_some_and(|version| version < target) {
            self.next()?;
        }
        Ok(())
    }

    /// Moves to the next entry, or to none at the end.
    pub(super) fn next(&mut self) -> Result<(), Malformed> {
        if self.value.end < self.block.entries_end {
            self.step()
        } else {
            self.at = None;
            Ok(())
        }
    }

    /// Moves to the previous entry, or to none at the beginning.
    pub(super) fn previous(&mut self) -> Result<(), Malformed> {
        let Some(here) = self.at else { return Ok(()) };
        // The last restart in front of this entry.
        let (mut low, mut high) = (0, self.block.restarts);
        while low < high {
            let middle = (low + high) / 2;
            if self.block.restart(middle)? < here {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some(restart) = low.checked_sub(1) else {
            self.at = None;
            return Ok(());
        };
        self.seek_restart(restart)?;
        while self.value.end < here {
            self.step()?;
        }
        Ok(())
    }

    fn seek_restart(&mut self, index: usize) -> Result<(), Malformed> {
        let at = self.block.restart(index)?;
        self.key.clear();
        self.read(at)
    }

    fn step(&mut self) -> Result<(), Malformed> {
        self.read(self.value.end)
    }

    fn read(&mut self, at: usize) -> Result<(), Malformed> {
        let entry =
            EntryParts::decode(&self.block.bytes[..self.block.entries_end], at).ok_or(Malformed)?;
        if entry.shared > self.key.len() {
            return Err(Malformed);
        }
        self.key.truncate(entry.shared);
        self.key.extend_from_slice(entry.suffix);
        self.seq = entry.seq;
        self.kind = entry.kind;
        self.value = entry.value;
        self.at = Some(at);
        Ok(())
    }
}
