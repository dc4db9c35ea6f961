//! Tables against a naive list, their bytes, and every kind of damage.

use super::*;
use crate::cache::BlockCache;
use crate::error::Error;
use crate::fs::Fs;
use crate::golden::golden;
use crate::hash::key_hash;
use crate::key::{KeyVersion, Kind, Seq};
use crate::options::Options;
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

fn build(entries: &Entries, options: &Options) -> SimFs {
    let fs = SimFs::new();
    let mut builder = TableBuilder::create(&fs, path(), STORE, FILE, options).unwrap();
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

fn open(fs: &SimFs) -> Result<Arc<Table>, Error> {
    let fs: Arc<dyn Fs> = Arc::new(fs.clone());
    let files = Arc::new(TableFiles::new(fs, BlockCache::new(1 << 20, 4096), STORE));
    Table::open(&files, path(), FILE).map(Arc::new)
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

#[test]
fn a_table_has_the_documented_bytes() {
    let options = Options {
        filter_bits_per_key: 10,
        zstd_level: 0,
        ..Options::default()
    };
    let fs = build(
        &entries(&[
            ("apple", 3, Some("red")),
            ("apple", 1, None),
            ("apricot", 2, Some("x")),
        ]),
        &options,
    );
    assert_eq!(
        hex::encode(&fs.dump()[path()]),
        golden("sstable.md", "table")
    );
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
        entries in any_entries(), block_bytes in 64usize..600, key in prop::collection::vec(0u8..5, 0..6), at in 0u64..55
    ) {
        let options = Options { block_bytes, ..Options::default() };
        let table = open(&build(&entries, &options)).unwrap();
        prop_assert_eq!(&walk(&table, true).unwrap(), &entries);
        prop_assert_eq!(&walk(&table, false).unwrap(), &entries);

        let expected = entries.range((key.clone(), std::cmp::Reverse(at))..).next();
        let found = table.get(&key, key_hash(&key), Seq(at), Fetch::Blocking).unwrap();
        match expected.filter(|((found, _), _)| *found == key) {
            Some(((_, seq), (kind, value))) => match found {
                Looked::Found { seq: s, kind: k, value: v } => {
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

#[test]
fn every_flipped_bit_and_every_truncation_is_noticed_or_harmless() {
    let list: Vec<(String, u64, Option<String>)> = (0..60)
        .map(|number| {
            (
                format!("key{number:03}"),
                number + 1,
                (number % 5 != 0).then(|| "v".repeat(20)),
            )
        })
        .collect();
    let list: Vec<_> = list
        .iter()
        .map(|(key, seq, value)| (key.as_str(), *seq, value.as_deref()))
        .collect();
    let complete = entries(&list);
    let fs = build(
        &complete,
        &Options {
            block_bytes: 300,
            ..Options::default()
        },
    );
    let good = fs.dump()[path()].clone();
    let mut noticed = 0;
    let mut check = |bytes: Vec<u8>, what: String| {
        fs.overwrite(path(), bytes).unwrap();
        match open(&fs).and_then(|table| walk(&table, true)) {
            Ok(seen) => assert_eq!(seen, complete, "{what}"),
            Err(Error::Corrupt { file, .. }) => {
                assert_eq!(file, path());
                noticed += 1;
            }
            Err(other) => panic!("{what}: {other}"),
        }
    };
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        check(bad, format!("bit {bit}"));
    }
    for end in 0..good.len() {
        check(good[..end].to_vec(), format!("cut at {end}"));
    }
    assert_eq!(noticed, good.len() * 9);
}

#[test]
fn malformed_blocks_with_a_right_checksum_do_not_panic() {
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = (0..random.usize(0..60)).map(|_| random.u8(..12)).collect();
        bytes.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
        let Ok(block) = Block::parse(bytes.into()) else {
            continue;
        };
        let mut cursor = block::BlockCursor::new(Arc::new(block));
        let _ = cursor.seek(KeyVersion::new(b"k", Seq(3)));
        let _ = cursor.previous();
        let _ = cursor.seek_last();
        for _ in 0..20 {
            let _ = cursor.next();
        }
    }
}
