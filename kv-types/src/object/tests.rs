//! Cases of writing, merging and retrying; laws; bytes.

use super::*;
use crate::id::ActorId;
use fastrand::Rng;

const NOW_MS: u64 = 1_000_000;

fn id(n: u8) -> WriteId {
    WriteId::new(NOW_MS, [n; 10])
}

fn dot(actor: u32, at: u64) -> Dot {
    Dot::new(ActorId(actor), Hlc(at))
}

fn put(n: u8) -> Write {
    Write {
        write_id: id(n),
        payload: Payload::Value(Bytes::from(vec![n; 3])),
        expires_ms: None,
    }
}

fn write(object: &mut Object, write: Write, read: &Clock, dot: Dot) {
    object
        .write(write, read, dot, Hlc::ZERO, NOW_MS)
        .expect("within the limits");
}

fn shown(object: &Object) -> Vec<u8> {
    object
        .siblings()
        .map(|s| s.payload().value().map_or(0, |v| v[0]))
        .collect()
}

#[test]
fn a_write_that_has_read_replaces_what_it_read() {
    let mut object = Object::new();
    write(&mut object, put(1), &Clock::new(), dot(1, 10));
    let read = object.clock().clone();
    write(&mut object, put(2), &read, dot(1, 20));
    assert_eq!(shown(&object), [2]);
}

#[test]
fn writes_that_have_not_read_each_other_are_siblings() {
    let (mut a, mut b) = (Object::new(), Object::new());
    write(&mut a, put(1), &Clock::new(), dot(1, 10));
    write(&mut b, put(2), &Clock::new(), dot(2, 10));
    assert!(a.merge(&b));
    assert!(!a.merge(&b), "a second merge changes nothing");
    assert_eq!(shown(&a), [1, 2]);
}

#[test]
fn a_retry_through_another_coordinator_makes_no_second_sibling() {
    let (mut a, mut b) = (Object::new(), Object::new());
    write(&mut a, put(1), &Clock::new(), dot(1, 10));
    write(&mut b, put(1), &Clock::new(), dot(2, 11));
    a.merge(&b);
    assert_eq!(shown(&a), [1]);
    assert_eq!(
        a.siblings().next().expect("one").dots(),
        [dot(1, 10), dot(2, 11)]
    );
}

#[test]
fn a_retry_does_not_bring_back_a_superseded_write() {
    let (mut a, mut b) = (Object::new(), Object::new());
    write(&mut a, put(1), &Clock::new(), dot(1, 10));
    let read = a.clock().clone();
    write(&mut a, put(2), &read, dot(1, 20));
    assert_eq!(
        a.admit(id(1), NOW_MS),
        Admission::Known,
        "a retry here is recognised"
    );
    // The retry reached a coordinator that had heard of neither write.
    write(&mut b, put(1), &Clock::new(), dot(2, 30));
    a.merge(&b);
    assert_eq!(shown(&a), [2], "the late copy is hidden");
    let read = a.clock().clone();
    write(&mut a, put(3), &read, dot(1, 40));
    assert_eq!(shown(&a), [3]);
}

#[test]
fn a_blind_write_buries_what_is_hidden() {
    let (mut a, mut b) = (Object::new(), Object::new());
    write(&mut a, put(1), &Clock::new(), dot(1, 10));
    let read = a.clock().clone();
    write(&mut a, put(2), &read, dot(1, 20));
    write(&mut b, put(1), &Clock::new(), dot(2, 30));
    a.merge(&b);
    write(&mut a, put(3), &Clock::new(), dot(1, 40));
    assert_eq!(shown(&a), [2, 3]);
    assert_eq!(a.siblings.len(), 2, "the hidden sibling is gone for good");
}

