//! Setting a cluster up: authorities, node identities, certificates and genesis, as files.
//!
//! | file | holds |
//! |---|---|
//! | `<ca>/ca.pem`, `<ca>/ca-key.pem` | the authority; its key stays with the operator |
//! | `<data>/node.toml` | the node's id, made once |
//! | `<data>/tls/{ca,cert,key}.pem` | the node's credentials |
//! | `<data>/topology/0000000001.entry` | genesis |

pub mod issuing;
pub mod joining;
pub mod members;
pub mod recovery;
pub mod token;
pub mod wording;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use kv_net::credentials::{CA_FILE, CERTIFICATE_FILE, KEY_FILE, write_private};
use kv_net::{CertificateAuthority, Credentials, Identity, KeyPair, Role, Validity};
use kv_ring::{
    ChainEntry, ClusterMode, GenesisSpec, HashSecret, Member, MemberState, PartitionCount, Topology,
};
use kv_storage::fs::RealFs;
use kv_types::{ClusterId, Epoch, NodeId};
use serde::{Deserialize, Serialize};

use crate::topologies::Topologies;

/// How long the authority of a cluster is valid.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const NODE_FILE: &str = "node.toml";
const TLS_DIR: &str = "tls";
const AUTHORITY_CERTIFICATE: &str = "ca.pem";
const AUTHORITY_KEY: &str = "ca-key.pem";

/// The content of `node.toml`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    node: String,
}

/// Where a node's credentials are.
#[must_use]
pub fn credentials_dir(data: &Path) -> PathBuf {
    data.join(TLS_DIR)
}

/// Makes the authority of a new cluster in `dir`.
///
/// # Errors
/// When there is one already, or a file cannot be written.
pub fn create_authority(dir: &Path, name: &str) -> Result<ClusterId> {
    let certificate = dir.join(AUTHORITY_CERTIFICATE);
    ensure!(
        !certificate.exists(),
        "{} exists; choose an empty directory, or use that authority",
        certificate.display()
    );
    let cluster = ClusterId(random_u128()?);
    let validity = Validity::starting(now(), AUTHORITY_LIFETIME);
    let authority = CertificateAuthority::create(cluster, &format!("kv cluster {name}"), validity)?;
    let (certificate_pem, key_pem) = authority.to_pem();
    create_dir(dir)?;
    write_secret(&dir.join(AUTHORITY_KEY), &key_pem)?;
    write(&certificate, &certificate_pem)?;
    Ok(cluster)
}

/// Makes a node's id and private key in its empty data directory.
///
/// # Errors
/// When the directory holds a node already, or a file cannot be written.
pub fn init_node(data: &Path) -> Result<NodeId> {
    let file = data.join(NODE_FILE);
    ensure!(
        !file.exists(),
        "{} exists: this directory belongs to a node already; an id is made only once",
        file.display()
    );
    let node = NodeId(random_u128()?);
    create_dir(&credentials_dir(data))?;
    write_secret(
        &credentials_dir(data).join(KEY_FILE),
        &KeyPair::generate()?.to_pem(),
    )?;
    write(
        &file,
        &toml::to_string(&NodeFile {
            node: node.to_string(),
        })?,
    )?;
    Ok(node)
}

/// The id of the node whose data directory this is.
///
/// # Errors
/// When the directory holds no node.
pub fn node_of(data: &Path) -> Result<NodeId> {
    let path = data.join(NODE_FILE);
    let text = fs::read_to_string(&path).with_context(|| {
        format!(
            "{} cannot be read; run `kv-node init --data {}` first",
            path.display(),
            data.display()
        )
    })?;
    let file: NodeFile =
        toml::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
    file.node
        .parse()
        .with_context(|| format!("{} is damaged", path.display()))
}

/// Issues the certificate of a node into its data directory.
///
/// # Errors
/// When the authority or the node's key cannot be read, or a file cannot be written.
pub fn issue_node(authority: &Path, data: &Path, lifetime: Duration) -> Result<NodeId> {
    let node = node_of(data)?;
    let tls = credentials_dir(data);
    let key = KeyPair::from_pem(&read(&tls.join(KEY_FILE))?)?;
    issue(authority, Role::Node(node), &key, &tls, lifetime)?;
    Ok(node)
}

/// Makes a key and issues a certificate for a client or admin into `out`.
///
/// # Errors
/// When the authority cannot be read, the name is not allowed, or a file cannot be written.
pub fn issue_person(authority: &Path, role: Role, out: &Path, lifetime: Duration) -> Result<()> {
    let key_file = out.join(KEY_FILE);
    ensure!(
        !key_file.exists(),
        "{} exists; choose another directory, so that no key is overwritten",
        key_file.display()
    );
    create_dir(out)?;
    let key = KeyPair::generate()?;
    write_secret(&key_file, &key.to_pem())?;
    issue(authority, role, &key, out, lifetime)
}

