//! What a client needs from the world: calls to nodes, time, and randomness.
//!
//! Everything else in this crate is driven by these seven functions, so a whole client runs in a
//! simulation under virtual time when they are simulated. The module `net` holds the real ones.

use core::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use kv_net::{Request, Response};
use kv_types::{NodeId, Outcome};

/// Where a request goes: an address, and the node that must answer there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// The node that must answer; `None` takes any node of the cluster, as with a seed.
    pub node: Option<NodeId>,
    /// Host and port: `127.0.0.1:7401`, `[::1]:7401`, `n1.example:7401`.
    pub address: Arc<str>,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// The world of a client. Calls may run at the same time.
///
/// Dropping a future of [`Self::call`] gives up the wait, not the request: the node may still do it.
pub trait Transport: Send + Sync + 'static {
    /// Sends a request and waits for the reply, at most for `budget`, which the node learns too.
    fn call(
        &self,
        to: &Destination,
        request: Request,
        budget: Duration,
    ) -> BoxFuture<'static, Result<Response, SendError>>;

    /// Time since any fixed moment; it never goes back.
    fn now(&self) -> Duration;

    /// Milliseconds since the Unix epoch.
    fn wall_ms(&self) -> u64;

    /// Waits.
    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()>;

    /// Has work go on beside all else, until it is done; nobody waits for it.
    fn spawn(&self, work: BoxFuture<'static, ()>);

    /// 64 random bits; write ids are made of them, so two clients must not draw the same ones.
    fn random(&self) -> u64;
}

/// What stood between a request and its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SendFault {
    /// No connection could be made.
    Unreachable,
    /// One side does not believe the other's certificate.
    Untrusted,
    /// The connection broke while the reply was awaited.
    Lost,
    /// The budget passed without a reply.
    Silent,
    /// Too much is under way here already.
    Busy,
    /// What came back is no reply to the request.
    Malformed,
    /// The request cannot be sent anywhere.
    Unsendable,
}

/// Why a request has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// What kind of trouble it is.
    pub fault: SendFault,
    /// Whether the request may have been executed.
    pub outcome: Outcome,
    /// For people: what happened, with the address.
    pub message: String,
}