#[test]
fn of_two_blind_writes_that_are_repeated_one_is_left_whatever_the_clocks_of_their_writers_show() {
    for apart_ms in [-5, 0, 5i64] {
        let (first, second) = (
            WriteId::new(NOW_MS, [1; 10]),
            WriteId::new(NOW_MS.saturating_add_signed(apart_ms), [2; 10]),
        );
        // Each coordinator comes to them in another order. When both are repeated, they were first sent at 10 and 20.
        let (mut a, mut b) = (Object::new(), Object::new());
        let blind = |object: &mut Object, write_id: WriteId, first_sent, at: (u32, u64)| {
            let read = object.clock_at(write_id.created_ms(), first_sent);
            let payload = Payload::Value(Bytes::from(vec![write_id.to_bytes()[15]; 3]));
            let made = Write {
                write_id,
                payload,
                expires_ms: None,
            };
            write(object, made, &read, dot(at.0, at.1));
        };
        blind(&mut a, first, None, (1, 10));
        blind(&mut a, second, None, (1, 20));
        blind(&mut b, second, Some(dot(2, 20).hlc), (2, 30));
        blind(&mut b, first, Some(dot(2, 10).hlc), (2, 40));
        a.merge(&b);
        assert!(!shown(&a).is_empty(), "{apart_ms} ms apart");
    }
}

#[test]
fn a_late_copy_of_a_blind_write_hides_nothing_that_was_made_after_it() {
    let made_at = |ms, n| WriteId::new(ms, [n; 10]);
    let blind = |object: &mut Object, write_id: WriteId, dot| {
        let read = object.clock_at(write_id.created_ms(), None);
        let payload = Payload::Value(Bytes::from(vec![write_id.to_bytes()[15]; 3]));
        write(
            object,
            Write {
                write_id,
                payload,
                expires_ms: None,
            },
            &read,
            dot,
        );
    };
    let (mut a, mut b) = (Object::new(), Object::new());
    let (first, second) = (made_at(NOW_MS, 1), made_at(NOW_MS + 5, 2));
    blind(&mut a, first, dot(1, 10));
    blind(&mut a, second, dot(1, 20));
    // The other coordinator comes to the second first, and then to the first.
    blind(&mut b, second, dot(2, 30));
    blind(&mut b, first, dot(2, 40));
    a.merge(&b);
    assert_eq!(shown(&a), [2], "each has superseded a copy of the other");
}

#[test]
fn ids_are_forgotten_after_the_horizon_and_then_refused() {
    let mut object = Object::new();
    write(&mut object, put(1), &Clock::new(), dot(1, 10));
    let read = object.clock().clone();
    write(&mut object, put(2), &read, dot(1, 20));
    let later = NOW_MS + WriteId::HORIZON_MS + 1;
    let third = Write {
        write_id: WriteId::new(later, [3; 10]),
        payload: Payload::Tombstone,
        expires_ms: None,
    };
    object
        .write(third, &Clock::new(), dot(1, 30), Hlc::ZERO, later)
        .expect("within the limits");
    assert_eq!(object.admit(id(1), later), Admission::TooOld);
    assert_eq!(
        object.admit(id(2), later),
        Admission::Known,
        "a live sibling is always known"
    );
    assert_eq!(
        object.admit(WriteId::new(later, [9; 10]), later),
        Admission::New
    );
    let future = WriteId::new(later + WriteId::HORIZON_MS + 1, [9; 10]);
    assert_eq!(object.admit(future, later), Admission::FromTheFuture);
}

#[test]
fn a_clock_that_is_ahead_makes_nobody_forget_early() {
    let mut object = Object::new();
    write(&mut object, put(1), &Clock::new(), dot(1, 10));
    let read = object.clock().clone();
    write(&mut object, put(2), &read, dot(1, 20));
    // The coordinator's clock is ahead, or the writer's.
    let far = NOW_MS + 2 * WriteId::HORIZON_MS;
    for (created_ms, now_ms) in [(NOW_MS, far), (far, NOW_MS)] {
        let write = Write {
            write_id: WriteId::new(created_ms, [3; 10]),
            payload: Payload::Tombstone,
            expires_ms: None,
        };
        let (mut ahead, read) = (object.clone(), object.clock().clone());
        ahead
            .write(write, &read, dot(1, 30), Hlc::ZERO, now_ms)
            .expect("within the limits");
        assert!(ahead.knows(id(1)), "another copy of it may turn up");
    }
}

