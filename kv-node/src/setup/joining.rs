//! A node that joins a cluster which is there: its ticket, its certificate, and what it tells of itself.
//!
//! | file | holds |
//! |---|---|
//! | `<data>/join.toml` | who it is to be, and whom it asks whether it is a member by now |
//! | `<data>/joins` | it has become one, and was never started |

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kv_net::credentials::{CA_FILE, CERTIFICATE_FILE, KEY_FILE};
use kv_net::{CertificateAuthority, Credentials, Identity, KeyPair, PublicKey, Role, Validity};
use kv_ring::ChainEntry;
use kv_storage::fs::{Fs as _, RealFs, replace_file};
use kv_types::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

use super::token::Token;
use super::{
    create_dir, credentials_dir, init_node, load_authority, node_of, now, read, topology_dir, write,
};
use crate::node::JOINS_FILE;
use crate::topologies::Topologies;

const JOINING_FILE: &str = "join.toml";

/// What a new node must know of a cluster to find it and to believe it. It is a secret only with an issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The cluster.
    pub cluster: ClusterId,
    /// SHA-256 of its authority's certificate.
    pub authority: [u8; 32],
    /// Where members listen.
    pub seeds: Vec<String>,
    /// Who issues the node's certificate, if somebody does over the wire.
    pub issuer: Option<IssuerAt>,
}

/// Whom a new node asks for its certificate, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerAt {
    /// Where the issuer listens.
    pub address: String,
    /// What lets one node ask: the seed of a key. A secret until it was used.
    pub secret: [u8; 32],
}

impl Token for Ticket {
    const PREFIX: &'static str = "kvticket1-";
    const NAME: &'static str = "a ticket";
}

/// What a node hands to the authority for its certificate. Not a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningRequest {
    /// The node.
    pub node: NodeId,
    /// Its public key, in PEM.
    pub public_key: String,
}

impl Token for SigningRequest {
    const PREFIX: &'static str = "kvrequest1-";
    const NAME: &'static str = "a node's request for a certificate";
}

/// What the authority hands back. Not a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The node's certificate, in PEM.
    pub certificate: String,
    /// The authority's, in PEM.
    pub authority: String,
}

impl Token for Issued {
    const PREFIX: &'static str = "kvcertificate1-";
    const NAME: &'static str = "a certificate";
}

/// The content of `join.toml`: who a node is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joining {
    /// Its name, for people.
    pub name: String,
    /// What it shares its failures with.
    pub zone: String,
    /// Its capacity relative to the others.
    pub weight: u32,
    /// Where the others reach it.
    pub address: String,
    /// Where members listen.
    pub seeds: Vec<String>,
}

impl Joining {
    /// What the data directory of a node says that is to join; nothing if it is not, or has.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn load(data: &Path) -> Result<Option<Self>> {
        let path = data.join(JOINING_FILE);
        if is_member(data) || !path.exists() {
            return Ok(None);
        }
        let parsed = toml::from_str(&read(&path)?);
        parsed
            .map(Some)
            .with_context(|| format!("{} is damaged; run `kv-node join` again", path.display()))
    }

    /// Makes a node's data directory ready to join: its id and its key, if it has none, and who it is to be.
    ///
    /// # Errors
    /// When the directory belongs to a member, or a file cannot be written.
    pub fn prepare(&self, data: &Path) -> Result<NodeId> {
        ensure!(
            !is_member(data),
            "{} holds a topology: this node is a member of a cluster already; `kv-node serve` runs it",
            topology_dir(data).display()
        );
        let is_new = !data.join(super::NODE_FILE).exists();
        let node = if is_new {
            init_node(data)?
        } else {
            node_of(data)?
        };
        write(&data.join(JOINING_FILE), &toml::to_string(self)?)?;
        Ok(node)
    }

    /// What an operator stages with `kv cluster join`.
    ///
    /// # Errors
    /// When the node has no certificate.
    pub fn member(&self, data: &Path) -> Result<String> {
        let credentials = Credentials::load(&credentials_dir(data))?;
        let node = node_of(data)?;
        let fingerprint = data_encoding::HEXLOWER.encode(&credentials.fingerprint());
        let Self {
            name,
            zone,
            weight,
            address,
            ..
        } = self;
        Ok(format!(
            "node={node},name={name},zone={zone},address={address},weight={weight},fingerprint={fingerprint}"
        ))
    }
}

/// Whether a data directory holds a topology. The folder alone may be left of an attempt to write one.
fn is_member(data: &Path) -> bool {
    let names = RealFs.list(&topology_dir(data)).unwrap_or_default();
    names.iter().any(|name| name.ends_with(".entry"))
}

/// Whether a node has a certificate.
#[must_use]
pub fn has_certificate(data: &Path) -> bool {
    credentials_dir(data).join(CERTIFICATE_FILE).exists()
}

