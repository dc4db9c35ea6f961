//! What this node gains.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kv_net::message::ChangeKind;
use kv_ring::assign::SlotMove;
use kv_ring::{MemberState, PartitionCount, PartitionId, Topology};
use kv_types::{Epoch, NodeId, planted};

use crate::anti_entropy::trees::{Place, Trees};
use crate::changes::Changes;
use crate::completeness::Completeness;
use crate::env::{Deadline, Env};
use crate::liveness::Liveness;
use crate::replica::Replica;
use crate::store::StoreError;
use crate::topologies::{BeforeAdoption, Topologies};

/// How often it is looked whether something may begin or end.
const PERIOD: Duration = Duration::from_millis(500);
/// How many partitions a node gains at once, or gives away, at most: what users wait for goes first.
pub(super) const AT_ONCE: usize = 128;
/// Nor more than one partition of so many.
const ONE_OF: u32 = 16;
/// How long what is here waits for the rest of what is on its way, to end with it.
const TOGETHER: Duration = Duration::from_secs(2);
/// How long the voters may take for a step.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many partitions of a ring a node gains at once, at most.
pub(crate) fn at_once(partitions: PartitionCount) -> usize {
    AT_ONCE.min((partitions.get() / ONE_OF) as usize)
}

/// The first of some partitions that go to another node next.
pub(crate) fn not_next_for(
    me: NodeId,
    topology: &Topology,
    partitions: &[PartitionId],
) -> Option<PartitionId> {
    let is_next = |partition: &PartitionId| {
        let next = topology.next_move(*partition);
        next.is_none_or(|next| next.to == me)
    };
    partitions
        .iter()
        .copied()
        .find(|partition| !is_next(partition))
}

/// Gets this node's copies ready for the partitions that it gains in another epoch, before that is in force here.
#[derive(Debug)]
pub struct Heir {
    pub(crate) me: NodeId,
    pub(crate) trees: Arc<Trees>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) completeness: Arc<Completeness>,
}

impl BeforeAdoption for Heir {
    fn prepare<'a>(
        &'a self,
        current: &'a Topology,
        next: &'a Topology,
    ) -> BoxFuture<'a, Result<(), String>> {
        let prepared = async {
            self.note_those_given_up(current, next).await?;
            self.doubt_what_was_gained(current, next).await?;
            self.get_ready(next).await
        };
        prepared.boxed()
    }
}

impl Heir {
    /// What only a member had that is given up was there once, and nobody remembers it: no write of that time can be said never
    /// to have been applied.
    async fn note_those_given_up(&self, current: &Topology, next: &Topology) -> Result<(), String> {
        let before: BTreeSet<NodeId> = given_up(current).collect();
        let is_new = given_up(next).any(|node| !before.contains(&node));
        if !is_new || planted!("forget that members were given up") {
            return Ok(());
        }
        let now = self.replica.minter().reading();
        let noted = self.completeness.note_loss(now).await;
        noted.map_err(|error| format!("it cannot be noted that a member is given up: {error}"))
    }

    /// A node gains nothing without having known of it. What it has gained in epochs that it knows nothing of, it has gained with
    /// a disk that it has no more. And while something of its disk is lost and the voters have granted it no actor yet, it may
    /// have had a part in any change that it learns of, and have acknowledged since what those that it was compared with lack.
    async fn doubt_what_was_gained(
        &self,
        current: &Topology,
        next: &Topology,
    ) -> Result<(), String> {
        let unknown = doubtful(current, next, self.me, self.completeness.has_actor());
        let doubted = self.completeness.doubt(&unknown).await;
        doubted.map_err(|error| format!("cannot be prepared for: {error}"))
    }

