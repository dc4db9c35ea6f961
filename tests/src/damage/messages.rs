//! Real messages, from a few seconds of a simulated cluster at work.

use std::time::Duration;

use crate::sim::client::{BUCKET, Client, key};
use crate::sim::network::Recorded;
use crate::sim::{Executor, SimCluster};
use bytes::Bytes;
use kv_net::Method;
use kv_net::codec;
use kv_net::frame::{Frame, HEADER_BYTES, Header, Kind};
use kv_net::message::{ReadOptions, Request, WriteKind};
use kv_ring::ChainEntry;
use kv_storage::Options;
use kv_types::{Context, ContextKey, Hlc, Level, NodeId, Object};

/// Who decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decoder {
    Request(Method),
    Response(Method, u16),
    Gossip,
    Object,
    Chain,
    Context,
    Frame,
    StoredKey,
}

/// Real bytes, and who decodes them.
#[derive(Debug, Clone)]
pub struct Sample {
    decoder: Decoder,
    /// The bytes, undamaged.
    pub bytes: Bytes,
}

impl Sample {
    /// The decoder's name.
    pub fn decoder(&self) -> &'static str {
        match self.decoder {
            Decoder::Request(_) => "request",
            Decoder::Response(..) => "response",
            Decoder::Gossip => "gossip",
            Decoder::Object => "object",
            Decoder::Chain => "topology chain entry",
            Decoder::Context => "context",
            Decoder::Frame => "frame",
            Decoder::StoredKey => "key of the engine",
        }
    }

    /// Makes damaged bytes pass what would refuse them at first sight: versions, and the length of a frame.
    pub fn repair(&self, damaged: &mut [u8]) {
        match self.decoder {
            Decoder::Frame if damaged.len() >= HEADER_BYTES => {
                let length = (damaged.len() - HEADER_BYTES) as u32;
                damaged[..4].copy_from_slice(&length.to_le_bytes());
                damaged[4..8].copy_from_slice(&self.bytes[4..8]);
            }
            Decoder::Gossip | Decoder::Object | Decoder::Context | Decoder::Chain => {
                if let (Some(first), Some(version)) = (damaged.first_mut(), self.bytes.first()) {
                    *first = *version;
                }
            }
            _ => {}
        }
    }

    /// Whether bytes are read as what this sample is.
    pub fn decode(&self, bytes: &Bytes) -> bool {
        match self.decoder {
            Decoder::Request(method) => codec::decode_request(method, bytes).is_ok(),
            Decoder::Response(method, number) => {
                codec::decode_response(method, number, bytes).is_ok()
            }
            Decoder::Gossip => kv_gossip::message::Message::decode(bytes).is_ok(),
            Decoder::Object => Object::decode(bytes).is_ok(),
            Decoder::Chain => ChainEntry::decode(bytes).is_ok(),
            Decoder::Context => {
                let context = Context::from_bytes(bytes.clone());
                secret()
                    .open(BUCKET, &key("k1"), &context, Hlc(u64::MAX))
                    .is_ok()
            }
            Decoder::Frame => Frame::parse_only(bytes.clone(), 1 << 20).is_ok(),
            Decoder::StoredKey => kv_node::storage_key::decode(bytes).is_some(),
        }
    }
}

fn secret() -> ContextKey {
    ContextKey::new([7; 16])
}

/// Some of everything.
pub fn samples() -> Vec<Sample> {
    let (messages, genesis) = messages();
    let mut samples = Vec::new();
    let mut add = |decoder, bytes: Bytes| samples.push(Sample { decoder, bytes });
    add(Decoder::Chain, genesis);
    for message in messages {
        match message {
            Recorded::Gossip(bytes) => add(Decoder::Gossip, bytes),
            Recorded::Request(method, bytes) => {
                add(Decoder::Frame, framed(method.number(), &bytes));
                if let Ok(Request::ReplicaWrite(body, object)) =
                    codec::decode_request(method, &bytes)
                {
                    let whole = Object::decode(&object).expect("a real one");
                    add(
                        Decoder::Context,
                        secret()
                            .seal(BUCKET, &key("k1"), whole.clock())
                            .as_bytes()
                            .clone(),
                    );
                    let hash = kv_ring::KeyHash(9);
                    add(
                        Decoder::StoredKey,
                        kv_node::storage_key::encode(BUCKET, hash, &body.key),
                    );
                    add(Decoder::Object, object);
                }
                add(Decoder::Request(method), bytes);
            }
            Recorded::Response(method, number, bytes) => {
                add(Decoder::Response(method, number), bytes);
            }
        }
    }
    samples
}

fn framed(method: u16, payload: &Bytes) -> Bytes {
    let header = Header {
        len: payload.len() as u32,
        kind: Kind::Request,
        version: 1,
        method,
        id: 3,
        deadline_ms: 500,
    };
    let head: [u8; HEADER_BYTES] = header.to_bytes();
    [&head[..], payload].concat().into()
}

/// What three nodes and a client tell each other, and their genesis.
fn messages() -> (Vec<Recorded>, Bytes) {
    let mut executor = Executor::new(11);
    let handle = executor.handle();
    executor.run(async move {
        let cluster = SimCluster::new(handle.clone(), 3, 3, Options::tiny());
        cluster.network.record();
        cluster.start_all().await.expect("the nodes start");
        let mut client = Client::numbered(handle.clone(), 1);
        for number in 0..60_u64 {
            let via = NodeId(u128::from(1 + number % 3));
            let name = format!("k{}", number % 7);
            let value = "v".repeat(number as usize % 40);
            let _ = client.put(&cluster, via, &name, &value).await;
            let options = ReadOptions {
                level: Level::All,
                ..ReadOptions::default()
            };
            let read = client.get_with(&cluster, via, &name, options).await;
            let context = read.ok().map(|(_, reply)| reply.context);
            if number % 5 == 0 {
                // Two writers over one context: siblings.
                for _ in 0..2 {
                    let request = client.put_request(&name, context.clone(), WriteKind::Put);
                    let _ = client.send_put(&cluster, via, request, "sibling").await;
                }
                let request = client.put_request(&name, context, WriteKind::Delete);
                let _ = client.send_put(&cluster, via, request, "").await;
            }
        }
        handle.sleep(Duration::from_secs(3)).await;
        (cluster.network.take_recorded(), cluster.genesis().encode())
    })
}
