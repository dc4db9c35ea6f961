//! Golden bytes of every message, and what happens to damaged ones.

use super::*;
use crate::error::ErrorCode;
use crate::message::{
    AnswerWhen, BallotV1, ChangeKind, ChangeReplyV1, ChangeV1, CompareReplyV1, CompareV1, DataHead,
    ExplainedGetV1, ExplainedPutV1, ExplanationV1, FateReplyV1, FateV1, FloorReplyV1, FloorV1,
    GetV1, HintsReplyV1, HintsV1, ListEntryV1, ListV1, MemberState, MemberViewV1, MetricsReplyV1,
    MetricsV1, NotShown, PendingHintsV1, PlaceV1, PreferredV1, PutReplyV1, ReadOptions, ReadSource,
    RememberReplyV1, RememberV1, ReplicaListEntryV1, ReplicaListV1, ReplicaReadReplyV1,
    ReplicaReadV1, ReplicaWriteReplyV1, ReplicaWriteV1, RowsV1, StandInReadV1, StandInWriteV1,
    StatusReplyV1, StatusV1, StepKind, StepV1, TopologyReplyV1, TopologyV1, TreeKeysReplyV1,
    TreeKeysV1, TreeNodesReplyV1, TreeNodesV1, TreeObjectsV1, TreeRootsReplyV1, TreeRootsV1,
    VoteAnswer, VoteReplyV1, VoteStep, VoteV1, WatermarkReplyV1, WatermarkStep, WatermarkV1,
    WatermarksReplyV1, WatermarksV1, WriteFate, WriteOptions,
};
use kv_types::{
    ActorId, BucketId, Context, Dot, Durability, Epoch, Hlc, Key, Level, NodeId, Outcome, WriteId,
};
use proptest::prelude::*;

fn head() -> DataHead {
    let write_id = WriteId::from_bytes(*b"0123456789abcdef");
    DataHead {
        epoch: Epoch(3),
        trace: 0x80,
        write_id,
    }
}

fn key() -> Key {
    Key::with_sort("user", "1").expect("short")
}

fn context() -> Context {
    Context::from_bytes(Bytes::from_static(b"ctx"))
}

fn sibling(value_bytes: u32) -> SiblingHeadV1 {
    SiblingHeadV1 {
        write_id: WriteId::from_bytes(*b"0123456789abcdef"),
        dot: Dot::new(ActorId(2), Hlc(5)),
        tombstone: false,
        value_bytes,
        value_hash: 9,
        expires_ms: Some(300),
    }
}

fn tree_nodes() -> TreeNodesV1 {
    TreeNodesV1 {
        epoch: Epoch(3),
        bucket: BucketId(1),
        partition: 300,
        depth: 2,
        nodes: vec![1, 255],
        whole_since: Some(300),
    }
}

fn ballot() -> BallotV1 {
    BallotV1 {
        round: 2,
        proposer: NodeId(7),
    }
}

fn get() -> GetV1 {
    let bucket = BucketId(1);
    GetV1 {
        head: head(),
        bucket,
        key: key(),
        options: ReadOptions {
            level: Level::All,
            r: Some(2),
            headers_only: true,
        },
        seen: Some(context()),
    }
}

fn put() -> PutV1 {
    let bucket = BucketId(1);
    PutV1 {
        head: head(),
        bucket,
        key: key(),
        kind: WriteKind::Put,
        context: Some(context()),
        options: WriteOptions {
            level: Level::Weak,
            w: None,
            ttl_ms: Some(300),
            durability: Some(Durability::One),
            distinct_zones: 2,
        },
        forwarded: true,
        since_first_ms: 300,
    }
}

fn get_reply() -> GetReplyV1 {
    GetReplyV1 {
        siblings: vec![sibling(5)],
        context: context(),
        answered: vec![NodeId(7)],
        needed: 1,
        epoch: Epoch(9),
    }
}

fn put_reply() -> PutReplyV1 {
    PutReplyV1 {
        context: context(),
        acked: vec![NodeId(7)],
        needed: 2,
        epoch: Epoch(9),
    }
}