#[test]
fn no_more_ids_are_remembered_than_the_limit() {
    let mut object = Object::new();
    for n in 0..200_u64 {
        let read = object.clock().clone();
        let write = Write {
            write_id: WriteId::new(NOW_MS + n, [1; 10]),
            payload: Payload::Tombstone,
            expires_ms: None,
        };
        object
            .write(write, &read, dot(1, 10 + n), Hlc::ZERO, NOW_MS + n)
            .expect("one sibling");
        assert!(object.retired.entries().len() <= Retired::MAX_ENTRIES);
    }
    assert_eq!(object.clock().intervals().len(), 1);
    assert_eq!(
        object.admit(WriteId::new(NOW_MS, [1; 10]), NOW_MS + 200),
        Admission::TooOld
    );
}

#[test]
fn siblings_and_bytes_are_limited() {
    let mut object = Object::new();
    for n in 0..Object::MAX_SIBLINGS as u64 {
        let write = Write {
            write_id: WriteId::new(NOW_MS, [n as u8; 10]),
            payload: Payload::Tombstone,
            expires_ms: None,
        };
        object
            .write(write, &Clock::new(), dot(1, 10 + n), Hlc::ZERO, NOW_MS)
            .expect("up to the limit");
    }
    let before = object.clone();
    let refused = object.write(put(99), &Clock::new(), dot(1, 999), Hlc::ZERO, NOW_MS);
    assert_eq!(refused, Err(WriteRefused::TooManySiblings { count: 64 }));
    assert_eq!(object, before, "a refused write changes nothing");

    let mut object = Object::new();
    let big = Bytes::from(vec![0; Object::MAX_VALUE_BYTES]);
    for n in 0..5_u8 {
        let write = Write {
            write_id: id(n),
            payload: Payload::Value(big.clone()),
            expires_ms: None,
        };
        let written = object.write(
            write,
            &Clock::new(),
            dot(1, 10 + u64::from(n)),
            Hlc::ZERO,
            NOW_MS,
        );
        assert_eq!(written.is_ok(), n < 4, "four of the largest values fit");
    }
}

/// Three replicas that write (now and then a retry of an older id), read and merge at random.
fn random_states(seed: u64) -> Vec<Object> {
    let mut rng = Rng::with_seed(seed);
    let mut replicas = vec![Object::new(); 3];
    let mut states = vec![Object::new()];
    let mut now_ms = NOW_MS;
    for at in 1..40_u64 {
        now_ms += rng.u64(0..20_000);
        let i = rng.usize(0..3);
        if rng.f32() < 0.6 {
            let read = states[rng.usize(0..states.len())].clock().clone();
            let n = rng.u8(0..12);
            let created = if rng.bool() {
                now_ms
            } else {
                NOW_MS + u64::from(n)
            };
            let write_id = WriteId::new(created, [n; 10]);
            if replicas[i].admit(write_id, now_ms) == Admission::New {
                let payload = if n == 0 {
                    Payload::Tombstone
                } else {
                    Payload::Value(vec![n; 2].into())
                };
                let minted = match seed % 2 {
                    0 => dot(i as u32, at * 10),
                    _ => Dot::new(ActorId(i as u32), Hlc::new(now_ms, at as u16 * 1_000)),
                };
                let expires_ms = seed
                    .is_multiple_of(3)
                    .then(|| now_ms + rng.u64(0..1_000_000));
                replicas[i]
                    .write(
                        Write {
                            write_id,
                            payload,
                            expires_ms,
                        },
                        &read,
                        minted,
                        Hlc::ZERO,
                        now_ms,
                    )
                    .expect("few siblings");
            }
        } else {
            let other = replicas[rng.usize(0..3)].clone();
            replicas[i].merge(&other);
        }
        states.push(replicas[i].clone());
    }
    states
}

