//! What would follow from the changes that are staged: computed from a topology and what nodes answered alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kv_client::ring::assign::SlotMove;
use kv_client::ring::{
    Bucket, Member, MemberChanges, MemberState, MembershipPlan, PlanId, Topology,
};
use kv_client::{BucketName, Epoch, NodeId, Quorum};

use super::predicted::{Predicted, Sizes};
use super::tolerance::{Outlook, Stage, Tolerance};
use super::{warnings, wish};
use crate::cli::failure::Failure;
use crate::cli::session::natural;
use crate::cli::status::gather::Seen;
use crate::moves::gains;

/// How long a node takes at the least for what it gains at once.
const PASS: Duration = Duration::from_secs(1);

/// The plan and what it means.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) cluster: String,
    pub(super) staged: Vec<String>,
    pub(super) epoch: Epoch,
    pub(super) id: PlanId,
    /// The slots that are to change hands from now to the end, and of how many.
    pub(super) moves: usize,
    pub(super) slots: usize,
    /// How many of them were on their way before.
    pub(super) under_way: usize,
    pub(super) bytes: Predicted,
    pub(super) rate_mib: u32,
    /// What the node that takes longest takes at that rate; none where bytes are not known.
    pub(super) time: Option<Duration>,
    pub(super) nodes: Vec<NodePlan>,
    /// The largest load for its weight over the mean, of the members that stay.
    pub(super) balance: (f64, f64),
    pub(super) tolerance: Reserves,
    pub(super) default_tolerance: Reserves,
    /// Partitions of which acknowledged writes may be lost.
    pub(super) may_lose: usize,
    pub(super) warnings: Vec<String>,
}

/// What one node gains and gives.
#[derive(Debug)]
pub(super) struct NodePlan {
    pub(super) name: String,
    /// Shares of all slots, in percent; none of who is no member then.
    pub(super) now: Option<f64>,
    pub(super) after: Option<f64>,
    pub(super) gains: Predicted,
    pub(super) gives: Predicted,
}

/// What may stop, now and later; none where some partition misses its quorum already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reserves {
    pub(super) now: Option<Tolerance>,
    pub(super) on_the_way: Option<Tolerance>,
    pub(super) after: Option<Tolerance>,
}

impl Plan {
    /// The plan of the changes that are staged.
    pub(super) fn of(seen: &Seen, staged: &MemberChanges, rate_mib: u32) -> Result<Self, Failure> {
        let before = &*seen.topology;
        let planned = before.plan_members(staged).map_err(|error| {
            let failure = Failure::usage(format!("there is no plan for what is staged: {error}"));
            failure.hint(
                "stage what is missing; if all was committed, or is not wanted: `kv cluster clear`",
            )
        })?;
        let committed = &planned.committed;
        let moves = committed.arrived().moves_from(before.table());
        let sizes = Sizes::of(seen);
        let nodes = nodes(before, &planned, &moves, &sizes);
        let at_once = gains::at_once(before.partition_count());
        let time = nodes
            .iter()
            .map(|node| time(&node.gains, rate_mib, at_once))
            .collect::<Option<Vec<Duration>>>()
            .and_then(|times| times.into_iter().max());
        let quorums = |of: &dyn Fn(&&Bucket) -> bool| -> Vec<Quorum> {
            let buckets = before.buckets().iter().filter(of);
            buckets.map(|bucket| bucket.properties.quorum).collect()
        };
        let outlooks = (
            Outlook::new(before, live(seen, before)),
            Outlook::new(committed, live(seen, committed)),
        );
        let default = BucketName::default_bucket();
        let may_lose = before.may_lose(committed, &staged.lost).len();
        let mut plan = Self {
            cluster: before.cluster_name().to_owned(),
            staged: wish::lines(before, staged),
            epoch: before.epoch(),
            id: planned.id,
            moves: moves.len(),
            slots: slots(before),
            under_way: before.arrived().moves_from(before.table()).len(),
            bytes: sizes.predict(&moves),
            rate_mib,
            time,
            nodes,
            balance: balance(before, committed),
            tolerance: Reserves::of(&outlooks, &quorums(&|_| true)),
            default_tolerance: Reserves::of(&outlooks, &quorums(&|bucket| bucket.name == default)),
            may_lose,
            warnings: Vec::new(),
        };
        plan.warnings = warnings::warnings(&plan, seen, staged, &moves);
        Ok(plan)
    }

    /// What `kv cluster commit` takes: the epoch that would follow, and the plan's number.
    pub(super) fn commit_id(&self) -> String {
        format!("{}-{}", self.epoch.next(), self.id)
    }

