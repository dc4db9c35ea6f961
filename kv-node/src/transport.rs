//! How a node reaches other nodes.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use kv_net::message::{Request, Response};
use kv_types::{NodeId, Outcome};

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Which node must answer there.
    pub node: NodeId,
    /// Its address, as `host:port`.
    pub address: String,
}

/// Calls to other nodes: QUIC in production, a simulated network in tests.
pub trait Transport: Send + Sync + 'static {
    /// Sends a request and waits for the reply, for at most `budget`.
    fn call(
        &self,
        to: Peer,
        request: Request,
        budget: Duration,
    ) -> BoxFuture<'static, Result<Response, CallFailure>>;

    /// Sends gossip, which may be lost; never blocks.
    fn gossip(&self, to: Peer, bytes: Bytes);
}

/// A call without a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct CallFailure {
    /// Whether the peer may have done what was asked.
    pub outcome: Outcome,
    /// What happened.
    pub reason: String,
}
