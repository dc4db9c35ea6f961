//! Tables against a naive list, their bytes, and every kind of damage.

use super::*;
use crate::compress::Compression;
use crate::error::Error;
use crate::fs::Fs;
use crate::golden::golden;
use crate::hash::key_hash;
use crate::key::{KeyVersion, Kind, Seq};
use crate::sim::SimFs;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const STORE: u64 = 0x1122;
const FILE: u64 = 7;

/// Versions in table order: key, newest first.
type Entries = BTreeMap<(Vec<u8>, std::cmp::Reverse<u64>), (Kind, Vec<u8>)>;

fn path() -> &'static Path {
    Path::new("/t")
}

fn build(entries: &Entries, spec: TableSpec) -> SimFs {
    let fs = SimFs::new();
    let mut builder = TableBuilder::create(&fs, path(), STORE, FILE, spec).unwrap();
    for ((key, seq), (kind, value)) in entries {
        builder
            .push(KeyVersion::new(key, Seq(seq.0)), *kind, value)
            .unwrap();
    }
    let summary = builder.finish().unwrap();
    assert_eq!(summary.entries, entries.len() as u64);
    assert_eq!(summary.size_bytes, fs.dump()[path()].len() as u64);
    fs
}

/// Of any of the tables here.
fn summary() -> TableSummary {
    TableSummary {
        file: FILE,
        largest: vec![0xff; 8],
        ..TableSummary::default()
    }
}

fn open(fs: &SimFs) -> Result<Arc<Table>, Error> {
    let fs: Arc<dyn Fs> = Arc::new(fs.clone());
    let files = Arc::new(TableFiles::new(fs, 1 << 20, STORE));
    Table::open(&files, path(), &summary()).map(Arc::new)
}

fn entries(list: &[(&str, u64, Option<&str>)]) -> Entries {
    let entry = |(key, seq, value): &(&str, u64, Option<&str>)| {
        let kind = if value.is_some() {
            Kind::Put
        } else {
            Kind::Delete
        };
        (
            (key.as_bytes().to_vec(), std::cmp::Reverse(*seq)),
            (kind, value.unwrap_or_default().as_bytes().to_vec()),
        )
    };
    list.iter().map(entry).collect()
}

fn walk(table: &Arc<Table>, forward: bool) -> Result<Entries, Error> {
    let mut cursor = TableCursor::new(Arc::clone(table), Fetch::Passing);
    match forward {
        true => cursor.seek_first()?,
        false => cursor.seek_last()?,
    }
    let mut seen = Entries::new();
    while let (Some(version), Some((kind, value))) = (cursor.version(), cursor.content()) {
        seen.insert(
            (version.key.to_vec(), std::cmp::Reverse(version.seq.0)),
            (kind, value.to_vec()),
        );
        match forward {
            true => cursor.next()?,
            false => cursor.previous()?,
        }
    }
    Ok(seen)
}

/// Small blocks, so that a few entries fill several.
fn spec(compression: Compression, block_bytes: usize) -> TableSpec {
    TableSpec {
        block_bytes,
        compression,
        filter_bits_per_key: 10,
        direct_io: false,
    }
}

const CODECS: [Compression; 4] = [
    Compression::None,
    Compression::Lz4,
    Compression::Zstd(1),
    Compression::ZstdDictionary(1),
];

fn documented() -> Entries {
    entries(&[
        ("apple", 3, Some("red")),
        ("apple", 1, None),
        ("apricot", 2, Some("x")),
    ])
}

#[test]
fn a_table_has_the_documented_bytes() {
    let fs = build(&documented(), spec(Compression::None, 4096));
    assert_eq!(
        hex::encode(&fs.dump()[path()]),
        golden("sstable.md", "table")
    );
}