    async fn get_ready(&self, next: &Topology) -> Result<(), String> {
        let gained = next.gained_by(self.me);
        let before = match planted!("empty a partition again while it is gained") {
            true => BTreeMap::new(),
            false => self.completeness.joining(),
        };
        if gained == before {
            return Ok(());
        }
        // What was called off and begun anew meanwhile is new, too.
        let is_new =
            |(partition, since): &(&PartitionId, &Epoch)| before.get(*partition) != Some(*since);
        let new: Vec<PartitionId> = gained.iter().filter(is_new).map(|(new, _)| *new).collect();
        let places: Vec<Place> = next
            .buckets()
            .iter()
            .flat_map(|bucket| new.iter().map(|partition| (bucket.id, *partition)))
            .collect();
        let ends: BTreeSet<PartitionId> = before
            .keys()
            .filter(|partition| !gained.contains_key(partition) && !next.owns(self.me, **partition))
            .copied()
            .collect();
        let left_over = |place: &Place| !self.trees.is_empty(*place);
        let made_ready = async {
            // First they count for nothing: what is deleted next may be an attempt that ended well, for all that is known here.
            self.completeness.begin_joining(&new).await?;
            self.replica.minter().hold_anew();
            let emptied: BTreeSet<Place> = places.iter().copied().filter(left_over).collect();
            let is_emptied = |place| emptied.contains(&place);
            let deleted = self.replica.delete_places(next, &places, is_emptied).await;
            deleted?;
            self.completeness.join(gained, &ends).await?;
            Ok(emptied)
        };
        let made_ready: Result<BTreeSet<Place>, StoreError> = made_ready.await;
        let emptied = made_ready.map_err(|error| format!("cannot be prepared for: {error}"))?;
        // If they are being made, that is done once more.
        let _ = self
            .trees
            .drop_some(&emptied.into_iter().collect::<Vec<_>>());
        Ok(())
    }
}

/// The partitions of a node of which another topology makes it owner, or of a bucket more, though it may have been that before
/// with a disk that it has no more.
fn doubtful(current: &Topology, next: &Topology, me: NodeId, has_actor: bool) -> Vec<PartitionId> {
    let gained = current.gained_by(me);
    let buckets = || next.buckets().iter();
    let has_new_bucket = buckets().any(|bucket| current.bucket(bucket.id).is_none());
    let was_gained = |partition: &PartitionId| {
        let is_new = !current.owns(me, *partition) && !gained.contains_key(partition);
        let has_changed = next.changed_at(*partition) > current.epoch() || has_new_bucket;
        next.owns(me, *partition) && (is_new || (!has_actor && has_changed))
    };
    next.partition_count().iter().filter(was_gained).collect()
}

/// Members that are given up, and those that were before they were removed.
fn given_up(topology: &Topology) -> impl Iterator<Item = NodeId> {
    let members = topology.members().iter();
    let lost = members.filter(|member| member.state == MemberState::Lost);
    let removed = topology.removed().iter();
    let removed = removed.filter(|(_, removal)| removal.may_lose);
    lost.map(|member| member.node)
        .chain(removed.map(|(node, _)| *node))
}

/// The task that begins and ends the changes by which this node gains partitions.
#[derive(Debug)]
pub struct Gains {
    pub(crate) env: Env,
    pub(crate) me: NodeId,
    pub(crate) topologies: Arc<Topologies>,
    pub(crate) completeness: Arc<Completeness>,
    pub(crate) changes: Changes,
    pub(crate) liveness: Arc<Liveness>,
    /// Since when some of what is on its way is here, and the rest is not.
    pub(crate) partly_since: Option<Duration>,
}

impl Gains {
    /// Looks as long as the node runs.
    pub async fn run(mut self) {
        loop {
            self.env.sleep(PERIOD).await;
            let topology = self.topologies.current();
            if topology.member(self.me).is_none() || self.completeness.is_closed() {
                continue;
            }
            let Some(step) = self.next_step(&topology) else {
                continue;
            };
            let deadline = Deadline::after(&self.env, PATIENCE);
            if let Err(refusal) = self.changes.make(step, deadline).await {
                // Another node's step came first, and this one may not be possible any more.
                tracing::debug!(%refusal, "a step of a change of owners is not decided");
            }
        }
    }

