//! The bytes on the wire, as `docs/formats/gossip.md` gives them.

use kv_gossip::message::{
    BUCKETS, Body, Claim, DecodeError, Header, MAX_ADDRESS_SIZE_BYTES, Message, Profile, Rumor,
    ViewHash,
};
use kv_gossip::{Incarnation, MAX_MESSAGE_SIZE_BYTES};
use kv_types::{Epoch, NodeId};
use proptest::prelude::*;

const SPECIFICATION: &str = include_str!("../../../docs/formats/gossip.md");

const ONE: NodeId = NodeId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
const TWO: NodeId = NodeId(2);

fn message(body: Body, rumors: Vec<Rumor>) -> Message {
    let header = Header {
        incarnation: Incarnation::first_of_boot(1),
        heartbeat: 300,
        epoch: Epoch(7),
        chain_hash: 0x0102_0304_0506_0708,
    };
    Message {
        header,
        body,
        rumors,
    }
}

fn rumor(claim: Claim, profile: Option<Profile>) -> Rumor {
    Rumor {
        node: ONE,
        incarnation: Incarnation(5),
        claim,
        profile,
    }
}

fn profile(address: &str) -> Profile {
    Profile {
        address: address.to_owned(),
        boot: 3,
        heartbeat: 9,
        age: 10,
        epoch: Epoch(7),
    }
}

/// Every kind of message and of rumor once, under the name the specification gives it.
fn examples() -> Vec<(&'static str, Message)> {
    let buckets = core::array::from_fn(|index| ViewHash(index as u64));
    let suspect = Claim::Suspect {
        cleared: 1,
        accused_at: 200,
        accuser: TWO,
    };
    let relayed = Body::RelayedAck {
        seq: 5,
        incarnation: Incarnation(5),
        heartbeat: 9,
        stalled: true,
    };
    vec![
        ("ping", message(Body::Ping { seq: 1 }, vec![])),
        (
            "ack",
            message(
                Body::Ack {
                    seq: 200,
                    stalled: false,
                },
                vec![],
            ),
        ),
        (
            "ping request",
            message(
                Body::PingRequest {
                    seq: 3,
                    target: ONE,
                },
                vec![],
            ),
        ),
        ("relayed ack", message(relayed, vec![])),
        ("nack", message(Body::Nack { seq: 5 }, vec![])),
        (
            "digest",
            message(
                Body::Digest {
                    answer: true,
                    buckets,
                },
                vec![],
            ),
        ),
        ("state", message(Body::State, vec![])),
        (
            "news: alive",
            message(
                Body::News,
                vec![rumor(Claim::Alive { cleared: 0 }, Some(profile("a:1")))],
            ),
        ),
        (
            "news: suspect",
            message(Body::News, vec![rumor(suspect, None)]),
        ),
        (
            "news: dead",
            message(
                Body::News,
                vec![rumor(
                    Claim::Dead {
                        cleared: 1,
                        accused_at: 200,
                    },
                    None,
                )],
            ),
        ),
        (
            "news: left",
            message(Body::News, vec![rumor(Claim::Left, None)]),
        ),
    ]
}

#[test]
fn every_kind_of_message_has_the_bytes_of_the_specification() {
    for (name, message) in examples() {
        let line = format!("| {name} | `{}` |", hex::encode(message.encode()));
        assert!(
            SPECIFICATION.contains(&line),
            "the specification lacks\n{line}"
        );
    }
}

#[test]
fn the_bytes_of_the_specification_are_read_back() {
    for (name, message) in examples() {
        let row = format!("| {name} | `");
        let (_, rest) = SPECIFICATION
            .split_once(&row)
            .expect("a row for every kind of message");
        let (digits, _) = rest.split_once('`').expect("a closing backquote");
        assert_eq!(
            Message::decode(&hex::decode(digits).unwrap()).unwrap(),
            message,
            "{name}"
        );
    }
}

#[test]
fn a_message_that_ends_early_or_late_is_refused() {
    for (name, message) in examples() {
        let bytes = message.encode();
        for end in 0..bytes.len() {
            assert!(
                Message::decode(&bytes[..end]).is_err(),
                "{name}, {end} bytes"
            );
        }
        let longer = [&bytes[..], b"!"].concat();
        assert_eq!(
            Message::decode(&longer),
            Err(DecodeError::Trailing { size_bytes: 1 }),
            "{name}"
        );
    }
}

