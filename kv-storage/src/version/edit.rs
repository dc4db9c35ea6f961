//! One change to the set of tables, as the manifest stores it.

use super::LEVELS;
use crate::blob::{BlobSummary, References};
use crate::coding::{Decoder, put_bytes, put_varint};
use crate::key::Seq;
use crate::table::TableSummary;

/// A table that enters a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewTable {
    pub level: u8,
    pub run: u64,
    pub table: TableSummary,
}

/// Changes that become true together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edit {
    pub added: Vec<NewTable>,
    /// File numbers of tables that leave. One that is also added only changes its place.
    pub removed: Vec<u64>,
    /// The oldest log segment whose writes are not all in tables.
    pub log_floor: Option<u64>,
    /// No file has this number or a higher one.
    pub next_file: Option<u64>,
    /// All writes up to this one are in tables.
    pub flushed: Option<Seq>,
    /// The store was closed: its newest log segment, and that segment's synced length.
    pub log_end: Option<(u64, u64)>,
    /// Bytes of the caller that belong to the state `flushed`. A flush without them ends those of the one
    /// before.
    pub attachment: Option<Vec<u8>>,
    /// Blob files into which added tables point for the first time.
    pub blobs: Vec<BlobSummary>,
}

/// What a record says. The numbers are on disk: never change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Tag {
    AddTable = 1,
    RemoveTable = 2,
    LogFloor = 3,
    NextFile = 4,
    Flushed = 5,
    LogEnd = 6,
    Attachment = 7,
    Expires = 8,
    Ranges = 9,
    Number = 10,
    AddBlob = 11,
    References = 12,
}

impl Edit {
    /// Appends the records: tag varint, length varint, body.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        let mut record = |tag: Tag, write: &dyn Fn(&mut Vec<u8>)| {
            body.clear();
            write(&mut body);
            put_varint(out, tag as u64);
            put_bytes(out, &body);
        };
        for blob in &self.blobs {
            record(Tag::AddBlob, &|body| encode_blob(blob, body));
        }
        for file in &self.removed {
            record(Tag::RemoveTable, &|body| put_varint(body, *file));
        }
        for new in &self.added {
            record(Tag::AddTable, &|body| encode_table(new, body));
            if let Some(at) = new.table.expires {
                record(Tag::Expires, &|body| put_varint(body, at));
            }
            if new.table.ranges > 0 {
                record(Tag::Ranges, &|body| {
                    put_varint(body, new.table.ranges);
                    put_varint(body, new.table.covered_bytes);
                });
            }
            if let Some(number) = new.table.number {
                record(Tag::Number, &|body| put_varint(body, number.0));
            }
            if !new.table.references.is_empty() {
                record(Tag::References, &|body| new.table.references.encode(body));
            }
        }
        let numbers = [
            (Tag::LogFloor, self.log_floor),
            (Tag::NextFile, self.next_file),
            (Tag::Flushed, self.flushed.map(|seq| seq.0)),
        ];
        for (tag, number) in numbers {
            if let Some(number) = number {
                record(tag, &|body| put_varint(body, number));
            }
        }
        if let Some((segment, length)) = self.log_end {
            record(Tag::LogEnd, &|body| {
                put_varint(body, segment);
                put_varint(body, length);
            });
        }
        if let Some(bytes) = &self.attachment {
            record(Tag::Attachment, &|body| put_bytes(body, bytes));
        }
    }

    /// Decodes a frame's payload. `None` if it is malformed, or has a record that this version does not know.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(payload);
        let mut edit = Self::default();
        while !decoder.is_empty() {
            let tag = decoder.varint()?;
            let mut body = Decoder::new(decoder.bytes()?);
            match tag {
                1 => edit.added.push(decode_table(&mut body)?),
                2 => edit.removed.push(body.varint_number()?),
                3 => edit.log_floor = Some(body.varint_number()?),
                4 => edit.next_file = Some(body.varint_number()?),
                5 => edit.flushed = Some(Seq(body.varint_number()?)),
                6 => edit.log_end = Some((body.varint_number()?, body.varint_number()?)),
                7 => edit.attachment = Some(body.bytes()?.to_vec()),
                8 => edit.added.last_mut()?.table.expires = Some(body.varint()?),
                9 => {
                    let table = &mut edit.added.last_mut()?.table;
                    (table.ranges, table.covered_bytes) =
                        (body.varint_number()?, body.varint_number()?);
                }
                10 => edit.added.last_mut()?.table.number = Some(number(body.varint_number()?)?),
                11 => edit.blobs.push(decode_blob(&mut body)?),
                12 => {
                    let references = References::decode(body.rest())?;
                    edit.added.last_mut()?.table.references = references;
                }
                _ => return None,
            }
            if !body.is_empty() {
                return None;
            }
        }
        Some(edit)
    }
}

