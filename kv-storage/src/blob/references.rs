//! How much of each blob file a table points to.

use super::Pointer;
use crate::coding::{Decoder, put_varint};

/// What a table points to in one blob file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    pub file: u64,
    pub values: u64,
    /// Bytes of their records.
    pub bytes: u64,
}

/// One entry for each blob file, by ascending number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct References(Vec<Reference>);

impl References {
    /// Counts a pointer.
    pub(crate) fn note(&mut self, pointer: &Pointer) {
        let at = self.0.partition_point(|entry| entry.file < pointer.file);
        if self
            .0
            .get(at)
            .is_none_or(|entry| entry.file != pointer.file)
        {
            let fresh = Reference {
                file: pointer.file,
                values: 0,
                bytes: 0,
            };
            self.0.insert(at, fresh);
        }
        self.0[at].values += 1;
        self.0[at].bytes += pointer.record_bytes();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Reference> + '_ {
        self.0.iter().copied()
    }

    /// Bytes in all blob files together.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|entry| entry.bytes).sum()
    }

    /// For each file: number, values and bytes as varints.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for entry in &self.0 {
            for number in [entry.file, entry.values, entry.bytes] {
                put_varint(out, number);
            }
        }
    }

    /// `None` if the bytes are malformed.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        let mut entries: Vec<Reference> = Vec::new();
        while !decoder.is_empty() {
            let entry = Reference {
                file: decoder.varint()?,
                values: decoder.varint()?,
                bytes: decoder.varint()?,
            };
            let is_next = entries.last().is_none_or(|last| last.file < entry.file);
            if !is_next || entry.values == 0 {
                return None;
            }
            entries.push(entry);
        }
        Some(Self(entries))
    }
}
