//! The cluster's certificate authority, key pairs, and the certificates it issues.
//!
//! Nothing here reads a clock: times are arguments. Making a key pair draws from the operating
//! system's randomness; everything else is deterministic.

use core::fmt;
use std::time::{Duration, SystemTime};

use kv_types::ClusterId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::identity::{Identity, IdentityError, Role};
use crate::x509;

/// From when to when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// How far certificates are dated back, so that peers whose clocks lag accept them at once.
    pub const BACK_DATING: Duration = Duration::from_secs(5 * 60);

    /// From five minutes before `now` until `lifetime` after it.
    #[must_use]
    pub fn starting(now: SystemTime, lifetime: Duration) -> Self {
        Self {
            not_before: now - Self::BACK_DATING,
            not_after: now + lifetime,
        }
    }
}

/// A private key with its public half: ECDSA on P-256.
pub struct KeyPair(rcgen::KeyPair);

impl KeyPair {
    /// Makes a new key from the operating system's randomness.
    ///
    /// # Errors
    /// [`CertificateError::Crypto`] when the operating system gives no randomness.
    pub fn generate() -> Result<Self, CertificateError> {
        Ok(Self(rcgen::KeyPair::generate_for(
            &rcgen::PKCS_ECDSA_P256_SHA256,
        )?))
    }

    /// Reads a private key in PEM (PKCS #8).
    ///
    /// # Errors
    /// [`CertificateError::Crypto`] when the text is not a private key that ring supports.
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        Ok(Self(rcgen::KeyPair::from_pem(pem)?))
    }

    /// The private key in PEM. Write it with [`crate::credentials::write_private`].
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// The public half, which a certificate is issued for.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey {
            pem: self.0.public_key_pem(),
            info: SubjectPublicKeyInfo::from_der(&self.0.subject_public_key_info())
                .expect("the encoding of a key that was just parsed or made"),
        }
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair(..)")
    }
}

/// A public key: what the holder of a private key hands to the authority.
#[derive(Debug, Clone)]
pub struct PublicKey {
    pem: String,
    info: SubjectPublicKeyInfo,
}

impl PublicKey {
    /// Reads a public key in PEM.
    ///
    /// # Errors
    /// [`CertificateError::Crypto`] when the text is not a public key of a supported kind.
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        Ok(Self {
            info: SubjectPublicKeyInfo::from_pem(pem)?,
            pem: pem.to_owned(),
        })
    }

    /// The key in PEM.
    #[must_use]
    pub fn to_pem(&self) -> &str {
        &self.pem
    }
}

/// What says who belongs to a cluster: a self-signed certificate with its private key.
///
/// It belongs to the operator, not onto the nodes.
pub struct CertificateAuthority {
    cluster: ClusterId,
    certificate_pem: String,
    not_after: SystemTime,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

impl CertificateAuthority {
    /// Makes the authority of a cluster, with a new key.
    ///
    /// # Errors
    /// [`CertificateError`] when the validity is empty or no key can be made.
    pub fn create(
        cluster: ClusterId,
        common_name: &str,
        valid: Validity,
    ) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?.0;
        let mut params = parameters(common_name, valid)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri_name(&authority_uri(cluster))?];
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            cluster,
            certificate_pem: certificate.pem(),
            not_after: valid.not_after,
            issuer: Issuer::new(params, key),
        })
    }

    /// Reads an authority that [`Self::to_pem`] wrote.
    ///
    /// # Errors
    /// [`CertificateError`] when the texts are damaged, are not of an authority of kv, or do not
    /// belong together.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, CertificateError> {
        let key = rcgen::KeyPair::from_pem(key_pem)?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|error| {
            CertificateError::Malformed {
                what: error.to_string(),
            }
        })?;
        let facts = x509::facts(&der).map_err(|what| CertificateError::Malformed { what })?;
        let cluster = authority_cluster(&facts).ok_or(CertificateError::NotAuthority)?;
        if facts.public_key != key.subject_public_key_info() {
            return Err(CertificateError::OtherKey);
        }
        Ok(Self {
            cluster,
            certificate_pem: certificate_pem.to_owned(),
            not_after: facts.not_after,
            issuer: Issuer::from_ca_cert_der(&der, key)?,
        })
    }

    /// The cluster that it speaks for.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Its certificate in PEM: what every member and client trusts (`ca.pem`).
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its certificate and its private key in PEM.
    #[must_use]
    pub fn to_pem(&self) -> (String, String) {
        (
            self.certificate_pem.clone(),
            self.issuer.key().serialize_pem(),
        )
    }

    /// Issues a certificate, in PEM, that lets the holder of `key` be `identity`.
    ///
    /// Node certificates are good at both ends of a connection; those of clients and admins only at
    /// the dialling end.
    ///
    /// # Errors
    /// [`CertificateError`] when the identity is of another cluster or has a name that is not
    /// allowed, or when the validity is empty or outlasts the authority's own.
    pub fn issue(
        &self,
        identity: &Identity,
        key: &PublicKey,
        valid: Validity,
    ) -> Result<String, CertificateError> {
        let uri = identity.to_string();
        let _: Identity = uri.parse()?;
        if identity.cluster != self.cluster {
            return Err(CertificateError::OtherCluster {
                own: self.cluster,
                asked: identity.cluster,
            });
        }
        if valid.not_after > self.not_after {
            return Err(CertificateError::OutlivesAuthority);
        }
        let mut params = parameters(&identity.role.to_string(), valid)?;
        params.subject_alt_names = vec![uri_name(&uri)?];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match identity.role {
            Role::Node(_) => {
                vec![
                    ExtendedKeyUsagePurpose::ServerAuth,
                    ExtendedKeyUsagePurpose::ClientAuth,
                ]
            }
            Role::Client(_) | Role::Admin(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial_number(&uri, key, valid));
        Ok(params.signed_by(&key.info, &self.issuer)?.pem())
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateAuthority({})", self.cluster)
    }
}

