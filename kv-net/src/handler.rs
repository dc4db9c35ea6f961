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
    /// The future is dropped when the budget has passed, when the caller no longer waits, and when
    /// the connection is lost; work that must go on after that belongs into a task of its own. This
    /// function itself must return soon: other requests of the connection wait for it.
    fn handle(
        &self,
        peer: &Identity,
        request: Request,
        budget: Duration,
    ) -> BoxFuture<'static, Response>;

    /// Takes bytes of the gossip protocol from a node. Must return soon.
    fn gossip(&self, from: NodeId, bytes: Bytes);
}
