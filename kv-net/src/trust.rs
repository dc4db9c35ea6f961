//! Whether a certificate is believed, and whom it makes its holder.
//!
//! Invariants
//! 1. A peer is believed only if its chain ends at a trusted authority *now*, its certificate has
//!    exactly one URI name, that name is an identity, and the identity is of our cluster.
//! 2. A peer that we dialled is believed only if it is moreover a node, and the one we meant.
//! 3. Every reason to refuse has a text of its own, which both sides see.

use core::fmt;
use std::sync::Arc;

use kv_types::{ClusterId, NodeId, planted};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier};
use rustls::{CertificateError as TlsCertificateError, OtherError, RootCertStore};

use crate::credentials::Credentials;
use crate::identity::{Identity, Role};
use crate::tls;
use crate::x509::{self, NoIdentity};

/// The authorities and the cluster that an endpoint believes at one time.
#[derive(Debug)]
pub(crate) struct Trust {
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
    cluster: ClusterId,
}

impl Trust {
    pub(crate) fn of(credentials: &Credentials) -> Self {
        let provider = tls::provider();
        let roots = Arc::clone(credentials.roots());
        let algorithms = provider.signature_verification_algorithms;
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider)
            .build()
            .expect("credentials hold at least one authority, and no revocation list is given");
        Self {
            roots,
            clients,
            algorithms,
            cluster: credentials.identity().cluster,
        }
    }

    /// Judges a peer that dialled us.
    pub(crate) fn judge_dialler(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Identity, Refusal> {
        if planted!("believe any dialler") {
            return self.identity(leaf);
        }
        self.clients
            .verify_client_cert(leaf, chain, now)
            .map_err(|e| Refusal::chain(e, leaf))?;
        self.identity(leaf)
    }

    /// Judges a peer that we dialled, and meant to be `expected`.
    pub(crate) fn judge_dialled(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        expected: Option<NodeId>,
    ) -> Result<NodeId, Refusal> {
        ParsedCertificate::try_from(leaf)
            .and_then(|parsed| {
                let (roots, algorithms) = (&self.roots, self.algorithms.all);
                verify_server_cert_signed_by_trust_anchor(&parsed, roots, chain, now, algorithms)
            })
            .map_err(|error| Refusal::chain(error, leaf))?;
        let identity = self.identity(leaf)?;
        let found = identity.node_id().ok_or(Refusal::NotNode {
            role: identity.role,
        })?;
        match expected {
            Some(expected) if expected != found => Err(Refusal::OtherNode { expected, found }),
            _ => Ok(found),
        }
    }

    fn identity(&self, leaf: &CertificateDer<'_>) -> Result<Identity, Refusal> {
        let identity = x509::identity(leaf)?;
        if identity.cluster != self.cluster {
            return Err(Refusal::OtherCluster {
                ours: self.cluster,
                theirs: identity.cluster,
            });
        }
        Ok(identity)
    }
}

/// Why a certificate was not believed. No connection was made and nothing was sent over it.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No trusted authority issued it: use certificates of the same authority on both sides.
    #[error(
        "the certificate was not issued by an authority trusted here: compare ca.pem on both \
         sides, or issue a certificate with `kv-node cert`"
    )]
    OtherAuthority,
    /// It was good once: issue a new one.
    #[error("the certificate expired {seconds_ago} s ago: issue a new one with `kv-node cert`")]
    Expired {
        /// For how long it has not been good.
        seconds_ago: u64,
    },
    /// It is not good yet: correct the clocks, or wait.
    #[error("the certificate is good only in {in_seconds} s: check the clocks of both machines")]
    NotYetValid {
        /// How long until it is good.
        in_seconds: u64,
    },
    /// A peer that is dialled must be a node: use a node's certificate there.
    #[error(
        "a certificate of {role} was used as a node's: start the node with the certificate that \
         `kv-node cert` made for it"
    )]
    NotNode {
        /// What it says instead.
        role: Role,
    },
    /// It belongs to another cluster: check the address and the certificates.
    #[error("the certificate is of cluster {theirs}, and this is cluster {ours}")]
    OtherCluster {
        /// The refusing side's cluster.
        ours: ClusterId,
        /// The certificate's cluster.
        theirs: ClusterId,
    },
    /// Another node than expected answers at the address: refresh the addresses.
    #[error("node {found} answers at this address, and node {expected} was expected")]
    OtherNode {
        /// Whom the dialling side meant.
        expected: NodeId,
        /// Who answered.
        found: NodeId,
    },
    /// It has no identity of kv: issue a new one.
    #[error("{0}: issue a certificate with `kv-node cert`")]
    NoIdentity(#[from] NoIdentity),
    /// It is refused for a reason that TLS gives.
    #[error("the certificate is refused: {reason}")]
    Tls {
        /// The reason.
        reason: String,
    },
}

impl Refusal {
    /// Names what chain validation found.
    fn chain(error: rustls::Error, leaf: &CertificateDer<'_>) -> Self {
        let rustls::Error::InvalidCertificate(error) = error else {
            return Self::Tls {
                reason: error.to_string(),
            };
        };
        match error {
            TlsCertificateError::UnknownIssuer | TlsCertificateError::BadSignature => {
                Self::OtherAuthority
            }
            TlsCertificateError::ExpiredContext { time, not_after } => Self::Expired {
                seconds_ago: time.as_secs().saturating_sub(not_after.as_secs()),
            },
            TlsCertificateError::NotValidYetContext { time, not_before } => Self::NotYetValid {
                in_seconds: not_before.as_secs().saturating_sub(time.as_secs()),
            },
            TlsCertificateError::InvalidPurpose
            | TlsCertificateError::InvalidPurposeContext { .. } => match x509::identity(leaf) {
                Ok(identity) => Self::NotNode {
                    role: identity.role,
                },
                Err(error) => Self::NoIdentity(error),
            },
            other => Self::Tls {
                reason: other.to_string(),
            },
        }
    }
}

/// The message itself, not the structure: the TLS library shows its peers, over the wire, the debug
/// form of errors that are not its own.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Refusal> for rustls::Error {
    fn from(refusal: Refusal) -> Self {
        Self::InvalidCertificate(TlsCertificateError::Other(OtherError(Arc::new(refusal))))
    }
}

/// The text of a refusal out of what TLS made of it, ours or the peer's.
pub(crate) fn readable(reason: &str) -> String {
    reason
        .strip_prefix("invalid peer certificate: Other(OtherError(")
        .and_then(|rest| rest.strip_suffix("))"))
        .unwrap_or(reason)
        .to_owned()
}

/// The server name that a dialler sends: who it means, in the form of a host name.
pub(crate) fn server_name(expected: Option<NodeId>) -> String {
    match expected {
        Some(node) => format!("{node}.kv"),
        None => "any.kv".to_owned(),
    }
}

/// Whom [`server_name`] meant.
pub(crate) fn expected_node(name: &ServerName<'_>) -> Result<Option<NodeId>, Refusal> {
    let text = name.to_str();
    match text.strip_suffix(".kv") {
        Some("any") => Ok(None),
        Some(id) if id.parse::<NodeId>().is_ok() => Ok(id.parse().ok()),
        _ => Err(Refusal::Tls {
            reason: format!("`{text}` names no node"),
        }),
    }
}
