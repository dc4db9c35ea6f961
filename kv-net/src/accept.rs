//! The accepting side of an endpoint: who is let in, and how much of a flood is borne.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quinn::{Connecting, ConnectionError, Incoming};

use crate::session::{Session, Shared};
use crate::streams::CloseCode;
use crate::{dial, transport, trust, x509};

/// Accepts connections until the endpoint is closed.
///
/// A handshake costs this side most of a millisecond of CPU, so diallers that have not proven their
/// address are sent away for a token once many are under way (QUIC's Retry), and beyond a second
/// limit their packets are dropped without an answer.
pub(crate) async fn accept(endpoint: quinn::Endpoint, shared: Arc<Shared>) {
    let handshakes = Arc::new(AtomicUsize::new(0));
    while let Some(incoming) = endpoint.accept().await {
        let under_way = handshakes.load(Ordering::Relaxed);
        if shared.load.is_draining() {
            incoming.refuse();
        } else if endpoint.open_connections() >= shared.config.max_connections {
            let limit = shared.config.max_connections;
            shared
                .counters
                .refuse(&format!("{limit} connections are open"));
            incoming.refuse();
        } else if under_way >= shared.config.max_handshakes {
            shared.counters.refused();
            incoming.ignore();
        } else if under_way >= shared.config.handshakes_before_retry
            && !incoming.remote_address_validated()
            && incoming.may_retry()
        {
            shared.counters.retried();
            // It was checked that a retry is possible.
            let _ = incoming.retry();
        } else {
            begin(incoming, &handshakes, &shared);
        }
    }
}

fn begin(incoming: Incoming, handshakes: &Arc<AtomicUsize>, shared: &Arc<Shared>) {
    let remote = incoming.remote_address();
    match incoming.accept() {
        Ok(connecting) => {
            let under_way = UnderWay::new(handshakes);
            shared
                .runtime
                .spawn(serve(connecting, under_way, Arc::clone(shared)));
        }
        Err(error) => {
            tracing::debug!(%remote, %error, "a connection attempt failed");
            shared.counters.refuse(&error.to_string());
        }
    }
}

/// Completes the handshake and serves the connection.
async fn serve(connecting: Connecting, under_way: UnderWay, shared: Arc<Shared>) {
    let remote = connecting.remote_address();
    let refuse = |reason: &str| {
        tracing::warn!(%remote, reason, "refused a connection");
        shared.counters.refuse(reason);
    };
    let connection = match shared
        .runtime
        .timeout(shared.config.handshake_timeout, connecting)
        .await
    {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return refuse(&why(&error)),
        Err(_elapsed) => return refuse("the handshake took too long"),
    };
    drop(under_way);
    let identity = dial::leaf_of(&connection).map(|leaf| x509::identity(&leaf));
    let Some(Ok(identity)) = identity else {
        // The verifier let nobody through without an identity.
        connection.close(CloseCode::Protocol.into(), b"no identity");
        return refuse("no identity");
    };
    if identity.node_id().is_some() {
        transport::allow_node(&connection);
    }
    shared.counters.accepted();
    tracing::debug!(%remote, peer = %identity.role, "accepted a connection");
    Arc::new(Session::new(connection, identity, shared))
        .run()
        .await;
}

/// Says why a handshake failed: what we hold against the peer, or the peer against us.
fn why(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TransportError(error) => trust::readable(&error.reason),
        ConnectionError::ConnectionClosed(close) => {
            let reason = trust::readable(&String::from_utf8_lossy(&close.reason));
            format!("the dialling side refuses our certificate: {reason}")
        }
        error @ (ConnectionError::VersionMismatch
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted) => error.to_string(),
    }
}

/// Counts one handshake while it is under way.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
