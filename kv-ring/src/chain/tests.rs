//! Entries of the chain: round trips, golden bytes, damage of every kind.

use kv_types::NodeId;
use proptest::prelude::*;

use super::*;
use crate::partition::PartitionId;
use crate::topology::PartitionState;
use crate::topology::tests::{members, spec};

fn genesis(count: u32) -> ChainEntry {
    let topology = Topology::genesis(spec(members(count, 2))).expect("a good specification");
    ChainEntry::genesis(Arc::new(topology)).expect("epoch 1")
}

/// Genesis, and an entry of epoch 2 in which one partition is in transition and another has changed.
fn two_epochs() -> (ChainEntry, ChainEntry) {
    let first = genesis(5);
    let topology = first.topology();
    let owners = |partition| topology.table().owners(partition).collect::<Vec<NodeId>>();
    let (joint, turned) = (PartitionId(9), PartitionId(255));
    let old = owners(joint);
    let mut new = old.clone();
    let joiner = topology
        .members()
        .iter()
        .map(|m| m.node)
        .find(|node| !old.contains(node));
    new[1] = joiner.expect("five members, three slots");
    let mut reversed = owners(turned);
    reversed.reverse();
    let next = topology
        .with_partition_state(joint, &PartitionState::Joint { old, new }, Epoch(2))
        .and_then(|next| {
            next.with_partition_state(turned, &PartitionState::Stable(reversed), Epoch(2))
        })
        .expect("possible");
    let second = ChainEntry::snapshot(Arc::new(next), first.chain_hash()).expect("epoch 2");
    (first, second)
}

/// The bytes with one changed and the hash made right again.
fn forged(entry: &ChainEntry, offset: usize, change: u8) -> Vec<u8> {
    let mut bytes = entry.encode().to_vec();
    let end = bytes.len() - HASH_BYTES;
    bytes[offset % end] ^= change;
    let hash = ChainHash::of(&bytes[..end]);
    bytes[end..].copy_from_slice(&hash.0);
    bytes
}

#[test]
fn entries_survive_their_bytes() {
    let (first, second) = two_epochs();
    for entry in [&first, &second] {
        let read = ChainEntry::decode(&entry.encode()).expect("its own bytes");
        assert_eq!(read.topology(), entry.topology());
        assert_eq!(read.chain_hash(), entry.chain_hash());
        assert_eq!(read.previous(), entry.previous());
        assert_eq!(&read, entry);
    }
    assert_eq!(second.epoch(), Epoch(2));
    assert_eq!(second.previous(), first.chain_hash());
    assert!(second.topology().replicas(PartitionId(9), 3).is_joint());
}

/// The example of `docs/formats/topology.md`: one member, one replica, 256 partitions.
#[test]
fn the_smallest_genesis_is_golden() {
    let mut spec = spec(members(1, 1));
    spec.replication_factor = 1;
    spec.buckets.clear();
    let topology = Topology::genesis(spec).expect("a good specification");
    let bytes = ChainEntry::genesis(Arc::new(topology))
        .expect("epoch 1")
        .encode();
    let (head, rest) = bytes.split_at(bytes.len() - 512 - 24 - 16);
    let (slots, tail) = rest.split_at(512);
    let expected = concat!(
        "6b762d636861696e",                                                 // magic
        "01000100",                                                         // version, kind
        "0100000000000000",                                                 // epoch
        "00000000000000000000000000000000",                                 // previous
        "e2020000",                                                         // length
        "00c10000000000000000000000000001",                                 // cluster id
        "0667617264656e",                                                   // name
        "07070707070707070707070707070707",                                 // secret
        "080100",                                                           // bits, N, mode
        "01000000",                                                         // members
        "00000358000000000000000000000001",                                 // id
        "01000000",                                                         // weight
        "0101010101010101010101010101010101010101010101010101010101010101", // fingerprint
        "00",                                                               // state
        "026e31027a300e3132372e302e302e313a37343031",                       // texts
        "010000000100000000000358000000000000000000000001",                 // actors
        "01000000010000000764656661756c740101010000000000000002040101",     // buckets
        "0100000000000000",                                                 // since when
        "0100000000000358000000000000000000000001",                         // voters
    );
    assert_eq!(hex::encode(head), expected);
    assert!(slots.iter().all(|&byte| byte == 0));
    assert_eq!(
        hex::encode(tail),
        "000000000000000000000000000000000000000000000000f8e6c2317e6813d987b81f1f6833baad"
    );
}

#[test]
fn the_hashes_of_two_epochs_are_golden() {
    let (first, second) = two_epochs();
    assert_eq!(
        first.chain_hash().to_string(),
        "c316c967a8c02db5789cc2b66a19e169"
    );
    assert_eq!(
        second.chain_hash().to_string(),
        "df2ddfcbc8a81c6f297f684031e647f3"
    );
    let sizes = (first.encode().len(), second.encode().len());
    assert_eq!(
        sizes.1 - sizes.0,
        2 * (2 + 8) + (2 + 6),
        "two changed partitions, one in transition"
    );
}

