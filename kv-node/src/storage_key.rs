//! The engine's keys: one order in which a partition of a bucket is one contiguous range.
//!
//! ```text
//! bucket id (u32 BE) ‖ key hash (u64 BE) ‖ escaped partition key ‖ 00 01 ‖ sort key
//! ```
//!
//! In the partition key a zero byte is written `00 ff`; `00 01` ends it, so that a shorter partition
//! key sorts before a longer one whatever follows. Specified in `docs/formats/storage-key.md`.
//! Bucket 0 is the node's own: its keys never travel.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kv_ring::{KeyHash, PartitionId};
use kv_types::{BucketId, Hlc, Key, NodeId};

/// The bucket of the node's own records; no user bucket has this id.
pub const SYSTEM_BUCKET: BucketId = BucketId(0);

const PREFIX_BYTES: usize = 4 + 8;
/// Room for a sort key without another allocation.
const TYPICAL_SORT_BYTES: usize = 32;
const ESCAPE: u8 = 0;
const ESCAPED_ZERO: u8 = 0xff;
const END: u8 = 1;

/// The engine's key for a user's key.
#[must_use]
pub fn encode(bucket: BucketId, hash: KeyHash, key: &Key) -> Bytes {
    let mut out = rows_of(bucket, hash, key.partition_key());
    out.extend_from_slice(key.sort_key());
    out.into()
}

/// What the engine's keys of all rows of a partition key begin with.
fn rows_of(bucket: BucketId, hash: KeyHash, partition: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX_BYTES + partition.len() + 2 + TYPICAL_SORT_BYTES);
    out.extend_from_slice(&bucket.0.to_be_bytes());
    out.extend_from_slice(&hash.0.to_be_bytes());
    for byte in partition {
        out.push(*byte);
        if *byte == ESCAPE {
            out.push(ESCAPED_ZERO);
        }
    }
    out.extend_from_slice(&[ESCAPE, END]);
    out
}

/// The user's key in an engine's key; `None` when the bytes are not of that form.
#[must_use]
pub fn decode(stored: &[u8]) -> Option<Key> {
    let mut rest = stored.get(PREFIX_BYTES..)?.iter();
    let mut partition = Vec::with_capacity(rest.len());
    loop {
        match *rest.next()? {
            ESCAPE => match *rest.next()? {
                ESCAPED_ZERO => partition.push(ESCAPE),
                END => break,
                _ => return None,
            },
            byte => partition.push(byte),
        }
    }
    Key::with_sort(partition, rest.as_slice().to_vec()).ok()
}

/// The smallest key behind a user's key: the same with a zero byte more in its sort key.
#[must_use]
pub fn next(stored: &[u8]) -> Bytes {
    [stored, &[0]].concat().into()
}

/// The first key of rows of a partition key and the first key after them: from one sort key up to before another, if that
/// is given.
#[must_use]
pub fn rows_range(
    bucket: BucketId,
    hash: KeyHash,
    partition_key: &[u8],
    (from, until): (&[u8], Option<&[u8]>),
) -> (Bytes, Bytes) {
    let rows = rows_of(bucket, hash, partition_key);
    let end = match until {
        Some(until) => [&rows[..], until].concat(),
        None => {
            // No key continues with the byte after the one that ends the partition key.
            let mut end = rows.clone();
            end.pop();
            end.push(END + 1);
            end
        }
    };
    ([&rows[..], from].concat().into(), end.into())
}

/// The first key of a partition and the first key after it (`None` after the last possible key).
#[must_use]
pub fn partition_range(bucket: BucketId, hashes: &RangeInclusive<u64>) -> (Bytes, Option<Bytes>) {
    let at = |bucket: u32, hash: u64| -> Bytes {
        [&bucket.to_be_bytes()[..], &hash.to_be_bytes()[..]]
            .concat()
            .into()
    };
    let end = match hashes.end().checked_add(1) {
        Some(next) => Some(at(bucket.0, next)),
        None => bucket.0.checked_add(1).map(|next| at(next, 0)),
    };
    (at(bucket.0, *hashes.start()), end)
}

