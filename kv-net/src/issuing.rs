//! How a new node gets its certificate over the wire: it asks whoever holds the authority's key, with a secret that is good once.
//!
//! The connection is QUIC with TLS 1.3, both sides authenticated, as everywhere. But the node has no certificate of the cluster
//! yet. So it shows one that it has signed itself, with the key that follows from the secret, and the issuer believes no other
//! key; and it believes an issuer whose certificate was issued by the authority that it knows by fingerprint.
//! `docs/formats/issuing.md`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use kv_types::NodeId;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError as TlsCertificateError, ClientConfig, DigitallySignedStruct,
    DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};

use crate::certificate::{CertificateAuthority, CertificateError, KeyPair, Validity};
use crate::credentials::fingerprint;
use crate::identity::Identity;
use crate::runtime::Runtime;
use crate::{tls, x509};

/// The protocol's name in TLS.
pub const ALPN: &[u8] = b"kv-issue/1";
/// The issuer's id, which no member has.
pub const NOBODY: NodeId = NodeId(0);
/// The longest request, and the longest answer.
pub const MAX_BYTES: usize = 64 << 10;

/// An Ed25519 private key in PKCS #8, but for the key (RFC 8410, section 7).
const ED25519_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// The name in certificates that a key signs itself; nobody looks at it.
const SUBJECT: &str = "kv-issue";
const SIGNED: u8 = 0;
const REFUSED: u8 = 1;
/// How long a peer may take for the rest of what it says.
const PATIENCE: Duration = Duration::from_secs(10);

/// What lets one node ask for one certificate: a private key, which is never sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// The key that follows from it.
    fn key(&self) -> PrivateKeyDer<'static> {
        let der = [&ED25519_PREFIX[..], &self.0].concat();
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der))
    }

    fn pair(&self) -> Result<rcgen::KeyPair, IssuingError> {
        rcgen::KeyPair::try_from(&self.key()).map_err(|error| unusable(&error))
    }

    /// The public half, as a certificate encodes it.
    fn public_key(&self) -> Result<Vec<u8>, IssuingError> {
        use rcgen::PublicKeyData as _;
        Ok(self.pair()?.subject_public_key_info())
    }

    /// A certificate that the key signs itself.
    fn certificate(&self) -> Result<CertificateDer<'static>, IssuingError> {
        let pair = self.pair()?;
        let params = rcgen::CertificateParams::new(vec![SUBJECT.to_owned()]);
        let made = params.and_then(|params| params.self_signed(&pair));
        made.map(Into::into).map_err(|error| unusable(&error))
    }
}

