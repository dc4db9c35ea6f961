//! From one command to what is staged: found wrong at once, if the present topology already shows it.

use kv_client::NodeId;
use kv_client::ring::Topology;
use kv_client::ring::topology::{ChangeError, Member, MemberChanges};

use super::args::Wish;
use crate::cli::failure::Failure;
use crate::cli::session::member;

/// The weight of a new member that names none.
const USUAL_WEIGHT: u32 = 1;

/// What is staged once a wish is added.
///
/// It need not be possible yet, if only something else is missing: another member, say.
pub(super) fn add(
    topology: &Topology,
    staged: &MemberChanges,
    wish: &Wish,
) -> Result<MemberChanges, Failure> {
    let mut next = staged.clone();
    match wish {
        Wish::Join { member: new } => {
            let member = new.member(None, USUAL_WEIGHT);
            next.joins.push(member.ok_or_else(|| {
                Failure::usage("`zone=` is missing; nothing was staged")
                    .hint("name the zone that the node shares its failures with")
            })?);
        }
        Wish::Leave { node } => {
            let node = goes_once(topology, staged, node)?;
            next.leaves.push(node);
        }
        Wish::Remove { node } => {
            let node = goes_once(topology, staged, node)?;
            next.lost.push(node);
        }
        Wish::Replace { old, member: new } => {
            let old = member(topology, old)?;
            goes_once(topology, staged, &old.name)?;
            next.lost.push(old.node);
            next.joins.extend(new.member(Some(&old.zone), old.weight));
        }
        Wish::Weight { node, weight } => match joining(&mut next, node) {
            Some(joining) => joining.weight = *weight,
            None => replace(&mut next.weights, member(topology, node)?.node, *weight),
        },
        Wish::Zone { node, zone } => match joining(&mut next, node) {
            Some(joining) => joining.zone.clone_from(zone),
            None => replace(&mut next.zones, member(topology, node)?.node, zone.clone()),
        },
    }
    match topology.plan_members(&next) {
        // Enough members may be staged afterwards.
        Ok(_) | Err(ChangeError::Plan(_)) => Ok(next),
        Err(error) => Err(Failure::usage(format!("{error}; nothing was staged"))),
    }
}

/// What is staged, a wish a line.
pub(super) fn lines(topology: &Topology, staged: &MemberChanges) -> Vec<String> {
    let known = |node: NodeId| topology.member(node);
    let name =
        |node: NodeId| known(node).map_or_else(|| node.short(), |member| member.name.clone());
    let before = |node, field: fn(&Member) -> String| known(node).map(field).unwrap_or_default();
    let join = |member: &Member| {
        let Member {
            name,
            zone,
            weight,
            address,
            ..
        } = member;
        format!("join {name} ({address}, zone {zone}, weight {weight})")
    };
    let mut lines: Vec<String> = staged.joins.iter().map(join).collect();
    let leaves = staged.leaves.iter();
    lines.extend(leaves.map(|node| format!("leave {}", name(*node))));
    let lost = staged.lost.iter();
    lines.extend(lost.map(|node| format!("remove {} (it will never be back)", name(*node))));
    lines.extend(staged.weights.iter().map(|(node, weight)| {
        let before = before(*node, |member| member.weight.to_string());
        format!("weight of {}: {before} → {weight}", name(*node))
    }));
    lines.extend(staged.zones.iter().map(|(node, zone)| {
        let before = before(*node, |member| member.zone.clone());
        format!("zone of {}: {before} → {zone}", name(*node))
    }));
    lines
}

/// A member that is not staged to go already.
fn goes_once(topology: &Topology, staged: &MemberChanges, name: &str) -> Result<NodeId, Failure> {
    let member = member(topology, name)?;
    let how = if staged.leaves.contains(&member.node) {
        "leave"
    } else if staged.lost.contains(&member.node) {
        "be removed"
    } else {
        return Ok(member.node);
    };
    let message = format!(
        "{} is staged to {how} already; nothing was staged",
        member.name
    );
    Err(Failure::usage(message).hint("begin anew with `kv cluster clear` if that is not meant"))
}

/// A node that is staged to join, by its name.
fn joining<'a>(staged: &'a mut MemberChanges, name: &str) -> Option<&'a mut Member> {
    staged.joins.iter_mut().find(|member| member.name == name)
}

fn replace<T>(wanted: &mut Vec<(NodeId, T)>, node: NodeId, value: T) {
    wanted.retain(|(other, _)| *other != node);
    wanted.push((node, value));
}
