//! Other nodes over QUIC.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use kv_net::message::{Request, Response};
use kv_net::{Endpoint, Handler, Identity};
use kv_types::{NodeId, Outcome};

use crate::node::Node;
use crate::transport::{CallFailure, Peer, Transport};

/// Calls over a QUIC endpoint.
#[derive(Debug, Clone)]
pub struct QuicTransport {
    endpoint: Endpoint,
}

impl QuicTransport {
    /// Calls through this endpoint.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }
}

impl Transport for QuicTransport {
    fn call(
        &self,
        to: Peer,
        request: Request,
        budget: Duration,
    ) -> BoxFuture<'static, Result<Response, CallFailure>> {
        let endpoint = self.endpoint.clone();
        Box::pin(async move {
            let address = resolve(&to.address).await?;
            let peer = kv_net::Peer {
                node: Some(to.node),
                address,
            };
            let called = endpoint.call(&peer, request, budget).await;
            called.map_err(|error| CallFailure {
                outcome: error.outcome(),
                reason: error.to_string(),
            })
        })
    }

    fn gossip(&self, to: Peer, bytes: Bytes) {
        // A name that is not an address would have to be looked up, which may take long; calls do
        // that, and gossip only goes to addresses.
        if let Ok(address) = to.address.parse() {
            self.endpoint.gossip(
                &kv_net::Peer {
                    node: Some(to.node),
                    address,
                },
                bytes,
            );
        }
    }
}

async fn resolve(address: &str) -> Result<SocketAddr, CallFailure> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let failure = |reason: String| CallFailure {
        outcome: Outcome::NotApplied,
        reason,
    };
    let mut found = tokio::net::lookup_host(address)
        .await
        .map_err(|error| failure(format!("the address {address} cannot be resolved: {error}")))?;
    found
        .next()
        .ok_or_else(|| failure(format!("the address {address} has no host")))
}

/// Hands requests of a QUIC endpoint to a node.
#[derive(Debug)]
pub struct NodeHandler(pub Arc<Node>);

impl Handler for NodeHandler {
    fn handle(
        &self,
        peer: &Identity,
        request: Request,
        budget: Duration,
    ) -> BoxFuture<'static, Response> {
        self.0.handle(peer.role.clone(), request, budget)
    }

    fn gossip(&self, from: NodeId, bytes: Bytes) {
        self.0.gossip(from, bytes);
    }
}