/// What a node hands to the authority.
///
/// # Errors
/// When it has no id or no key.
pub fn signing_request(data: &Path) -> Result<SigningRequest> {
    let key = KeyPair::from_pem(&read(&credentials_dir(data).join(KEY_FILE))?)?;
    Ok(SigningRequest {
        node: node_of(data)?,
        public_key: key.public_key().to_pem().to_owned(),
    })
}

/// Issues what a node has asked for.
///
/// # Errors
/// When the authority cannot be read, or the request holds no key.
pub fn sign(authority: &Path, request: &SigningRequest, lifetime: Duration) -> Result<Issued> {
    sign_with(&load_authority(authority)?, request, lifetime)
}

/// The same, by an authority that is loaded.
pub(super) fn sign_with(
    authority: &CertificateAuthority,
    request: &SigningRequest,
    lifetime: Duration,
) -> Result<Issued> {
    let identity = Identity::node(authority.cluster(), request.node);
    let key = PublicKey::from_pem(&request.public_key)?;
    let certificate = authority.issue(&identity, &key, Validity::starting(now(), lifetime))?;
    Ok(Issued {
        certificate,
        authority: authority.certificate_pem().to_owned(),
    })
}

/// Puts an issued certificate into a node's data directory.
///
/// # Errors
/// When it is for another key or another node; nothing was written then.
pub fn install(data: &Path, issued: &Issued) -> Result<()> {
    let node = node_of(data)?;
    let tls = credentials_dir(data);
    let key = read(&tls.join(KEY_FILE))?;
    let credentials = Credentials::from_pem(&issued.authority, &issued.certificate, &key)
        .context("the certificate is not for this node's key")?;
    let role = &credentials.identity().role;
    ensure!(
        *role == Role::Node(node),
        "the certificate is for {role}, and {} is of node {node}",
        data.display()
    );
    create_dir(&tls)?;
    write(&tls.join(CA_FILE), &issued.authority)?;
    write(&tls.join(CERTIFICATE_FILE), &issued.certificate)
}

/// Checks that a node's certificate is of the cluster that a ticket is for, by the authority that it names.
///
/// # Errors
/// When it is not, or there is none.
pub fn check_certificate(data: &Path, ticket: &Ticket) -> Result<()> {
    let tls = credentials_dir(data);
    let credentials = Credentials::load(&tls)?;
    let cluster = credentials.identity().cluster;
    ensure!(
        cluster == ticket.cluster,
        "the certificate in {} is of cluster {cluster}, the ticket is for {}",
        tls.display(),
        ticket.cluster
    );
    if !credentials.authorities().contains(&ticket.authority) {
        bail!(
            "{} holds another authority than the one that the ticket names; do not go on with either before you know why",
            tls.join(CA_FILE).display()
        );
    }
    Ok(())
}

/// Makes a node the member that a topology lists: from here on `kv-node serve` runs it.
///
/// # Errors
/// When a file cannot be written; it can be done again then.
pub fn become_member(data: &Path, entry: &ChainEntry) -> Result<()> {
    let note = b"this node has become a member and was never started\n";
    let path = |name: &str| -> PathBuf { data.join(name) };
    let wrote = replace_file(&RealFs, data, JOINS_FILE, note);
    wrote.with_context(|| format!("{} cannot be written", path(JOINS_FILE).display()))?;
    let dir = topology_dir(data);
    Topologies::install(&RealFs, &dir, entry.epoch(), &entry.encode())?;
    let joining = path(JOINING_FILE);
    fs::remove_file(&joining).with_context(|| format!("{} cannot be removed", joining.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_have_the_form_of_the_document() {
        let ticket = Ticket {
            cluster: ClusterId(0xc1),
            authority: [7; 32],
            seeds: vec!["10.0.0.1:7401".to_owned(), "n2:7401".to_owned()],
            issuer: None,
        };
        let issuer = IssuerAt {
            address: "10.0.0.9:7400".to_owned(),
            secret: [9; 32],
        };
        let with_issuer = Ticket {
            issuer: Some(issuer),
            ..ticket.clone()
        };
        for (ticket, golden) in [(ticket, GOLDEN), (with_issuer, GOLDEN_WITH_ISSUER)] {
            let word = ticket.to_word().expect("it encodes");
            assert_eq!(word, golden);
            assert_eq!(Ticket::from_word(golden).expect("a ticket"), ticket);
        }
    }

    const GOLDEN_WITH_ISSUER: &str = "kvticket1-wQEHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwINMTAuMC4wLjE6NzQwMQduMjo3NDAxAQ0xMC4wLjAuOTo3NDAwCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQn29m37";
    const GOLDEN: &str = "kvticket1-wQEHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwINMTAuMC4wLjE6NzQwMQduMjo3NDAxAJ_5ywU";
}
