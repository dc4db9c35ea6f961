//! How an endpoint behaves: its limits and its times.

use std::sync::Arc;
use std::time::Duration;

use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

/// Limits and times of an endpoint. Start from [`Self::node`] or [`Self::client`].
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// How long a dialled connection may be silent before its peer is taken for dead. Lower notices
    /// sooner; higher bears longer pauses. Nodes 5 s, clients 30 s.
    pub idle_timeout: Duration,
    /// The same for accepted connections, where the smaller of this and the dialler's counts: 30 s,
    /// so that the dialler decides.
    pub accepted_idle_timeout: Duration,
    /// How often the dialling side speaks up on a silent connection. Nodes 1 s, clients 10 s; keep
    /// it below a third of the idle timeout.
    pub keep_alive: Duration,
    /// The round trip assumed before one is measured. Lower repeats lost first packets sooner;
    /// below the true one it repeats packets that were not lost. Nodes 5 ms, clients 100 ms.
    pub initial_rtt: Duration,
    /// How long making a connection may take, and how long a peer may take to introduce itself.
    pub handshake_timeout: Duration,
    /// How long a part of a frame may wait for its rest before the connection is closed.
    pub partial_frame_timeout: Duration,
    /// After a first failed attempt to connect, the peer is left alone for about this long ...
    pub backoff_min: Duration,
    /// ... doubling with every further failure up to this. Each is varied by a quarter.
    pub backoff_max: Duration,
    /// Calls that may be under way to one peer; more are refused here.
    pub max_calls_per_peer: usize,
    /// Peers that may be known; above it, those without a connection are forgotten.
    pub max_peers: usize,
    /// Requests of one node that may be under way; more are answered `Overloaded`.
    pub max_requests_per_node: usize,
    /// Requests of one client or admin that may be under way; more are answered `Overloaded`.
    pub max_requests_per_client: usize,
    /// Bytes of large requests (above 64 KiB) of all nodes that may be under way, and as much again
    /// of all clients and admins; above it they are answered `Overloaded`.
    pub max_large_request_bytes: usize,
    /// Connections that may be open; further ones are refused.
    pub max_connections: usize,
    /// Handshakes under way from which on a dialler must first prove its address.
    pub handshakes_before_retry: usize,
    /// Handshakes under way from which on further ones are dropped silently.
    pub max_handshakes: usize,
    /// Bytes that may wait to be sent on one stream shared by small frames; callers wait above it.
    pub max_waiting_bytes: usize,
    /// The clock by which certificates are judged.
    pub time: Arc<dyn TimeProvider>,
}

impl EndpointConfig {
    /// For nodes: notices dead peers within five seconds.
    #[must_use]
    pub fn node() -> Self {
        Self {
            idle_timeout: Duration::from_secs(5),
            accepted_idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(1),
            initial_rtt: Duration::from_millis(5),
            handshake_timeout: Duration::from_secs(3),
            partial_frame_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_secs(1),
            max_calls_per_peer: 8192,
            max_peers: 4096,
            max_requests_per_node: 4096,
            max_requests_per_client: 1024,
            max_large_request_bytes: 256 << 20,
            max_connections: 8192,
            handshakes_before_retry: 64,
            max_handshakes: 512,
            max_waiting_bytes: 4 << 20,
            time: Arc::new(DefaultTimeProvider),
        }
    }

    /// For clients: as for nodes, with longer times.
    #[must_use]
    pub fn client() -> Self {
        Self {
            idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(10),
            initial_rtt: Duration::from_millis(100),
            ..Self::node()
        }
    }
}
