//! `env`: everything another program needs to use or break the cluster; tests rely on this form.

use super::Cluster;
use super::state::{Condition, Node, State};
use crate::terminal;
use anyhow::Result;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Version of the document; fields are only ever added within one.
const SCHEMA: u32 = 1;

#[derive(Debug, Serialize)]
struct Environment {
    schema: u32,
    name: String,
    cluster_id: String,
    folder: PathBuf,
    context: String,
    context_file: PathBuf,
    config_dir: PathBuf,
    kv: PathBuf,
    kv_node: PathBuf,
    seeds: Vec<SocketAddr>,
    replicas: u16,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    admin_certificate: PathBuf,
    admin_key: PathBuf,
    nodes: Vec<NodeEnvironment>,
}

#[derive(Debug, Serialize)]
struct NodeEnvironment {
    name: String,
    zone: String,
    address: SocketAddr,
    condition: Condition,
    /// Absent while the node does not run.
    pid: Option<u32>,
    ready_ms: Option<u64>,
    data: PathBuf,
    config: PathBuf,
    log: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Cluster {
    /// Prints the environment as JSON, or as lines for `eval "$(..)"`.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub(super) fn print_environment(&self, json: bool) -> Result<()> {
        let environment = self.environment(&State::existing(&self.layout)?);
        let text = if json {
            serde_json::to_string_pretty(&environment)? + "\n"
        } else {
            exports(&environment)
        };
        terminal::result(&text);
        Ok(())
    }

    fn environment(&self, state: &State) -> Environment {
        let layout = &self.layout;
        let (client, admin) = (layout.person("client"), layout.person("admin"));
        Environment {
            schema: SCHEMA,
            name: state.name.clone(),
            cluster_id: state.cluster_id.clone(),
            folder: layout.folder(),
            context: state.name.clone(),
            context_file: self.contexts.file(layout.name()),
            config_dir: self.contexts.root().to_owned(),
            kv: state.binaries.cli.clone(),
            kv_node: state.binaries.node.clone(),
            seeds: state.nodes.iter().map(|node| node.address).collect(),
            replicas: state.replicas,
            ca: client.join("ca.pem"),
            certificate: client.join("cert.pem"),
            key: client.join("key.pem"),
            admin_certificate: admin.join("cert.pem"),
            admin_key: admin.join("key.pem"),
            nodes: state
                .nodes
                .iter()
                .map(|node| self.node_environment(node))
                .collect(),
        }
    }

    fn node_environment(&self, node: &Node) -> NodeEnvironment {
        let data = self.layout.data(&node.name);
        NodeEnvironment {
            name: node.name.clone(),
            zone: node.zone.clone(),
            address: node.address,
            condition: node.condition(),
            pid: node.live_pid(),
            ready_ms: node.ready_ms,
            config: self.layout.config(&node.name),
            log: self.layout.log(&node.name),
            certificate: data.join("tls/cert.pem"),
            key: data.join("tls/key.pem"),
            data,
        }
    }
}

fn exports(environment: &Environment) -> String {
    let programs = environment.kv.parent().unwrap_or(Path::new("."));
    format!(
        "export KV_CONTEXT={}\nexport KV_CONFIG_DIR={}\nexport PATH={}:$PATH\n",
        environment.context,
        quoted(&environment.config_dir),
        quoted(programs)
    )
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_stay_one_word() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