#[test]
fn merging_is_commutative_associative_and_idempotent() {
    for seed in 0..2_000 {
        let states = random_states(seed);
        let mut rng = Rng::with_seed(seed);
        for _ in 0..20 {
            let pick = |rng: &mut Rng| &states[rng.usize(0..states.len())];
            let (x, y, z) = (pick(&mut rng), pick(&mut rng), pick(&mut rng));
            assert_eq!(x.merged(y), y.merged(x), "commutative, seed {seed}");
            assert_eq!(
                x.merged(y).merged(z),
                x.merged(&y.merged(z)),
                "associative, seed {seed}"
            );
            assert_eq!(x.merged(x), *x, "idempotent, seed {seed}");
        }
    }
}

#[test]
fn an_object_survives_its_bytes_and_equal_objects_have_equal_bytes() {
    for seed in 0..500 {
        let states = random_states(seed);
        for pair in states.windows(2) {
            let (a, b) = (&pair[0], &pair[1]);
            let bytes = a.encode();
            assert_eq!(Object::decode(&bytes).as_ref(), Ok(a));
            assert_eq!(a == b, bytes == b.encode());
            let same_header = Object::header_of(&bytes) == Object::header_of(&b.encode());
            assert_eq!(a == b, same_header, "the header identifies the state");
        }
    }
}