/// Who answers requests: by the number of the secret that was shown, with what is sent back, or with why not.
pub type Answering =
    Arc<dyn Fn(usize, Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> + Send + Sync>;

/// The issuer's end: it listens until it is dropped.
#[derive(Debug)]
pub struct Issuing {
    runtime: Runtime,
    endpoint: quinn::Endpoint,
    keys: Arc<[Vec<u8>]>,
}

impl Issuing {
    /// Listens, with a certificate that the authority issues for this, good for `lifetime` from `now` on.
    ///
    /// # Errors
    /// [`IssuingError`] when the authority cannot issue it, or the address is taken.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn bind(
        listen: SocketAddr,
        authority: &CertificateAuthority,
        secrets: &[Secret],
        (now, lifetime): (SystemTime, Duration),
    ) -> Result<Self, IssuingError> {
        let key = KeyPair::generate()?;
        // A node's certificate is the only kind that is good at this end.
        let identity = Identity::node(authority.cluster(), NOBODY);
        let valid = Validity::starting(now, lifetime);
        let leaf = authority.issue(&identity, &key.public_key(), valid)?;
        let chain = [leaf.as_str(), authority.certificate_pem()]
            .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).expect("it was just made"));
        let key = PrivateKeyDer::from_pem_slice(key.to_pem().as_bytes()).expect("just made");
        let keys: Result<Vec<_>, _> = secrets.iter().map(Secret::public_key).collect();
        let keys: Arc<[Vec<u8>]> = keys?.into();
        let believed = Arc::new(OneOf(Arc::clone(&keys)));
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&TLS13])
            .and_then(|config| {
                config
                    .with_client_cert_verifier(believed)
                    .with_single_cert(chain.to_vec(), key)
            })
            .map_err(|error| unusable(&error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        let crypto = QuicServerConfig::try_from(config).expect("the provider has AES-128-GCM");
        let server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint =
            quinn::Endpoint::server(server, listen).map_err(|source| IssuingError::Address {
                address: listen,
                source,
            })?;
        Ok(Self {
            runtime: tokio_runtime(),
            endpoint,
            keys,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the socket says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Answers those who show one of the secrets, one request on each connection, for as long as it is polled.
    pub async fn serve(&self, answering: Answering) {
        while let Some(incoming) = self.endpoint.accept().await {
            let (answering, keys) = (Arc::clone(&answering), Arc::clone(&self.keys));
            let runtime = self.runtime.clone();
            self.runtime.spawn(async move {
                let answered = async {
                    let connection = incoming.await?;
                    let answered = answer(&connection, &keys, answering);
                    let in_time = runtime.timeout(PATIENCE, answered).await;
                    in_time.map_err(|_| "it took too long")?
                };
                if let Err(error) = answered.await {
                    tracing::info!(%error, "somebody who wanted a certificate was not answered");
                }
            });
        }
    }
}

async fn answer(
    connection: &Connection,
    keys: &[Vec<u8>],
    answering: Answering,
) -> Result<(), Box<dyn core::error::Error + Send + Sync>> {
    let shown = shown_key(connection).ok_or("no certificate was shown")?;
    let number = keys.iter().position(|key| *key == shown);
    let number = number.ok_or("the key is not that of a ticket")?;
    let (mut send, mut receive) = connection.accept_bi().await?;
    let request = receive.read_to_end(MAX_BYTES).await?;
    let (kind, text) = match answering(number, request).await {
        Ok(answer) => (SIGNED, answer),
        Err(why) => (REFUSED, why.into_bytes()),
    };
    send.write_all(&[kind]).await?;
    send.write_all(&text).await?;
    send.finish()?;
    // Whoever asked closes once it has all.
    let _ = connection.closed().await;
    Ok(())
}

fn tokio_runtime() -> Runtime {
    Runtime::new(Arc::new(quinn::TokioRuntime))
}

fn shown_key(connection: &Connection) -> Option<Vec<u8>> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    x509::facts(chain.first()?)
        .ok()
        .map(|facts| facts.public_key)
}

/// Asks an issuer once, and gives what it answers.
///
/// # Errors
/// [`IssuingError`]. When the answer was lost, the same request can be sent again.
///
/// # Panics
/// Outside of a tokio runtime.
pub async fn ask(
    issuer: SocketAddr,
    authority: [u8; 32],
    secret: &Secret,
    request: &[u8],
    patience: Duration,
) -> Result<Vec<u8>, IssuingError> {
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&TLS13])
        .and_then(|config| {
            config
                .dangerous() // the name for "with a verifier of our own"
                .with_custom_certificate_verifier(Arc::new(Pinned(authority)))
                .with_client_auth_cert(vec![secret.certificate().map_err(general)?], secret.key())
        });
    let mut config = config.map_err(|error| unusable(&error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicClientConfig::try_from(config).expect("the provider has AES-128-GCM");
    let unreachable = |what: String| IssuingError::Unreachable { issuer, what };
    let from = match issuer {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
    };
    let endpoint = quinn::Endpoint::client(from).map_err(|error| unreachable(error.to_string()))?;
    let asking = async {
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let connecting = endpoint.connect_with(config, issuer, SUBJECT);
        let connection = connecting.map_err(|error| error.to_string())?;
        let connection = connection.await.map_err(|error| error.to_string())?;
        let heard = async {
            let (mut send, mut receive) = connection.open_bi().await?;
            send.write_all(request).await?;
            send.finish()?;
            let answer = receive.read_to_end(MAX_BYTES + 1).await?;
            Ok::<_, Box<dyn core::error::Error + Send + Sync>>(answer)
        };
        let heard = heard.await.map_err(|error| error.to_string());
        connection.close(VarInt::from_u32(0), b"");
        heard
    };
    let runtime = tokio_runtime();
    let asked = runtime.timeout(patience, asking).await;
    let answer = match asked {
        Ok(answer) => answer.map_err(unreachable)?,
        Err(_) => return Err(unreachable(format!("no answer within {patience:?}"))),
    };
    // So that it hears that it is closed.
    let _ = runtime.timeout(patience, endpoint.wait_idle()).await;
    match answer.split_first() {
        Some((&SIGNED, answer)) => Ok(answer.to_vec()),
        Some((&REFUSED, why)) => Err(IssuingError::Refused {
            why: String::from_utf8_lossy(why).into_owned(),
        }),
        _ => Err(unreachable("its answer makes no sense".to_owned())),
    }
}

/// Believes whoever has one of these keys, whatever else its certificate says.
#[derive(Debug)]
struct OneOf(Arc<[Vec<u8>]>);

impl ClientCertVerifier for OneOf {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let facts = x509::facts(leaf).map_err(Error::General)?;
        if !self.0.contains(&facts.public_key) {
            return Err(TlsCertificateError::UnknownIssuer.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls::refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls::verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::schemes()
    }
}

/// Believes whom the authority with this fingerprint has issued a certificate for [`NOBODY`]. Its certificate comes with the chain.
#[derive(Debug)]
struct Pinned([u8; 32]);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = chain.iter().find(|it| fingerprint(it) == self.0);
        let authority = authority.ok_or(TlsCertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let algorithms = tls::provider().signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms)?;
        let identity = x509::identity(leaf).map_err(|error| Error::General(error.to_string()))?;
        if identity.node_id() != Some(NOBODY) {
            return Err(Error::General(format!("{} is no issuer", identity.role)));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls::refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls::verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::schemes()
    }
}

/// Why no certificate was asked for or issued.
#[derive(Debug, thiserror::Error)]
pub enum IssuingError {
    /// The issuer refuses; it says why.
    #[error("the issuer refuses: {why}")]
    Refused {
        /// What it says.
        why: String,
    },
    /// The issuer was not reached, or is not the one that the ticket is from; try again, or sign by hand.
    #[error("the issuer at {issuer} did not answer: {what}")]
    Unreachable {
        /// Where it was to be.
        issuer: SocketAddr,
        /// What went wrong.
        what: String,
    },
    /// The address cannot be listened on; give another one.
    #[error("cannot listen on {address}: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No certificate can be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A key cannot be used.
    #[error("the key cannot be used: {what}")]
    Unusable {
        /// Why.
        what: String,
    },
}

fn unusable(error: &dyn core::fmt::Display) -> IssuingError {
    IssuingError::Unusable {
        what: error.to_string(),
    }
}

fn general(error: IssuingError) -> Error {
    Error::General(error.to_string())
}