/// One with a step of every kind.
fn explanation() -> ExplanationV1 {
    let (node, dots) = (NodeId(7), vec![Dot::new(ActorId(2), Hlc(5))]);
    let dot = dots.first().copied();
    let source = Some(ReadSource::Memtable);
    let steps = [
        StepKind::AskedForObject,
        StepKind::AskedForDigest,
        StepKind::Object {
            dots: dots.clone(),
            bytes: 300,
            source,
        },
        StepKind::Digest { digest: 9, source },
        StepKind::Nothing,
        StepKind::Superseded { dots: dots.clone() },
        StepKind::Coordinated { dot },
        StepKind::Sent,
        StepKind::Repaired,
        StepKind::Acknowledged,
        StepKind::Taken,
        StepKind::Silent,
        StepKind::Failed {
            why: "off".to_owned(),
        },
        StepKind::Replaced { dots: dots.clone() },
        StepKind::NotShown {
            dots: dots.clone(),
            why: NotShown::Expired,
        },
        StepKind::NotShown {
            dots,
            why: NotShown::EarlierWrite,
        },
    ];
    let step = |what| StepV1 {
        at_us: 300,
        node,
        stands_in_for: None,
        what,
    };
    ExplanationV1 {
        epoch: Epoch(3),
        partition: 300,
        partition_epoch: Epoch(1),
        coordinator: node,
        forwarded_by: Some(node),
        level: Level::Quorum,
        needed: 2,
        preference: vec![PreferredV1 {
            node,
            is_owner: true,
            state: MemberState::Up,
            is_slow: false,
        }],
        steps: steps.map(step).to_vec(),
    }
}

/// A request of every method.
fn requests() -> Vec<Request> {
    let (bucket, read) = (BucketId(1), ReadOptions::default());
    vec![
        Request::Get(get()),
        Request::Put(put(), "value".into()),
        Request::List(ListV1 {
            head: head(),
            bucket,
            partition: 300,
            rows: None,
            after: Some(key()),
            max_items: 100,
            options: read,
        }),
        Request::Topology(TopologyV1 { known: Epoch(2) }),
        Request::Status(StatusV1 {}),
        Request::Metrics(MetricsV1 {}),
        Request::Change(ChangeV1 {
            change: ChangeKind::MoveMember {
                node: NodeId(7),
                address: "a:1".to_owned(),
            },
        }),
        Request::Hints(HintsV1 {}),
        Request::ExplainGet(get()),
        Request::ExplainPut(put(), "value".into()),
        Request::Compare(CompareV1 {
            bucket: Some(bucket),
            first: 1,
            last: 300,
        }),
        Request::Fate(FateV1 {
            head: head(),
            bucket,
            key: key(),
            write_id: WriteId::from_bytes(*b"0123456789abcdef"),
        }),
        Request::ReplicaWrite(
            ReplicaWriteV1 {
                head: head(),
                bucket,
                key: key(),
                answer: AnswerWhen::Taken,
            },
            "object".into(),
        ),
        Request::ReplicaRead(ReplicaReadV1 {
            head: head(),
            bucket,
            key: key(),
            digest_only: true,
        }),
        Request::ReplicaList(ReplicaListV1 {
            head: head(),
            bucket,
            partition: 300,
            rows: Some(RowsV1 {
                partition_key: "user".into(),
                from: "a".into(),
                until: Some("b".into()),
            }),
            after: None,
            max_items: 100,
            max_bytes: 65_536,
        }),
        Request::Vote(
            VoteV1 {
                epoch: Epoch(4),
                previous: *b"fedcba9876543210",
                ballot: ballot(),
                step: VoteStep::Accept,
            },
            "entry".into(),
        ),
        Request::StandInWrite(
            StandInWriteV1 {
                head: head(),
                bucket,
                key: key(),
                owner: NodeId(7),
                obligation: true,
                answer: AnswerWhen::Synced,
            },
            "object".into(),
        ),
        Request::StandInRead(StandInReadV1 {
            head: head(),
            bucket,
            key: key(),
            owner: NodeId(7),
            digest_only: false,
        }),
        Request::Repair(
            ReplicaWriteV1 {
                head: head(),
                bucket,
                key: key(),
                answer: AnswerWhen::Synced,
            },
            "object".into(),
        ),
        Request::TreeRoots(TreeRootsV1 {
            epoch: Epoch(3),
            sum: 0x0123_4567_89ab_cdef,
        }),
        Request::TreeNodes(tree_nodes()),
        Request::TreeKeys(TreeKeysV1 {
            under: tree_nodes(),
            after: None,
            until: Some(key()),
        }),
        Request::TreeObjects(TreeObjectsV1 {
            stretch: TreeKeysV1 {
                under: tree_nodes(),
                after: Some(key()),
                until: None,
            },
            ids: vec![300],
        }),
        Request::Floor(FloorV1 {
            promise: Some(Hlc(0x0102_0304_0506_0708)),
            settle: Some(Hlc(0x0102_0304_0506_0707)),
        }),
        Request::Watermark(WatermarkV1 {
            epoch: Epoch(3),
            boot: 2,
            through: Hlc(0x0102_0304_0506_0708),
            step: WatermarkStep::Raise,
            places: vec![PlaceV1 {
                bucket,
                partition: 300,
            }],
        }),
        Request::Remember(RememberV1 {
            boot: 300,
            run: 0x0102_0304_0506_0708,
            after: 2,
            heard: 299,
        }),
        Request::Watermarks(WatermarksV1 {
            epoch: Epoch(3),
            places: vec![PlaceV1 {
                bucket,
                partition: 300,
            }],
        }),
    ]
}