/// Why no certificate, key or authority was made. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The text is not a certificate; give the right file.
    #[error("not a certificate: {what}")]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
    /// The certificate is not that of an authority made by kv; give the right file.
    #[error("the certificate is not that of a kv authority: make one with `kv-node cert init`")]
    NotAuthority,
    /// Certificate and private key do not belong together; give the right pair.
    #[error("the private key is not the certificate's: give the pair that was made together")]
    OtherKey,
    /// An authority issues for its own cluster only; use that cluster's authority.
    #[error("this authority is of cluster {own} and cannot issue for cluster {asked}")]
    OtherCluster {
        /// The authority's cluster.
        own: ClusterId,
        /// The identity's cluster.
        asked: ClusterId,
    },
    /// The certificate would be good for longer than the authority's; ask for a shorter time.
    #[error("the certificate would outlive its authority: ask for a shorter validity")]
    OutlivesAuthority,
    /// The validity ends before it begins; correct it.
    #[error("the validity ends before it begins")]
    EmptyValidity,
    /// The identity cannot stand in a certificate; correct it.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A key or certificate could not be made or read.
    #[error("the key or certificate cannot be used: {0}")]
    Crypto(#[from] rcgen::Error),
}

fn parameters(common_name: &str, valid: Validity) -> Result<CertificateParams, CertificateError> {
    if valid.not_after <= valid.not_before {
        return Err(CertificateError::EmptyValidity);
    }
    let mut params = CertificateParams::default();
    params.not_before = valid.not_before.into();
    params.not_after = valid.not_after.into();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    Ok(params)
}

fn uri_name(uri: &str) -> Result<SanType, CertificateError> {
    Ok(SanType::URI(uri.try_into()?))
}

/// The only URI name of an authority's certificate.
fn authority_uri(cluster: ClusterId) -> String {
    format!("kv://{cluster}/ca")
}

fn authority_cluster(facts: &x509::Facts) -> Option<ClusterId> {
    let [uri] = facts.uris.as_slice() else {
        return None;
    };
    uri.strip_prefix("kv://")?.strip_suffix("/ca")?.parse().ok()
}

/// A number that no two different certificates of an authority share, drawn from what they say.
fn serial_number(uri: &str, key: &PublicKey, valid: Validity) -> SerialNumber {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    digest.update(uri.as_bytes());
    digest.update(&key.info.subject_public_key_info());
    for time in [valid.not_before, valid.not_after] {
        let since_epoch = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        digest.update(&since_epoch.as_nanos().to_le_bytes());
    }
    let mut serial = [0; 16];
    serial.copy_from_slice(&digest.finish().as_ref()[..16]);
    serial[0] = serial[0] & 0x7f | 0x40; // positive, and never with a leading zero byte
    SerialNumber::from_slice(&serial)
}