fn issue(
    authority: &Path,
    role: Role,
    key: &KeyPair,
    out: &Path,
    lifetime: Duration,
) -> Result<()> {
    let authority = load_authority(authority)?;
    let identity = Identity {
        cluster: authority.cluster(),
        role,
    };
    let certificate = authority.issue(
        &identity,
        &key.public_key(),
        Validity::starting(now(), lifetime),
    )?;
    write(&out.join(CERTIFICATE_FILE), &certificate)?;
    write(&out.join(CA_FILE), authority.certificate_pem())
}

fn load_authority(dir: &Path) -> Result<CertificateAuthority> {
    let certificate = read(&dir.join(AUTHORITY_CERTIFICATE))?;
    let key = read(&dir.join(AUTHORITY_KEY))?;
    CertificateAuthority::load(&certificate, &key).with_context(|| {
        format!(
            "{} does not hold an authority; make one with `kv-node ca create`",
            dir.display()
        )
    })
}

/// One member of a cluster to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMember {
    /// Its name, for people.
    pub name: String,
    /// What it shares its failures with.
    pub zone: String,
    /// Its capacity relative to the others.
    pub weight: u32,
    /// Where it will listen.
    pub address: String,
    /// Its data directory, initialised and with a certificate.
    pub data: PathBuf,
}

/// A cluster to be created.
#[derive(Debug, Clone)]
pub struct NewCluster {
    /// Its name, for people.
    pub name: String,
    /// What requests get that ask for no level.
    pub mode: ClusterMode,
    /// Replicas of each key.
    pub replicas: u8,
    /// Into how many partitions the ring is cut.
    pub partitions: u32,
    /// Its first members.
    pub members: Vec<NewMember>,
}

/// Writes the genesis of a new cluster into the data directory of every member.
///
/// # Errors
/// When the specification is impossible, a directory is not ready, or belongs to a cluster already;
/// then nothing was written.
pub fn create_cluster(spec: &NewCluster) -> Result<ClusterId> {
    let mut cluster = None;
    let mut members = Vec::new();
    for member in &spec.members {
        let topology = topology_dir(&member.data);
        ensure!(
            !topology.exists(),
            "{} exists: {} belongs to a cluster already",
            topology.display(),
            member.name
        );
        let credentials = Credentials::load(&credentials_dir(&member.data))?;
        let identity = credentials.identity();
        let node = node_of(&member.data)?;
        ensure!(
            identity.role == Role::Node(node),
            "the certificate in {} is for {}, not for this node",
            member.data.display(),
            identity.role
        );
        match cluster {
            None => cluster = Some(identity.cluster),
            Some(cluster) if cluster != identity.cluster => {
                bail!(
                    "the certificate of {} is of cluster {}, the others are of {cluster}",
                    member.name,
                    identity.cluster
                )
            }
            Some(_) => {}
        }
        members.push(Member {
            node,
            name: member.name.clone(),
            zone: member.zone.clone(),
            weight: member.weight,
            address: member.address.clone(),
            fingerprint: credentials.fingerprint(),
            state: MemberState::Active,
        });
    }
    let cluster_id = cluster.context("a cluster needs at least one --member")?;
    let topology = Topology::genesis(GenesisSpec {
        cluster_id,
        cluster_name: spec.name.clone(),
        secret: HashSecret(random_u128()?.to_le_bytes()),
        partitions: PartitionCount::new(spec.partitions)?,
        replication_factor: spec.replicas,
        mode: spec.mode,
        members,
        default_bucket: None,
        buckets: Vec::new(),
    })?;
    let entry = ChainEntry::genesis(topology.into())?.encode();
    for member in &spec.members {
        Topologies::install(&RealFs, &topology_dir(&member.data), Epoch::GENESIS, &entry)?;
    }
    Ok(cluster_id)
}

/// Where a node's topology entries are.
#[must_use]
pub fn topology_dir(data: &Path) -> PathBuf {
    data.join("topology")
}

/// The time of this machine.
#[expect(
    clippy::disallowed_methods,
    reason = "commands of an operator run in the real world"
)]
#[must_use]
pub fn now() -> SystemTime {
    SystemTime::now()
}

fn random_u128() -> Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("the operating system gives no random bytes")?;
    Ok(u128::from_le_bytes(bytes))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).with_context(|| format!("{} cannot be written", path.display()))
}

fn write_secret(path: &Path, content: &str) -> Result<()> {
    write_private(path, content).with_context(|| format!("{} cannot be written", path.display()))
}

fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("{} cannot be created", dir.display()))
}
