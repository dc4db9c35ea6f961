//! One member that is fed by hand, and the messages for that.

use bytes::Bytes;
use kv_gossip::message::{Body, Header, Message, Rumor};
use kv_gossip::{Config, Gossip, Incarnation, Myself, Time};
use kv_types::{Epoch, NodeId};

/// Node 1, which knows nobody yet.
pub(crate) fn member(config: Config) -> Gossip {
    let me = Myself {
        node: NodeId(1),
        address: "a:1".to_owned(),
        incarnation: Incarnation::first_of_boot(1),
        boot: 1,
        epoch: Epoch::GENESIS,
        chain_hash: 0,
    };
    Gossip::new(config, me, 1, Time::ZERO)
}

/// What a member of the same topology sends, by its incarnation and its heartbeat.
pub(crate) fn message(
    incarnation: Incarnation,
    heartbeat: u64,
    body: Body,
    rumors: Vec<Rumor>,
) -> Bytes {
    let header = Header {
        incarnation,
        heartbeat,
        epoch: Epoch::GENESIS,
        chain_hash: 0,
    };
    let message = Message {
        header,
        body,
        rumors,
    };
    message.encode()
}
