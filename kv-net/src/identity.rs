//! Who a certificate speaks for: a cluster and a role in it.
//!
//! An identity is written into a certificate as its only URI name:
//! `kv://<cluster-id>/node/<node-id>`, `kv://<cluster-id>/client/<name>` or
//! `kv://<cluster-id>/admin/<name>`.

use core::fmt;
use core::str::FromStr;

use kv_types::{ClusterId, NodeId};

const SCHEME: &str = "kv://";
const MAX_NAME_BYTES: usize = 64;

/// What the holder of a certificate may be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A member of the cluster, by its id.
    Node(NodeId),
    /// A program that reads and writes, by its name (1 to 64 of `A-Z a-z 0-9 . _ -`).
    Client(String),
    /// A person or program that operates the cluster, by its name (as for a client).
    Admin(String),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node/{id}"),
            Self::Client(name) => write!(f, "client/{name}"),
            Self::Admin(name) => write!(f, "admin/{name}"),
        }
    }
}

/// A role in one cluster: what a certificate says about its holder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The role in it.
    pub role: Role,
}

impl Identity {
    /// The identity of a node.
    #[must_use]
    pub fn node(cluster: ClusterId, node: NodeId) -> Self {
        Self {
            cluster,
            role: Role::Node(node),
        }
    }

    /// The identity of a client; the name is checked when a certificate is issued.
    #[must_use]
    pub fn client(cluster: ClusterId, name: impl Into<String>) -> Self {
        Self {
            cluster,
            role: Role::Client(name.into()),
        }
    }

    /// The identity of an admin; the name is checked when a certificate is issued.
    #[must_use]
    pub fn admin(cluster: ClusterId, name: impl Into<String>) -> Self {
        Self {
            cluster,
            role: Role::Admin(name.into()),
        }
    }

    /// The node this identity is of, if it is one.
    #[must_use]
    pub fn node_id(&self) -> Option<NodeId> {
        match self.role {
            Role::Node(id) => Some(id),
            Role::Client(_) | Role::Admin(_) => None,
        }
    }
}

/// The form in a certificate.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.cluster, self.role)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    /// Reads the form in a certificate. Only the one canonical text of an identity is accepted.
    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let error = || IdentityError {
            uri: uri.chars().take(160).collect(),
        };
        let rest = uri.strip_prefix(SCHEME).ok_or_else(error)?;
        let mut parts = rest.split('/');
        let (Some(cluster), Some(kind), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(error());
        };
        let cluster = cluster.parse().map_err(|_| error())?;
        let role = match kind {
            "node" => Role::Node(name.parse().map_err(|_| error())?),
            "client" if is_name(name) => Role::Client(name.to_owned()),
            "admin" if is_name(name) => Role::Admin(name.to_owned()),
            _ => return Err(error()),
        };
        let identity = Self { cluster, role };
        // Hexadecimal digits may be written in two cases; one identity has one text.
        if identity.to_string() == uri {
            Ok(identity)
        } else {
            Err(error())
        }
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

/// A text that is not an identity. Nothing was changed; issue a certificate with a good one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{uri}` is not an identity; one reads kv://<cluster-id>/node/<node-id>, \
     kv://<cluster-id>/client/<name> or kv://<cluster-id>/admin/<name>, where a name is 1 to 64 of \
     A-Z, a-z, 0-9, `.`, `_` and `-`"
)]
pub struct IdentityError {
    uri: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_their_text() {
        let cluster = ClusterId(7);
        for identity in [
            Identity::node(cluster, NodeId(u128::MAX)),
            Identity::client(cluster, "import-job.1"),
            Identity::admin(cluster, "a".repeat(64)),
        ] {
            assert_eq!(identity.to_string().parse(), Ok(identity));
        }
    }

    #[test]
    fn only_the_canonical_text_is_an_identity() {
        let c = ClusterId(0xabc).to_string();
        let n = NodeId(0xdef).to_string();
        for uri in [
            String::new(),
            format!("kv://{c}"),
            format!("kv://{c}/node"),
            format!("kv://{c}/node/"),
            format!("kv://{c}/node/{n}/"),
            format!("kv://{c}/node/{n}?x"),
            format!("KV://{c}/node/{n}"),
            format!("kv://{c}/Node/{n}"),
            format!("kv://{}/node/{n}", c.to_uppercase()),
            format!("kv://{c}/root/{n}"),
            format!("kv://{c}/client/"),
            format!("kv://{c}/client/a b"),
            format!("kv://{c}/admin/{}", "a".repeat(65)),
            format!(" kv://{c}/node/{n}"),
        ] {
            assert!(uri.parse::<Identity>().is_err(), "{uri}");
        }
    }
}