/// The engine's key of one of the node's own records.
#[must_use]
pub fn system(name: &str) -> Bytes {
    [&SYSTEM_BUCKET.0.to_be_bytes()[..], name.as_bytes()]
        .concat()
        .into()
}

const STAND_IN: &[u8] = b"stand-in";
const GRAVE: &[u8] = b"grave";
const WATERMARK: &[u8] = b"watermark";
const BOOT_OF: &[u8] = b"peer-boot";
const STAND_IN_PREFIX_BYTES: usize = 4 + STAND_IN.len() + 16;

/// The engine's key of what this node keeps under `stored` for an owner that is away.
#[must_use]
pub fn stand_in(owner: NodeId, stored: &[u8]) -> Bytes {
    let (prefix, owner) = (SYSTEM_BUCKET.0.to_be_bytes(), owner.0.to_be_bytes());
    [&prefix[..], STAND_IN, &owner, stored].concat().into()
}

/// The owner and the rest of a key that [`stand_in`] made; `None` when the bytes are not of that form.
#[must_use]
pub fn split_stand_in(key: &Bytes) -> Option<(NodeId, Bytes)> {
    let prefix = key.get(..STAND_IN_PREFIX_BYTES)?;
    let (name, owner) = prefix[4..].split_at(STAND_IN.len());
    if prefix[..4] != SYSTEM_BUCKET.0.to_be_bytes() || name != STAND_IN {
        return None;
    }
    let owner = u128::from_be_bytes(owner.try_into().ok()?);
    Some((NodeId(owner), key.slice(STAND_IN_PREFIX_BYTES..)))
}

/// The engine's key under which it is noted that readers see nothing of a user's stored key from some time on. Those of a
/// bucket stand together in order of time.
#[must_use]
pub fn grave(from: Hlc, stored: &[u8]) -> Bytes {
    let (bucket, rest) = stored.split_at(stored.len().min(4));
    let (prefix, from) = (SYSTEM_BUCKET.0.to_be_bytes(), from.0.to_be_bytes());
    [&prefix[..], GRAVE, bucket, &from, rest].concat().into()
}

/// What the keys begin with that [`grave`] makes for a bucket, or for all.
#[must_use]
pub fn graves_of(bucket: Option<BucketId>) -> Bytes {
    let prefix = SYSTEM_BUCKET.0.to_be_bytes();
    let bucket = bucket.map(|bucket| bucket.0.to_be_bytes());
    let bucket = bucket.as_ref().map_or(&[][..], |bucket| &bucket[..]);
    [&prefix[..], GRAVE, bucket].concat().into()
}

/// The time and the user's stored key in a key that [`grave`] made; `None` when the bytes are not of that form.
#[must_use]
pub fn split_grave(key: &Bytes) -> Option<(Hlc, Bytes)> {
    let (prefix, rest) = key.split_at_checked(4 + GRAVE.len())?;
    if prefix[..4] != SYSTEM_BUCKET.0.to_be_bytes() || prefix[4..] != *GRAVE {
        return None;
    }
    let (bucket, rest) = rest.split_first_chunk::<4>()?;
    let (from, rest) = rest.split_first_chunk()?;
    let stored = [bucket, rest].concat().into();
    Some((Hlc(u64::from_be_bytes(*from)), stored))
}

/// The engine's key of what arrived for a user's stored key after it was deleted and forgotten.
#[must_use]
pub fn quarantined(stored: &[u8]) -> Bytes {
    [&SYSTEM_BUCKET.0.to_be_bytes()[..], b"quarantine", stored]
        .concat()
        .into()
}

/// The engine's key of the watermark of a partition of a bucket.
#[must_use]
pub fn watermark(bucket: BucketId, partition: PartitionId) -> Bytes {
    let partition = partition.0.to_be_bytes();
    [&watermarks_of(bucket)[..], &partition].concat().into()
}

