//! Making a connection: the handshake, the hello, and what is said when one of them fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kv_types::NodeId;
use quinn::{Connection, ConnectionError};
use rustls::pki_types::CertificateDer;

use crate::call::DialError;
use crate::config::EndpointConfig;
use crate::frame::{FrameError, Kind};
use crate::hello::HelloV1;
use crate::link::Link;
use crate::method::Class;
use crate::runtime::Runtime;
use crate::streams::{CloseCode, LaneReader};
use crate::{trust, x509};

/// Dials, and returns once the node has introduced itself: only then it has accepted our
/// certificate, which TLS 1.3 alone does not tell the dialling side.
pub(crate) async fn dial(
    endpoint: &quinn::Endpoint,
    client: quinn::ClientConfig,
    address: SocketAddr,
    expected: Option<NodeId>,
    config: &EndpointConfig,
    runtime: &Runtime,
) -> Result<Arc<Link>, DialError> {
    let connecting = endpoint
        .connect_with(client, address, &trust::server_name(expected))
        .map_err(|error| DialError::Local {
            reason: error.to_string(),
        })?;
    let dialling = async {
        let connection = connecting.await.map_err(dial_error)?;
        open(connection, config, runtime).await
    };
    let waited = config.handshake_timeout;
    match runtime.timeout(waited, dialling).await {
        Err(_) | Ok(Err(DialError::NoAnswer { .. })) => Err(DialError::NoAnswer { waited }),
        Ok(result) => result,
    }
}

/// Opens the lanes of a fresh connection, the control lane first.
async fn open(
    connection: Connection,
    config: &EndpointConfig,
    runtime: &Runtime,
) -> Result<Arc<Link>, DialError> {
    let node = node_of(&connection)?;
    let link = Link::new(connection.clone(), node, config, runtime);
    let mut lanes = Vec::with_capacity(Class::ALL.len());
    for class in Class::ALL {
        let mut lane = link.open_lane(class, config).await.map_err(dial_error)?;
        if class == Class::Control {
            await_hello(&connection, &mut lane).await?;
        }
        lanes.push(lane);
    }
    link.start(lanes);
    Ok(Arc::new(link))
}

async fn await_hello(connection: &Connection, lane: &mut LaneReader) -> Result<(), DialError> {
    let reason = match lane.next_frame().await {
        Ok(frame) if frame.header.kind == Kind::Hello => match HelloV1::read(&frame.payload) {
            Ok(_) => return Ok(()),
            Err(error) => error.to_string(),
        },
        Ok(frame) => FrameError::OutOfPlace {
            kind: frame.header.kind,
        }
        .to_string(),
        // What closed the connection says more than what ended the stream.
        Err(error) => match connection.close_reason() {
            Some(reason) => return Err(dial_error(reason)),
            None => error.to_string(),
        },
    };
    connection.close(CloseCode::Protocol.into(), reason.as_bytes());
    Err(DialError::Closed { reason })
}

fn node_of(connection: &Connection) -> Result<NodeId, DialError> {
    leaf_of(connection)
        .and_then(|leaf| x509::identity(&leaf).ok())
        .and_then(|identity| identity.node_id())
        .ok_or_else(|| DialError::Untrusted {
            reason: "it names no node".to_owned(),
        })
}

/// The certificate that the peer showed, and that was verified in the handshake.
pub(crate) fn leaf_of(connection: &Connection) -> Option<CertificateDer<'static>> {
    let chain = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    chain.into_iter().next()
}

/// Says what a failed handshake was.
fn dial_error(error: ConnectionError) -> DialError {
    match error {
        ConnectionError::TransportError(error) if is_tls_alert(error.code) => {
            DialError::Untrusted {
                reason: trust::readable(&error.reason),
            }
        }
        ConnectionError::TransportError(error) => DialError::Closed {
            reason: error.to_string(),
        },
        ConnectionError::ConnectionClosed(close) => {
            let reason = trust::readable(&String::from_utf8_lossy(&close.reason));
            if is_tls_alert(close.error_code) {
                DialError::Rejected { reason }
            } else {
                DialError::Closed {
                    reason: format!("{} {reason}", close.error_code),
                }
            }
        }
        ConnectionError::ApplicationClosed(close) => DialError::Closed {
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        ConnectionError::TimedOut => DialError::NoAnswer {
            waited: Duration::ZERO,
        },
        error @ (ConnectionError::VersionMismatch
        | ConnectionError::Reset
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted) => DialError::Closed {
            reason: error.to_string(),
        },
    }
}

/// QUIC carries TLS alerts as error codes 0x100 to 0x1ff (RFC 9001, section 4.8).
fn is_tls_alert(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}
