//! What an operator should know before a plan is committed.

use std::collections::BTreeSet;

use kv_client::NodeId;
use kv_client::ring::assign::SlotMove;
use kv_client::ring::{MemberChanges, MemberState};

use super::plan::Plan;
use crate::cli::session::natural;
use crate::cli::status::gather::{Node, Seen};
use crate::cli::value::count;

/// One sentence for each thing, with what to do.
pub(super) fn warnings(
    plan: &Plan,
    seen: &Seen,
    staged: &MemberChanges,
    moves: &[SlotMove],
) -> Vec<String> {
    let mut warnings = Vec::new();
    let gains: BTreeSet<NodeId> = moves.iter().map(|slot| slot.to).collect();
    let mut nodes: Vec<&Node> = seen.nodes.iter().collect();
    nodes.sort_by_key(|node| natural(&node.member.name));
    for node in nodes {
        let (id, name, state) = (node.member.node, &node.member.name, node.state.name());
        if staged.lost.contains(&id) {
            warnings.push(format!(
                "{name} is given up: what only it has is lost, such as writes that were acknowledged by it alone and what it \
                 keeps for others"
            ));
            if node.is_live() {
                warnings.push(format!(
                    "{name} is up: `kv cluster leave {name}` would lose nothing"
                ));
            }
        } else if !node.is_live() && node.member.state != MemberState::Lost {
            if staged.leaves.contains(&id) {
                warnings.push(format!(
                    "{name} is {state}, and leaves only when it has given everything away: start it"
                ));
            } else if gains.contains(&id) {
                warnings.push(format!(
                    "{name} is {state}: what moves to it waits until it is up"
                ));
            }
        }
    }
    warnings.extend(too_heavy(plan, seen, staged));
    if plan.may_lose > 0 {
        warnings.push(format!(
            "{} partitions lose so many owners that acknowledged writes may be lost with them: the commit needs \
             --accept-data-loss",
            count(plan.may_lose as u64)
        ));
    }
    let voters = seen.topology.voters();
    let is_up = |voter: &&NodeId| {
        let mut nodes = seen.nodes.iter();
        nodes.any(|node| node.member.node == **voter && node.is_live())
    };
    let up = voters.iter().filter(is_up).count();
    if up <= voters.len() / 2 {
        let all = voters.len();
        warnings.push(format!(
            "only {up} of {all} voters are up: nothing can be decided"
        ));
    }
    if plan.under_way > 0 {
        let under_way = count(plan.under_way as u64);
        warnings.push(format!(
            "{under_way} replicas are on their way already by an earlier plan, and are counted here"
        ));
    }
    warnings
}

/// Members whose weight was made so high that more would do nothing: one replica of every partition is the most.
fn too_heavy(plan: &Plan, seen: &Seen, staged: &MemberChanges) -> Vec<String> {
    let topology = &seen.topology;
    let most = 100.0 / f64::from(topology.replication_factor());
    let joins = staged.joins.iter().filter(|member| member.weight > 1);
    let weights = staged.weights.iter();
    let heavier = weights.filter_map(|(node, weight)| {
        let member = topology.member(*node)?;
        (*weight > member.weight).then_some(member)
    });
    let names: BTreeSet<&str> = joins
        .chain(heavier)
        .map(|member| member.name.as_str())
        .collect();
    let is_full = |after: f64| (after - most).abs() < 1e-9;
    let full = plan
        .nodes
        .iter()
        .filter(|node| names.contains(node.name.as_str()) && node.after.is_some_and(is_full));
    let told = full.map(|node| {
        format!(
            "{} is to own a replica of every partition, which is the most there is: a higher weight changes nothing",
            node.name
        )
    });
    told.collect()
}