/// What the keys of a bucket's watermarks begin with.
#[must_use]
pub fn watermarks_of(bucket: BucketId) -> Bytes {
    [
        &SYSTEM_BUCKET.0.to_be_bytes()[..],
        WATERMARK,
        &bucket.0.to_be_bytes(),
    ]
    .concat()
    .into()
}

/// What the keys of all watermarks begin with.
#[must_use]
pub fn watermarks() -> Bytes {
    [&SYSTEM_BUCKET.0.to_be_bytes()[..], WATERMARK]
        .concat()
        .into()
}

/// All keys of watermarks, and the first behind them.
#[must_use]
pub fn watermark_range() -> (Bytes, Bytes) {
    let first = watermarks();
    let mut end = first.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (first, end.into())
}

/// The engine's key of what this node remembers of another's boot counter.
#[must_use]
pub fn boot_of(node: NodeId) -> Bytes {
    [
        &SYSTEM_BUCKET.0.to_be_bytes()[..],
        BOOT_OF,
        &node.0.to_be_bytes(),
    ]
    .concat()
    .into()
}

/// The place in a key that [`watermark`] made; `None` when the bytes are not of that form.
#[must_use]
pub fn split_watermark(key: &[u8]) -> Option<(BucketId, PartitionId)> {
    let rest = key.get(4 + WATERMARK.len()..)?;
    let (bucket, partition) = rest.split_first_chunk()?;
    Some((
        BucketId(u32::from_be_bytes(*bucket)),
        PartitionId(u16::from_be_bytes(partition.try_into().ok()?)),
    ))
}

/// The bucket and the hash of a user's stored key; `None` when it is too short.
#[must_use]
pub fn place(stored: &[u8]) -> Option<(BucketId, KeyHash)> {
    let (bucket, rest) = stored.split_first_chunk()?;
    let (hash, _) = rest.split_first_chunk()?;
    Some((
        BucketId(u32::from_be_bytes(*bucket)),
        KeyHash(u64::from_be_bytes(*hash)),
    ))
}