    /// What ends goes before what begins. Each step is an epoch, of which all clients must learn that use what it changes: so many
    /// partitions take it together.
    fn next_step(&mut self, topology: &Topology) -> Option<ChangeKind> {
        let joining = topology.gained_by(self.me);
        let known = self.completeness.joining();
        let is_here = |(partition, since): &(&PartitionId, &Epoch)| {
            let is_whole = !self.completeness.is_incomplete(**partition)
                || planted!("end a change before all is pulled");
            known.get(*partition) == Some(*since) && is_whole
        };
        let here: Vec<(u16, Epoch)> = joining
            .iter()
            .filter(is_here)
            .map(|(partition, since)| (partition.0, *since))
            .take(AT_ONCE)
            .collect();
        if !here.is_empty() {
            let now = self.env.now();
            let since = *self.partly_since.get_or_insert(now);
            if here.len() < joining.len() && now - since < TOGETHER {
                return None;
            }
            self.partly_since = None;
            return Some(ChangeKind::FinishMoves {
                by: self.me,
                partitions: here,
            });
        }
        self.partly_since = None;
        // What a node gives that is down has to wait for it, and nothing else has to.
        let now = self.env.now();
        let can_be_pulled = |slot: &SlotMove| {
            let from = slot.from.filter(|node| topology.is_counted_on(*node));
            from.is_none_or(|node| self.liveness.may_answer(node, now))
        };
        let pulled = joining
            .keys()
            .filter_map(|partition| topology.moving(*partition));
        let pulled = pulled.filter(can_be_pulled).count();
        let room = at_once(topology.partition_count()).saturating_sub(pulled);
        let coming = topology
            .unsettled()
            .filter_map(|partition| topology.next_move(partition))
            .filter(can_be_pulled);
        let coming = coming.filter(|next| next.to == self.me).take(room);
        let partitions: Vec<u16> = coming.map(|next| next.partition.0).collect();
        (!partitions.is_empty()).then_some(ChangeKind::BeginMoves { partitions })
    }
}

#[cfg(test)]
mod tests {
    use kv_ring::{Change, ClusterMode, GenesisSpec, HashSecret, Member};
    use kv_types::{BucketName, BucketProperties, ClusterId};

    use super::*;

    fn genesis() -> Topology {
        let member = |number: u128| Member {
            node: NodeId(number),
            name: format!("n{number}"),
            zone: "z".to_owned(),
            weight: 1,
            address: format!("127.0.0.1:{number}"),
            fingerprint: [u8::try_from(number).expect("four"); 32],
            state: MemberState::default(),
        };
        let spec = GenesisSpec {
            cluster_id: ClusterId(1),
            cluster_name: "c".to_owned(),
            secret: HashSecret([1; 16]),
            partitions: PartitionCount::MIN,
            replication_factor: 3,
            mode: ClusterMode::Ap,
            members: (1..=4).map(member).collect(),
            default_bucket: Some(BucketProperties::majority_of(1).expect("one")),
            buckets: Vec::new(),
        };
        Topology::genesis(spec).expect("a good specification")
    }

    #[test]
    fn a_node_begins_no_move_that_became_another_ones() {
        let before = genesis();
        let other = |number: u128| NodeId(number);
        let changes = kv_ring::MemberChanges {
            weights: vec![(other(4), 4)],
            ..kv_ring::MemberChanges::default()
        };
        let planned = before.plan_members(&changes).expect("possible").committed;
        let next = |partition: &PartitionId| planned.next_move(*partition).map(|next| next.to);
        let all: Vec<PartitionId> = planned.unsettled().collect();
        let of_four: Vec<PartitionId> = all
            .iter()
            .copied()
            .filter(|it| next(it) == Some(other(4)))
            .collect();
        assert!(!of_four.is_empty());
        assert_eq!(not_next_for(other(4), &planned, &of_four), None);
        assert_eq!(not_next_for(other(1), &planned, &of_four), Some(of_four[0]));
    }

    #[test]
    fn of_a_bucket_that_a_lost_disk_did_not_know_of_it_may_have_acknowledged_anything() {
        let before = genesis();
        let creation = Change::CreateBucket {
            name: BucketName::new("b").expect("a good name"),
            properties: BucketProperties::majority_of(3).expect("three"),
        };
        let after = before.changed_by(creation).expect("possible");
        let me = NodeId(1);
        assert_eq!(doubtful(&before, &after, me, true), []);
        let all = after.partition_count().iter();
        let mine: Vec<PartitionId> = all.filter(|it| after.owns(me, *it)).collect();
        assert_eq!(doubtful(&before, &after, me, false), mine);
        let granted = after
            .changed_by(Change::GrantActor { node: me })
            .expect("it is a member");
        assert_eq!(doubtful(&after, &granted, me, false), []);
    }
}
