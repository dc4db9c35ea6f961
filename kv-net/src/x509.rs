//! What kv wants to know of a certificate, read strictly.

use std::time::{Duration, SystemTime};

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use crate::identity::{Identity, IdentityError};

/// The facts of one certificate.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// All its URI names.
    pub(crate) uris: Vec<String>,
    /// Its last good moment.
    pub(crate) not_after: SystemTime,
    /// Its public key, as the certificate encodes it.
    pub(crate) public_key: Vec<u8>,
}

/// Reads a certificate without judging it.
pub(crate) fn facts(der: &[u8]) -> Result<Facts, String> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
    if !rest.is_empty() {
        return Err(format!("{} bytes stand after the certificate", rest.len()));
    }
    let names = certificate
        .subject_alternative_name()
        .map_err(|e| e.to_string())?;
    let uris = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None, // kv's certificates have no other names, and other names mean nothing here
        })
        .collect();
    Ok(Facts {
        uris,
        not_after: system_time(certificate.validity().not_after),
        public_key: certificate.public_key().raw.to_vec(),
    })
}

/// The identity in a certificate, whose signature the caller has checked or will check.
pub(crate) fn identity(der: &[u8]) -> Result<Identity, NoIdentity> {
    let facts = facts(der).map_err(NoIdentity::Malformed)?;
    match facts.uris.as_slice() {
        [uri] => Ok(uri.parse()?),
        uris => Err(NoIdentity::Names { count: uris.len() }),
    }
}

/// Why a certificate has no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoIdentity {
    /// It cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// It has no URI name, or several.
    #[error("the certificate has {count} URI names, and must have exactly one")]
    Names {
        /// How many it has.
        count: usize,
    },
    /// Its URI name is not an identity of kv.
    #[error(transparent)]
    Uri(#[from] IdentityError),
}

fn system_time(time: ASN1Time) -> SystemTime {
    // Certificates that ended before 1970 are as expired as one that ended then.
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}