#[test]
fn what_is_out_of_bounds_is_refused_by_name() {
    assert_eq!(Message::decode(b""), Err(DecodeError::Empty));
    assert_eq!(
        Message::decode(b"\x02"),
        Err(DecodeError::Version { found: 2 })
    );
    let size_bytes = MAX_MESSAGE_SIZE_BYTES + 1;
    assert_eq!(
        Message::decode(&vec![1; size_bytes]),
        Err(DecodeError::TooLong { size_bytes })
    );

    let alive = Claim::Alive { cleared: 0 };
    let address = "a".repeat(MAX_ADDRESS_SIZE_BYTES);
    let longest = message(Body::News, vec![rumor(alive, Some(profile(&address)))]);
    assert_eq!(Message::decode(&longest.encode()), Ok(longest));
    let longer = message(
        Body::News,
        vec![rumor(alive, Some(profile(&(address + "a"))))],
    );
    assert_eq!(
        Message::decode(&longer.encode()),
        Err(DecodeError::Address { size_bytes: 256 })
    );

    let found = Incarnation::MAX.next();
    let mut beyond = message(Body::News, vec![rumor(alive, None)]);
    beyond.rumors[0].incarnation = found;
    assert_eq!(
        Message::decode(&beyond.encode()),
        Err(DecodeError::Incarnation { found })
    );
    let mut beyond = message(Body::News, vec![]);
    beyond.header.incarnation = found;
    assert_eq!(
        Message::decode(&beyond.encode()),
        Err(DecodeError::Incarnation { found })
    );
    let relayed = Body::RelayedAck {
        seq: 1,
        incarnation: found,
        heartbeat: 1,
        stalled: false,
    };
    let decoded = Message::decode(&message(relayed, vec![]).encode());
    assert_eq!(decoded, Err(DecodeError::Incarnation { found }));
}

#[test]
fn a_count_of_rumors_that_cannot_be_there_is_refused() {
    let mut bytes = message(Body::News, vec![]).encode().to_vec();
    bytes.pop();
    bytes.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    assert!(Message::decode(&bytes).is_err());
}

fn any_claim() -> impl Strategy<Value = Claim> {
    prop_oneof![
        any::<u64>().prop_map(|cleared| Claim::Alive { cleared }),
        any::<(u64, u64, u128)>().prop_map(|(cleared, accused_at, accuser)| {
            Claim::Suspect {
                cleared,
                accused_at,
                accuser: NodeId(accuser),
            }
        }),
        any::<(u64, u64)>().prop_map(|(cleared, accused_at)| Claim::Dead {
            cleared,
            accused_at
        }),
        Just(Claim::Left),
    ]
}

fn any_profile() -> impl Strategy<Value = Profile> {
    (".{0,40}", any::<[u64; 4]>()).prop_map(|(address, [boot, heartbeat, age, epoch])| Profile {
        address,
        boot,
        heartbeat,
        age,
        epoch: Epoch(epoch),
    })
}

fn any_rumor() -> impl Strategy<Value = Rumor> {
    (
        any::<u128>(),
        0..=Incarnation::MAX.0,
        any_claim(),
        prop::option::of(any_profile()),
    )
        .prop_map(|(node, incarnation, claim, profile)| Rumor {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
            claim,
            profile,
        })
}

fn any_body() -> impl Strategy<Value = Body> {
    prop_oneof![
        any::<u32>().prop_map(|seq| Body::Ping { seq }),
        any::<(u32, bool)>().prop_map(|(seq, stalled)| Body::Ack { seq, stalled }),
        any::<(u32, u128)>().prop_map(|(seq, target)| Body::PingRequest {
            seq,
            target: NodeId(target)
        }),
        any::<(u32, u64, bool)>().prop_map(|(seq, heartbeat, stalled)| Body::RelayedAck {
            seq,
            incarnation: Incarnation(7),
            heartbeat,
            stalled,
        }),
        any::<u32>().prop_map(|seq| Body::Nack { seq }),
        Just(Body::News),
        Just(Body::State),
        any::<(bool, [u64; BUCKETS])>().prop_map(|(answer, buckets)| Body::Digest {
            answer,
            buckets: buckets.map(ViewHash)
        }),
    ]
}

proptest! {
    #[test]
    fn a_message_survives_its_bytes(
        body in any_body(),
        rumors in prop::collection::vec(any_rumor(), 0..4),
        numbers in any::<(u64, u64, u64)>(),
    ) {
        let header = Header {
            incarnation: Incarnation(3),
            heartbeat: numbers.0,
            epoch: Epoch(numbers.1),
            chain_hash: numbers.2,
        };
        let message = Message { header, body, rumors };
        let bytes = message.encode();
        if bytes.len() <= MAX_MESSAGE_SIZE_BYTES {
            prop_assert_eq!(Message::decode(&bytes), Ok(message));
        } else {
            let size_bytes = bytes.len();
            prop_assert_eq!(Message::decode(&bytes), Err(DecodeError::TooLong { size_bytes }));
        }
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..1300)) {
        drop(Message::decode(&bytes));
        let versioned: Vec<u8> = [1].into_iter().chain(bytes).collect();
        drop(Message::decode(&versioned));
    }

    #[test]
    fn a_damaged_message_decodes_or_is_refused(
        kind in 0_usize..11,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = examples().swap_remove(kind).1.encode().to_vec();
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        drop(Message::decode(&bytes));
    }
}
