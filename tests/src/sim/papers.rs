//! The certificates of a simulated cluster, and their renewal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kv_net::{CertificateAuthority, Credentials, Identity, KeyPair, Validity};
use kv_types::{ClusterId, NodeId};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use super::executor::Handle;
use super::host::{Conditions, WALL_START_MS};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Issues certificates as an operator would.
#[derive(Debug)]
pub struct Papers {
    handle: Handle,
    cluster: ClusterId,
    /// In the order in which they were made.
    authorities: Vec<CertificateAuthority>,
    /// Which of them issues.
    issuing: usize,
    /// The oldest that is still believed.
    believed_from: usize,
    keys: BTreeMap<Identity, KeyPair>,
}

impl Papers {
    /// The papers of a cluster with one authority.
    #[must_use]
    pub fn new(handle: Handle, cluster: ClusterId) -> Self {
        let mut papers = Self {
            handle,
            cluster,
            authorities: Vec::new(),
            issuing: 0,
            believed_from: 0,
            keys: BTreeMap::new(),
        };
        papers.found_authority();
        papers
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(WALL_START_MS) + self.handle.now()
    }

    /// Makes a further authority, which is believed and does not issue yet.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn found_authority(&mut self) {
        let valid = Validity::starting(self.now(), 10 * YEAR);
        let number = self.authorities.len();
        let made =
            CertificateAuthority::create(self.cluster, &format!("authority {number}"), valid);
        self.authorities.push(made.expect("a new authority"));
    }

    /// Lets the newest authority issue from now on.
    pub fn issue_by_newest(&mut self) {
        self.issuing = self.authorities.len() - 1;
    }

    /// Believes only the authority that issues, and later ones, from now on.
    pub fn believe_only_issuing(&mut self) {
        self.believed_from = self.issuing;
    }

    /// The credentials of a node.
    pub fn node(&mut self, node: NodeId) -> Credentials {
        self.good(Identity::node(self.cluster, node))
    }

    /// The credentials of clients.
    pub fn client(&mut self) -> Credentials {
        self.good(Identity::client(self.cluster, "client"))
    }

    fn good(&mut self, identity: Identity) -> Credentials {
        let valid = Validity::starting(self.now(), YEAR);
        self.issue(identity, valid)
    }

    /// Credentials of a node that were good until a minute ago.
    pub fn expired(&mut self, node: NodeId) -> Credentials {
        let identity = Identity::node(self.cluster, node);
        let minute = Duration::from_secs(60);
        let valid = Validity {
            not_before: self.now() - YEAR,
            not_after: self.now() - minute,
        };
        self.issue(identity, valid)
    }

    /// Credentials of a client whom an authority of somebody else has certified.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn stranger(&self) -> Credentials {
        let mut foreign = Self::new(self.handle.clone(), self.cluster);
        let identity = Identity::client(self.cluster, "stranger");
        let key = KeyPair::generate().expect("a new key");
        let valid = Validity::starting(self.now(), YEAR);
        let authority = foreign.authorities.remove(0);
        let issued = authority
            .issue(&identity, &key.public_key(), valid)
            .expect("a good request");
        Credentials::from_pem(&self.believed(), &issued, &key.to_pem())
            .expect("what was just issued")
    }

    fn believed(&self) -> String {
        self.authorities[self.believed_from..]
            .iter()
            .map(CertificateAuthority::certificate_pem)
            .collect()
    }

    /// # Panics
    /// When no key can be made.
    fn issue(&mut self, identity: Identity, valid: Validity) -> Credentials {
        let believed = self.believed();
        let key = self
            .keys
            .entry(identity.clone())
            .or_insert_with(|| KeyPair::generate().expect("a new key"));
        let issued = self.authorities[self.issuing].issue(&identity, &key.public_key(), valid);
        Credentials::from_pem(&believed, &issued.expect("a good request"), &key.to_pem())
            .expect("what was just issued")
    }
}

/// A machine's wall clock, by which its certificates are judged.
#[derive(Debug)]
pub struct WallTime {
    /// Gives the time.
    pub handle: Handle,
    /// Say how wrong it is.
    pub conditions: Arc<Conditions>,
}

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        let wall = Duration::from_millis(self.conditions.wall_ms(&self.handle));
        Some(UnixTime::since_unix_epoch(wall))
    }
}