#[test]
fn a_thousand_members_take_two_bytes_a_slot() {
    let mut spec = spec(members(1000, 3));
    spec.partitions = crate::PartitionCount::default();
    let topology = Topology::genesis(spec).expect("a good specification");
    let size = ChainEntry::genesis(Arc::new(topology))
        .expect("epoch 1")
        .encode()
        .len();
    assert!(size < 24 * 1024 + 1000 * 110, "{size}");
}

#[test]
fn bytes_that_are_no_entry_are_told_apart() {
    let entry = genesis(3);
    let bytes = entry.encode().to_vec();
    let with = |offset: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[offset] = value;
        ChainEntry::decode(&bytes).expect_err("not an entry")
    };
    assert_eq!(ChainEntry::decode(b""), Err(ChainError::NotAnEntry));
    assert_eq!(
        ChainEntry::decode(b"#!/bin/sh\n"),
        Err(ChainError::NotAnEntry)
    );
    assert_eq!(with(0, b'K'), ChainError::NotAnEntry);
    assert_eq!(with(8, 2), ChainError::NewerVersion { version: 2 });
    assert_eq!(
        with(8, 0),
        ChainError::Malformed {
            what: "format version",
            value: 0
        }
    );
    assert!(matches!(with(60, 0xff), ChainError::Damaged { .. }));

    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(
        ChainEntry::decode(&longer),
        Err(ChainError::TrailingBytes { count: 1 })
    );
    let too_large = vec![0; MAX_ENTRY_BYTES + 1];
    let size = too_large.len();
    assert_eq!(
        ChainEntry::decode(&too_large),
        Err(ChainError::TooLarge { size })
    );
    let newer_kind = ChainEntry::decode(&forged(&entry, 10, 1 ^ 7));
    assert_eq!(newer_kind, Err(ChainError::NewerKind { kind: 7 }));
}

#[test]
fn what_should_have_been_left_out_is_refused() {
    let (_, entry) = two_epochs();
    // Behind the epoch of the last change: the count of transitions, one of them, four empty lists, the hash.
    let epoch_at = entry.encode().len() - HASH_BYTES - 16 - (2 + 6) - 4 - 8;
    let listed = ChainEntry::decode(&forged(&entry, epoch_at, 2 ^ 1));
    assert_eq!(
        listed,
        Err(ChainError::Malformed {
            what: "listed epoch of a change",
            value: 1
        })
    );
    let later = ChainEntry::decode(&forged(&entry, epoch_at, 2 ^ 3));
    assert!(matches!(
        later,
        Err(ChainError::Topology(TopologyError::ChangedAt { .. }))
    ));
}

#[test]
fn every_cut_is_noticed() {
    let bytes = genesis(3).encode();
    for length in 0..bytes.len() {
        assert!(ChainEntry::decode(&bytes[..length]).is_err(), "{length}");
    }
}

#[test]
fn genesis_and_only_genesis_has_nothing_before_it() {
    let (first, second) = two_epochs();
    let misplaced = |topology: &Arc<Topology>, previous| {
        matches!(
            ChainEntry::snapshot(topology.clone(), previous),
            Err(ChainError::Misplaced { .. })
        )
    };
    assert!(misplaced(first.topology(), second.chain_hash()));
    assert!(misplaced(second.topology(), ChainHash::BEFORE_GENESIS));
}

#[test]
fn a_newer_version_says_what_to_do() {
    let message = ChainError::NewerVersion { version: 9 }.to_string();
    assert_eq!(
        message,
        "the topology has format version 9, this release reads up to 1; upgrade kv-node"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_changed_byte_is_noticed(offset in any::<prop::sample::Index>(), change in 1..=255u8) {
        let mut bytes = genesis(3).encode().to_vec();
        let offset = offset.index(bytes.len());
        bytes[offset] ^= change;
        prop_assert!(ChainEntry::decode(&bytes).is_err());
    }

    /// Whatever passes the hash is an error, or a topology whose bytes are exactly these.
    #[test]
    fn forged_bytes_are_refused_or_have_one_meaning(
        offset in any::<prop::sample::Index>(),
        change in 1..=255u8,
    ) {
        let (_, entry) = two_epochs();
        let bytes = forged(&entry, offset.index(entry.encode().len() - HASH_BYTES), change);
        if let Ok(read) = ChainEntry::decode(&bytes) {
            let again = ChainEntry::snapshot(read.topology().clone(), read.previous());
            prop_assert_eq!(again.expect("it was read").encode(), bytes);
        }
    }

    #[test]
    fn any_bytes_are_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut entry = MAGIC.to_vec();
        entry.extend(bytes);
        prop_assert!(ChainEntry::decode(&entry).is_err());
    }
}
