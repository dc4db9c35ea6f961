//! What the log says of an ingest: which tables came in with one write. Bytes in `docs/formats/log.md`.

use crate::batch::NOTED;
use crate::coding::{Decoder, put_bytes};
use crate::hooks::MAX_NOTE_BYTES;
use crate::key::Seq;
use crate::table::TableSummary;
use crate::version::{Edit, NewTable};

/// The kind of the operation. Bytes on disk: never change it.
const KIND: u8 = 4;

/// An operation that stands alone in its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ingested<'a> {
    /// Sorted by key, without overlap. Their number is open until [`numbered`](Self::numbered).
    pub tables: Vec<TableSummary>,
    pub note: &'a [u8],
}

impl<'a> Ingested<'a> {
    /// The log payload.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let added = self.tables.iter().map(|table| NewTable {
            level: 0,
            run: 0,
            // The number is that of the frame.
            table: TableSummary {
                number: None,
                ..table.clone()
            },
        });
        let edit = Edit {
            added: added.collect(),
            ..Edit::default()
        };
        let mut value = Vec::new();
        edit.encode(&mut value);
        let noted = if self.note.is_empty() { 0 } else { NOTED };
        let mut out = vec![KIND | noted];
        put_bytes(&mut out, &[]);
        put_bytes(&mut out, &value);
        if noted != 0 {
            put_bytes(&mut out, self.note);
        }
        out
    }

    /// True if a log payload begins with an ingest.
    pub(crate) fn is_in(payload: &[u8]) -> bool {
        payload.first().is_some_and(|kind| kind & !NOTED == KIND)
    }

    /// Reads and checks a whole log payload. `None` if it is malformed in any place.
    pub(crate) fn decode(payload: &'a [u8]) -> Option<Self> {
        let mut decoder = Decoder::new(payload);
        let kind = decoder.u8()?;
        let (key, value) = (decoder.bytes()?, decoder.bytes()?);
        let note = if kind & NOTED == 0 {
            &[]
        } else {
            decoder.bytes()?
        };
        let is_whole = kind & !NOTED == KIND && key.is_empty() && decoder.is_empty();
        let edit = Edit::decode(value).filter(|_| is_whole && note.len() <= MAX_NOTE_BYTES)?;
        let only_adds = Edit {
            added: edit.added.clone(),
            ..Edit::default()
        };
        let tables: Vec<TableSummary> = edit.added.iter().map(|new| new.table.clone()).collect();
        let is_run = edit == only_adds
            && !tables.is_empty()
            && edit.added.iter().all(|new| (new.level, new.run) == (0, 0))
            && tables.iter().all(|table| {
                table.smallest <= table.largest && table.number.is_none() && table.ranges == 0
            })
            && tables.is_sorted_by(|a, b| a.largest < b.smallest);
        is_run.then_some(Self { tables, note })
    }

    /// The tables, all of whose entries are numbered by the write.
    pub(crate) fn numbered(self, seq: Seq) -> Vec<TableSummary> {
        let number = |mut table: TableSummary| {
            number(&mut table, seq);
            table
        };
        self.tables.into_iter().map(number).collect()
    }
}

/// Gives all entries of an ingested table their number.
pub(crate) fn number(table: &mut TableSummary, seq: Seq) {
    (table.number, table.newest) = (Some(seq), seq);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;
    use proptest::prelude::*;

    fn sample() -> Ingested<'static> {
        let table = |file, smallest: &[u8], largest: &[u8]| TableSummary {
            file,
            size_bytes: 4096,
            entries: 12,
            smallest: smallest.to_vec(),
            largest: largest.to_vec(),
            ..TableSummary::default()
        };
        let expiring = TableSummary {
            expires: Some(500),
            ..table(10, b"c", b"dd")
        };
        Ingested {
            tables: vec![table(9, b"a", b"bb"), expiring],
            note: b"old new",
        }
    }

    #[test]
    fn an_ingest_has_the_documented_bytes_and_comes_back() {
        let bytes = sample().encode();
        assert_eq!(hex::encode(&bytes), golden("log.md", "ingest"));
        assert!(Ingested::is_in(&bytes));
        assert_eq!(Ingested::decode(&bytes), Some(sample()));
        let numbered = sample().numbered(Seq(43));
        assert!(numbered.iter().all(|table| table.number == Some(Seq(43))));
        for length in 0..bytes.len() {
            assert_eq!(Ingested::decode(&bytes[..length]), None);
        }
    }

    #[test]
    fn tables_that_overlap_or_none_are_malformed() {
        let encoded = |tables: Vec<TableSummary>| Ingested { tables, note: &[] }.encode();
        let tables = sample().tables;
        assert!(Ingested::decode(&encoded(tables.clone())).is_some());
        assert!(Ingested::decode(&encoded(vec![])).is_none());
        let reversed = tables.iter().rev().cloned().collect();
        assert!(Ingested::decode(&encoded(reversed)).is_none());
        let twice = vec![tables[0].clone(), tables[0].clone()];
        assert!(Ingested::decode(&encoded(twice)).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_an_ingest_or_nothing(bytes: Vec<u8>) {
            let _ = Ingested::decode(&[&[KIND], &bytes[..]].concat());
        }
    }
}
