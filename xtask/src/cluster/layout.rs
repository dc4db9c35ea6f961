//! Where a cluster keeps its files: `target/kv/NAME`, all of it deleted by `down --wipe`.

use std::path::{Path, PathBuf};

/// The cluster that is meant when none is named.
pub(crate) const DEFAULT_NAME: &str = "dev";

/// The folder of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    parent: PathBuf,
    name: String,
}

impl Layout {
    /// The cluster of this name among those in `parent`.
    pub(crate) fn new(parent: PathBuf, name: &str) -> Self {
        Self {
            parent,
            name: name.to_owned(),
        }
    }

    /// The cluster's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The option that names the cluster in a command, with a blank in front; empty for the default.
    pub(crate) fn option(&self) -> String {
        if self.name == DEFAULT_NAME {
            String::new()
        } else {
            format!(" --name {}", self.name)
        }
    }

    /// The folder that holds this cluster and its siblings.
    pub(crate) fn parent(&self) -> &Path {
        &self.parent
    }

    /// The folder of everything that belongs to this cluster.
    pub(crate) fn folder(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    /// What is known about the cluster; it exists from the moment the cluster is complete.
    pub(crate) fn state_file(&self) -> PathBuf {
        self.folder().join("cluster.toml")
    }

    /// Held by the command that changes the cluster; beside the folder, so that wiping keeps it.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.parent.join(format!(".{}.lock", self.name))
    }

    /// The certificate authority: its key signs nodes, clients and admins.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder().join("ca")
    }

    /// Credentials of somebody who uses the cluster: `client` or `admin`.
    pub(crate) fn person(&self, role: &str) -> PathBuf {
        self.folder().join(role)
    }

    /// A node's data directory.
    pub(crate) fn data(&self, node: &str) -> PathBuf {
        self.folder().join(node).join("data")
    }

    /// A node's configuration file.
    pub(crate) fn config(&self, node: &str) -> PathBuf {
        self.folder().join(node).join("kv-node.toml")
    }

    /// A node's log; restarts append to it.
    pub(crate) fn log(&self, node: &str) -> PathBuf {
        self.folder().join(node).join("kv-node.log")
    }
}
