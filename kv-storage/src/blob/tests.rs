use super::*;
use crate::compress::Compression;
use crate::error::Error;
use crate::files::Numbered;
use crate::golden::golden;
use crate::range::KeyRange;
use crate::sim::SimFs;
use crate::table::TableFiles;
use std::path::Path;
use std::sync::Arc;

const STORE: u64 = 0x1122;
const FILE: u64 = 9;

fn path() -> std::path::PathBuf {
    Numbered::Blob(FILE).path(Path::new("/d"))
}

fn builder(fs: &SimFs, compression: Compression) -> BlobBuilder {
    let spec = BlobSpec {
        compression,
        direct_io: true,
    };
    BlobBuilder::create(fs, &path(), STORE, FILE, spec).unwrap()
}

fn open(fs: &SimFs) -> Arc<Blob> {
    let files = TableFiles::new(Arc::new(fs.clone()), 0, STORE);
    OpenBlobs::open(&Arc::new(files), Path::new("/d"), FILE).unwrap()
}

/// The values of the documented file.
fn sample() -> (SimFs, [Pointer; 2], BlobSummary) {
    let fs = SimFs::new();
    let mut builder = builder(&fs, Compression::Lz4);
    let plain = builder.push(b"red").unwrap();
    let packed = builder.push(&[b'g'; 40]).unwrap();
    let summary = builder.finish().unwrap();
    (fs, [plain, packed], summary)
}

#[test]
fn a_file_and_a_pointer_have_the_documented_bytes() {
    let (fs, [_, packed], summary) = sample();
    assert_eq!(hex::encode(&fs.dump()[&path()]), golden("blob.md", "blob"));
    let mut pointer = Vec::new();
    packed.encode(&mut pointer);
    assert_eq!(hex::encode(&pointer), golden("blob.md", "pointer"));
    assert_eq!(Pointer::decode(&pointer), Some(packed));
    assert_eq!(summary.size_bytes, fs.dump()[&path()].len() as u64);
    assert_eq!(summary.size_bytes, 60 + summary.value_bytes);
    assert_eq!(summary.values, 2);
}

#[test]
fn values_are_read_back_by_pointer_and_by_a_walk() {
    let (fs, pointers, _) = sample();
    let blob = open(&fs);
    assert_eq!(blob.read(b"k", &pointers[0]).unwrap(), "red");
    assert_eq!(blob.read(b"k", &pointers[1]).unwrap(), vec![b'g'; 40]);
    let mut walk = Walk::begin(&fs, &path(), STORE, FILE).unwrap();
    for pointer in pointers {
        let record = walk.next().unwrap().unwrap();
        assert_eq!(record.offset, pointer.offset);
        assert_eq!(record.bytes, pointer.record_bytes());
        assert_eq!(record.value, blob.read(b"k", &pointer).unwrap());
    }
    assert!(walk.next().is_none());
    assert_eq!(store_of(&fs, &path()), Some(STORE));
}

#[test]
fn a_stored_value_is_the_same_in_another_file() {
    let (fs, pointers, _) = sample();
    let mut stretch = Stretch::default();
    let blob = open(&fs);
    for pointer in &pointers {
        let stored = blob.read_stored(b"k", pointer, &mut stretch).unwrap();
        let value = blob.decode_stored(b"k", pointer, &stored).unwrap();
        assert_eq!(value, blob.read(b"k", pointer).unwrap());
    }
    let stored = blob.read_stored(b"k", &pointers[1], &mut stretch).unwrap();
    let other = SimFs::new();
    let mut builder = builder(&other, Compression::None);
    let pointer = builder.push_stored(&stored.stored, stored.raw).unwrap();
    builder.finish().unwrap();
    assert_eq!(pointer.stored, pointers[1].stored);
    let value = open(&other).read(b"k", &pointer).unwrap();
    assert_eq!(value, vec![b'g'; 40]);
}

#[test]
fn every_flipped_bit_is_noticed_by_a_walk_and_harms_only_the_value_it_lies_in() {
    let (fs, pointers, _) = sample();
    let good = fs.dump()[&path()].clone();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs.overwrite(&path(), bad).unwrap();
        let noticed = match Walk::begin(&fs, &path(), STORE, FILE) {
            Ok(mut walk) => std::iter::from_fn(|| walk.next()).any(|record| record.is_err()),
            Err(error) => error.is_corrupt(),
        };
        assert!(noticed, "bit {bit}");
        let blob = open(&fs);
        for pointer in &pointers {
            let bytes = pointer.offset + 12..pointer.offset + pointer.record_bytes();
            let is_hit = bytes.contains(&(bit as u64 / 8));
            match blob.read(b"k", pointer) {
                Ok(value) => assert!(!is_hit && value.len() == pointer.raw as usize),
                Err(Error::Corrupt { range, offset, .. }) => {
                    assert!(is_hit && offset == pointer.offset, "bit {bit}");
                    assert_eq!(range, KeyRange::between(b"k", b"k"));
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn a_pointer_to_anything_else_is_noticed() {
    let (fs, [plain, packed], summary) = sample();
    let blob = open(&fs);
    let wrong = [
        Pointer {
            offset: 44,
            ..packed
        },
        Pointer { stored: 5, ..plain },
        Pointer { raw: 4, ..plain },
        Pointer {
            checksum: 1,
            ..plain
        },
        Pointer {
            offset: summary.size_bytes,
            ..plain
        },
        Pointer {
            offset: u64::MAX,
            ..plain
        },
        Pointer {
            stored: u32::MAX,
            ..plain
        },
    ];
    for pointer in wrong {
        assert!(
            blob.read(b"k", &pointer).unwrap_err().is_corrupt(),
            "{pointer:?}"
        );
    }
    // The same bytes under another number.
    fs.overwrite(&path(), fs.dump()[&path()].clone()).unwrap();
    assert!(Walk::begin(&fs, &path(), STORE, FILE + 1).is_err());
    assert!(Walk::begin(&fs, &path(), STORE + 1, FILE).is_err());
}

#[test]
fn a_missing_file_is_open_and_has_no_value() {
    let (_, pointers, _) = sample();
    let error = open(&SimFs::new()).read(b"k", &pointers[0]).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    assert!(error.is_corrupt());
}

#[test]
fn references_are_sums_by_file_and_are_read_back() {
    let (_, [plain, packed], _) = sample();
    let mut references = References::default();
    for file in [7, 3, 7] {
        references.note(&Pointer { file, ..plain });
    }
    references.note(&Pointer { file: 3, ..packed });
    let (small, large) = (plain.record_bytes(), packed.record_bytes());
    let entries: Vec<_> = references
        .iter()
        .map(|entry| (entry.file, entry.values, entry.bytes))
        .collect();
    assert_eq!(entries, [(3, 2, small + large), (7, 2, 2 * small)]);
    assert_eq!(references.bytes(), 3 * small + large);
    let mut out = Vec::new();
    references.encode(&mut out);
    assert_eq!(References::decode(&out), Some(references));
    assert_eq!(References::decode(&out[..out.len() - 1]), None);
    assert_eq!(
        References::decode(&[3, 1, 9, 3, 1, 9]),
        None,
        "out of order"
    );
}