#[test]
fn a_table_of_version_1_is_read() {
    let fs = build(&documented(), spec(Compression::None, 4096));
    let bytes = hex::decode(golden("sstable.md", "table-v1")).unwrap();
    fs.overwrite(path(), bytes).unwrap();
    let table = open(&fs).unwrap();
    assert_eq!(walk(&table, true).unwrap(), documented());
    assert_eq!(walk(&table, false).unwrap(), documented());
    let get = |key: &str, at| {
        let key = key.as_bytes();
        match table.get(key, key_hash(key), Seq(at), Fetch::Blocking) {
            Ok(Looked::Found {
                seq, kind, value, ..
            }) => Some((seq.0, kind, value.to_vec())),
            Ok(Looked::Absent) => None,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(get("apple", 9), Some((3, Kind::Put, b"red".to_vec())));
    assert_eq!(get("apple", 2), Some((1, Kind::Delete, Vec::new())));
    assert_eq!(get("apricot", 2), Some((2, Kind::Put, b"x".to_vec())));
    assert_eq!(get("apricot", 1), None);
}

fn any_entries() -> impl Strategy<Value = Entries> {
    let entry = (
        prop::collection::vec(0u8..4, 0..6),
        1u64..50,
        prop::option::of(0usize..200),
    );
    prop::collection::vec(entry, 1..150).prop_map(|list| {
        let entry = |(key, seq, length): (Vec<u8>, u64, Option<usize>)| {
            let kind = if length.is_some() {
                Kind::Put
            } else {
                Kind::Delete
            };
            (
                (key, std::cmp::Reverse(seq)),
                (kind, vec![seq as u8; length.unwrap_or(0)]),
            )
        };
        list.into_iter().map(entry).collect()
    })
}

proptest! {
    #[test]
    fn a_table_reads_like_the_list_it_was_built_from(
        entries in any_entries(), block_bytes in 64usize..600, codec in 0..CODECS.len(), key in prop::collection::vec(0u8..5, 0..6), at in 0u64..55
    ) {
        let table = open(&build(&entries, spec(CODECS[codec], block_bytes))).unwrap();
        prop_assert_eq!(&walk(&table, true).unwrap(), &entries);
        prop_assert_eq!(&walk(&table, false).unwrap(), &entries);

        let expected = entries.range((key.clone(), std::cmp::Reverse(at))..).next();
        let found = table.get(&key, key_hash(&key), Seq(at), Fetch::Blocking).unwrap();
        match expected.filter(|((found, _), _)| *found == key) {
            Some(((_, seq), (kind, value))) => match found {
                Looked::Found { seq: s, kind: k, value: v, .. } => {
                    prop_assert_eq!((s.0, k, &v[..]), (seq.0, *kind, &value[..]));
                }
                other => prop_assert!(false, "{other:?}"),
            },
            None => prop_assert!(matches!(found, Looked::Absent), "{:?}", found),
        }

        let mut cursor = TableCursor::new(Arc::clone(&table), Fetch::Passing);
        let target = KeyVersion::new(&key, Seq(at));
        cursor.seek(target).unwrap();
        let at_or_after = cursor.version().map(|version| (version.key.to_vec(), std::cmp::Reverse(version.seq.0)));
        prop_assert_eq!(at_or_after.as_ref(), expected.map(|(version, _)| version));
        cursor.seek_before(target).unwrap();
        let before = cursor.version().map(|version| (version.key.to_vec(), std::cmp::Reverse(version.seq.0)));
        let expected = entries.range(..(key.clone(), std::cmp::Reverse(at))).next_back();
        prop_assert_eq!(before.as_ref(), expected.map(|(version, _)| version));
    }
}

/// Rows that resemble each other, so that every codec finds something to gain.
fn compressible(count: u64) -> Entries {
    let rows: Vec<(String, u64, Option<String>)> = (0..count)
        .map(|number| {
            let value = format!(
                "{{\"name\":\"user-{number}\",\"city\":\"c{}\"}}",
                number % 9
            );
            let key = format!("key{number:05}");
            (key, number + 1, (number % 5 != 0).then_some(value))
        })
        .collect();
    let rows: Vec<_> = rows
        .iter()
        .map(|(key, seq, value)| (key.as_str(), *seq, value.as_deref()))
        .collect();
    entries(&rows)
}

/// Damages a table in many ways; each must be noticed or change nothing.
fn torment(complete: &Entries, spec: TableSpec, bits_of_a_byte: usize) {
    let fs = build(complete, spec);
    let good = fs.dump()[path()].clone();
    let mut noticed = 0;
    let mut check = |bytes: Vec<u8>, what: String| {
        fs.overwrite(path(), bytes).unwrap();
        match open(&fs).and_then(|table| walk(&table, true)) {
            Ok(seen) => assert_eq!(&seen, complete, "{what}"),
            Err(Error::Corrupt { file, .. }) => {
                assert_eq!(file, path());
                noticed += 1;
            }
            Err(other) => panic!("{what}: {other}"),
        }
    };
    for byte in 0..good.len() {
        for bit in 0..bits_of_a_byte {
            let mut bad = good.clone();
            bad[byte] ^= 1 << ((byte + bit) % 8);
            check(bad, format!("byte {byte} bit {bit}"));
        }
        check(good[..byte].to_vec(), format!("cut at {byte}"));
    }
    assert_eq!(noticed, good.len() * (bits_of_a_byte + 1));
}

#[test]
fn every_flipped_bit_and_every_truncation_is_noticed() {
    for codec in [Compression::None, Compression::Lz4, Compression::Zstd(1)] {
        torment(&compressible(60), spec(codec, 300), 8);
    }
}

#[test]
fn every_flipped_byte_of_a_table_with_a_dictionary_is_noticed() {
    let complete = compressible(1_500);
    let spec = spec(Compression::ZstdDictionary(1), 300);
    let plain = TableSpec {
        compression: Compression::Zstd(1),
        ..spec
    };
    let size = |spec| build(&complete, spec).dump()[path()].len();
    assert!(size(spec) < size(plain), "the dictionary is used");
    torment(&complete, spec, 1);
}

#[test]
fn malformed_blocks_with_a_right_checksum_do_not_panic() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut parsed = 0;
    for _ in 0..20_000 {
        let count = random.u8(1..5);
        let mut bytes = vec![count, 0, 0, 0, random.u8(..4), 0, 2 + 2 * random.u8(..2), 0];
        bytes.extend((0..random.usize(0..60)).map(|_| random.u8(..12)));
        let Ok(block) = Block::share(&bytes, Seq::ZERO) else {
            continue;
        };
        parsed += 1;
        let mut cursor = block_cursor::BlockCursor::new(block, Vec::new());
        let _ = cursor.seek(KeyVersion::new(&[3, 1], Seq(3)));
        let _ = cursor.seek_first();
        while cursor.is_valid() && cursor.next().is_ok() {}
        let _ = cursor.seek_last();
        while cursor.is_valid() && cursor.previous().is_ok() {}
    }
    assert!(parsed > 1000, "{parsed}");
}

#[test]
fn a_long_walk_reads_ahead_and_does_not_fill_the_cache() {
    let complete = compressible(20_000);
    let table = open(&build(&complete, spec(Compression::Lz4, 300))).unwrap();
    let mut cursor = TableCursor::new(Arc::clone(&table), Fetch::Blocking);
    for _ in 0..2 {
        cursor.seek_first().unwrap();
        let mut count = 0;
        while cursor.version().is_some() {
            count += 1;
            cursor.next().unwrap();
        }
        assert_eq!(count, complete.len());
    }
    let cached = (0..table.index().len())
        .filter(|number| table.cached(*number).is_some())
        .count();
    assert!((1..=64).contains(&cached), "{cached} blocks");
}
