//! TLS as kv uses it: version 1.3 only, both sides authenticated, no resumption, no early data.
//!
//! Resumption is off because a resumed session skips the verification of the client's certificate,
//! and early data is off because it can be replayed. The crypto provider is given explicitly, so
//! nothing depends on a process-wide default. The credentials stand behind an [`ArcSwap`]: they can
//! be replaced at any time, and every later handshake uses the new ones.

use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};

use crate::credentials::Credentials;
use crate::trust::{Trust, expected_node};

/// The protocol's name in TLS. A change that old peers cannot understand gets another name.
pub const ALPN: &[u8] = b"kv/1";

/// The crypto provider: ring, with AES-128-GCM preferred because it is the cheapest of the suites.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = rustls::crypto::ring::default_provider();
        provider
            .cipher_suites
            .retain(|suite| suite.tls13().is_some());
        let is_preferred = |suite: CipherSuite| suite == CipherSuite::TLS13_AES_128_GCM_SHA256;
        provider
            .cipher_suites
            .sort_by_key(|suite| !is_preferred(suite.suite()));
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

/// What an endpoint shows and believes, replaceable while it runs.
#[derive(Debug)]
pub(crate) struct Current(ArcSwap<(Credentials, Trust)>);

impl Current {
    pub(crate) fn new(credentials: Credentials) -> Arc<Self> {
        let trust = Trust::of(&credentials);
        Arc::new(Self(ArcSwap::from_pointee((credentials, trust))))
    }

    /// Uses other credentials for every later handshake.
    pub(crate) fn replace(&self, credentials: Credentials) {
        let trust = Trust::of(&credentials);
        self.0.store(Arc::new((credentials, trust)));
    }

    pub(crate) fn credentials(&self) -> Credentials {
        self.0.load().0.clone()
    }
}

/// The accepting side's configuration.
pub(crate) fn server_config(
    current: &Arc<Current>,
    time: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, Error> {
    let verifier: Arc<dyn ClientCertVerifier> = Arc::new(Verifier(Arc::clone(current)));
    let mut config = ServerConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Shown(Arc::clone(current))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The dialling side's configuration.
pub(crate) fn client_config(
    current: &Arc<Current>,
    time: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, Error> {
    let verifier: Arc<dyn ServerCertVerifier> = Arc::new(Verifier(Arc::clone(current)));
    let mut config = ClientConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&TLS13])?
        .dangerous() // the name for "with a verifier of our own"; see `trust` for what it verifies
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(Shown(Arc::clone(current))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// Shows the current certificate.
#[derive(Debug)]
struct Shown(Arc<Current>);

impl Shown {
    fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(self.0.0.load().0.certified())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Judges peers by the current trust.
#[derive(Debug)]
struct Verifier(Arc<Current>);

pub(crate) fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &provider().signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
}

pub(crate) fn schemes() -> Vec<SignatureScheme> {
    provider()
        .signature_verification_algorithms
        .supported_schemes()
}

pub(crate) fn refuse_tls12() -> Error {
    Error::General("TLS 1.2 is not spoken here".to_owned())
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: a peer has one certificate only, and the authorities may change while we run.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.0.load().1.judge_dialler(leaf, chain, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let expected = expected_node(name)?;
        self.0
            .0
            .load()
            .1
            .judge_dialled(leaf, chain, now, expected)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