/// All keys of what this node keeps: for one owner, or for everyone. The end is behind the last one.
#[must_use]
pub fn stand_in_range(owner: Option<NodeId>) -> (Bytes, Bytes) {
    let prefix = [&SYSTEM_BUCKET.0.to_be_bytes()[..], STAND_IN].concat();
    let first = |owner: NodeId| stand_in(owner, &[]);
    let behind_all = || {
        let mut end = prefix.clone();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Bytes::from(end)
    };
    match owner {
        None => (prefix.clone().into(), behind_all()),
        Some(owner) => {
            let next = owner.0.checked_add(1).map(NodeId);
            (first(owner), next.map_or_else(behind_all, first))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BUCKET: BucketId = BucketId(7);

    fn any_key() -> impl Strategy<Value = Key> {
        let part = || {
            proptest::collection::vec(
                prop_oneof![Just(0_u8), Just(1), Just(255), any::<u8>()],
                0..6,
            )
        };
        (part(), part()).prop_filter_map("a partition key is not empty", |(p, s)| {
            Key::with_sort(p, s).ok()
        })
    }

    proptest! {
        #[test]
        fn a_key_survives_its_bytes(key in any_key(), hash in any::<u64>()) {
            prop_assert_eq!(decode(&encode(BUCKET, KeyHash(hash), &key)), Some(key));
        }

        #[test]
        fn rows_of_a_partition_key_are_stored_together_in_order(a in any_key(), b in any_key()) {
            let (stored_a, stored_b) = (encode(BUCKET, KeyHash(1), &a), encode(BUCKET, KeyHash(1), &b));
            let by_parts = (a.partition_key(), a.sort_key()).cmp(&(b.partition_key(), b.sort_key()));
            prop_assert_eq!(stored_a.cmp(&stored_b), by_parts);
        }

        #[test]
        fn any_bytes_are_a_key_with_these_bytes_or_none(tail in proptest::collection::vec(any::<u8>(), 0..20)) {
            let stored = [&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9][..], &tail].concat();
            if let Some(key) = decode(&stored) {
                prop_assert_eq!(&encode(BUCKET, KeyHash(9), &key)[..], &stored[..]);
            }
        }
    }

    #[test]
    fn the_bytes_of_a_key_are_fixed() {
        let key = Key::with_sort("a\0b", "z").expect("short");
        let stored = encode(BucketId(1), KeyHash(0x0123_4567_89ab_cdef), &key);
        let expected = [
            0, 0, 0, 1, 1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, b'a', 0, 0xff, b'b', 0, 1,
            b'z',
        ];
        assert_eq!(stored[..], expected);
        assert_eq!(system("boot")[..], [0, 0, 0, 0, b'b', b'o', b'o', b't']);
    }

    #[test]
    fn the_bytes_of_the_records_about_deletions_are_fixed() {
        let stored = Bytes::from_static(b"stored");
        let noted = grave(Hlc(0x102), &stored);
        assert_eq!(noted, &b"\0\0\0\0gravestor\0\0\0\0\0\0\x01\x02ed"[..]);
        let bucket = BucketId(u32::from_be_bytes(*b"stor"));
        assert!(noted.starts_with(&graves_of(Some(bucket))));
        assert!(noted.starts_with(&graves_of(None)));
        assert_eq!(split_grave(&noted), Some((Hlc(0x102), stored.clone())));
        assert_eq!(split_grave(&system("grief")), None);
        assert_eq!(split_grave(&system("gra")), None);
        assert_eq!(quarantined(&stored), &b"\0\0\0\0quarantinestored"[..]);
        let (place, partition) = (BucketId(7), PartitionId(0x102));
        let key = watermark(place, partition);
        assert_eq!(key, &b"\0\0\0\0watermark\0\0\0\x07\x01\x02"[..]);
        assert_eq!(split_watermark(&key), Some((place, partition)));
        assert_eq!(split_watermark(&system("watermark123")), None);
        let (first, end) = watermark_range();
        assert!(first < key && key < end);
    }

    #[test]
    fn what_is_kept_for_one_owner_is_one_range() {
        let stored = encode(BUCKET, KeyHash(9), &Key::new("k").expect("short"));
        let (all, behind_all) = stand_in_range(None);
        for owner in [NodeId(0), NodeId(7), NodeId(u128::MAX)] {
            let kept = stand_in(owner, &stored);
            assert_eq!(split_stand_in(&kept), Some((owner, stored.clone())));
            let (first, behind) = stand_in_range(Some(owner));
            assert!(first <= kept && kept < behind);
            assert!(all <= kept && kept < behind_all);
            let (others, _) = stand_in_range(Some(NodeId(8)));
            assert!(owner > NodeId(8) || kept < others);
        }
        assert_eq!(place(&stored), Some((BUCKET, KeyHash(9))));
        assert_eq!(split_stand_in(&stored), None);
        assert_eq!(split_stand_in(&system("vote")), None);
        assert!(system("vote") >= behind_all && system("node") < all);
    }

    #[test]
    fn a_partition_is_one_range() {
        let key = Key::new("k").expect("short");
        let (start, end) = partition_range(BUCKET, &(16..=31));
        for (hash, inside) in [(15, false), (16, true), (31, true), (32, false)] {
            let stored = encode(BUCKET, KeyHash(hash), &key);
            assert_eq!(start <= stored && Some(&stored) < end.as_ref(), inside);
        }
        let (_, end) = partition_range(BUCKET, &(u64::MAX - 1..=u64::MAX));
        assert!(end.is_some_and(|end| encode(BUCKET, KeyHash(u64::MAX), &key) < end));
    }
}
