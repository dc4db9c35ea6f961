//! What an endpoint shows and trusts: its certificate chain, its private key, and the authorities.

use core::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::sign::CertifiedKey;

use crate::identity::Identity;
use crate::x509;

/// The file of the trusted authorities in a directory of credentials.
pub const CA_FILE: &str = "ca.pem";
/// The file of the own certificate chain.
pub const CERTIFICATE_FILE: &str = "cert.pem";
/// The file of the own private key, readable by its owner only.
pub const KEY_FILE: &str = "key.pem";

/// A certificate chain with its private key, and the authorities whose certificates are believed.
///
/// Cheap to clone. Several authorities may be trusted at once, which is how one replaces another.
#[derive(Clone)]
pub struct Credentials {
    certified: Arc<CertifiedKey>,
    key_der: Arc<PrivateKeyDer<'static>>,
    roots: Arc<RootCertStore>,
    /// SHA-256 of each of them.
    authorities: Arc<[[u8; 32]]>,
    identity: Identity,
    not_after: SystemTime,
}

impl Credentials {
    /// Loads `ca.pem`, `cert.pem` and `key.pem` from a directory.
    ///
    /// # Errors
    /// [`CredentialsError`], which names the file and the next step.
    pub fn load(directory: &Path) -> Result<Self, CredentialsError> {
        Self::load_files(
            &directory.join(CA_FILE),
            &directory.join(CERTIFICATE_FILE),
            &directory.join(KEY_FILE),
        )
    }

    /// Loads the three files from anywhere.
    ///
    /// # Errors
    /// [`CredentialsError`], which names the file and the next step.
    pub fn load_files(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, CredentialsError> {
        warn_if_others_can_read(key);
        Self::build(
            &Source::read(ca)?,
            &Source::read(certificate)?,
            &Source::read(key)?,
        )
    }

    /// Takes the three texts in PEM.
    ///
    /// # Errors
    /// [`CredentialsError`], which names the part (`ca.pem`, `cert.pem`, `key.pem`).
    pub fn from_pem(ca: &str, certificate: &str, key: &str) -> Result<Self, CredentialsError> {
        Self::build(
            &Source::text(CA_FILE, ca),
            &Source::text(CERTIFICATE_FILE, certificate),
            &Source::text(KEY_FILE, key),
        )
    }

    fn build(ca: &Source, certificate: &Source, key: &Source) -> Result<Self, CredentialsError> {
        let mut roots = RootCertStore::empty();
        let believed = ca.certificates()?;
        let authorities = believed.iter().map(fingerprint).collect();
        for root in believed {
            roots.add(root).map_err(|error| ca.malformed(error))?;
        }
        let chain = certificate.certificates()?;
        let leaf = chain.first().expect("certificates() gives at least one");
        let facts = x509::facts(leaf).map_err(|what| certificate.malformed(what))?;
        let identity = x509::identity(leaf).map_err(|error| certificate.malformed(error))?;
        let key_der = PrivateKeyDer::from_pem_slice(&key.pem).map_err(|e| key.malformed(e))?;
        let signer = rustls::crypto::ring::sign::any_supported_type(&key_der)
            .map_err(|error| key.malformed(error))?;
        let certified = CertifiedKey::new(chain, signer);
        certified
            .keys_match()
            .map_err(|_| CredentialsError::OtherKey {
                key: key.path.clone(),
                certificate: certificate.path.clone(),
            })?;
        Ok(Self {
            certified: Arc::new(certified),
            key_der: Arc::new(key_der),
            roots: Arc::new(roots),
            authorities,
            identity,
            not_after: facts.not_after,
        })
    }

    /// Who these credentials speak for.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The last good moment of the certificate.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// SHA-256 of the certificate: what two people compare to know that they mean the same one.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let leaf = self
            .certified
            .cert
            .first()
            .expect("a chain has at least one certificate");
        fingerprint(leaf)
    }

    /// SHA-256 of the certificate of each authority that is believed, in the order of their file: the last one issues.
    #[must_use]
    pub fn authorities(&self) -> &[[u8; 32]] {
        &self.authorities
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    pub(crate) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// A secret that is the same after every restart with the same private key.
    pub(crate) fn derive_secret(&self, purpose: &str) -> [u8; 32] {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.key_der.secret_der());
        let tag = ring::hmac::sign(&key, purpose.as_bytes());
        tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
    }
}

pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// SHA-256 of a certificate in PEM, as [`Credentials::authorities`] gives it.
///
/// # Errors
/// [`CredentialsError::Malformed`] when the text holds no certificate.
pub fn fingerprint_of_pem(certificate: &str) -> Result<[u8; 32], CredentialsError> {
    let certificates = Source::text(CA_FILE, certificate).certificates()?;
    let first = certificates.first();
    Ok(fingerprint(
        first.expect("certificates() gives at least one"),
    ))
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.identity)
    }
}

/// Why credentials cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read; make it, or correct the path or its permissions.
    #[error(
        "cannot read {}: {source}; issue certificates with `kv-node cert`, \
         or correct the path", path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should; issue it anew.
    #[error("{} is not usable: {what}; issue it anew with `kv-node cert`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The private key is not the certificate's; put the pair that belongs together.
    #[error(
        "{} is not the private key of {}; put the pair that was issued together, \
         or run `kv-node cert`", key.display(), certificate.display()
    )]
    OtherKey {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
}

/// A text in PEM, and where it came from.
struct Source {
    path: PathBuf,
    pem: Vec<u8>,
}

impl Source {
    fn read(path: &Path) -> Result<Self, CredentialsError> {
        let pem = std::fs::read(path).map_err(|source| CredentialsError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            pem,
        })
    }

    fn text(name: &str, pem: &str) -> Self {
        Self {
            path: PathBuf::from(name),
            pem: pem.as_bytes().to_vec(),
        }
    }

    fn malformed(&self, what: impl fmt::Display) -> CredentialsError {
        CredentialsError::Malformed {
            path: self.path.clone(),
            what: what.to_string(),
        }
    }

    /// All certificates of the text, at least one.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
        let certificates = CertificateDer::pem_slice_iter(&self.pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| self.malformed(error))?;
        if certificates.is_empty() {
            return Err(self.malformed("it holds no certificate"));
        }
        Ok(certificates)
    }
}

/// Writes a file that only its owner can read, durably and in one step: on return the new content
/// survives power loss, and at every moment the file holds either the old content or the new.
///
/// # Errors
/// What the file system says; the old content, if any, is then still there.
pub fn write_private(path: &Path, content: &str) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other("the path names no file"))?;
    let directory = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut partial = name.to_owned();
    partial.push(".partial");
    let partial = directory.join(partial);
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&partial)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    std::fs::File::open(directory)?.sync_all()
}

#[cfg(unix)]
fn warn_if_others_can_read(key: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Ok(metadata) = std::fs::metadata(key)
        && metadata.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(file = %key.display(), "others can read the private key: chmod 600 it");
    }
}

#[cfg(not(unix))]
fn warn_if_others_can_read(_key: &Path) {}
