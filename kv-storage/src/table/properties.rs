//! The properties block: facts about a table as (tag, length, bytes), so that more can be added.

use super::TableSummary;
use super::format::Handle;
use crate::coding::{Decoder, put_bytes, put_varint};

/// Tags from here on must be understood: a reader that does not know one would misread the table.
const ESSENTIAL: u64 = 64;

/// What a property says. The numbers are on disk: never change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Tag {
    Entries = 1,
    Deletes = 2,
    Newest = 3,
    Smallest = 4,
    Largest = 5,
    /// Handle of the block with the dictionary that data blocks of codec 3 need.
    Dictionary = 64,
    /// Handle of the block with the deleted ranges.
    Ranges = 65,
    /// No value: the entries have one number, which the manifest knows.
    Numbered = 66,
}

/// Encodes the facts for tools, and what readers need.
pub(super) fn encode(summary: &TableSummary, properties: &Properties) -> Vec<u8> {
    let mut out = Vec::new();
    let mut record = |tag: Tag, value: &[u8]| {
        put_varint(&mut out, tag as u64);
        put_bytes(&mut out, value);
    };
    let numbers = [
        (Tag::Entries, summary.entries),
        (Tag::Deletes, summary.deletes),
        (Tag::Newest, summary.newest.0),
    ];
    let mut value = Vec::new();
    for (tag, number) in numbers {
        value.clear();
        put_varint(&mut value, number);
        record(tag, &value);
    }
    record(Tag::Smallest, &summary.smallest);
    record(Tag::Largest, &summary.largest);
    let handles = [
        (Tag::Dictionary, &properties.dictionary),
        (Tag::Ranges, &properties.ranges),
    ];
    for (tag, handle) in handles {
        if let Some(handle) = handle {
            value.clear();
            handle.encode_compact(&mut value);
            record(tag, &value);
        }
    }
    if properties.is_numbered {
        record(Tag::Numbered, &[]);
    }
    out
}

/// The smallest and the largest key, for tools that have nothing but the file.
pub(super) fn bounds(raw: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut decoder = Decoder::new(raw);
    let (mut smallest, mut largest) = (None, None);
    while !decoder.is_empty() {
        let tag = decoder.varint()?;
        let value = decoder.bytes()?;
        if tag == Tag::Smallest as u64 {
            smallest = Some(value.to_vec());
        } else if tag == Tag::Largest as u64 {
            largest = Some(value.to_vec());
        }
    }
    Some((smallest?, largest?))
}

/// What a reader takes from the properties.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Properties {
    pub dictionary: Option<Handle>,
    pub ranges: Option<Handle>,
    /// The entries are stored with number 0, and have one that the manifest knows.
    pub is_numbered: bool,
}

impl Properties {
    /// The error says what is wrong.
    pub(super) fn decode(raw: &[u8]) -> Result<Self, &'static str> {
        let malformed = "malformed properties";
        let mut decoder = Decoder::new(raw);
        let mut properties = Self::default();
        while !decoder.is_empty() {
            let tag = decoder.varint().ok_or(malformed)?;
            let value = decoder.bytes().ok_or(malformed)?;
            let handle = || Handle::decode_compact(value).ok_or(malformed).map(Some);
            if tag == Tag::Dictionary as u64 {
                properties.dictionary = handle()?;
            } else if tag == Tag::Ranges as u64 {
                properties.ranges = handle()?;
            } else if tag == Tag::Numbered as u64 && value.is_empty() {
                properties.is_numbered = true;
            } else if tag >= ESSENTIAL {
                return Err("table needs a newer version of this software");
            }
        }
        Ok(properties)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Seq;

    fn summary() -> TableSummary {
        TableSummary {
            file: 7,
            size_bytes: 0,
            entries: 3,
            deletes: 1,
            smallest: b"a".to_vec(),
            largest: b"b".to_vec(),
            newest: Seq(300),
            ..TableSummary::default()
        }
    }

    #[test]
    fn unknown_facts_are_ignored_and_unknown_essentials_are_refused() {
        let handle = Handle {
            offset: 1000,
            stored: 5,
            raw: 4,
            checksum: 77,
        };
        let properties = Properties {
            dictionary: Some(handle),
            ranges: Some(Handle {
                offset: 2000,
                ..handle
            }),
            is_numbered: true,
        };
        let mut bytes = encode(&summary(), &properties);
        assert_eq!(bounds(&bytes), Some((b"a".to_vec(), b"b".to_vec())));
        assert_eq!(Properties::decode(&bytes), Ok(properties));
        bytes.extend_from_slice(&[63, 1, 9]);
        assert!(Properties::decode(&bytes).is_ok());
        bytes.extend_from_slice(&[99, 0]);
        assert!(Properties::decode(&bytes).is_err());
    }

    #[test]
    fn cut_properties_are_malformed() {
        let bytes = encode(&summary(), &Properties::default());
        assert_eq!(Properties::decode(&bytes), Ok(Properties::default()));
        assert!(Properties::decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
