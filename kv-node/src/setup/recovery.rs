//! A cluster that has lost a majority of its voters for good goes on with others, by an operator's hand.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use kv_ring::{ChainEntry, Topology};
use kv_storage::InlineJobs;
use kv_storage::fs::{Fs, LockError, RealFs};
use kv_types::NodeId;

use crate::topologies::{Topologies, USUAL_HISTORY};

/// What is in force, and what would be.
#[derive(Debug)]
pub struct Recovery {
    /// The newest topology that the node has.
    pub present: Arc<Topology>,
    /// The one that begins a new generation.
    pub next: Arc<Topology>,
    entry: ChainEntry,
}

/// Looks at what a stopped node has, and makes the first topology of a new generation without some members, and without the votes of
/// some that stay, by their names. Writes nothing.
///
/// # Errors
/// When the directory cannot be read, there is no such member, or those who are left can decide themselves.
pub fn plan(data: &Path, lost: &[String], without_vote: &[String]) -> Result<Recovery> {
    let (fs, jobs) = (Arc::new(RealFs), Arc::new(InlineJobs));
    let topologies = Topologies::open(fs, jobs, &directory(data), USUAL_HISTORY)?;
    let (present, hash) = topologies.tip();
    let node = |name: &String| -> Result<NodeId> {
        let mut members = present.members().iter();
        let member = members.find(|member| member.name == *name);
        let member = member.with_context(|| format!("no member is named {name}"))?;
        Ok(member.node)
    };
    let nodes = |names: &[String]| names.iter().map(node).collect::<Result<Vec<NodeId>>>();
    let (lost, without_vote) = (nodes(lost)?, nodes(without_vote)?);
    let own = super::node_of(data)?;
    ensure!(
        !lost.contains(&own) && !without_vote.contains(&own),
        "this is the directory of a node that is named as one that is lost, or cannot vote; run it on one that is left and can"
    );
    let next = Arc::new(present.recovered(own, &lost, &without_vote)?);
    let entry = ChainEntry::snapshot(Arc::clone(&next), hash)?;
    Ok(Recovery {
        present,
        next,
        entry,
    })
}

/// Puts it into the node's directory, durably. The node serves by it once it is started, and all others learn it from there.
///
/// # Errors
/// When the node runs, or the entry cannot be written.
pub fn install(data: &Path, recovery: &Recovery) -> Result<()> {
    let store = data.join("store");
    let _lock = match store.exists() {
        true => Some(RealFs.lock(&store.join("LOCK")).map_err(|error| {
            let message = match error {
                LockError::Held { pid } => {
                    let process = pid.map_or_else(String::new, |pid| format!(" as process {pid}"));
                    format!("the node runs{process}; stop it first; nothing was changed")
                }
                LockError::Io(error) => {
                    format!(
                        "{} cannot be locked: {error}; nothing was changed",
                        store.display()
                    )
                }
            };
            anyhow::Error::msg(message)
        })?),
        false => None,
    };
    let (epoch, bytes) = (recovery.entry.epoch(), recovery.entry.encode());
    Topologies::install(&RealFs, &directory(data), epoch, &bytes)?;
    Ok(())
}

fn directory(data: &Path) -> std::path::PathBuf {
    data.join("topology")
}
