//! QUIC settings, and the UDP socket.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use quinn_proto::{HashedConnectionIdGenerator, TimeSource};
use rustls::time_provider::TimeProvider;

use crate::config::EndpointConfig;
use crate::credentials::Credentials;
use crate::tls::{self, Current};

/// The largest UDP payload, found by probing the path from 1200 upwards.
///
/// quinn hands the kernel ten packets at a time, and the kernel takes 65,507 bytes at most. Above
/// 6,550 it refuses every full batch, which quinn does not notice: measured, 6,500 moves 692 MB/s
/// and 6,600 moves 5.7.
const MAX_UDP_PAYLOAD_BYTES: u16 = 6500;
const _: () = assert!(MAX_UDP_PAYLOAD_BYTES as u32 * 10 <= 65_507);

/// Large responses to small requests that may be under way.
const LARGE_RESPONSES: u32 = 4;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// How much an accepted peer may have under way.
struct Allowance {
    /// Three lanes, and large requests.
    streams: u32,
    /// Above the sum of all streams' windows, so that large requests never stop the lanes.
    window_bytes: u32,
}

/// What every dialler has at first, and clients keep: three large requests.
const CLIENT: Allowance = Allowance {
    streams: 6,
    window_bytes: 8 << 20,
};
/// What nodes have: eight large requests.
const NODE: Allowance = Allowance {
    streams: 11,
    window_bytes: 16 << 20,
};
const _: () = assert!(CLIENT.streams * STREAM_WINDOW_BYTES < CLIENT.window_bytes);
const _: () = assert!(NODE.streams * STREAM_WINDOW_BYTES < NODE.window_bytes);
const _: () = assert!(LARGE_RESPONSES * STREAM_WINDOW_BYTES < CLIENT.window_bytes);

const DATAGRAM_BUFFER_BYTES: usize = 256 << 10;

/// The accepting side.
pub(crate) fn server(current: &Arc<Current>, config: &EndpointConfig) -> quinn::ServerConfig {
    let tls =
        tls::server_config(current, Arc::clone(&config.time)).expect("the provider speaks TLS 1.3");
    let crypto = QuicServerConfig::try_from(tls).expect("the provider has AES-128-GCM");
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    // Connections are kept alive by their dialler alone.
    server.transport_config(Arc::new(transport(
        config,
        config.accepted_idle_timeout,
        None,
    )));
    server.time_source(Arc::new(TokenTime(Arc::clone(&config.time))));
    server.migration(false);
    server.max_incoming(1024);
    server.incoming_buffer_size(64 << 10);
    server.incoming_buffer_size_total(16 << 20);
    server
}

/// The clock by which address tokens expire: the one by which certificates are judged.
struct TokenTime(Arc<dyn TimeProvider>);

impl TimeSource for TokenTime {
    fn now(&self) -> SystemTime {
        let now = self.0.current_time();
        SystemTime::UNIX_EPOCH + Duration::from_secs(now.map_or(0, |now| now.as_secs()))
    }
}

/// The dialling side.
pub(crate) fn client(current: &Arc<Current>, config: &EndpointConfig) -> quinn::ClientConfig {
    let tls =
        tls::client_config(current, Arc::clone(&config.time)).expect("the provider speaks TLS 1.3");
    let crypto = QuicClientConfig::try_from(tls).expect("the provider has AES-128-GCM");
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    let transport = transport(config, config.idle_timeout, Some(config.keep_alive));
    client.transport_config(Arc::new(transport));
    client
}

/// What all connections of an endpoint share.
///
/// Keys come from the private key, so they are the same after a restart: a restarted node then
/// tells its peers at once, by a stateless reset, that it knows nothing of their old connections.
pub(crate) fn endpoint(credentials: &Credentials) -> quinn::EndpointConfig {
    let reset = credentials.derive_secret("kv stateless reset");
    let reset = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &reset);
    let mut endpoint = quinn::EndpointConfig::new(Arc::new(reset));
    let [a, b, c, d, e, f, g, h, ..] = credentials.derive_secret("kv connection id");
    let cid_key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(cid_key)));
    endpoint
        .max_udp_payload_size(MAX_UDP_PAYLOAD_BYTES)
        .expect("at least 1200, which is the least that QUIC allows");
    endpoint
}

/// Lets an accepted node have more under way than a client may.
pub(crate) fn allow_node(connection: &quinn::Connection) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(NODE.streams));
    connection.set_receive_window(VarInt::from_u32(NODE.window_bytes));
}

fn transport(
    config: &EndpointConfig,
    idle_timeout: Duration,
    keep_alive: Option<Duration>,
) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MAX_UDP_PAYLOAD_BYTES);
    // Fewer acknowledgements: the same rate for a third less CPU when the cores are busy.
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(10));
    acks.max_ack_delay(Some(Duration::from_millis(5)));
    let idle = IdleTimeout::try_from(idle_timeout).unwrap_or_else(|_| VarInt::MAX.into());

    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(CLIENT.streams))
        .max_concurrent_uni_streams(VarInt::from_u32(LARGE_RESPONSES))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CLIENT.window_bytes))
        .send_window(u64::from(NODE.window_bytes))
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(keep_alive)
        .initial_rtt(config.initial_rtt)
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(acks))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES);
    transport
}

/// A socket for an endpoint that only dials: IPv6 and IPv4 at once, or IPv4 where there is no IPv6.
pub(crate) fn ephemeral_socket() -> io::Result<UdpSocket> {
    UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
        .or_else(|_| UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))
}
