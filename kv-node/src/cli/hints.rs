//! `kv hints`: what nodes keep for others that are away.

use std::time::Duration;

use comfy_table::Cell;
use futures::future::join_all;
use kv_client::ring::Topology;
use kv_types::NodeId;
use serde::Serialize;

use super::failure::Failure;
use super::output::Output;
use super::session::{Session, by_name};
use super::value::size;

/// How long connecting may take, and each node.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const NODE_DEADLINE: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct NodeJson<'a> {
    schema: u8,
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    pending: Vec<PendingJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<u64>,
}

#[derive(Serialize)]
struct PendingJson {
    owner: String,
    objects: u64,
    bytes: u64,
}

/// Asks all nodes at once, prints in order of their names.
pub(super) async fn run(session: &Session, output: &Output) -> Result<(), Failure> {
    let client = session.client_within(CONNECT_TIMEOUT).await?;
    let topology = client.topology();
    let members = by_name(&topology);
    let asked = members
        .iter()
        .map(|member| client.node_hints(member.node, NODE_DEADLINE));
    let mut rows = Vec::new();
    let mut failed = 0;
    for (member, reply) in members.iter().zip(join_all(asked).await) {
        let mut json = NodeJson {
            schema: 1,
            node: &member.name,
            error: None,
            pending: Vec::new(),
            max_bytes: None,
            delivered: None,
            refused: None,
        };
        match reply {
            Ok(kept) => {
                for one in &kept.pending {
                    let owner = name_of(&topology, one.owner);
                    rows.push(vec![
                        Cell::new(&member.name),
                        Cell::new(&owner),
                        Cell::new(one.objects),
                        Cell::new(size(one.bytes)),
                    ]);
                    json.pending.push(PendingJson {
                        owner,
                        objects: one.objects,
                        bytes: one.bytes,
                    });
                }
                json.max_bytes = Some(kept.max_bytes);
                json.delivered = Some(kept.delivered);
                json.refused = Some(kept.refused);
            }
            Err(error) => {
                failed += 1;
                output.error(&format!("{}: {error}", member.name));
                json.error = Some(error.to_string());
            }
        }
        output.json_only(&json)?;
    }
    if rows.is_empty() {
        output.line("no node that answered keeps anything for others")?;
    } else {
        output.line(output.table(&["kept by", "for", "objects", "bytes"], rows))?;
    }
    if failed == 0 {
        Ok(())
    } else {
        Err(Failure::silent(8))
    }
}

fn name_of(topology: &Topology, node: NodeId) -> String {
    topology
        .member(node)
        .map_or_else(|| node.short(), |member| member.name.clone())
}