/// No write has number 0.
fn number(stored: u64) -> Option<Seq> {
    (stored > 0).then_some(Seq(stored))
}

fn encode_table(new: &NewTable, out: &mut Vec<u8>) {
    let table = &new.table;
    out.push(new.level);
    for field in [
        new.run,
        table.file,
        table.size_bytes,
        table.entries,
        table.deletes,
        table.newest.0,
    ] {
        put_varint(out, field);
    }
    put_bytes(out, &table.smallest);
    put_bytes(out, &table.largest);
}

fn encode_blob(blob: &BlobSummary, out: &mut Vec<u8>) {
    for field in [blob.file, blob.size_bytes, blob.values, blob.value_bytes] {
        put_varint(out, field);
    }
}

fn decode_blob(body: &mut Decoder<'_>) -> Option<BlobSummary> {
    Some(BlobSummary {
        file: body.varint_number()?,
        size_bytes: body.varint_number()?,
        values: body.varint_number()?,
        value_bytes: body.varint_number()?,
    })
}

fn decode_table(body: &mut Decoder<'_>) -> Option<NewTable> {
    let level = body.u8()?;
    let run = body.varint_number()?;
    let table = TableSummary {
        file: body.varint_number()?,
        size_bytes: body.varint_number()?,
        entries: body.varint_number()?,
        deletes: body.varint_number()?,
        newest: Seq(body.varint_number()?),
        smallest: body.bytes()?.to_vec(),
        largest: body.bytes()?.to_vec(),
        ..TableSummary::default()
    };
    (usize::from(level) < LEVELS).then_some(NewTable { level, run, table })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;
    use proptest::prelude::*;

    fn sample() -> Edit {
        let table = TableSummary {
            file: 300,
            size_bytes: 4096,
            entries: 12,
            deletes: 1,
            smallest: b"a".to_vec(),
            largest: b"zz".to_vec(),
            newest: Seq(77),
            ranges: 3,
            number: Some(Seq(77)),
            covered_bytes: 1000,
            expires: Some(500),
            references: References::decode(&[42, 2, 77]).unwrap(),
        };
        Edit {
            added: vec![NewTable {
                level: 1,
                run: 0,
                table,
            }],
            removed: vec![5],
            log_floor: Some(9),
            next_file: Some(301),
            flushed: Some(Seq(77)),
            log_end: Some((9, 600)),
            attachment: Some(b"root".to_vec()),
            blobs: vec![BlobSummary {
                file: 42,
                size_bytes: 300,
                values: 5,
                value_bytes: 240,
            }],
        }
    }

    #[test]
    fn an_edit_has_the_documented_bytes() {
        let mut out = Vec::new();
        sample().encode(&mut out);
        assert_eq!(hex::encode(&out), golden("manifest.md", "edit"));
        assert_eq!(Edit::decode(&out), Some(sample()));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_an_edit_or_nothing(bytes: Vec<u8>) {
            if let Some(edit) = Edit::decode(&bytes) {
                let mut out = Vec::new();
                edit.encode(&mut out);
                prop_assert_eq!(Edit::decode(&out), Some(edit));
            }
        }
    }
}