/// A response of every method, and an error.
fn responses() -> Vec<(Method, Response)> {
    let (node, partition_epoch) = (NodeId(7), Epoch(3));
    let entry = ListEntryV1 {
        key: key(),
        siblings: vec![sibling(2)],
        context: context(),
    };
    let status = StatusReplyV1 {
        node,
        version: "0.1.0".to_owned(),
        epoch: Epoch(3),
        view_hash: 1,
        uptime_ms: 2,
        members: vec![MemberViewV1 {
            node,
            state: MemberState::Down,
            since_ms: 3,
            heartbeat: 4,
        }],
        objects: 5,
        disk_bytes: 6,
        disk_free_bytes: 7,
        gets: 8,
        puts: 9,
        errors: 10,
        get_us: (11, 12),
        put_us: (13, 14),
    };
    let object = ReplicaListEntryV1 {
        key: key(),
        object_bytes: 6,
    };
    let error = ErrorReplyV1 {
        code: ErrorCode::NotEnoughReplicas,
        outcome: Outcome::Unknown,
        message: "needed 2, got 1".to_owned(),
        needed: 2,
        got: 1,
        epoch: Epoch(3),
    };
    vec![
        (Method::Get, Response::Get(get_reply(), "value".into())),
        (Method::Put, Response::Put(put_reply())),
        (
            Method::List,
            Response::List(
                ListReplyV1 {
                    entries: vec![entry],
                    next_after: None,
                    epoch: Epoch(9),
                },
                "ab".into(),
            ),
        ),
        (
            Method::Topology,
            Response::Topology(
                TopologyReplyV1 {
                    epoch: Epoch(3),
                    now_ms: 300,
                },
                "entry".into(),
            ),
        ),
        (Method::Status, Response::Status(status)),
        (
            Method::Metrics,
            Response::Metrics(MetricsReplyV1 {}, "kv_gets 1".into()),
        ),
        (
            Method::Change,
            Response::Change(ChangeReplyV1 { epoch: Epoch(4) }),
        ),
        (
            Method::Hints,
            Response::Hints(HintsReplyV1 {
                pending: vec![PendingHintsV1 {
                    owner: NodeId(7),
                    objects: 2,
                    bytes: 300,
                }],
                max_bytes: 1 << 20,
                delivered: 4,
                refused: 0,
            }),
        ),
        (
            Method::ExplainGet,
            Response::ExplainGet(
                ExplainedGetV1 {
                    answer: Ok(get_reply()),
                    explanation: explanation(),
                },
                "value".into(),
            ),
        ),
        (
            Method::ExplainPut,
            Response::ExplainPut(ExplainedPutV1 {
                answer: Ok(put_reply()),
                explanation: explanation(),
            }),
        ),
        (
            Method::ExplainPut,
            Response::ExplainPut(ExplainedPutV1 {
                answer: Err(error.clone()),
                explanation: explanation(),
            }),
        ),
        (
            Method::Compare,
            Response::Compare(CompareReplyV1 {
                shared: 300,
                settled: 299,
                fetched: 1,
                sent: 2,
            }),
        ),
        (
            Method::Fate,
            Response::Fate(FateReplyV1 {
                fate: WriteFate::Unknown { settles_ms: 300 },
            }),
        ),
        (
            Method::ReplicaWrite,
            Response::ReplicaWrite(ReplicaWriteReplyV1 { partition_epoch }),
        ),
        (
            Method::ReplicaRead,
            Response::ReplicaRead(
                ReplicaReadReplyV1 {
                    partition_epoch,
                    digest: Some(1),
                    source: Some(ReadSource::Disk),
                    through: Hlc(0x0102_0304_0506_0708),
                },
                "object".into(),
            ),
        ),
        (
            Method::ReplicaList,
            Response::ReplicaList(
                ReplicaListReplyV1 {
                    page: ObjectsV1 {
                        partition_epoch,
                        entries: vec![object],
                        until: Some(key()),
                    },
                    through: Hlc(0x0102_0304_0506_0708),
                },
                "object".into(),
            ),
        ),
        (
            Method::Vote,
            Response::Vote(
                VoteReplyV1 {
                    answer: VoteAnswer::Promised(Some(ballot())),
                },
                "entry".into(),
            ),
        ),
        (
            Method::StandInWrite,
            Response::StandInWrite(ReplicaWriteReplyV1 { partition_epoch }),
        ),
        (
            Method::StandInRead,
            Response::StandInRead(
                ReplicaReadReplyV1 {
                    partition_epoch,
                    digest: None,
                    source: None,
                    through: Hlc::ZERO,
                },
                Bytes::new(),
            ),
        ),
        (
            Method::Repair,
            Response::Repair(ReplicaWriteReplyV1 { partition_epoch }),
        ),
        (
            Method::TreeRoots,
            Response::TreeRoots(TreeRootsReplyV1 { ready: true }, "12345678".into()),
        ),
        (
            Method::TreeNodes,
            Response::TreeNodes(TreeNodesReplyV1 {}, "12345678".into()),
        ),
        (
            Method::TreeKeys,
            Response::TreeKeys(TreeKeysReplyV1 { until: Some(key()) }, "12345678".into()),
        ),
        (
            Method::TreeObjects,
            Response::TreeObjects(
                ObjectsV1 {
                    partition_epoch,
                    entries: vec![ReplicaListEntryV1 {
                        key: key(),
                        object_bytes: 6,
                    }],
                    until: None,
                },
                "object".into(),
            ),
        ),
        (
            Method::Floor,
            Response::Floor(FloorReplyV1 {
                late_through: Hlc(0x0102_0304_0506_0709),
                lost_through: Hlc(0x0102_0304_0506_0710),
                boot: 2,
                reading: Hlc(0x0102_0304_0506_0708),
                floor: Hlc(1),
            }),
        ),
        (Method::Watermark, Response::Watermark(WatermarkReplyV1 {})),
        (
            Method::Remember,
            Response::Remember(RememberReplyV1 {
                boot: 300,
                run: 0x0102_0304_0506_0708,
                told: 299,
                wall_ms: 1,
                floor: Hlc(1),
                settled: Hlc(0x0102_0304_0506_0707),
            }),
        ),
        (
            Method::Watermarks,
            Response::Watermarks(WatermarksReplyV1 {
                marks: vec![Some(Hlc(0x0102_0304_0506_0708)), None],
                losses: 300,
            }),
        ),
        (Method::Get, Response::Error(error)),
    ]
}

