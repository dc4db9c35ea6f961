//! The ports of a cluster, checked before anything is started.

use super::layout::Layout;
use super::plan::{DEFAULT_BASE_PORT, Plan};
use super::state::State;
use crate::port::{self, Taken};
use anyhow::{Context, Result, bail};
use std::fs;
use std::net::SocketAddr;

/// Distance between the places where `--base-port auto` looks, so that clusters start at round numbers.
const STEP: u16 = 100;

/// The first base port with room for `count` nodes.
pub(super) fn free_base(count: u16, reserved: &[u16]) -> Option<u16> {
    port::free_base(DEFAULT_BASE_PORT, STEP, count, reserved)
}

/// Ports that other clusters of this workspace will want again, although they may be down now.
pub(super) fn of_other_clusters(layout: &Layout) -> Vec<u16> {
    let folders = fs::read_dir(layout.parent())
        .into_iter()
        .flatten()
        .flatten();
    folders
        .filter_map(|folder| folder.file_name().into_string().ok())
        .filter(|name| name != layout.name())
        .map(|name| Layout::new(layout.parent().to_owned(), &name))
        .filter_map(|other| State::load(&other).ok().flatten())
        .flat_map(|state| state.nodes)
        .map(|node| node.address.port())
        .collect()
}

/// Refuses to create a cluster on taken ports, and proposes free ones.
///
/// # Errors
/// With the port, its owner and the option that helps.
pub(super) fn must_be_free_for_new(plan: &Plan, reserved: &[u16]) -> Result<()> {
    let nodes = plan.nodes();
    let wanted = nodes.iter().map(|node| (node.name.as_str(), node.address));
    let Some((node, taken)) = first_taken(wanted)? else {
        return Ok(());
    };
    let count = u16::try_from(nodes.len()).unwrap_or(u16::MAX);
    let proposal = free_base(count, reserved)
        .map(|base| format!("use --base-port {base}, or "))
        .unwrap_or_default();
    bail!("{}; {proposal}--base-port auto", sentence(node, &taken));
}

/// Refuses to start an existing cluster on taken ports; its addresses are fixed in its genesis.
///
/// # Errors
/// With the port, its owner and what can be done.
pub(super) fn must_be_free_again(state: &State) -> Result<()> {
    let wanted = state
        .nodes
        .iter()
        .map(|node| (node.name.as_str(), node.address));
    let Some((node, taken)) = first_taken(wanted)? else {
        return Ok(());
    };
    let name = &state.name;
    bail!(
        "{}; end that process, or make a new cluster on other ports: `cargo xtask cluster down --wipe --name {name}`, then `cargo xtask cluster --name {name} --base-port auto`",
        sentence(node, &taken)
    );
}

/// Refuses to start one node on a taken port.
///
/// # Errors
/// With the port and its owner.
pub(super) fn must_be_free_for_node(node: &str, address: SocketAddr) -> Result<()> {
    match first_taken(std::iter::once((node, address)))? {
        Some((node, taken)) => bail!("{}; end that process first", sentence(node, &taken)),
        None => Ok(()),
    }
}

fn first_taken<'a>(
    wanted: impl Iterator<Item = (&'a str, SocketAddr)>,
) -> Result<Option<(&'a str, Taken)>> {
    for (node, address) in wanted {
        let answer = port::check(address).with_context(|| format!("cannot use {address}"))?;
        if let Err(taken) = answer {
            return Ok(Some((node, taken)));
        }
    }
    Ok(None)
}

fn sentence(node: &str, taken: &Taken) -> String {
    let port = taken.address.port();
    format!("port {port} ({node}) is in use by {}", taken.owner)
}
