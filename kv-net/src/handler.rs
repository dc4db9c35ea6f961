//! What an endpoint does with the requests and the gossip of its peers.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use kv_types::NodeId;

use crate::identity::Identity;
use crate::message::{Request, Response};

/// The receiver of requests and gossip.
///
/// Requests reach it only from peers whose certificate is believed and whose role may make them.
pub trait Handler: Send + Sync + 'static {
    /// Answers a request within `budget`.
    ///
    /// Every request has a tokio task of its own. The future is dropped when the budget has passed,
    /// when the caller no longer waits, and when the connection is lost; work that must go on after
    /// that belongs into a task of its own. A panic is answered with `Internal`.
    fn handle(
        &self,
        peer: &Identity,
        request: Request,
        budget: Duration,
    ) -> BoxFuture<'static, Response>;

    /// Takes bytes of the gossip protocol from a node. Must return soon: whatever else arrives over
    /// the connection waits for it.
    fn gossip(&self, from: NodeId, bytes: Bytes);
}