fn payload(encoded: &Encoded) -> Bytes {
    [&encoded.body[..], &encoded.tail[..]].concat().into()
}

fn golden(encoded: &Encoded) -> String {
    let (body, tail) = (hex::encode(&encoded.body), hex::encode(&encoded.tail));
    format!("{:02} {body} | {tail}", encoded.method)
        .trim_end()
        .to_owned()
}

#[test]
fn requests_have_their_golden_bytes_and_survive_them() {
    let requests = requests();
    let methods: Vec<_> = requests.iter().map(Request::method).collect();
    assert_eq!(methods, Method::ALL);
    let golden_bytes = include_str!("golden_requests.txt").lines();
    let mut seen = String::new();
    for request in &requests {
        let encoded = encode_request(request);
        seen.push_str(&golden(&encoded));
        seen.push('\n');
        let decoded = decode_request(request.method(), &payload(&encoded));
        assert_eq!(decoded.as_ref(), Ok(request));
    }
    assert!(golden_bytes.eq(seen.lines()), "the bytes are now\n{seen}");
}

#[test]
fn responses_have_their_golden_bytes_and_survive_them() {
    let golden_bytes = include_str!("golden_responses.txt").lines();
    let mut seen = String::new();
    for (method, response) in &responses() {
        let encoded = encode_response(response);
        seen.push_str(&golden(&encoded));
        seen.push('\n');
        let decoded = decode_response(*method, encoded.method, &payload(&encoded));
        assert_eq!(decoded.as_ref(), Ok(response));
    }
    assert!(golden_bytes.eq(seen.lines()), "the bytes are now\n{seen}");
}

#[test]
fn truncated_bodies_are_refused_at_every_length() {
    for request in requests() {
        let body = encode_request(&request).body;
        for len in 0..body.len() {
            let cut = Bytes::copy_from_slice(&body[..len]);
            let decoded = decode_request(request.method(), &cut);
            assert!(
                matches!(decoded, Err(DecodeError::Body(_))),
                "{request:?} at {len}"
            );
        }
    }
    for (method, response) in responses() {
        let Encoded {
            method: number,
            body,
            ..
        } = encode_response(&response);
        for len in 0..body.len() {
            let cut = Bytes::copy_from_slice(&body[..len]);
            assert!(
                decode_response(method, number, &cut).is_err(),
                "{response:?} at {len}"
            );
        }
    }
}