    /// Whether this is the plan that was looked at. The epoch alone may have moved on, if the same follows from it.
    pub(super) fn is_meant(&self, commit_id: &str) -> Result<(), Failure> {
        let parts = commit_id.split_once('-').and_then(|(epoch, number)| {
            let epoch: u64 = epoch.parse().ok()?;
            let is_number = number.len() == 16 && number.bytes().all(|b| b.is_ascii_hexdigit());
            let number = u64::from_str_radix(number, 16).ok().filter(|_| is_number)?;
            Some((Epoch(epoch), PlanId(number)))
        });
        let Some((epoch, number)) = parts else {
            let message = format!("`{commit_id}` is no id of a plan; nothing was done");
            return Err(Failure::usage(message)
                .hint("`kv cluster plan` prints it, like 13-0123456789abcdef"));
        };
        if number == self.id {
            return Ok(());
        }
        let why = if epoch == self.epoch.next() {
            "something else is staged by now".to_owned()
        } else {
            let now = self.epoch;
            format!("it would have made epoch {epoch}, and the cluster is at epoch {now}")
        };
        let message = format!("plan {commit_id} is out of date: {why}; nothing was done");
        Err(Failure::precondition(message)
            .hint("look at the new plan (`kv cluster plan`), and commit that"))
    }
}

impl Reserves {
    fn of((now, then): &(Outlook<'_>, Outlook<'_>), quorums: &[Quorum]) -> Self {
        Self {
            now: now.tolerance(Stage::Now, quorums),
            on_the_way: then.tolerance(Stage::OnTheWay, quorums),
            after: then.tolerance(Stage::After, quorums),
        }
    }
}

/// All replica slots.
fn slots(topology: &Topology) -> usize {
    topology.table().partitions() as usize * usize::from(topology.replication_factor())
}

/// Who answers, or is only to join; not who is given up.
fn live(seen: &Seen, committed: &Topology) -> BTreeSet<NodeId> {
    let is_live = |member: &&Member| {
        let node = seen
            .nodes
            .iter()
            .find(|node| node.member.node == member.node);
        member.state != MemberState::Lost && node.is_none_or(|node| node.is_live())
    };
    let members = committed.members().iter().filter(is_live);
    members.map(|member| member.node).collect()
}

fn nodes(
    before: &Topology,
    planned: &MembershipPlan,
    moves: &[SlotMove],
    sizes: &Sizes<'_>,
) -> Vec<NodePlan> {
    let replicas = before.replication_factor();
    let all = slots(before) as f64;
    let (present, arrived) = (before.table(), planned.committed.arrived());
    let shares = |nodes: &[NodeId], loads: Vec<u32>| -> BTreeMap<NodeId, f64> {
        let shares = loads.into_iter().map(|load| f64::from(load) * 100.0 / all);
        nodes.iter().copied().zip(shares).collect()
    };
    let now = shares(present.nodes(), present.loads(replicas));
    let after = shares(arrived.nodes(), arrived.loads(replicas));
    let members = planned.committed.members().iter();
    let mut nodes: Vec<NodePlan> = members
        .map(|member| {
            let node = member.node;
            NodePlan {
                name: member.name.clone(),
                now: now.get(&node).copied(),
                after: after
                    .get(&node)
                    .copied()
                    .filter(|_| member.state == MemberState::Active),
                gains: sizes.predict(moves.iter().filter(|slot| slot.to == node)),
                gives: sizes.predict(moves.iter().filter(|slot| slot.from == Some(node))),
            }
        })
        .collect();
    nodes.sort_by_key(|node| natural(&node.name));
    nodes
}

/// What a node takes for what it gains, at the least; none where its bytes are not known.
fn time(gains: &Predicted, rate_mib: u32, at_once: usize) -> Option<Duration> {
    let transfer = gains.whole()?.div_ceil(u64::from(rate_mib) << 20);
    let passes = gains.slots.div_ceil(at_once);
    let passes = PASS * u32::try_from(passes).unwrap_or(u32::MAX);
    Some(passes.max(Duration::from_secs(transfer)))
}

/// The largest load for its weight over the mean: now, and in the end.
fn balance(before: &Topology, committed: &Topology) -> (f64, f64) {
    let replicas = before.replication_factor();
    let of = |members: &[Member], loads: Vec<u32>| {
        let stays = |(member, _): &(&Member, u32)| member.state == MemberState::Active;
        let staying: Vec<(f64, f64)> = members
            .iter()
            .zip(loads)
            .filter(stays)
            .map(|(member, load)| (f64::from(member.weight), f64::from(load)))
            .collect();
        let weights: f64 = staying.iter().map(|(weight, _)| weight).sum();
        let loads: f64 = staying.iter().map(|(_, load)| load).sum();
        let most = staying.iter().map(|(weight, load)| load / weight);
        most.fold(0.0, f64::max) * weights / loads.max(1.0)
    };
    (
        of(before.members(), before.table().loads(replicas)),
        of(committed.members(), committed.arrived().loads(replicas)),
    )
}