#[test]
fn damaged_bytes_are_an_error_or_another_valid_object_and_never_a_panic() {
    let mut rng = Rng::with_seed(1);
    for seed in 0..100 {
        let states = random_states(seed);
        let bytes = states[states.len() - 1].encode();
        for cut in 0..bytes.len() {
            assert!(Object::decode(&bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
        for _ in 0..200 {
            let mut damaged = bytes.to_vec();
            let at = rng.usize(0..damaged.len());
            damaged[at] ^= 1 << rng.u8(0..8);
            if let Ok(object) = Object::decode(&damaged.clone().into()) {
                assert_eq!(object.encode(), damaged);
            }
        }
    }
}

#[test]
fn the_bytes_of_an_object_are_fixed() {
    let mut object = Object::new();
    write(&mut object, put(1), &Clock::new(), dot(1, 10));
    let read = object.clock().clone();
    write(&mut object, put(2), &read, dot(1, 20));
    let gone = Write {
        write_id: id(3),
        payload: Payload::Tombstone,
        expires_ms: None,
    };
    write(&mut object, gone, &Clock::new(), dot(2, 15));
    assert_eq!(hex::encode(object.encode()), GOLDEN);
}

/// Worked through, field by field, in `docs/formats/object.md`.
const GOLDEN: &str = concat!(
    "01",
    "68000000", // version, header length
    "02",
    "0100000000000014000a",
    "020000000000000f000f", // clock
    "02",                   // siblings
    "04",
    "ff887a",
    "02020202020202020202",
    "03",
    "9a0d7c73b2226ca3",
    "01",
    "01",
    "020f00000000000000",
    "ff887a",
    "03030303030303030303",
    "00",
    "c294d3380580062d",
    "00", // retired
    "0000000f424001010101010101010101",
    "010a00000000000000",
    "020202", // values
);

/// What a key costs beside its name and value: see `docs/performance.md`.
#[test]
fn what_is_stored_with_a_value_is_small() {
    const HOUR_MS: u64 = 3_600_000;
    // Written by these nodes, an hour apart each; when the last one writes, old writes are not remembered any more.
    let header = |actors: &[u32]| {
        let mut object = Object::new();
        for (hour, actor) in (0..).zip(actors) {
            let now_ms = 1_764_000_000_000 + hour * HOUR_MS;
            let written = Write {
                write_id: WriteId::new(now_ms - 2, [*actor as u8; 10]),
                ..put(1)
            };
            let (read, dot) = (
                object.clock().clone(),
                Dot::new(ActorId(*actor), Hlc::from_millis(now_ms)),
            );
            object
                .write(written, &read, dot, Hlc::ZERO, now_ms)
                .expect("within the limits");
        }
        Object::header_of(&object.encode()).expect("whole").len()
    };
    assert_eq!(header(&[1]), 33, "written once");
    assert_eq!(header(&[1, 1, 1, 1, 1, 1]), 40, "written again and again");
    assert_eq!(header(&[1, 1, 2, 3, 1]), 60, "by each of three nodes");
}

fn delete(n: u8) -> Write {
    Write {
        write_id: id(n),
        payload: Payload::Tombstone,
        expires_ms: None,
    }
}

#[test]
fn an_object_is_gone_when_readers_see_nothing_but_deletions_and_what_has_expired() {
    let gone = |object: &Object| {
        [BucketMode::Siblings, BucketMode::Lww].map(|mode| object.gone_from(mode))
    };
    let mut object = Object::new();
    assert_eq!(gone(&object), [None, None], "never written");
    write(&mut object, put(1), &Clock::new(), dot(1, 10));
    assert_eq!(gone(&object), [None, None]);
    write(&mut object, delete(2), &Clock::new(), dot(1, 20));
    let from = |at| Some(Hlc(at));
    assert_eq!(
        gone(&object),
        [None, from(20)],
        "the deletion is later than the value beside it"
    );
    let read = object.clock().clone();
    write(&mut object, delete(3), &read, dot(1, 30));
    assert_eq!(gone(&object), [from(30), from(30)]);
    let expires = Hlc::from_millis(NOW_MS + 5);
    let passing = |n| Write {
        expires_ms: Some(expires.millis()),
        ..put(n)
    };
    write(&mut object, passing(4), &Clock::new(), dot(1, 40));
    assert_eq!(gone(&object), [Some(expires); 2], "beside a deletion");
    let sibling = object.last_written().expect("one");
    assert_eq!(sibling.expires_ms(), Some(NOW_MS + 5));
    assert!(sibling.is_expired(NOW_MS + 5) && !sibling.is_expired(NOW_MS + 4));
    let late = Hlc(expires.0 + 7);
    write(
        &mut object,
        passing(5),
        &Clock::new(),
        Dot::new(ActorId(1), late),
    );
    assert_eq!(gone(&object), [Some(late); 2], "written after it expired");
    assert_eq!(Object::decode(&object.encode()), Ok(object));
}

#[test]
fn what_arrives_late_and_is_unknown_was_deleted_and_stays_so_wherever_it_goes() {
    let mut late = Object::new();
    write(&mut late, put(1), &Clock::new(), dot(1, 10));
    write(&mut late, put(2), &Clock::new(), dot(1, 30));
    assert_eq!(late.oldest_dot(), Some(Hlc(10)));
    let (left, deleted) = late.without_deleted(&Clock::new(), Hlc(20));
    assert_eq!(shown(&left), [2]);
    assert_eq!(deleted.len(), 1);
    assert_eq!(left.clock(), late.clock());
    assert_eq!(
        shown(&late.merged(&left)),
        [2],
        "it takes the value away from others"
    );

    let mut heard = Clock::new();
    heard.insert(dot(1, 10));
    let (left, deleted) = late.without_deleted(&heard, Hlc(20));
    assert_eq!(
        (left, deleted.len()),
        (late.clone(), 0),
        "what is known is left to merging"
    );
    let (left, deleted) = late.without_deleted(&Clock::new(), Hlc(9));
    assert_eq!((left, deleted.len()), (late, 0), "it is later");
}

#[test]
fn one_of_two_copies_of_a_write_that_arrives_late_takes_only_itself_away() {
    let (mut a, mut b) = (Object::new(), Object::new());
    write(&mut a, put(1), &Clock::new(), dot(1, 10));
    write(&mut b, put(1), &Clock::new(), dot(2, 30));
    a.merge(&b);
    let (left, deleted) = a.without_deleted(&Clock::new(), Hlc(20));
    assert!(deleted.is_empty());
    assert_eq!(left.siblings().next().expect("one").dots(), [dot(2, 30)]);
}