#[test]
fn bytes_are_left_over_only_where_there_is_a_tail() {
    for request in requests() {
        let encoded = encode_request(&request);
        let mut longer = payload(&encoded).to_vec();
        longer.push(0);
        let has_tail = matches!(
            request,
            Request::Put(..)
                | Request::ExplainPut(..)
                | Request::ReplicaWrite(..)
                | Request::Vote(..)
                | Request::StandInWrite(..)
                | Request::Repair(..)
        );
        let decoded = decode_request(request.method(), &longer.into());
        assert_eq!(decoded.is_ok(), has_tail, "{request:?}");
    }
}

#[test]
fn a_tail_is_as_long_as_its_body_says() {
    let Some(Request::Put(put, _)) = requests().into_iter().nth(1) else {
        panic!("a put")
    };
    let delete = Request::Put(
        PutV1 {
            kind: WriteKind::Delete,
            ..put
        },
        "x".into(),
    );
    let decoded = decode_request(Method::Put, &payload(&encode_request(&delete)));
    assert_eq!(decoded, Err(DecodeError::TailLength { have: 1, want: 0 }));

    for (method, response) in responses() {
        let counts = matches!(method, Method::Get | Method::List | Method::ReplicaList);
        if counts && response.method().is_some() {
            let encoded = encode_response(&response);
            let mut longer = payload(&encoded).to_vec();
            longer.push(0);
            let decoded = decode_response(method, encoded.method, &longer.into());
            let have = encoded.tail.len() + 1;
            let want = encoded.tail.len() as u64;
            assert_eq!(decoded, Err(DecodeError::TailLength { have, want }));
        }
    }
}

#[test]
fn values_may_be_left_out_of_a_read() {
    let reply = GetReplyV1 {
        siblings: vec![sibling(5), sibling(6)],
        context: context(),
        answered: vec![],
        needed: 1,
        epoch: Epoch(9),
    };
    let response = Response::Get(reply, Bytes::new());
    let encoded = encode_response(&response);
    let decoded = decode_response(Method::Get, encoded.method, &payload(&encoded));
    assert_eq!(decoded, Ok(response));
}

#[test]
fn an_answer_to_another_method_is_refused() {
    let (_, response) = responses().swap_remove(1);
    let encoded = encode_response(&response);
    let decoded = decode_response(Method::Get, encoded.method, &payload(&encoded));
    assert_eq!(
        decoded,
        Err(DecodeError::OtherMethod {
            asked: Method::Get,
            answered: 2
        })
    );
}

#[test]
fn sequences_are_decoded_up_to_their_bound_and_not_above() {
    let reply = |nodes: usize| {
        let acked = vec![NodeId(1); nodes];
        let encoded = encode_response(&Response::Put(PutReplyV1 {
            context: context(),
            acked,
            needed: 2,
            epoch: Epoch(9),
        }));
        decode_response(Method::Put, encoded.method, &payload(&encoded))
    };
    assert!(reply(crate::bounded::MAX_NODES).is_ok());
    assert!(matches!(
        reply(crate::bounded::MAX_NODES + 1),
        Err(DecodeError::Body(_))
    ));
}

#[test]
fn a_length_that_lies_is_refused_without_reserving_for_it() {
    // A context of no bytes, then 2^32 − 1 nodes.
    let lie = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(matches!(
        decode_response(Method::Put, 2, &lie),
        Err(DecodeError::Body(_))
    ));
}

proptest! {
    #[test]
    fn any_bytes_decode_to_a_message_or_to_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        index in 0..Method::ALL.len(),
        is_error: bool,
    ) {
        let (method, bytes) = (Method::ALL[index], Bytes::from(bytes));
        let _ = decode_request(method, &bytes);
        let number = if is_error { ERROR_NUMBER } else { method.number() };
        let _ = decode_response(method, number, &bytes);
    }

    #[test]
    fn damaged_messages_decode_to_a_message_or_to_an_error(
        index in 0..Method::ALL.len(),
        at: prop::sample::Index,
        bit in 0_u32..8,
    ) {
        let request = requests().swap_remove(index);
        let mut bytes = payload(&encode_request(&request)).to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
        }
        let _ = decode_request(request.method(), &bytes.into());
        let (method, response) = responses().swap_remove(index);
        let encoded = encode_response(&response);
        let mut bytes = payload(&encoded).to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
        }
        let _ = decode_response(method, encoded.method, &bytes.into());
    }
}
