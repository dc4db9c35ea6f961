//! Bare QUIC peers that hold good certificates and send what they like.

use std::net::SocketAddr;
use std::sync::Arc;

use kv_net::frame::{HEADER_BYTES, Header, Kind, MAX_PAYLOAD_BYTES, VERSION};
use kv_net::{ALPN, Class};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{DigitallySignedStruct, SignatureScheme};

use crate::support::loopback;

/// A certificate chain and its key in PEM.
pub(crate) struct Pem {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Pem {
    fn parts(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .expect("certificates");
        (
            chain,
            PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key"),
        )
    }
}

/// Dials with any protocol name, and with or without a certificate.
pub(crate) async fn dial(
    address: SocketAddr,
    pem: Option<&Pem>,
    alpn: &[u8],
) -> Result<Connection, ConnectionError> {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(BelieveAnyone));
    let mut tls = match pem.map(Pem::parts) {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("a pair"),
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    let crypto = QuicClientConfig::try_from(tls).expect("usable by QUIC");
    let endpoint = quinn::Endpoint::client(loopback()).expect("a socket");
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    endpoint
        .connect_with(config, address, "any.kv")
        .expect("an address")
        .await
}

/// Listens with any certificate, also one that no honest endpoint would listen with.
pub(crate) fn listen(pem: &Pem) -> quinn::Endpoint {
    let (chain, key) = pem.parts();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicServerConfig::try_from(tls).expect("usable by QUIC");
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    quinn::Endpoint::server(config, loopback()).expect("a free port")
}

/// A well-formed hello of a lane.
pub(crate) fn hello(class: Class) -> Vec<u8> {
    let mut bytes = header(Kind::Hello, class.number(), 1).to_bytes().to_vec();
    bytes.push(0); // no features
    bytes
}

pub(crate) fn header(kind: Kind, method: u16, len: u32) -> Header {
    Header {
        len,
        kind,
        version: VERSION,
        method,
        id: 5,
        deadline_ms: 10_000,
    }
}

/// Opens the control lane as an honest dialler does, and returns once the other side has answered.
pub(crate) async fn open_control_lane(connection: &Connection) -> (SendStream, RecvStream) {
    let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
    send.write_all(&hello(Class::Control)).await.expect("open");
    let answer = read_frame(&mut receive).await.expect("a hello");
    assert_eq!(answer.0.kind, Kind::Hello);
    (send, receive)
}

/// The next frame of a stream, if there is one.
pub(crate) async fn read_frame(stream: &mut RecvStream) -> Option<(Header, Vec<u8>)> {
    let mut head = [0; HEADER_BYTES];
    stream.read_exact(&mut head).await.ok()?;
    let header = Header::parse(&head, MAX_PAYLOAD_BYTES).expect("a header");
    let mut payload = vec![0; header.payload_bytes()];
    stream.read_exact(&mut payload).await.ok()?;
    Some((header, payload))
}

/// The code that the other side closed the connection with.
pub(crate) async fn close_code(connection: &Connection) -> u64 {
    match connection.closed().await {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("closed in another way: {other}"),
    }
}

#[derive(Debug)]
struct BelieveAnyone;

impl ServerCertVerifier for BelieveAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
